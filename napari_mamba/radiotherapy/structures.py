"""Structures: named regions of a planning image, each a mask of its own, since they may overlap."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from napari_mamba.errors import InputError

_TARGET = re.compile(r"(?:^|[^a-z])[pcig]tv", re.IGNORECASE)
_LESS = re.compile(r"(?:[0-9a-z][ _]*-|\b(?:minus|not|no|without|ohne))[ _]*$", re.IGNORECASE)
"""Before "PTV": what is left of another structure, a ring for the optimiser say, and no target."""
_AROUND = re.compile(
    r"(?:^|[^a-z])(?:ring|rind|shell|halo|avoid(?:ance)?|outside|spill|fall ?off|hot|cold|expan(?:sion|ded)?|dummy)"
    r"s?(?:[^a-z]|$)|tv(?:ring|rind|shell)|tv.*\+\s*(?:[12]?\d|\d\.\d+)\s*(?:[mc]m|$)",
    re.IGNORECASE,
)
"""In the name of what lies about a target or in a part of it, for the optimiser."""
_DOSE = re.compile(r"(?<![\d.,x])(\d+(?:[.,]\d+)?)(?![\d.,]|\s*(?:%|mm|cm|fx|x\s*\d))", re.IGNORECASE)
_FRACTIONS = re.compile(
    r"(?<![\d.,])(\d+(?:[.,]\d+)?) *(?:gy)? *[x×*] *(\d+(?:[.,]\d+)?)(?![\d.,]| *[mc]m)", re.IGNORECASE
)
"""35 x 2 Gy, or the other way about."""
_BEFORE = re.compile(r"(?<![\d.,])(\d+(?:[.,]\d+)?)[ _]*c?gy", re.IGNORECASE)
_ACCENTS = re.compile("[\u0300-\u036f]")
_CENTIGRAY_FROM, _LEAST_CENTIGRAY = 200.0, 1000.0
"""No target is prescribed so many Gy: the name says cGy, of a whole plan."""
_LEAST = 10.0
"""A smaller number in a target's name counts targets: PTV1, PTV2."""

OUTSIDE = "has nothing inside the image"
"""What a note says of a structure that lies elsewhere."""

BODY = ("body", "external", "patient", "skin", "outer contour", "possible dose")
"""Names by which the patient's outline goes."""


@dataclass(frozen=True, eq=False)
class Structure:
    """A region and what it is called.

    Attributes
    ----------
    name : str
    mask : (Z, Y, X) bool array
    color : str
        "#rrggbb", or empty.
    kind : str
        DICOM's RTROIInterpretedType: "ORGAN", "PTV", "EXTERNAL", …; empty if nobody said.
    prescription : float, optional
        Gy, of a target.
    code : str
        SNOMED CT, where the file tells it.
    """

    name: str
    mask: np.ndarray
    color: str = ""
    kind: str = ""
    prescription: float | None = None
    code: str = ""

    @property
    def target(self) -> bool:
        """Whether it is to be treated, by its kind or else its name."""
        return self.kind.upper() in ("PTV", "CTV", "GTV") or (not self.kind and _end_of_target(self.name) > 0)

    @property
    def empty(self) -> bool:
        return not self.mask.any()


@dataclass(frozen=True, eq=False)
class StructureSet:
    """Structures on one grid.

    Attributes
    ----------
    structures : tuple of Structure
    affine : (4, 4) array
        From voxel index (z, y, x, 1) to RAS millimetres, as a `Volume`'s.
    frame : str
        DICOM's frame of reference UID; empty where none is known.
    notes : tuple of str
        What a reader should be told: a structure outside the image, say. One sentence each.

    Raises
    ------
    InputError
        If two structures have one name, or the masks differ in size.
    """

    structures: tuple[Structure, ...]
    affine: np.ndarray
    frame: str = ""
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        names = [structure.name for structure in self.structures]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InputError(f"two structures are called {twice!r}: rename one of them")
        if len({structure.mask.shape for structure in self.structures}) > 1:
            raise InputError("the structures lie on grids of different sizes: bring them onto the grid of one image")

    def __iter__(self) -> Iterator[Structure]:
        return iter(self.structures)

    def __len__(self) -> int:
        return len(self.structures)

    def __getitem__(self, name: str) -> Structure:
        same = [s for s in self.structures if plain(s.name) == plain(name)]
        found = next((s for s in same if s.name == name), next(iter(same), None))
        if found is None:
            raise InputError(f"there is no structure {name!r}; there are {', '.join(s.name for s in self.structures)}")
        return found

    def __contains__(self, name: str) -> bool:
        return any(plain(s.name) == plain(name) for s in self.structures)

    @property
    def voxel(self) -> float:
        """Volume of a voxel, mm³."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def targets(self) -> tuple[Structure, ...]:
        return tuple(structure for structure in self.structures if structure.target)


def plain(name: str) -> str:
    """A name as one compares it, in any script: without case, accents, spaces and signs, unless it is signs alone.

    >>> plain("Spinal_Cord") == plain("spinal cord"), plain("脑干") == plain("脊髓")
    (True, False)
    >>> plain("Tronc cérébral") == plain("TRONC CEREBRAL")
    True
    """
    folded = _ACCENTS.sub("", unicodedata.normalize("NFKD", name).casefold())
    folded = unicodedata.normalize("NFKC", folded)
    return re.sub(r"[\W_]+", "", folded) or folded.strip()


def is_outline(structure: Structure) -> bool:
    """Whether a structure is the patient's outline, by its kind or its name."""
    return structure.kind.upper() == "EXTERNAL" or plain(structure.name) in map(plain, BODY)


