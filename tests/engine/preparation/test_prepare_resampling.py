"""Interpolation against scikit-image and SciPy, which nnU-Net calls."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from skimage.transform import resize as skimage_resize

from napari_mamba.engine.preparation.grids.resampling import (
    new_shape,
    resize,
    resize_separate_z,
    rounded_spacing,
    separate_axis,
)
from napari_mamba.engine.preparation.prepare import prepare
from napari_mamba.errors import BundleError
from napari_mamba.volume import Volume

RANDOM = np.random.default_rng(7)
IMAGE = RANDOM.normal(size=(11, 14, 9)).astype(np.float32) * 40 + 10


def reference(values, shape, order):
    return skimage_resize(values.astype(float), shape, order, mode="edge", anti_aliasing=False)


@pytest.mark.parametrize("shape", [(7, 20, 9), (23, 5, 31), (1, 14, 40), (12, 15, 10)])
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_resize_is_scikit_images(shape, order):
    ours = resize(IMAGE, shape, order)
    assert ours.shape == shape
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, reference(IMAGE, shape, order), atol=3e-4)


def test_resize_2d_and_single_slices():
    np.testing.assert_allclose(resize(IMAGE[0], (33, 4), 3), reference(IMAGE[0], (33, 4), 3), atol=3e-4)
    np.testing.assert_allclose(resize(IMAGE[:1], (3, 20, 9), 3), reference(IMAGE[:1], (3, 20, 9), 3), atol=3e-4)


def test_splines_do_not_leave_the_images_range():
    steps = np.zeros((4, 4, 12), np.float32)
    steps[..., 6:] = 1
    ours = resize(steps, (4, 4, 30), 3)
    assert ours.min() == 0
    assert ours.max() == 1


def by_slices(values, shape, axis, order, order_z):
    """nnU-Net's resampling with a separate axis: slices through scikit-image, then `map_coordinates`."""
    plane = [n for a, n in enumerate(shape) if a != axis]
    flat = np.stack([reference(one, plane, order) for one in np.moveaxis(values, axis, 0)], axis)
    places = np.mgrid[tuple(slice(n) for n in shape)].astype(float)
    for a in range(3):
        places[a] = flat.shape[a] / shape[a] * (places[a] + 0.5) - 0.5
    return map_coordinates(flat, places, order=order_z, mode="nearest")


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("order", "order_z"), [(3, 0), (1, 0), (3, 1), (0, 0)])
@pytest.mark.parametrize("shape", [(5, 20, 13), (22, 9, 18), (33, 14, 4)])
def test_resize_apart_is_nnunets(axis, order, order_z, shape):
    ours = resize_separate_z(IMAGE, shape, axis, order, order_z)
    np.testing.assert_allclose(ours, by_slices(IMAGE, shape, axis, order, order_z), atol=3e-4)


def test_nearest_along_one_axis_is_map_coordinates():
    for n in range(1, 40):
        line = np.arange(13.0)
        expected = map_coordinates(line, [13 / n * (np.arange(n) + 0.5) - 0.5], order=0, mode="nearest")
        np.testing.assert_array_equal(resize(line.astype(np.float32)[None], (1, n), 0)[0], expected)


def test_new_shape_rounds_half_to_even_as_python_does():
    assert new_shape((5, 7, 40), (0.5, 0.5, 1.0), (1.0, 1.0, 100.0)) == (2, 4, 1)


@pytest.mark.parametrize(
    ("rule", "current", "new", "expected"),
    [
        ("nnunet", (5, 1, 1), (1, 1, 1), 0),
        ("nnunet", (1, 1, 1), (1, 1, 4), 2),
        ("nnunet", (3, 1, 1), (1, 1, 1), None),
        ("nnunet", (0.24, 1.25, 1.25), (1, 1, 1), None),
        ("nnunet", (1, 5, 1), (9, 1, 1), 1),
        ("none", (5, 1, 1), (1, 1, 1), None),
        ("separate", (2, 1, 1), (1, 1, 1), 0),
        ("separate", (1, 1, 1), (1, 1, 1), None),
    ],
)
def test_axis_apart(rule, current, new, expected):
    assert separate_axis(rule, current, new) == expected


def test_voxels_that_a_network_knows_stay_as_they_are():
    keep = [[1.5, 3.3], [2.7, 5.5], [2.7, 5.5]]
    step = {"step": "resample", "spacing": [2.5, 4.0, 4.0], "keep": keep}
    for sides, shape in (((3, 5.4, 3), (8, 20, 20)), ((5, 5.4, 1), (16, 20, 5)), ((2.5, 2, 4), (8, 10, 20))):
        volume = Volume(np.zeros((1, 8, 20, 20)), np.diag([*sides, 1.0])[[2, 1, 0, 3]])
        assert prepare(volume, [step]).data.shape[1:] == shape
    with pytest.raises(BundleError, match="three ranges"):
        prepare(volume, [{**step, "keep": keep[:2]}])


def test_snapped_finds_the_size_the_file_held():
    single = float(np.float32(0.7))
    assert rounded_spacing([np.nextafter(single, 1), np.nextafter(0.3, 0), 1.2]) == (single, 0.3, 1.2)
