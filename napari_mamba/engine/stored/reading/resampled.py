"""An image at another voxel size, computed where it is read: each part from the voxels that its splines reach."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from napari_mamba.engine.preparation.grids import resampling
from napari_mamba.engine.preparation.grids.spacing import UndoResample
from napari_mamba.engine.stored.reading.lazy import LazyImage
from napari_mamba.engine.stored.reading.needs import NeedsMemory
from napari_mamba.engine.stored.reading.passes import Watch, blocks
from napari_mamba.engine.tiling.tiles import Box

_LEAST = 1e-8
"""Weights of a spline below which a voxel is not read for another: their sum moves a value by less than 1e-7 of it."""
_LONGEST = 8192
"""Voxels along an axis up to which a spline's weights are kept as a matrix."""


@dataclass(frozen=True)
class Along:
    """The linear map from an axis of `size` voxels to one of `n`, of which some rows at a time are asked for."""

    size: int
    n: int
    order: int

    def rows(self, first: int, last: int) -> tuple[int, np.ndarray]:
        """Where the voxels begin that the rows `first` to `last` are made of, and the weights (rows, voxels)."""
        if self.size == self.n:
            return first, np.eye(last - first, dtype=np.float32)
        if self.order < 2:
            return self._near(first, last)
        if max(self.size, self.n) > _LONGEST:
            raise NeedsMemory(
                f"splines along {max(self.size, self.n)} voxels need the image in memory: give a coarser --level"
            )
        matrix = _spline(self.size, self.n, self.order)[first:last]
        reached = np.flatnonzero((np.abs(matrix) > _LEAST).any(axis=0))
        return int(reached[0]), matrix[:, reached[0] : reached[-1] + 1]

    def _near(self, first: int, last: int) -> tuple[int, np.ndarray]:
        """Nearest neighbour or linear, edges repeat."""
        places = self.size / self.n * (np.arange(first, last) + 0.5) - 0.5
        if self.order == 0:
            below = np.clip(np.floor(places + 0.5).astype(int), 0, self.size - 1)
            above, share = below, np.zeros(len(places))
        else:
            # in float32, as PyTorch's interpolation computes them, which resamples an image in memory
            half, index = np.float32(0.5), np.arange(first, last, dtype=np.float32)
            where = np.maximum(np.float32(self.size) / np.float32(self.n) * (index + half) - half, 0)
            below = np.minimum(where.astype(int), self.size - 1)
            above, share = np.minimum(below + 1, self.size - 1), where - below
        start, weights = int(below[0]), np.zeros((last - first, int(above[-1] - below[0]) + 1), np.float32)
        row = np.arange(last - first)
        np.add.at(weights, (row, below - start), 1 - share)
        np.add.at(weights, (row, above - start), share)
        return start, weights


@lru_cache(maxsize=8)
def _spline(size: int, n: int, order: int) -> np.ndarray:
    return resampling._matrix(size, n, order)


@dataclass(frozen=True)
class Resizing:
    """Interpolation of a whole grid onto another, of which boxes are asked for; as `resampling.resize` does it.

    Attributes
    ----------
    axes : tuple of Along
    apart : int or None
        An axis that comes last, as in `resampling.resize_separate_z`.
    """

    axes: tuple[Along, Along, Along]
    apart: int | None = None

    @classmethod
    def of(cls, before: Sequence[int], after: Sequence[int], apart: int | None, order: int, order_z: int) -> Resizing:
        """From voxels `before` to `after`; the axis `apart` with `order_z`."""
        z, y, x = (
            Along(int(a), int(b), order_z if axis == apart else order)
            for axis, (a, b) in enumerate(zip(before, after, strict=True))
        )
        return cls((z, y, x), apart)

    def reach(self, box: Box) -> Box:
        """The box of the grid before that a box after is made of."""
        ends = []
        for axis, one in zip(self.axes, box, strict=True):
            start, weights = axis.rows(one.start, one.stop)
            ends.append(slice(start, start + weights.shape[1]))
        return ends[0], ends[1], ends[2]

    def resized(self, values: np.ndarray, box: Box, kept: Callable[[np.ndarray], None] | None = None) -> np.ndarray:
        """A box after, of the values (C, z, y, x) in `reach(box)`; the axis that shrinks most first.

        `kept` brings values into their range, in place, before the axis that comes last.
        """
        order = sorted(range(3), key=lambda a: (a == self.apart, self.axes[a].n / self.axes[a].size))
        for axis in order:
            if axis == self.apart and kept is not None:
                kept(values)
            if self.axes[axis].size != self.axes[axis].n:
                _, weights = self.axes[axis].rows(box[axis].start, box[axis].stop)
                values = np.moveaxis(np.moveaxis(values, axis + 1, -1) @ weights.T, -1, axis + 1)
        if self.apart is None and kept is not None:
            kept(values)
        return values


