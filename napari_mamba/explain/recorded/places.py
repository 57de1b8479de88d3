"""Between a volume's voxels, the prepared image's, a tile's, and a layer's tokens."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from napari_mamba.engine.preparation.prepare import Prepared

Shape = tuple[int, ...]


def index_map(prepared: Prepared, shape: Shape) -> np.ndarray:
    """The affine (4, 4) from an index of the volume (z, y, x, 1) to one of the prepared image.

    Found by sending the prepared image's own indices back through its steps: whatever they are (turned, cropped,
    resampled), each moves voxels along the axes.
    """
    matrix = np.eye(4)
    inside = prepared.restore_values(np.ones((1, *prepared.data.shape[1:]), np.float32))[0] > 0.999
    centre = _middle(inside)
    free = set(range(3))
    rows: dict[int, tuple[int, float, float]] = {}
    for axis in range(3):
        if prepared.data.shape[axis + 1] < 2:
            continue
        ramp = prepared.restore_values(_ramp(prepared.data.shape[1:], axis))[0]
        lines = [ramp[_line(centre, along)] for along in range(3)]
        along = int(np.argmax([np.ptp(line[inside[_line(centre, a)]]) for a, line in enumerate(lines)]))
        slope, start = _fit(lines[along], inside[_line(centre, along)])
        rows[axis] = (along, slope, start)
        free.discard(along)
    for axis in range(3):
        matrix[axis, :3] = 0
        along, slope, start = rows[axis] if axis in rows else (free.pop(), 1.0, 0.0)
        matrix[axis, along], matrix[axis, 3] = slope, start
    return matrix


def _ramp(shape: Shape, axis: int) -> np.ndarray:
    line = np.arange(shape[axis], dtype=np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    return np.ascontiguousarray(np.broadcast_to(line, shape))[None]


def _middle(inside: np.ndarray) -> tuple[int, ...]:
    """The middle of the box of what is inside."""
    if not inside.any():
        return tuple(n // 2 for n in inside.shape)
    middle = []
    for axis in range(3):
        held = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        middle.append(int(held[0] + held[-1]) // 2)
    return tuple(middle)


def _line(centre: Shape, along: int) -> tuple:
    return tuple(slice(None) if a == along else centre[a] for a in range(3))


def _fit(line: np.ndarray, inside: np.ndarray) -> tuple[float, float]:
    """Slope and start of a ramp whose ends may be held at the first and last value."""
    places = np.flatnonzero(inside)
    values = line[places].astype(np.float64)
    if len(places) < 2:
        return 1.0, float(values[0] - places[0]) if len(places) else 0.0
    steps = np.diff(values)
    usual = np.median(steps[np.abs(steps) > 1e-6]) if (np.abs(steps) > 1e-6).any() else 1.0
    good = np.flatnonzero(np.abs(steps - usual) < 0.02 * abs(usual) + 1e-6)
    if len(good) < 1:
        return float(usual), float(values.mean() - usual * places.mean())
    first, last = good[0], good[-1] + 1
    slope = (values[last] - values[first]) / (places[last] - places[first])
    return float(slope), float(values[first] - slope * places[first])


def apply(matrix: np.ndarray, points: np.ndarray | Sequence) -> np.ndarray:
    """Points (..., 3) through an affine (4, 4)."""
    points = np.asarray(points, np.float64)
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def centres(cells: np.ndarray, grid: Shape, tile: Shape) -> np.ndarray:
    """The places of a grid's cells (N,) in a tile that the grid covers, (N, 3): a cell is a block of voxels."""
    index = np.stack(np.unravel_index(cells, grid), axis=1).astype(np.float64)
    scale = np.array(tile) / np.array(grid)
    return (index + 0.5) * scale - 0.5


def cell_at(place: Sequence[float] | np.ndarray, grid: Shape, tile: Shape) -> int:
    """The cell of a grid in which a place of the tile lies."""
    scaled = (np.asarray(place, float) + 0.5) * np.array(grid) / np.array(tile)
    index = np.clip(np.floor(scaled).astype(int), 0, np.array(grid) - 1)
    return int(np.ravel_multi_index(tuple(index), grid))


def enlarge(values: np.ndarray, tile: Shape) -> np.ndarray:
    """A map (K, *grid) on the tile that its grid covers, (K, *tile): each voxel has its cell's value."""
    for axis, n in enumerate(tile, start=1):
        size = values.shape[axis]
        if size != n:
            places = np.minimum(((np.arange(n) + 0.5) * size / n).astype(int), size - 1)
            values = values.take(places, axis=axis)
    return values


def three_dimensional(grid: Shape) -> tuple[int, int, int]:
    """A grid of a 2D network as one slice."""
    z, y, x = (1,) * (3 - len(grid)) + tuple(grid)
    return z, y, x


def corners(shape: Shape) -> np.ndarray:
    """The corners of an image's box, (8, 3)."""
    return np.array(list(itertools.product(*((0, n - 1) for n in shape))), float)
