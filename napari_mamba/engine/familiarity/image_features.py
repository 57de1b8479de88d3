"""What a glance at an image tells: its size, its grey values, and where in it they are.

A grid of 40 points along each axis is looked at, whatever the image's size, turned to right, anterior, superior. No
torch: a window asks for it before a run.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from napari_mamba.engine.preparation.axes import orient
from napari_mamba.engine.preparation.state import State
from napari_mamba.volume import Volume

POINTS, BLOCKS, COARSE = 40, 5, 10
CELLS, BRIGHT = 6, 0.15
LAGS = (1, 2, 4)
GROUPS: Mapping[str, int] = {
    "its size": 3,
    "its voxel size": 3,
    "its grey values": 20,
    "what lies where in it": BLOCKS**3,
    "its sharpness": 3 * len(LAGS),
    "its symmetry": 3,
    "its outline": CELLS**3,
}
"""Features of an image, in words for the user, and how many numbers each has.

New ones come last: a bundle that was fitted to fewer looks at the first ones alone.
"""
_SMALLEST = 1e-6


def image_features(volume: Volume, mask: bool = False, frame: Sequence[Sequence[float]] = ()) -> np.ndarray:
    """Numbers that say what kind of image it is, whatever its intensity scale.

    Parameters
    ----------
    volume : Volume
        Its first channel is looked at.
    mask : bool
        It is the mask of one structure, whose bounding box alone is looked at.
    frame : sequence of three directions, optional
        In RAS mm, of the slices and of the image's columns and rows, as `framed` takes them: for scans that lie
        obliquely by intent. Without it the image is turned to right, anterior, superior.

    Returns
    -------
    ndarray, shape (F,), float64
        In the order of `GROUPS`; (z, y, x) of the turned image where a group has one number an axis.

    Examples
    --------
    >>> image_features(Volume(np.random.default_rng(0).random((1, 8, 9, 10)))).shape
    (379,)
    """
    state = State(np.asarray(volume.data[:1]), np.array(volume.affine[:3, :3]))
    state = framed(state, frame) if len(frame) else orient(state, "RAS")[0]
    image, sides = state.data[0], np.array(state.spacing)
    if mask:
        image = _box(image != 0)
    seen = _sampled(image)
    values = _normalised(seen)
    blocks = _block_means(values, BLOCKS)
    spread = max(float(values.std()), _SMALLEST)
    parts = (
        np.log(np.maximum(sides * image.shape, _SMALLEST)),
        np.log(sides),
        _grey_values(values),
        ((blocks - blocks.mean()) / spread).ravel(),
        _sharpness(image, float(seen.std())),
        _symmetry(_block_means(values, COARSE)),
        _outline(values > BRIGHT),
    )
    return np.concatenate([np.asarray(part, np.float64).ravel() for part in parts])


def framed(state: State, frame: Sequence[Sequence[float]]) -> State:
    """The image with axes flipped and permuted so that (z, y, x) run closest to three directions.

    Where voxels are longest along one axis by half, that one is the first: an oblique stack's slices.

    Examples
    --------
    >>> stack = State(np.zeros((1, 4, 3, 2)), np.diag([1.0, 1.0, 8.0]))  # slices along the last axis
    >>> framed(stack, [[0, 0, 1], [0, 1, 0], [1, 0, 0]]).data.shape
    (1, 2, 3, 4)
    """
    sides = np.array(state.spacing)
    closeness = (state.affine / sides).T @ np.asarray(frame, np.float64).T  # of each array axis to each direction
    orders = list(itertools.permutations(range(3)))
    longest = int(sides.argmax())
    if sides[longest] > 1.5 * np.delete(sides, longest).max():
        orders = [order for order in orders if order[0] == longest]
    order = max(orders, key=lambda axes: sum(abs(closeness[axis, i]) for i, axis in enumerate(axes)))
    flipped = tuple(1 + i for i, axis in enumerate(order) if closeness[axis, i] < 0)
    affine = state.affine[:, order].copy()
    affine[:, [axis - 1 for axis in flipped]] *= -1
    return State(np.flip(state.data.transpose(0, *(1 + axis for axis in order)), flipped), affine)


def _box(mask: np.ndarray) -> np.ndarray:
    inside = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    if not len(inside[0]):
        return mask
    return mask[tuple(slice(int(one[0]), int(one[-1]) + 1) for one in inside)]


def _sampled(image: np.ndarray) -> np.ndarray:
    """Values (40, 40, 40), float64, evenly over the image."""
    places = [((np.arange(POINTS) + 0.5) * n / POINTS).astype(int) for n in image.shape]
    return np.asarray(image[np.ix_(*places)], np.float64)


def _normalised(values: np.ndarray) -> np.ndarray:
    """From 0 to 1 between the 1st and the 99th percentile."""
    low, high = np.percentile(values, (1, 99))
    return np.clip((values - low) / max(high - low, _SMALLEST * max(1.0, abs(high))), 0, 1)


def _grey_values(values: np.ndarray) -> np.ndarray:
    """Nineteen quantiles, and the share of the darkest."""
    return np.append(np.percentile(values, np.arange(5, 100, 5)), np.mean(values < 0.02))


def _block_means(values: np.ndarray, blocks: int) -> np.ndarray:
    side = POINTS // blocks
    return values.reshape(blocks, side, blocks, side, blocks, side).mean(axis=(1, 3, 5))


def _outline(bright: np.ndarray) -> np.ndarray:
    """How much of each cell of the box around what is bright is bright, less the mean: a shape of any contrast."""
    places = []
    for axis in range(3):
        share = bright.mean(axis=tuple(a for a in range(3) if a != axis))
        inside = np.flatnonzero(share > 0.04)
        low, high = (inside[0], inside[-1] + 1) if len(inside) > 1 else (0, POINTS)
        places.append((low + (np.arange(6 * CELLS) + 0.5) * (high - low) / (6 * CELLS)).astype(int))
    cells = bright[np.ix_(*places)].reshape(CELLS, 6, CELLS, 6, CELLS, 6).mean(axis=(1, 3, 5))
    return cells - cells.mean()


def _sharpness(image: np.ndarray, spread: float) -> list[float]:
    """Logarithm of how much neighbours differ, 1, 2 and 4 voxels apart along each axis, against all values' spread."""
    found = []
    for axis, n in enumerate(image.shape):
        for lag in LAGS:
            if n <= lag:
                found.append(0.0)
                continue
            places = [((np.arange(POINTS) + 0.5) * m / POINTS).astype(int) for m in image.shape]
            here = ((np.arange(POINTS) + 0.5) * (n - lag) / POINTS).astype(int)
            places[axis] = here
            one = np.asarray(image[np.ix_(*places)], np.float64)
            places[axis] = here + lag
            other = np.asarray(image[np.ix_(*places)], np.float64)
            found.append(float(np.log(max(np.abs(other - one).mean() / max(spread, _SMALLEST), 1e-3))))
    return found


def _symmetry(coarse: np.ndarray) -> list[float]:
    """Correlation of the image with its mirror image along each axis."""
    found = []
    for axis in range(3):
        one, other = coarse.ravel(), np.flip(coarse, axis).ravel()
        flat = one.std() < _SMALLEST
        found.append(0.0 if flat else float(np.corrcoef(one, other)[0, 1]))
    return found
