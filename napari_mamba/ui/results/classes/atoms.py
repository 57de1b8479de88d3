"""What napari says of a change to labels: the items of its history, as the event `paint` hands them out.

An item is a list of atoms, and each is a tuple `(indices, old values, new value or values)` or a named tuple with
`slice_key`, `mask`, `old_values` and `new_value`. The event comes after the stroke of a brush, but before the data
change where a fill, a polygon or a script sets them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np


def voxels_of(atom: Any) -> tuple[tuple[np.ndarray, ...], np.ndarray, Any]:
    """Indices, old values and new value(s) of an atom."""
    if not hasattr(atom, "slice_key"):
        indices, old, new = atom
        return tuple(np.atleast_1d(np.asarray(axis)) for axis in indices), np.atleast_1d(old), new
    starts = [part.start or 0 for part in atom.slice_key]
    if atom.mask is None:
        local = np.nonzero(np.ones(np.shape(atom.old_values), bool))
        old = np.asarray(atom.old_values).ravel()
    else:
        local, old = np.nonzero(atom.mask), np.asarray(atom.old_values)
    return tuple(axis + start for axis, start in zip(local, starts, strict=True)), old, atom.new_value


def changed_voxels(item: list[Any]) -> tuple[int, int]:
    """The value painted last, and how many voxels the item changed."""
    count, value = 0, 0
    for atom in item:
        _, old, new = voxels_of(atom)
        count += int((old != new).sum())
        value = int(np.ravel(new)[-1]) if np.size(new) else value
    return value, count


@dataclass(frozen=True)
class Repair:
    """Voxels to give back: an atom of napari's history with the classes that it keeps as they were."""

    atoms: list[tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]]
    classes: frozenset[int]
    last: Any

    def due(self, data: Any) -> bool:
        """Whether the change that it repairs has happened: its last atom is in the data."""
        indices, _, new = voxels_of(self.last)
        return bool((np.asarray(data[indices]) == new).all())

    def apply(self, layer: Any) -> None:
        """Set the voxels and draw them."""
        for indices, _, old in self.atoms:
            layer.data[indices] = old
        layer.refresh()


def repair_of(item: list[Any], locked: Collection[int]) -> Repair | None:
    """What gives voxels back to locked classes that lose them, and takes away what locked classes gain.

    The repair becomes a part of the item, so that one undo takes back both.
    """
    atoms, classes = [], set[int]()
    for atom in item:
        indices, old, new = voxels_of(atom)
        new = np.broadcast_to(np.asarray(new), old.shape)
        wrong = (np.isin(old, list(locked)) | np.isin(new, list(locked))) & (old != new)
        if wrong.any():
            atoms.append((tuple(axis[wrong] for axis in indices), new[wrong].copy(), old[wrong].copy()))
            classes |= {int(v) for v in np.unique(np.concatenate([old[wrong], new[wrong]])) if int(v) in locked}
    last = item[-1]
    atoms.reverse()  # the first atom that touched a voxel knows what was there, so it comes last
    item.extend(atoms)
    return Repair(atoms, frozenset(classes), last) if atoms else None