class ResampledImage:
    """An image (C, Z, Y, X) on another grid, float32: what `LazyImage` takes as its base.

    Parameters
    ----------
    image : LazyImage
    resizing : Resizing
    ranges : array-like, shape (C, slices, 2), optional
        Lowest and highest values, within which splines are kept: of each slice along the axis that is resampled apart,
        or of all as of one.
    """

    ndim = 4

    def __init__(self, image: LazyImage, resizing: Resizing, ranges: Any = None):
        self.image, self.resizing = image, resizing
        self.ranges = None if ranges is None else np.asarray(ranges, np.float32)
        z, y, x = (axis.n for axis in resizing.axes)
        self.shape = (image.channels, z, y, x)
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: Any) -> np.ndarray:
        z, y, x = (slice(*one.indices(n)[:2]) for one, n in zip(key[1:], self.shape[1:], strict=True))
        box = (z, y, x)
        if any(one.start >= one.stop for one in box):
            return np.zeros((self.shape[0], *(max(one.stop - one.start, 0) for one in box)), np.float32)
        reach = self.resizing.reach(box)
        values = np.asarray(self.image[(slice(None), *reach)], np.float32)
        kept = None if self.ranges is None else partial(self._keep, reach=reach)
        return np.asarray(self.resizing.resized(values, box, kept), np.float32)

    def _keep(self, values: np.ndarray, reach: Box) -> None:
        assert self.ranges is not None
        apart, ranges = self.resizing.apart, self.ranges
        if apart is not None:
            ranges = ranges[:, reach[apart]]
        shape = [len(values), 1, 1, 1]
        shape[1 if apart is None else apart + 1] = ranges.shape[1]
        np.clip(values, ranges[..., 0].reshape(shape), ranges[..., 1].reshape(shape), out=values)


def ranges_of(image: LazyImage, apart: int | None, watch: Watch) -> list[list[list[float]]]:
    """Lowest and highest value of each channel, of each slice along an axis or of all: (C, slices, 2)."""
    count = 1 if apart is None else image.shape[apart + 1]
    found = np.stack([np.full((image.channels, count), np.inf), np.full((image.channels, count), -np.inf)], axis=-1)
    for box, block in blocks(image, watch):
        here = slice(0, 1) if apart is None else box[apart]
        axes = tuple(a + 1 for a in range(3) if a != apart)
        low, high = (end(block, axis=axes).reshape(image.channels, -1) for end in (np.min, np.max))
        np.minimum(found[:, here, 0], low, out=found[:, here, 0])
        np.maximum(found[:, here, 1], high, out=found[:, here, 1])
    return found.tolist()


def way_back(undo: UndoResample, prepared: Sequence[int]) -> Resizing:
    """The interpolation of network outputs from the resampled grid to the one before.

    Raises
    ------
    NeedsMemory
        If it is one by splines, which are kept within the range of all outputs.
    """
    if undo.order_values > 1 or (undo.apart is not None and undo.order_z > 1):
        raise NeedsMemory("this bundle's outputs are resampled by splines, which need them all in memory")
    return Resizing.of(prepared, undo.shape, undo.apart, undo.order_values, undo.order_z)
