"""An image that stays where it is until a part of it is read: turned, cropped and scaled on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from napari_mamba.engine.tiling.tiles import Box
from napari_mamba.volume import Volume

_SLAB = 64
"""Slices of an image without chunks that are read together."""


@dataclass(frozen=True, eq=False)
class LazyImage:
    """A view (C, Z, Y, X) of an array-like: `np.asarray` reads it, everything else only notes what is to be done.

    Basic slices of the spatial axes with steps of 1 and -1, `transpose` with the channels first, and `map` give views
    again, so that `np.flip`, `np.moveaxis` and the preparation's steps that move voxels take it as they take arrays.

    Parameters
    ----------
    base : array-like, shape (C, Z, Y, X)
        Whatever basic slices read: NumPy (memory-mapped too), Zarr, Dask, `io`'s images on disk.
    order : tuple of int
        The spatial axis of `base` that each axis of the view is.
    ranges : tuple of range
        Which of its indexes, up or down, by the view's axes.
    functions : tuple of callable
        Of a block (C, z, y, x), one after the other, voxel by voxel.
    channels : int
        That the functions leave.
    dtype : dtype
        That the functions leave.

    Examples
    --------
    >>> image = lazy(np.arange(6).reshape(1, 1, 2, 3))
    >>> np.asarray(np.flip(image, 3).transpose(0, 2, 1, 3))[0, :, 0].tolist()
    [[2, 1, 0], [5, 4, 3]]
    """

    base: Any
    order: tuple[int, int, int]
    ranges: tuple[range, range, range]
    functions: tuple[Callable[[np.ndarray], np.ndarray], ...]
    channels: int
    dtype: np.dtype
    ndim: int = 4

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(C, Z, Y, X)."""
        z, y, x = (len(one) for one in self.ranges)
        return self.channels, z, y, x

    @property
    def size(self) -> int:
        """How many values it has."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return self.channels

    def __getitem__(self, key: Any) -> LazyImage:
        """The view of a box; the channels stay."""
        parts = [slice(None) if one is Ellipsis else one for one in (key if isinstance(key, tuple) else (key,))]
        parts += [slice(None)] * (4 - len(parts))
        if parts[0] != slice(None) or not all(isinstance(one, slice) for one in parts):
            raise IndexError("a lazy image is cut by slices along its spatial axes")
        z, y, x = (one[part] for one, part in zip(self.ranges, parts[1:], strict=True))
        return replace(self, ranges=(z, y, x))

    def transpose(self, *axes: Any) -> LazyImage:
        """The view with its spatial axes in another order."""
        places = tuple(axes[0]) if len(axes) == 1 and isinstance(axes[0], Sequence) else tuple(axes)
        if places[0] != 0:
            raise ValueError("the channels of a lazy image come first")
        a, b, c = (int(one) - 1 for one in places[1:])
        order, ranges = self.order, self.ranges
        return replace(self, order=(order[a], order[b], order[c]), ranges=(ranges[a], ranges[b], ranges[c]))

    def map(
        self, function: Callable[[np.ndarray], np.ndarray], channels: int | None = None, dtype: Any = None
    ) -> LazyImage:
        """The image after a function of blocks (C, z, y, x) that sees each voxel by itself."""
        return replace(
            self,
            functions=(*self.functions, function),
            channels=self.channels if channels is None else channels,
            dtype=self.dtype if dtype is None else np.dtype(dtype),
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Its values, read now."""
        return np.ascontiguousarray(self.processed(self.stored()), dtype)

    def processed(self, block: np.ndarray) -> np.ndarray:
        """A block of what is stored, after the functions."""
        for function in self.functions:
            block = function(block)
        return block

    def stored(self) -> np.ndarray:
        """What is stored of it (c, Z, Y, X), before the functions, read now."""
        key: list[slice] = [slice(None)] * 4
        for axis, one in zip(self.order, self.ranges, strict=True):
            key[axis + 1] = slice(min(one[0], one[-1]), max(one[0], one[-1]) + 1) if len(one) else slice(0, 0)
        block = self.base[tuple(key)]
        # a Dask array: by this process's threads, also within a task of a cluster, which must not wait for itself
        block = np.asarray(block.compute(scheduler="threads") if hasattr(block, "compute") else block)
        block = block.transpose(0, *(axis + 1 for axis in self.order))
        return np.flip(block, tuple(i + 1 for i, one in enumerate(self.ranges) if one.step < 0))

    def cuts(self, axis: int, thickest: int = _SLAB) -> list[int]:
        """Where to cut the view along an axis, 0 and its length included: at the borders of what is stored together."""
        one = self.ranges[axis]
        chunk = chunks_of(self.base)[self.order[axis]]
        step = min(chunk, thickest) if chunk else _SLAB
        low, high = min(one[0], one[-1]), max(one[0], one[-1]) + 1
        borders = [low, *range(low // step * step + step, high, step), high]
        return [b - low for b in borders] if one.step > 0 else [high - b for b in reversed(borders)]


def lazy(data: Any) -> LazyImage:
    """An array-like (C, Z, Y, X) as a `LazyImage`; one that is one already stays."""
    if isinstance(data, LazyImage):
        return data
    channels, z, y, x = (int(n) for n in data.shape)
    return LazyImage(data, (0, 1, 2), (range(z), range(y), range(x)), (), channels, np.dtype(data.dtype))


def lazy_volume(volume: Volume) -> Volume:
    """The volume, its data a `LazyImage`."""
    return volume.with_data(lazy(volume.data), volume.channel_names)


def cut(volume: Volume, block: Box) -> Volume:
    """A block of a lazy volume, at the same place in the world."""
    corner = np.array([one.start for one in block] + [1.0])
    affine = volume.affine.copy()
    affine[:, 3] = volume.affine @ corner
    return replace(volume, data=volume.data[(slice(None), *block)], affine=affine)


def chunks_of(base: Any) -> tuple[int, int, int]:
    """Voxels (z, y, x) that are stored together; 0 where nothing says so."""
    source, axes = getattr(base, "source", base), getattr(base, "axes", "czyx")
    chunks = getattr(source, "chunks", None)
    if not chunks or len(chunks) != len(axes):
        return 0, 0, 0
    sizes = dict(zip(axes, (max(one) if isinstance(one, tuple) else int(one) for one in chunks), strict=True))
    return sizes.get("z", 0), sizes.get("y", 0), sizes.get("x", 0)
