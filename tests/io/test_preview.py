"""The overlay: the right slice, the right way round, the right proportions, the right colours."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import SimpleITK as sitk

from napari_mamba.errors import InputError
from napari_mamba.io.preview import _PANEL, overlay_png
from napari_mamba.volume import Volume

RAS = np.array([[0, 0, 1.0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])  # x to R, y to A, z to S


@pytest.fixture
def unlettered(monkeypatch):
    """No letters, as without Pillow, so that every bright pixel is the image's or the labels'."""
    monkeypatch.setitem(sys.modules, "PIL", None)


def pixels(path) -> np.ndarray:
    """The PNG as another reader sees it, 0 to 255."""
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    assert array.dtype == np.uint8
    return array.astype(int)


def is_red(picture):
    return (picture[..., 0] > picture[..., 1] + 40) & (picture[..., 0] > picture[..., 2] + 40)


def cube():
    """One label at the patient's right, front and top."""
    world = np.zeros((20, 20, 20), np.uint8)  # (z, y, x), towards S, A, R
    world[13:18, 12:17, 11:16] = 1
    return world


def to_orientation(world, code):
    """A RAS array (z, y, x) stored in another orientation: affine and array, both made with NumPy alone."""
    axes = {"R": (2, 1), "L": (2, -1), "A": (1, 1), "P": (1, -1), "S": (0, 1), "I": (0, -1)}
    places = [axes[letter] for letter in code]
    affine = np.eye(4)
    affine[:3, :3] = 0
    for index, (axis, sense) in enumerate(places):
        affine[2 - axis, index] = sense
        if sense < 0:
            affine[2 - axis, 3] = world.shape[axis] - 1
    array = world.transpose([axis for axis, _ in places])
    return affine, array[tuple(slice(None, None, sense) for _, sense in places)]


@pytest.mark.parametrize("code", ["SAR", "SPL", "PSR", "RIA", "LAS"])
def test_every_orientation_gives_the_same_radiological_picture(unlettered, tmp_path, rng, classes, code):
    grey = rng.integers(0, 99, (20, 20, 20)).astype(np.float32)
    pictures = []
    for orientation in ("SAR", code):
        affine, labels = to_orientation(cube(), orientation)
        _, values = to_orientation(grey, orientation)
        volume = Volume(values[np.newaxis], affine)
        pictures.append(pixels(overlay_png(volume, volume.with_data(labels[np.newaxis]), classes, tmp_path / "a.png")))
    np.testing.assert_allclose(*pictures, atol=2)  # of 255: the interpolation rounds


def test_right_is_left_front_is_up_and_top_is_up(unlettered, tmp_path, classes):
    volume = Volume(np.zeros((1, 20, 20, 20), np.float32), RAS)
    red = is_red(pixels(overlay_png(volume, volume.with_data(cube()[np.newaxis]), classes, tmp_path / "a.png")))
    panels = [slice(12 + i * (_PANEL + 12), 12 + i * (_PANEL + 12) + _PANEL) for i in range(3)]
    voxel = _PANEL / 20
    for panel, rows, columns in zip(
        panels, ((3, 8), (2, 7), (2, 7)), ((4, 9), (4, 9), (3, 8)), strict=True
    ):  # axial, coronal, sagittal, counted in voxels from the top left
        places = np.argwhere(red[12 : 12 + _PANEL, panel])
        np.testing.assert_allclose(places.min(0) / voxel, [rows[0], columns[0]], atol=0.1)
        np.testing.assert_allclose((places.max(0) + 1) / voxel, [rows[1], columns[1]], atol=0.1)


def test_proportions_follow_the_spacing(unlettered, tmp_path, classes):
    affine = RAS @ np.diag([4.0, 1, 1, 1])  # slices four times as thick
    volume = Volume(np.ones((1, 10, 20, 20), np.float32), affine)
    labels = np.zeros((1, 10, 20, 20), np.uint8)
    labels[0, 3:7, 6:14, 6:14] = 1
    red = is_red(pixels(overlay_png(volume, volume.with_data(labels), classes, tmp_path / "a.png")))
    width = _PANEL // 2  # 20 mm of 40
    coronal = np.argwhere(red[:, 12 + width + 12 : 12 + 2 * width + 12])
    height, across = np.ptp(coronal, axis=0) + 1
    assert height / across == pytest.approx(4 * 4 / 8, rel=0.03)


def test_the_slice_with_most_labels_is_shown_and_its_edge_is_opaque(unlettered, tmp_path, classes):
    labels = np.zeros((1, 9, 30, 30), np.uint8)
    labels[0, 2, 5:7, 5:7] = 1
    labels[0, 7, 3:27, 3:27] = 2
    volume = Volume(np.zeros((1, 9, 30, 30), np.float32), RAS)
    picture = pixels(overlay_png(volume, volume.with_data(labels), classes, tmp_path / "a.png"))
    axial = picture[12 : 12 + _PANEL, 12 : 12 + _PANEL]
    assert not is_red(axial).any()
    middle = axial[_PANEL // 2, _PANEL // 2]
    np.testing.assert_allclose(middle, 0.35 * np.array([0, 255, 128]), atol=1)
    row = axial[_PANEL // 2]
    first = row[np.argmax(row.sum(-1) > 0)]
    np.testing.assert_allclose(first, [0, 255, 128], atol=1)


def test_one_slice_gives_one_panel(unlettered, tmp_path, classes):
    volume = Volume(np.zeros((1, 1, 30, 30), np.float32), RAS, units="pixel")
    picture = pixels(overlay_png(volume, volume.with_data(np.ones((1, 1, 30, 30), int)), classes, tmp_path / "a.png"))
    assert picture.shape[1] < 1.6 * _PANEL


@pytest.mark.parametrize("values", [np.nan, 7.0])
def test_nothing_to_see_is_no_error(unlettered, tmp_path, classes, values):
    volume = Volume(np.full((1, 4, 5, 6), values, np.float32), RAS)
    labels = volume.with_data(np.zeros((1, 4, 5, 6), np.uint8))
    assert not is_red(pixels(overlay_png(volume, labels, classes, tmp_path / "a.png"))).any()


def test_pillow_letters_the_legend(tmp_path, classes):
    pytest.importorskip("PIL")
    volume = Volume(np.zeros((1, 20, 20, 20), np.float32), RAS)
    picture = pixels(overlay_png(volume, volume.with_data(cube()[np.newaxis]), classes, tmp_path / "a.png"))
    legend = picture[:, 3 * (_PANEL + 12) + 40 :]
    assert (legend.min(-1) > 200).sum() > 50  # white letters


def test_labels_of_another_grid_are_refused(tmp_path, classes):
    with pytest.raises(InputError, match="do not lie"):
        overlay_png(Volume(np.zeros((1, 2, 3, 4))), Volume(np.zeros((1, 2, 3, 5))), classes, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
