"""Some channels of an image on disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class Picked:
    """Some channels of an image on disk (C, Z, Y, X), which stay there until they are indexed.

    Parameters
    ----------
    base : array-like
        Takes slices.
    numbers : sequence of int
        Its channels.
    """

    ndim = 4

    def __init__(self, base: Any, numbers: Sequence[int]):
        self.base, self.numbers = base, list(numbers)
        self.shape = (len(self.numbers), *base.shape[1:])
        self.dtype = np.dtype(base.dtype)
        for name in ("source", "axes"):  # by which chunks are found
            if hasattr(base, name):
                setattr(self, name, getattr(base, name))

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, key: Any) -> np.ndarray:
        parts = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis in parts:
            place = parts.index(Ellipsis)
            parts[place : place + 1] = [slice(None)] * (self.ndim - len(parts) + 1)
        first, rest = parts[0], tuple(parts[1:])
        if not isinstance(first, slice):
            return np.asarray(self.base[(self.numbers[first], *rest)])
        found = [np.asarray(self.base[(number, *rest)]) for number in self.numbers[first]]
        return np.stack(found) if found else np.asarray(self.base[(slice(0, 0), *rest)])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype)
