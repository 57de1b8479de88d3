"""Connected parts beside SciPy's, found label by label."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_mamba.editing.parts import parts_of, relabelled, stray_parts

EVERY = np.ones((3, 3, 3), bool)


def speckled(seed: int, dtype=np.uint8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 4, (11, 13, 12)) * (rng.random((11, 13, 12)) < 0.4)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_parts_are_those_of_each_label_alone(dtype):
    labels = speckled(1, dtype)
    parts, sizes, owners = parts_of(labels)
    for index in (1, 2, 3):
        wanted, count = ndimage.label(labels == index, EVERY)
        own = np.flatnonzero(owners == index)
        assert len(own) == count
        assert sorted(sizes[own]) == sorted(np.bincount(wanted.ravel())[1:])
        pairs = np.unique(np.stack([wanted[wanted > 0], parts[wanted > 0]]), axis=1)
        assert pairs.shape[1] == count
    assert (parts > 0).sum() == (labels > 0).sum()


@pytest.mark.parametrize("seed", range(4))
def test_strays_are_all_but_the_largest_part(seed):
    labels = speckled(seed)
    wanted = np.zeros(labels.shape, bool)
    for index in (1, 3):
        pieces, _ = ndimage.label(labels == index, EVERY)
        largest = 1 + np.argmax(np.bincount(pieces.ravel())[1:])
        wanted |= (labels == index) & (pieces != largest)
    np.testing.assert_array_equal(stray_parts(labels, [1, 3]), wanted)
    assert not stray_parts(labels, [9]).any()


def test_strays_take_the_label_next_to_them_in_millimetres():
    labels = np.full((3, 9, 9), 5, np.uint8)
    labels[:, :, 5:] = 6
    labels[1, 4, 3] = 7  # one voxel from 5's side, two from 6
    stray = labels == 7
    mended = relabelled(labels, stray, (1.0, 1.0, 1.0))
    assert mended[1, 4, 3] == 5
    labels[:, :, 2:5] = 7  # three wide: the middle is nearer to neither, the ends are
    mended = relabelled(labels, labels == 7, (50.0, 50.0, 1.0))
    assert (mended[:, :, 2] == 5).all()
    assert (mended[:, :, 4] == 6).all()


@pytest.mark.parametrize("share", [0.001, 0.3])
def test_one_part_at_a_time_and_all_at_once_agree(share):
    rng = np.random.default_rng(3)
    labels = rng.integers(1, 5, (40, 40, 40)).astype(np.uint8)
    stray = rng.random(labels.shape) < share
    distances, nearest = ndimage.distance_transform_edt(stray, sampling=[1.3, 1, 0.7], return_indices=True)
    assert distances.max() < 8
    np.testing.assert_array_equal(relabelled(labels, stray, [1.3, 1, 0.7]), labels[tuple(nearest)])
