"""The levels of a store that is being written, as a layer looks at them. No Qt."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass
class LiveStore:
    """A store's arrays (C, Z, Y, X), finest first, and whether the coarser ones are there yet.

    Parameters
    ----------
    levels : sequence of zarr.Array
    order : tuple of int
        The volume's axis that each of the layer's axes is, see `Placement`.
    flat : bool
        The layer has two axes: a volume of one slice.
    """

    levels: Sequence[Any]
    order: tuple[int, int, int]
    flat: bool = False
    whole: bool = False

    def data(self, channel: int = 0) -> list[LiveLevel]:
        """What a multiscale layer takes."""
        return [LiveLevel(self, number, channel) for number in range(len(self.levels))]


class LiveLevel:
    """One level of one channel, with the layer's axes; reads what is indexed.

    What of a coarser level is not written yet is, in a slice, every second, fourth, ... voxel of the finest level: so a
    slice shows what is there at any zoom, and is read quickly where coarser levels are there. The whole of a coarser
    level, for the view in 3D, shows what is written of it.
    """

    def __init__(self, store: LiveStore, level: int, channel: int = 0):
        self.store, self.level, self.channel = store, level, channel
        sizes = [store.levels[level].shape[axis + 1] for axis in store.order]
        self.shape = tuple(sizes[1:] if store.flat else sizes)
        self.ndim = len(self.shape)
        self.dtype = np.dtype(store.levels[level].dtype)

    @property
    def size(self) -> int:
        """How many voxels it has."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        """The values at `key`, as NumPy's basic indexing would give them."""
        parts = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis in [one for one in parts if not isinstance(one, np.ndarray)]:
            place = parts.index(Ellipsis)
            parts[place : place + 1] = [slice(None)] * (self.ndim - len(parts) + 1)
        parts += [slice(None)] * (self.ndim - len(parts))
        ranges = [
            range(n)[one] if isinstance(one, slice) else int(one) for one, n in zip(parts, self.shape, strict=True)
        ]
        steps = tuple(slice(None, None, one.step) for one in ranges if isinstance(one, range))
        ranges = [
            range(min(one[0], one[-1]), max(one[0], one[-1]) + 1) if isinstance(one, range) and len(one) else one
            for one in ranges
        ]
        if self.store.flat:
            ranges.insert(0, 0)
        wanted: list[Any] = [slice(0)] * 3
        for axis, one in zip(self.store.order, ranges, strict=True):
            wanted[axis] = slice(one, one + 1) if isinstance(one, int) else slice(one.start, one.stop)
        block = self._read(self.level, wanted)
        sliced = any(isinstance(one, int) for one in ranges)
        if self.level > 0 and sliced and not self.store.whole:
            for part in self._unwritten(wanted):
                block[tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(part, wanted, strict=True))] = (
                    self._from_finest(part)
                )
        block = block.transpose(self.store.order)
        return block[tuple(0 if isinstance(one, int) else slice(None) for one in ranges)][steps]

    def _read(self, level: int, spans: Sequence[slice]) -> np.ndarray:
        return np.array(self.store.levels[level][(self.channel, *spans)])

    def _unwritten(self, spans: Sequence[slice]) -> Iterator[tuple[slice, ...]]:
        """What lies within spans of each chunk that has no file: not written yet, or of zeros alone."""
        array = self.store.levels[self.level]
        folder = Path(array.store.root) / array.path / str(self.channel)
        grid = [range(s.start // c, -(-s.stop // c)) for s, c in zip(spans, array.chunks[1:], strict=True)]
        for place in itertools.product(*grid):
            if not folder.joinpath(*map(str, place)).exists():
                yield tuple(
                    slice(max(i * c, s.start), min((i + 1) * c, s.stop))
                    for i, c, s in zip(place, array.chunks[1:], spans, strict=True)
                )

    def _from_finest(self, spans: Sequence[slice]) -> np.ndarray:
        finest, own = self.store.levels[0].shape[1:], self.store.levels[self.level].shape[1:]
        steps = [max(round(a / b), 1) for a, b in zip(finest, own, strict=True)]
        # Zarr reads steps slowly: the span, then the steps in memory
        wide = [
            slice(s.start * step, min((s.stop - 1) * step + 1, n))
            for s, step, n in zip(spans, steps, finest, strict=True)
        ]
        return self._read(0, wide)[tuple(slice(None, None, step) for step in steps)]
