"""The levels of a store that is being written, as a layer looks at them. No Qt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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

    While the coarser levels are not written, a slice of one is every second, fourth, ... voxel of the finest level's:
    so a slice shows what is there at any zoom. The whole of a coarser level, for the view in 3D, comes when it is
    there.
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
        """The values at `key`, as NumPy's basic indexing would give them; steps are 1."""
        parts = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis in [one for one in parts if not isinstance(one, np.ndarray)]:
            place = parts.index(Ellipsis)
            parts[place : place + 1] = [slice(None)] * (self.ndim - len(parts) + 1)
        parts += [slice(None)] * (self.ndim - len(parts))
        ranges = [
            range(n)[one] if isinstance(one, slice) else int(one) for one, n in zip(parts, self.shape, strict=True)
        ]
        if self.store.flat:
            ranges.insert(0, 0)
        sliced = any(isinstance(one, int) for one in ranges)
        finest = self.level > 0 and sliced and not self.store.whole
        block = self._read(ranges, 0 if finest else self.level)
        return block[tuple(0 if isinstance(one, int) else slice(None) for one in ranges)]

    def _read(self, ranges: Sequence[range | int], level: int) -> np.ndarray:
        array, own = self.store.levels[level], self.store.levels[self.level]
        wanted: list[Any] = [self.channel, None, None, None]
        for axis, one in zip(self.store.order, ranges, strict=True):
            step = max(round(array.shape[axis + 1] / own.shape[axis + 1]), 1)
            first, last = (one, one + 1) if isinstance(one, int) else (one.start, one.stop)
            wanted[axis + 1] = slice(first * step, min((last - 1) * step + 1, array.shape[axis + 1]), step)
        # Zarr reads steps slowly: the span, then the steps in memory
        spans = tuple(slice(one.start, one.stop) for one in wanted[1:])
        steps = tuple(slice(None, None, one.step) for one in wanted[1:])
        return np.asarray(array[(self.channel, *spans)])[steps].transpose(self.store.order)
