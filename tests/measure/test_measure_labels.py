"""Agreement of label maps: cases worked out by hand, and MONAI as the other opinion."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mamba.errors import InputError
from napari_mamba.measure import class_statistics, label_agreement, onto_grid, same_grid
from napari_mamba.measure.classes import central_voxel
from napari_mamba.measure.distances import surface_distances
from napari_mamba.volume import Volume

PERMUTED = np.array([[0.0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])  # (z, y, x) index to RAS at 1 mm


def cube(shift: int, shape=(20, 20, 20), spacing=(1.0, 1.0, 1.0)) -> Volume:
    data = np.zeros((1, *shape), np.uint8)
    data[0, 5:15, 5:15, 5 + shift : 15 + shift] = 3
    return Volume(data, PERMUTED @ np.diag([*spacing, 1.0]), name="cube")


def blobs(rng: np.random.Generator, shape=(18, 22, 20)) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(rng.normal(size=shape), 2.5) > 0.02


def test_a_cube_shifted_by_two_voxels():
    row = label_agreement(cube(0), cube(2, spacing=(1, 1, 1)), tolerance_mm=1.0, names={3: "liver"})[0]
    assert (row.index, row.name, row.voxels) == (3, "liver", (1000, 1000))
    assert row.dice == pytest.approx(0.8)  # 2 * 800 / 2000
    assert row.hausdorff95_mm == pytest.approx(2.0)
    assert row.ml == pytest.approx((1.0, 1.0))
    assert (row.difference_ml, row.difference_percent) == (0, 0)


def test_distances_are_in_millimetres_along_each_axis():
    row = label_agreement(cube(0, spacing=(3, 1, 0.5)), cube(2, spacing=(3, 1, 0.5)))[0]
    assert row.hausdorff95_mm == pytest.approx(1.0)
    assert row.ml[0] == pytest.approx(1.5)


def test_a_class_that_only_one_has():
    empty = Volume(np.zeros((1, 20, 20, 20), np.uint8), PERMUTED)
    row = label_agreement(cube(0), empty)[0]
    assert row.dice == 0
    assert row.surface_dice == 0
    assert np.isnan(row.hausdorff95_mm)
    assert row.difference_percent == -100
    neither = label_agreement(cube(0), cube(0), classes=[7])[0]
    assert np.isnan(neither.dice)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.8, 0.7)])
def test_monai_says_the_same(rng, spacing):
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    one, two = blobs(rng), blobs(rng)
    distances = surface_distances(one, two, spacing)
    a, b = (torch.from_numpy(np.stack([~m, m])[None].astype(np.float32)) for m in (one, two))
    theirs = compute_hausdorff_distance(a, b, percentile=95, spacing=spacing).item()
    assert distances.hausdorff(95) == pytest.approx(theirs, rel=1e-5)
    theirs = compute_surface_dice(a, b, class_thresholds=[1.0], spacing=spacing).item()
    assert distances.surface_dice(1.0) == pytest.approx(theirs, rel=1e-6)
    each = [compute_average_surface_distance(x, y, spacing=spacing).item() for x, y in ((a, b), (b, a))]
    assert distances.mean() == pytest.approx(np.mean(each), rel=1e-5)


def test_a_single_slice_is_measured_in_its_plane():
    one, two = np.zeros((2, 1, 20, 20), bool)
    one[0, 5:15, 5:15], two[0, 5:15, 7:17] = True, True
    assert surface_distances(one, two, (1, 1, 1)).hausdorff(95) == pytest.approx(2.0)
    assert len(surface_distances(one, two, (1, 1, 1)).forth) == 36, "the rim of a 10 x 10 square, not all of it"


def test_the_same_voxels_in_another_order_agree_exactly(volume):
    data = (np.asarray(volume.data) > 110).astype(np.uint8)
    labels = Volume(data, volume.affine)
    n = labels.shape
    flip = np.array([[0.0, 1, 0, 0], [-1, 0, 0, n[1] - 1], [0, 0, 1, 0], [0, 0, 0, 1]])  # new index to old
    turned = Volume(np.flip(data, 2).transpose(0, 2, 1, 3), labels.affine @ flip)
    assert not same_grid(labels, turned)
    np.testing.assert_array_equal(onto_grid(turned, labels).data, data)
    assert label_agreement(labels, turned)[0].dice == 1


def test_images_that_lie_elsewhere_are_refused():
    away = Volume(cube(0).data, PERMUTED + np.array([[0, 0, 0, 100.0]] + [[0] * 4] * 3))
    with pytest.raises(InputError, match="share no voxel"):
        label_agreement(cube(0), away)


def test_an_image_is_no_label_map():
    with pytest.raises(InputError, match="no label map"):
        label_agreement(cube(0), Volume(np.full((1, 20, 20, 20), 0.5), PERMUTED))


@pytest.mark.parametrize("factor", [1, 1000, 70_000])
def test_class_statistics_against_numpy(rng, factor):
    labels = rng.integers(0, 5, (6, 7, 8)) * factor
    image = rng.normal(1e6, 3, labels.shape)  # bright: sums of squares around zero would lose the spread
    image[2, 3, 4] = np.nan
    rows = class_statistics(labels, image)
    assert sorted(rows) == [factor, 2 * factor, 3 * factor, 4 * factor]
    for index, row in rows.items():
        mask = labels == index
        assert row.voxels == mask.sum()
        np.testing.assert_allclose(row.centre, np.argwhere(mask).mean(axis=0))
        assert row.mean == pytest.approx(np.nanmean(image[mask]))
        assert row.spread == pytest.approx(np.nanstd(image[mask]), rel=1e-6)


def test_the_central_voxel_of_a_ring_lies_in_the_ring():
    labels = np.zeros((5, 21, 21), np.uint8)
    y, x = np.indices((21, 21)) - 10
    labels[2, (np.hypot(y, x) > 5) & (np.hypot(y, x) < 8)] = 4
    row = class_statistics(labels)[4]
    assert labels[central_voxel(labels, 4, row)] == 4
    assert labels[tuple(round(c) for c in row.centre)] == 0
