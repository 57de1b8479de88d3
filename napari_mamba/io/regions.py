"""A box in the world, and the voxels of a volume that lie in it: to compute there alone and put the answer back.

The box is axis-parallel in RAS millimetres, the volume may be oblique, so the voxels in the box are not a block. What
is cut out is the smallest block that holds them all; what lies in that block but outside of the box gets no answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.volume import Volume

_CLOSE_MM = 1e-6


def checked_box(values: Sequence[float]) -> tuple[float, ...]:
    """Six finite numbers as a box: lowest x, y, z, then highest x, y, z, in RAS mm.

    Raises
    ------
    InputError
        If there are not six, one is not finite, or a side is not longer than zero.

    Examples
    --------
    >>> checked_box([0, 0, 0, 10, 20, 30])
    (0.0, 0.0, 0.0, 10.0, 20.0, 30.0)
    """
    box = tuple(float(value) for value in values)
    if len(box) != 6 or not np.isfinite(box).all():
        raise InputError("a region is six numbers in RAS mm: lowest x, y, z, then highest x, y, z")
    if any(high <= low for low, high in zip(box[:3], box[3:], strict=True)):
        raise InputError("the region is empty: give its lowest x, y, z first, then its highest x, y, z, in RAS mm")
    return box


@dataclass(frozen=True, eq=False)
class Region:
    """Where a box lies on a volume's grid.

    Attributes
    ----------
    whole : Volume
        The volume that the box was laid on.
    block : tuple of slice
        The smallest block (z, y, x) that holds every voxel whose centre is in the box.
    inside : ndarray of bool
        Shape of the block: True where the voxel's centre is in the box.
    """

    whole: Volume
    block: tuple[slice, slice, slice]
    inside: np.ndarray

    def cut(self) -> Volume:
        """The block as a volume at the same place in the world."""
        corner = np.array([one.start for one in self.block] + [1.0])
        affine = self.whole.affine.copy()
        affine[:, 3] = self.whole.affine @ corner
        return replace(self.whole, data=self.whole.data[(slice(None), *self.block)], affine=affine)

    def put_back(self, answer: Volume, outside: np.ndarray | float | Sequence[float] = 0) -> Volume:
        """An answer on the block's grid, on the whole grid.

        Parameters
        ----------
        answer : Volume
            (C, *block).
        outside : array (C, *whole), number, or one number a channel
            What lies outside of the box.

        Raises
        ------
        InputError
            If the answer does not lie on the block's grid.
        """
        if answer.shape != self.inside.shape:
            raise InputError("the answer does not lie on the region's grid")
        values = np.asarray(answer.data)
        fill = np.asarray(outside, values.dtype)
        whole = np.empty((answer.channels, *self.whole.shape), values.dtype)
        whole[...] = fill.reshape(-1, 1, 1, 1) if fill.ndim == 1 else fill
        np.copyto(whole[(slice(None), *self.block)], values, where=self.inside)
        return replace(answer, data=whole, affine=self.whole.affine)


def region_of(volume: Volume, box: Sequence[float]) -> Region:
    """Lay a box on a volume.

    Parameters
    ----------
    volume : Volume
    box : sequence of 6 floats
        Lowest x, y, z, then highest x, y, z, in RAS mm.

    Raises
    ------
    InputError
        If the box is none, or no voxel's centre lies in it.

    Examples
    --------
    >>> volume = Volume(np.zeros((1, 10, 10, 10)))
    >>> region_of(volume, [2, 0, 0, 4, 20, 20]).cut().shape  # the affine maps z, y, x onto x, y, z here
    (3, 10, 10)
    """
    box = checked_box(box)
    low, high = _corners(box)
    start, stop = _bounds(volume, low, high)
    if (start >= stop).any():
        raise InputError("the region lies outside of the image: move it onto the image, or leave it out")
    inside = _inside(volume.affine, start, stop, low, high)
    for axis in range(3):  # the bounds of an oblique box are not tight
        filled = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        if not len(filled):
            raise InputError("no voxel lies in the region: make it larger, or move it onto the image")
        inside = np.take(inside, np.arange(filled[0], filled[-1] + 1), axis=axis)
        start[axis], stop[axis] = start[axis] + filled[0], start[axis] + filled[-1] + 1
    block = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    return Region(volume, (block[0], block[1], block[2]), np.ascontiguousarray(inside))


def blocks_of(volume: Volume, box: Sequence[float]) -> tuple[slice, slice, slice]:
    """The block of `region_of`, found slice by slice: nothing of the size of the image is made.

    Raises
    ------
    InputError
        As `region_of` does.

    Examples
    --------
    >>> blocks_of(Volume(np.zeros((1, 10, 10, 10))), [2, 0, 0, 4, 20, 20])
    (slice(2, 5, None), slice(0, 10, None), slice(0, 10, None))
    """
    low, high = _corners(checked_box(box))
    start, stop = _bounds(volume, low, high)
    if (start >= stop).any():
        raise InputError("the region lies outside of the image: move it onto the image, or leave it out")
    filled = [np.zeros(b - a, bool) for a, b in zip(start, stop, strict=True)]
    for z in range(start[0], stop[0]):
        one = _inside(volume.affine, np.array([z, *start[1:]]), np.array([z + 1, *stop[1:]]), low, high)[0]
        filled[0][z - start[0]] = one.any()
        filled[1] |= one.any(axis=1)
        filled[2] |= one.any(axis=0)
    ends = [np.flatnonzero(axis) for axis in filled]
    if not all(map(len, ends)):
        raise InputError("no voxel lies in the region: make it larger, or move it onto the image")
    block = [slice(int(a + e[0]), int(a + e[-1]) + 1) for a, e in zip(start, ends, strict=True)]
    return block[0], block[1], block[2]


def inside_of(volume: Volume, box: Sequence[float], block: Sequence[slice]) -> np.ndarray:
    """Which voxels of a block (z, y, x) have their centres in a box in RAS mm: bool, the block's shape."""
    start, stop = (np.array([getattr(one, end) for one in block]) for end in ("start", "stop"))
    return _inside(volume.affine, start, stop, *_corners(box))


def _corners(box: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(box[:3]) - _CLOSE_MM, np.array(box[3:]) + _CLOSE_MM


def _bounds(volume: Volume, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and one past the last index (z, y, x) that the box's corners reach, within the volume."""
    corners = np.array([[x, y, z, 1] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    places = (corners @ np.linalg.inv(volume.affine).T)[:, :3]
    start = np.clip(np.floor(places.min(axis=0)), 0, volume.shape).astype(int)
    stop = np.clip(np.ceil(places.max(axis=0)) + 1, 0, volume.shape).astype(int)
    return start, stop


def _inside(affine: np.ndarray, start: np.ndarray, stop: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    axes = [np.arange(a, b, dtype=np.float64) for a, b in zip(start, stop, strict=True)]
    inside = np.ones([len(axis) for axis in axes], bool)
    for world in range(3):  # one coordinate at a time: no array of three coordinates a voxel
        z, y, x = (affine[world, i] * axes[i] for i in range(3))
        place = z[:, None, None] + y[:, None] + x + affine[world, 3]
        inside &= (place >= low[world]) & (place <= high[world])
    return inside
