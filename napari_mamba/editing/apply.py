"""From a class's corrected mask to the voxels of the label map that change."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Change:
    """Voxels to set, as napari's `Labels.data_setitem` takes them.

    Parameters
    ----------
    indices : tuple of ndarray
        One array of indices an axis.
    values : ndarray
        The new label of each.
    """

    indices: tuple[np.ndarray, ...]
    values: np.ndarray

    @property
    def voxels(self) -> int:
        """How many voxels change."""
        return int(self.values.size)

    def apply(self, labels: np.ndarray) -> None:
        """Set them in an array, in place."""
        labels[self.indices] = self.values


def change(
    labels: np.ndarray,
    index: int,
    mask: np.ndarray,
    *,
    offset: tuple[int, ...] = (),
    locked: Collection[int] = (),
    over_others: bool = False,
) -> Change:
    """What makes the class `index` the given mask.

    Parameters
    ----------
    labels : ndarray of integers
        The label map, or the box of it that starts at `offset`.
    index : int
    mask : ndarray of bool
        Of the shape of `labels`.
    offset : tuple of int
        Added to the indices.
    locked : collection of int
        Classes that lose no voxel.
    over_others : bool
        Whether the class may take voxels of other classes that are not locked, or of the background alone.

    Examples
    --------
    >>> change(np.array([1, 0, 2]), 1, np.array([False, True, True])).indices[0].tolist()
    [0, 1]
    """
    old = labels == index
    gained = mask & ~old
    gained &= ~np.isin(labels, list(locked)) if over_others else labels == 0
    lost = old & ~mask
    where = np.nonzero(gained | lost)
    values = np.where(gained[where], index, 0).astype(labels.dtype)
    shift = offset or (0,) * labels.ndim
    return Change(tuple(axis + start for axis, start in zip(where, shift, strict=True)), values)


def edit_class(
    labels: np.ndarray,
    index: int,
    operation: Callable[[np.ndarray], np.ndarray],
    *,
    margin: int | tuple[int, ...] = 1,
    locked: Collection[int] = (),
    over_others: bool = False,
) -> Change:
    """Apply an operation to the box of a class, grown by a margin, and say what changes.

    Parameters
    ----------
    labels : ndarray of integers, shape (Z, Y, X) or (Y, X)
    index : int
        Of the class.
    operation : callable
        From the mask in the box to the new mask.
    margin : int or tuple of int
        Voxels that the operation may add on each side.
    locked, over_others
        As in `change`. A locked class is not edited itself.

    Returns
    -------
    Change
        Empty where the class has no voxel.

    Examples
    --------
    >>> labels = np.array([[0, 3, 0, 3, 0]])
    >>> edit_class(labels, 3, lambda mask: np.ones_like(mask)).voxels
    3
    """
    mask = labels == index
    box = []
    margins = (margin,) * labels.ndim if isinstance(margin, int) else margin
    for axis in range(labels.ndim):
        inside = np.flatnonzero(mask.any(axis=tuple(a for a in range(labels.ndim) if a != axis)))
        if not inside.size or index in locked:
            return Change((np.empty(0, np.intp),) * labels.ndim, np.empty(0, labels.dtype))
        low, high = int(inside[0]) - margins[axis], int(inside[-1]) + 1 + margins[axis]
        box.append(slice(max(low, 0), min(high, labels.shape[axis])))
    part = tuple(box)
    return change(
        labels[part],
        index,
        operation(mask[part]),
        offset=tuple(b.start for b in box),
        locked=locked,
        over_others=over_others,
    )
