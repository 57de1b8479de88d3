"""A view of values on disk: axes in another order, parts and single places, and nothing read before it is an array."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from napari_mamba.io.lazy.stacked import stored_together


class DiskView:
    """What is indexed of an array on disk, as a lazy array.

    Dask would do the same, but reads whole blocks where axes are turned; a slice of a large image then takes seconds.

    Parameters
    ----------
    base : array-like
        With `shape` and `dtype`, and basic slices that read: `napari_mamba.io.lazy.on_disk.OnDisk`, for instance.
    wanted : sequence of range or int, optional
        What of each of its axes; by default all.
    order : sequence of int or None, optional
        The base's axis on each axis of the view, None for a new one of length 1.

    Examples
    --------
    >>> turned = DiskView(np.arange(24).reshape(2, 3, 4))[1].transpose((1, 0))
    >>> turned.shape, np.asarray(turned[:2, -1]).tolist()
    ((4, 3), [20, 21])
    """

    def __init__(self, base: Any, wanted: Sequence[Any] = (), order: Sequence[int | None] | None = None):
        self._base = base
        self._wanted: tuple[Any, ...] = tuple(wanted) or tuple(range(size) for size in base.shape)
        self._order = tuple(range(len(self._wanted))) if order is None else tuple(order)
        self.shape = tuple(1 if axis is None else len(self._wanted[axis]) for axis in self._order)
        self.ndim = len(self.shape)
        self.size = math.prod(self.shape)
        self.dtype = np.dtype(base.dtype)

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Voxels of each axis that are stored together, as Zarr has it; None where nothing says so."""
        stored = stored_together(self._base)
        if stored is None:
            return None
        sizes = zip(self._order, self.shape, strict=True)
        return tuple(1 if axis is None else min(stored[axis], size) for axis, size in sizes)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        """A view of what basic indexing takes; a single value is read."""
        parts = list(key) if isinstance(key, tuple) else [key]
        axes = self.ndim - sum(part is not None and part is not Ellipsis for part in parts)
        if any(part is Ellipsis for part in parts):
            place = next(i for i, part in enumerate(parts) if part is Ellipsis)
            parts[place : place + 1] = [slice(None)] * axes
        else:
            parts += [slice(None)] * axes
        wanted, order, old = list(self._wanted), list[int | None](), iter(self._order)
        for part in parts:
            if part is None:
                order.append(None)
                continue
            axis = next(old)
            items = range(1) if axis is None else wanted[axis]
            if isinstance(part, slice):
                order.append(axis)
                if axis is not None:
                    wanted[axis] = items[part]
                elif len(items[part]) != 1:
                    raise IndexError("a new axis has one place")
            else:
                found = items[int(part)]
                if axis is not None:
                    wanted[axis] = found
        view = DiskView(self._base, wanted, order)
        return view if order else np.asarray(view)[()]

    def transpose(self, axes: Sequence[int]) -> DiskView:
        """The same with its axes in another order."""
        return DiskView(self._base, self._wanted, [self._order[axis] for axis in axes])

    def astype(self, dtype: Any, **options: Any) -> Any:
        """The values as others, in a Dask array, which is lazy too."""
        import dask.array

        return dask.array.from_array(self).astype(dtype, **options)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The values, read now."""
        key, turned = [], []
        for items in self._wanted:
            if isinstance(items, int):
                key.append(slice(items, items + 1))
                turned.append(slice(0, 1))
            else:
                first, last = (min(items[0], items[-1]), max(items[0], items[-1])) if len(items) else (0, -1)
                key.append(slice(first, last + 1, abs(items.step)))
                turned.append(slice(None, None, -1 if items.step < 0 else 1))
        read = np.asarray(self._base[tuple(key)])[tuple(turned)]
        kept = [axis for axis in self._order if axis is not None]
        single = tuple(axis for axis, items in enumerate(self._wanted) if isinstance(items, int))
        ranks = np.argsort(np.argsort(kept))  # an axis's place once the single ones are gone
        values = read.squeeze(single).transpose(ranks)
        values = values.reshape(self.shape)
        return values if dtype is None else values.astype(dtype, copy=False)
