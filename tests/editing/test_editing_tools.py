"""Corrections of a class against shapes that are known exactly."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mamba import editing
from napari_mamba.errors import InputError


def ball(shape, centre, radius, spacing=(1.0, 1.0, 1.0)) -> np.ndarray:
    grid = np.indices(shape).reshape(3, -1).T
    return (np.linalg.norm((grid - centre) * spacing, axis=1) <= radius).reshape(shape)


def test_islands():
    mask = np.zeros((6, 10, 10), bool)
    mask[1:4, 1:4, 1:4] = True  # 27
    mask[4, 4, 4] = True  # touches at a corner
    mask[0, 8:10, 8:10] = True  # 4, apart
    assert editing.keep_largest_island(mask).sum() == 28
    assert editing.remove_islands(mask, 5).sum() == 28
    assert editing.remove_islands(mask, 4).sum() == 32
    assert not editing.keep_largest_island(np.zeros((2, 2, 2), bool)).any()


def test_holes_closed_in_space_and_in_slices():
    tube = np.zeros((5, 9, 9), bool)
    tube[:, 2:7, 2:7] = True
    tube[:, 4, 4] = False  # open at both ends
    np.testing.assert_array_equal(editing.fill_holes(tube), tube)
    assert editing.fill_holes(tube, axis=0).sum() == 5 * 25
    tube[[0, -1], 4, 4] = True  # closed now
    assert editing.fill_holes(tube).sum() == 5 * 25


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.75, 1.5)])
def test_growing_a_voxel_makes_a_ball_in_millimetres(spacing):
    dot = np.zeros((9, 25, 17), bool)
    dot[4, 12, 8] = True
    grown = editing.grow(dot, 4.5, spacing)
    np.testing.assert_array_equal(grown, ball(dot.shape, (4, 12, 8), 4.5, spacing))


def test_shrinking_undoes_growing_of_a_block_and_leaves_the_rim_open():
    block = np.zeros((12, 12, 12), bool)
    block[4:8, 4:8, 4:8] = True
    inner = editing.shrink(editing.grow(block, 2, (1, 1, 1)), 2, (1, 1, 1))
    np.testing.assert_array_equal(inner, block)
    runs_out = np.zeros((10, 6, 6), bool)
    runs_out[5:] = True
    np.testing.assert_array_equal(np.flatnonzero(editing.shrink(runs_out, 1, (1, 1, 1))[:, 0, 0]), [6, 7, 8, 9])


def test_smoothing_takes_away_spikes_and_keeps_the_volume():
    mask = ball((30, 30, 30), (15, 15, 15), 9)
    spiky = mask.copy()
    spiky[15, 15, 24:29] = True
    smooth = editing.smooth(spiky, 1.5, (1, 1, 1))
    assert not smooth[15, 15, 27:].any()
    assert abs(int(smooth.sum()) - int(spiky.sum())) < 0.01 * spiky.sum()
    assert (smooth & mask).sum() / mask.sum() > 0.98


def test_slices_between_two_discs_are_discs_of_the_radius_between():
    mask = np.zeros((5, 41, 41), bool)
    y, x = np.indices((41, 41)) - 20
    for z, radius in ((0, 8), (4, 16)):
        mask[z] = np.hypot(y, x) <= radius
    filled = editing.interpolate_slices(mask)
    for z, radius in ((1, 10), (2, 12), (3, 14)):
        expected = np.hypot(y, x) <= radius
        assert (filled[z] ^ expected).sum() < 0.06 * expected.sum()
    np.testing.assert_array_equal(filled[[0, 4]], mask[[0, 4]])
    turned = editing.interpolate_slices(np.moveaxis(mask, 0, 2), axis=2)
    np.testing.assert_array_equal(turned, np.moveaxis(filled, 0, 2))


def test_discs_far_apart_move_into_each_other():
    mask = np.zeros((3, 21, 41), bool)
    y, x = np.indices((21, 41))
    mask[0], mask[2] = np.hypot(y - 10, x - 6) <= 4, np.hypot(y - 10, x - 34) <= 4
    middle = editing.interpolate_slices(mask)[1]
    assert (middle ^ (np.hypot(y - 10, x - 20) <= 4)).sum() <= 4


def test_what_cannot_be_interpolated_is_said():
    mask = np.zeros((4, 5, 5), bool)
    mask[1] = True
    with pytest.raises(InputError, match="fewer than two"):
        editing.interpolate_slices(mask)
    mask[2] = True
    with pytest.raises(InputError, match="no slice between"):
        editing.interpolate_slices(mask)


def test_an_edit_stays_out_of_other_and_locked_classes():
    labels = np.zeros((1, 5, 9), np.uint8)
    labels[0, 2, 4], labels[0, 2, 5], labels[0, 2, 3] = 1, 2, 3

    def grown(**how) -> np.ndarray:
        out = labels.copy()
        change = editing.edit_class(labels, 1, lambda m: editing.grow(m, 1, (1, 1, 1)), margin=2, **how)
        change.apply(out)
        assert change.voxels == (out != labels).sum()
        return out

    assert grown()[0, 1:4, 3:6].tolist() == [[0, 1, 0], [3, 1, 2], [0, 1, 0]]
    assert grown(over_others=True)[0, 2, 3:6].tolist() == [1, 1, 1]
    assert grown(over_others=True, locked=[3])[0, 2, 3:6].tolist() == [3, 1, 1]
    assert grown(locked=[1]).tolist() == labels.tolist(), "a locked class is not edited itself"


def test_a_box_edit_equals_one_of_the_whole(rng):
    from scipy.ndimage import gaussian_filter

    labels = np.where(gaussian_filter(rng.normal(size=(20, 24, 28)), 2) > 0.1, 5, 0).astype(np.uint16)
    labels[:4], labels[:, :, :6] = 0, 0
    whole = editing.shrink(labels == 5, 1.0, (2, 1, 1))
    out = labels.copy()
    editing.edit_class(labels, 5, lambda m: editing.shrink(m, 1.0, (2, 1, 1)), margin=2).apply(out)
    np.testing.assert_array_equal(out == 5, whole)
    assert editing.edit_class(labels, 77, np.copy).voxels == 0