def kind_of(structure: Structure) -> str:
    """DICOM's RTROIInterpretedType: what the structure says, else what its name does.

    >>> nothing = np.zeros((1, 1, 1), bool)
    >>> [kind_of(Structure(name, nothing)) for name in ("PTV70", "ctv 60", "Body", "larynx")]
    ['PTV', 'CTV', 'EXTERNAL', 'ORGAN']
    """
    if structure.kind:
        return structure.kind
    if end := _end_of_target(structure.name):
        kind = structure.name[end - 3 : end].upper()
        return "CTV" if kind == "ITV" else kind
    return "EXTERNAL" if is_outline(structure) else "ORGAN"


def prescription_of(name: str) -> float | None:
    """The dose in Gy that a target's name states, if it does; large numbers are taken for cGy, small ones are none.

    >>> prescription_of("PTV70"), prescription_of("PTV_5600"), prescription_of("brainstem")
    (70.0, 56.0, None)
    >>> prescription_of("PTV1"), prescription_of("PTV2_66Gy"), prescription_of("Ring PTV70")
    (None, 66.0, None)
    >>> prescription_of("PTV 35 x 2 Gy"), prescription_of("60 Gy PTV"), prescription_of("PTV 95%")
    (70.0, 60.0, None)
    """
    end = _end_of_target(name)
    if not end:
        return None
    products = [_number(one) * _number(other) for one, other in _FRACTIONS.findall(name)]
    after, before = ([_number(text) for text in found] for found in (_DOSE.findall(name[end:]), _BEFORE.findall(name)))
    return next(filter(None, map(_prescribed, (*products, *after, *before))), None)


def _number(text: str) -> float:
    return float(text.replace(",", "."))


def _prescribed(stated: float) -> float | None:
    """Gy of a number in a target's name; None where it counts or dates something."""
    if _LEAST_CENTIGRAY <= stated < 100 * _CENTIGRAY_FROM:
        return stated / 100
    return stated if _LEAST <= stated < _CENTIGRAY_FROM else None


def _end_of_target(name: str) -> int:
    """Where the letters PTV, CTV, … of a target's name end; 0 where it names none."""
    found = _TARGET.search(name)
    return 0 if not found or _LESS.search(name[: found.end() - 3]) or _AROUND.search(name) else found.end()


def check_same(first: StructureSet, second: StructureSet, tolerance: float = 0.01) -> None:
    """Raise `InputError` where two sets have a structure of one name that is not the same region.

    `tolerance` is the share of the voxels that may differ.
    """
    if (first.frame and second.frame) and first.frame != second.frame:
        raise InputError("the two structure sets belong to different frames of reference: register the images first")
    for structure in first:
        if structure.name in second:
            other = second[structure.name].mask
            if other.shape != structure.mask.shape:
                raise InputError(f"{structure.name!r} lies on two grids of different sizes: use the files of one image")
            apart = int((other ^ structure.mask).sum())
            if apart > tolerance * max(int(structure.mask.sum()), 1):
                raise InputError(
                    f"the two files disagree about {structure.name!r} ({apart} voxels differ): keep the right one"
                )


def joined(sets: Sequence[StructureSet]) -> StructureSet:
    """Several sets as one; raises `InputError` where they disagree. A structure in two of them is taken once."""
    first, *others = sets
    structures: list[Structure] = list(first)
    notes: list[str] = list(first.notes)
    for number, other in enumerate(others, 1):
        for earlier in sets[:number]:
            check_same(earlier, other)
        known = {plain(s.name) for s in structures}
        structures += [s for s in other if plain(s.name) not in known]
        notes += other.notes
    frame = next((one.frame for one in sets if one.frame), "")
    return StructureSet(tuple(structures), first.affine, frame, tuple(notes))


def required(structures: StructureSet, names: Iterable[str]) -> None:
    """Raise `InputError` naming those of `names` that are absent or empty."""
    absent = [name for name in names if name not in structures or structures[name].empty]
    if absent:
        raise InputError(
            f"the structures lack {', '.join(absent)}: contour it, or rename the structure that it is called by"
        )


def prescriptions(structures: StructureSet) -> dict[str, float]:
    """Gy of each target, its own or from its name.

    Raises
    ------
    InputError
        If there is no target, or one has no prescription, or one that is not positive.
    """
    if not structures.targets:
        raise InputError("no structure is a target: a dose needs one, called PTV70 for 70 Gy, say")
    found = {}
    for target in structures.targets:
        dose = target.prescription if target.prescription is not None else prescription_of(target.name)
        if dose is None:
            raise InputError(f"the target {target.name!r} has no prescription: give it in Gy")
        if not 0 < dose < _CENTIGRAY_FROM:
            raise InputError(f"the target {target.name!r} has a prescription of {dose:g} Gy: give what is meant, in Gy")
        found[target.name] = dose
    return found
