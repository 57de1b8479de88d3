"""Scan orders to look at: the way through the tokens, its ranks, and how far apart it tears neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.scan import ScanOrder, list_orders, scan_order


@dataclass(frozen=True)
class OrderFacts:
    """One path of a scan order on a grid, in numbers.

    `neighbours` is the mean number of steps between cells that share a face, `worst` the greatest; `stride` the mean
    distance in cells between one step and the next, `jumps` the share of steps longer than one cell.
    """

    order: str
    path: int
    neighbours: float
    worst: int
    stride: float
    jumps: float


def ranks(table: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """The step at which a path (L,) visits each cell, as an image of the grid, int64; -1 where it never comes.

    Examples
    --------
    >>> ranks(scan_order("serpentine", (2, 3)).table[0], (2, 3)).tolist()
    [[0, 1, 2], [5, 4, 3]]
    """
    table = np.asarray(table)
    out = np.full(int(np.prod(grid)), -1, np.int64)
    seen = table >= 0
    out[table[seen]] = np.flatnonzero(seen)
    return out.reshape(tuple(grid))


def positions(table: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """The cells of a path (L,) as indices on the grid, (L, dims) float64, without steps that have no cell."""
    table = np.asarray(table)
    return np.stack(np.unravel_index(table[table >= 0], tuple(grid)), axis=1).astype(np.float64)


def neighbour_distance(rank: np.ndarray) -> np.ndarray:
    """Mean number of steps from each cell to the cells that share a face with it, an image float32.

    It says why an order suits a structure: what lies side by side and far apart on the path is for a state to remember.
    """
    total, count = np.zeros(rank.shape), np.zeros(rank.shape)
    for axis, gaps in _gaps(rank):
        for side in (slice(None, -1), slice(1, None)):
            here = tuple(side if a == axis else slice(None) for a in range(rank.ndim))
            total[here] += gaps
            count[here] += 1
    return (total / np.maximum(count, 1)).astype(np.float32)


def _gaps(rank: np.ndarray) -> list[tuple[int, np.ndarray]]:
    return [(axis, np.abs(np.diff(rank, axis=axis))) for axis in range(rank.ndim) if rank.shape[axis] > 1]


def facts(table: np.ndarray, grid: Sequence[int], order: str = "", path: int = 0) -> OrderFacts:
    """A path in numbers."""
    gaps = [gap.ravel() for _, gap in _gaps(ranks(table, grid))]
    every = np.concatenate(gaps) if gaps else np.zeros(1)
    strides = np.linalg.norm(np.diff(positions(table, grid), axis=0), axis=1)
    strides = strides if len(strides) else np.zeros(1)
    jumps = float((strides > 1.001).mean())
    return OrderFacts(order, path, float(every.mean()), int(every.max()), float(strides.mean()), jumps)


def compare_orders(grid: Sequence[int], names: Sequence[str] | None = None) -> list[OrderFacts]:
    """The library's scan orders on a grid, path by path; those that are not defined on it are left out.

    Examples
    --------
    >>> [row.order for row in compare_orders((4, 4), ["raster", "hilbert"])]
    ['raster', 'hilbert']
    """
    rows = []
    for name in names or list_orders():
        made = order_on(name, grid)
        if made is not None:
            rows += [facts(table, grid, name, k) for k, table in enumerate(made.table)]
    return rows


def order_on(name: str, grid: Sequence[int]) -> ScanOrder | None:
    """A scan order on a grid, None where it is not defined there."""
    if name not in list_orders():
        raise InputError(f"The scan order {name!r} is unknown; use one of {', '.join(list_orders())}.")
    try:
        return scan_order(name, grid)
    except InputError:
        return None
