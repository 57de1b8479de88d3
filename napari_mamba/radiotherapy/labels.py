"""Structures as label maps and back: those that overlap lie in several maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from napari_mamba.radiotherapy.structures import Structure, StructureSet, prescription_of

MOST = 255
"""Structures in one map of bytes."""


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A map (Z, Y, X) uint8 and the structure of each of its numbers."""

    values: np.ndarray
    structures: Mapping[int, Structure] = field(default_factory=dict)


def packed(structures: StructureSet) -> list[LabelMap]:
    """As few label maps as a simple search finds in which no two structures share a voxel.

    Small structures come first: what encloses others, such as the patient's outline, lies in the last map.

    Examples
    --------
    >>> one, two = np.array([[[True, False, True]]]), np.array([[[True, True, False]]])
    >>> both = StructureSet((Structure("a", one), Structure("b", two), Structure("c", ~one)), np.eye(4))
    >>> [[s.name for s in labels.structures.values()] for labels in packed(both)]
    [['c', 'a'], ['b']]
    """
    maps: list[tuple[np.ndarray, dict[int, Structure]]] = []
    for structure in sorted(structures, key=lambda s: int(np.count_nonzero(s.mask))):
        for values, known in maps:
            if len(known) < MOST and not values[structure.mask].any():
                break
        else:
            values, known = np.zeros(structure.mask.shape, np.uint8), {}
            maps.append((values, known))
        number = len(known) + 1
        values[structure.mask] = number
        known[number] = structure
    return [LabelMap(values, known) for values, known in maps]


def structures_in(values: np.ndarray, known: Mapping[int, Structure]) -> list[Structure]:
    """The structures of a label map: those of `known`, and "label N" for other numbers.

    Parameters
    ----------
    values : (Z, Y, X) array of whole numbers
    known : mapping of int to Structure
        Their names, colours, kinds, prescriptions and codes; their masks are not used.
    """
    present = [int(number) for number in np.unique(values) if number != 0]
    found = []
    for number in sorted({*present, *known}):
        one = known.get(number) or Structure(f"label {number}", values)
        prescribed = one.prescription if one.prescription is not None else prescription_of(one.name)
        found.append(Structure(one.name, values == number, one.color, one.kind, prescribed, one.code))
    return found
