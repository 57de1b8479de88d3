"""Coarser levels made from blocks while these are in memory, so that they need not be read from the store again."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from napari_mamba.engine.stored.finishing.pyramid import halved, keys_within, sides_of
from napari_mamba.engine.tiling.tiles import Box, Shape

ROOM = 2**28
"""Bytes for parts that are not full yet; what finds no room is read from the store."""


@dataclass
class _Filling:
    """A part (C, z, y, x) of a level, and the voxels that are known of it, by where what they came from begins."""

    values: np.ndarray
    known: dict[tuple[int, ...], int] = field(default_factory=dict)


class Remembered:
    """Parts of coarser levels, filled as blocks of the level before are made; may be used by several threads.

    Parameters
    ----------
    shapes : sequence of tuple of int
        Of all levels, finest first.
    steps : sequence of tuple of int
        How many voxels of the level before one of each coarser level is.
    chunks : tuple of int
        Of the finest level.
    labels : bool
        Every second voxel is taken, not the mean.
    room : int
        Bytes for parts that are not full.

    Examples
    --------
    >>> one = Remembered([(1, 2, 4), (1, 1, 2)], [(1, 2, 2)], (1, 2, 4), labels=True)
    >>> one.take(0, (slice(0, 1), slice(0, 2), slice(0, 4)), np.arange(8).reshape(1, 1, 2, 4))
    >>> one.give("1/0.0.0").tolist(), one.give("1/0.0.0")
    ([[[[0, 2]]]], None)
    """

    def __init__(self, shapes: Sequence[Shape], steps: Sequence[Shape], chunks: Shape, labels: bool, room: int = ROOM):
        self.shapes, self.steps, self.labels, self.room = shapes, steps, labels, room
        self.chunks = chunks
        self.filling: dict[str, _Filling] = {}
        self.lock = threading.Lock()

    def take(self, level: int, box: Box, block: np.ndarray) -> None:
        """A block (C, z, y, x) of a level; the same one again, where it is computed again."""
        if level + 1 >= len(self.shapes):
            return
        step, shape = self.steps[level], self.shapes[level + 1]
        if any(one.start % size for one, size in zip(box, step, strict=True)):
            return  # a voxel of the next level is also of the block before
        coarse = halved(block, step, self.labels)
        corner = [one.start // size for one, size in zip(box, step, strict=True)]
        z, y, x = (slice(a, a + n) for a, n in zip(corner, coarse.shape[1:], strict=True))
        sides = sides_of([min(a, b) for a, b in zip(self.chunks, shape, strict=True)])
        for key in keys_within((z, y, x), level + 1, sides):
            place = [int(number) for number in key.partition("/")[2].split(".")]
            part = [slice(i * s, min((i + 1) * s, n)) for i, s, n in zip(place, sides, shape, strict=True)]
            self._fill(key, part, (z, y, x), coarse)

    def _fill(self, key: str, part: Sequence[slice], box: Box, values: np.ndarray) -> None:
        one = self._part(key, [len(values), *(side.stop - side.start for side in part)], values.dtype)
        if one is None:
            return
        both = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(part, box, strict=True)]
        to, of = (
            (slice(None), *(slice(a.start - b.start, a.stop - b.start) for a, b in zip(both, outer, strict=True)))
            for outer in (part, box)
        )
        one.values[to] = values[of]
        with self.lock:
            one.known[tuple(a.start for a in both)] = math.prod(a.stop - a.start for a in both)

    def _part(self, key: str, shape: Sequence[int], dtype: np.dtype) -> _Filling | None:
        with self.lock:
            if key not in self.filling:
                if math.prod(shape) * dtype.itemsize > self.room:
                    return None
                self.filling[key] = _Filling(np.empty(shape, dtype))
                self.room -= self.filling[key].values.nbytes
            return self.filling[key]

    def give(self, key: str) -> np.ndarray | None:
        """A part, once all that it is made of was taken; None where something was not. It is forgotten."""
        with self.lock:
            one = self.filling.pop(key, None)
            if one is None:
                return None
            self.room += one.values.nbytes
        return one.values if sum(one.known.values()) == math.prod(one.values.shape[1:]) else None
