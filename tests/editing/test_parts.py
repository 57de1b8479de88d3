"""Connected parts beside SciPy's, found label by label."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_mamba.editing.parts import relabelled, strays
from napari_mamba.editing.structures import RunLengths, Structures

EVERY = np.ones((3, 3, 3), bool)


def speckled(seed: int, dtype=np.uint8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 4, (11, 13, 12)) * (rng.random((11, 13, 12)) < 0.4)).astype(dtype)


def painted(labels: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """A number a run as a number a voxel."""
    whole = np.zeros(labels.size, numbers.dtype)
    runs = RunLengths.of(labels)
    whole[runs.voxels] = np.repeat(numbers, runs.lengths)
    return whole.reshape(labels.shape)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_parts_are_those_of_each_label_alone(dtype):
    labels = speckled(1, dtype)
    numbers, sizes, owners = Structures(labels).parts
    parts = painted(labels, numbers)
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
    numbers, sizes, owners = Structures(labels).parts
    np.testing.assert_array_equal(painted(labels, strays(sizes, owners, [1, 3])[numbers]), wanted)
    assert not strays(sizes, owners, [9]).any()


def test_strays_take_the_label_next_to_them_in_millimetres():
    labels = np.full((3, 9, 9), 5, np.uint8)
    labels[:, :, 5:] = 6
    labels[1, 4, 3] = 7  # one voxel from 5's side, two from 6
    stray = labels == 7
    mended = relabelled(labels, np.flatnonzero(stray), (1.0, 1.0, 1.0))
    assert mended[1, 4, 3] == 5
    labels[:, :, 2:5] = 7  # three wide: the middle is nearer to neither, the ends are
    mended = relabelled(labels, np.flatnonzero(labels == 7), (50.0, 50.0, 1.0))
    assert (mended[:, :, 2] == 5).all()
    assert (mended[:, :, 4] == 6).all()


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3])
def test_one_part_at_a_time_and_all_at_once_agree(share):
    rng = np.random.default_rng(3)
    labels = rng.integers(1, 5, (40, 40, 40)).astype(np.uint8)
    stray = rng.random(labels.shape) < share
    _, nearest = ndimage.distance_transform_edt(stray, sampling=[1.3, 1, 0.7], return_indices=True)
    np.testing.assert_array_equal(relabelled(labels, np.flatnonzero(stray), [1.3, 1, 0.7]), labels[tuple(nearest)])


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 0.4, 2.5)])
def test_the_nearest_neighbour_of_a_stray_part_touches_it(spacing):
    labels = np.random.default_rng(8).integers(4, 250, (40, 40, 40)).astype(np.uint8)
    labels[9:16, 9:20, 9:12] = 3
    labels[12:30, 5:9, 8:11] = 3  # bent
    labels[0, 0, 0] = labels[2, 38:, 39] = 3  # at the edge
    stray = labels == 3
    _, nearest = ndimage.distance_transform_edt(stray, sampling=spacing, return_indices=True)
    np.testing.assert_array_equal(relabelled(labels, np.flatnonzero(stray), spacing), labels[tuple(nearest)])


@pytest.mark.parametrize("background", [False, True])
def test_counts_middles_and_pieces_are_scipys(background):
    labels = speckled(5)
    seen = Structures(labels, background)
    asked = [0, 3, 1] if background else [3, 1]
    assert seen.counts(9).tolist() == np.bincount(labels.ravel(), minlength=9).tolist()
    middles = ndimage.center_of_mass(np.ones(labels.shape), labels, asked)
    np.testing.assert_allclose(seen.centres(asked), middles, rtol=1e-12)
    pieces, count = ndimage.label(np.isin(labels, asked), EVERY)
    assert sorted(seen.pieces(asked)[1][1:]) == sorted(np.bincount(pieces.ravel(), minlength=count + 1)[1:])


def test_what_was_made_background_is_known_of_what_is_left():
    labels = speckled(6)
    for background in (False, True):
        seen = Structures(labels, background)
        left = seen.without(seen.runs.labels == 2)
        np.testing.assert_array_equal(left.labels, np.where(labels == 2, 0, labels))
        assert left.counts().tolist() == np.bincount(left.labels.ravel()).tolist()
        wanted = RunLengths.of(left.labels, background)
        np.testing.assert_array_equal(left.runs.voxels, wanted.voxels)


def test_runs_and_parts_on_a_device_are_those_of_the_processor():
    random = np.random.default_rng(5)
    for _ in range(40):
        shape, classes = tuple(random.integers(1, 9, 3)), int(random.choice([2, 3, 300]))
        here = random.random(shape) < random.choice([0.2, 0.5, 0.9])
        labels = np.where(here, random.integers(1, classes, shape), 0).astype(np.uint16)
        one, other = Structures(labels), Structures(labels, device="cpu")
        chosen = [1, 2, 299]
        for found, wanted in (
            ((other.runs.starts, other.runs.lengths, other.runs.labels), vars(one.runs).values().__iter__()),
            (other.parts, iter(one.parts)),
            (other.pieces(chosen), iter(one.pieces(chosen))),
        ):
            wanted = [array for array in wanted if isinstance(array, np.ndarray)]
            assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
        gone = random.random(len(one.runs.starts)) < 0.3
        assert np.array_equal(one.without(gone).parts[0], other.without(gone).parts[0])
