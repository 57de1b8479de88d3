"""Channels that lie in several files, as one image that is read where it is indexed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class Stacked:
    """Array-likes (C, Z, Y, X) on one grid, one after the other along the channels.

    Takes slices and integers, and becomes an array by `numpy.asarray`.

    Examples
    --------
    >>> both = Stacked([np.zeros((1, 2, 2, 2)), np.ones((2, 2, 2, 2))])
    >>> both.shape, both[1:, 0, 0, 0].tolist()
    ((3, 2, 2, 2), [1.0, 1.0])
    """

    ndim = 4

    def __init__(self, parts: Sequence[Any]):
        self.parts = list(parts)
        self.shape = (sum(len(part) for part in parts), *parts[0].shape[1:])
        self.dtype = np.result_type(*(part.dtype for part in parts))
        self.chunks = next((found for part in parts if (found := stored_together(part))), None)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        """The values at `key`, as NumPy's basic indexing would give them."""
        key = key if isinstance(key, tuple) else (key,)
        if key[0] is Ellipsis:
            key = (slice(None), *key) if len(key) < self.ndim + 1 else key
        channels, rest = key[0], key[1:]
        wanted = range(len(self))[channels]
        if isinstance(wanted, int):
            return self._channels(range(wanted, wanted + 1), rest)[0]
        return self._channels(wanted, rest)

    def _channels(self, wanted: range, rest: tuple[Any, ...]) -> np.ndarray:
        first, found = 0, []
        for part in self.parts:
            inside = [c - first for c in wanted if first <= c < first + len(part)]
            if inside:
                block = np.asarray(part[(slice(inside[0], inside[-1] + 1), *rest)])
                found.append(block.astype(self.dtype, copy=False))
            first += len(part)
        return np.concatenate(found)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All values."""
        return np.asarray(self[:], dtype)


def stored_together(part: Any) -> tuple[int, ...] | None:
    """Voxels of each axis (c, z, y, x) that are stored together; None where nothing says so."""
    if len(getattr(part, "chunks", None) or ()) == 4 and all(isinstance(one, int) for one in part.chunks):
        return tuple(part.chunks)
    source, axes = getattr(part, "source", None), getattr(part, "axes", "")
    chunks = getattr(source, "chunks", None)
    if not chunks:
        return None
    sizes = dict(zip(axes, chunks, strict=True))
    return (1, sizes.get("z", 1), sizes["y"], sizes["x"])
