"""Goals of a plan: what each structure should get at most or at least, from a table that a planner edits."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.common.guard import shortened
from napari_mamba.radiotherapy.dvh.measures import GRAY, PERCENT, VOLUME, measure, parsed
from napari_mamba.radiotherapy.structures import StructureSet, plain, prescription_of

COLUMNS = ("structure", "measure", "relation", "limit")
_RELATIONS = {
    **dict.fromkeys(("<=", "<", "≤", "=<", "at most"), "<="),
    **dict.fromkeys((">=", ">", "≥", "=>", "at least"), ">="),
}
_LIMIT = re.compile(r"(-?\d+(?:[.,]\d+)?(?:e-?\d+)?|nan|-?inf)\s*(gy|cgy|%|cc|cm3|cm³|ml)?$", re.IGNORECASE)

_LONGEST_LINE = 10_000

COVERED = 0.95
"""Share of its prescription that nearly all of a target is to get."""

_USUAL: tuple[tuple[tuple[str, ...], str, float], ...] = (
    (("brainstem",), "D0.1cc", 50.0),
    (("spinalcord", "cord", "myelon"), "D0.1cc", 45.0),
    (("rightparotid", "parotidr", "parotidright", "glndparotidr"), "mean", 26.0),
    (("leftparotid", "parotidl", "parotidleft", "glndparotidl"), "mean", 26.0),
    (("oesophagus", "esophagus"), "mean", 45.0),
    (("larynx",), "mean", 45.0),
    (("mandible", "bonemandible"), "D0.1cc", 73.5),
)


@dataclass(frozen=True)
class Goal:
    """`measure` of `structure` is to be at most ("<=") or at least (">=") `limit`, in the measure's unit.

    Raises
    ------
    InputError
        If the measure or the relation is unknown, or the limit is negative.
    """

    structure: str
    measure: str
    relation: str
    limit: float

    def __post_init__(self) -> None:
        relation = _RELATIONS.get(self.relation.strip().lower())
        if relation is None:
            raise InputError(f"the goal for {self.structure} says {self.relation!r}: write <= or >=")
        if not (math.isfinite(self.limit) and self.limit >= 0):
            raise InputError(f"the goal for {self.structure} has the limit {self.limit:g}: give a positive number")
        parsed(self.measure)  # refuses unknown ones now, not after the reading of a dose
        object.__setattr__(self, "relation", relation)

    @property
    def unit(self) -> str:
        """Of the limit: "Gy", "%" or "cm³"."""
        return parsed(self.measure).unit

    def __str__(self) -> str:
        return f"{self.structure} {self.measure} {self.relation} {self.limit:g} {self.unit}"


def goal_of(structure: str, what: str, relation: str, limit: str) -> Goal:
    """A goal from text as one writes it.

    Parameters
    ----------
    structure, what, relation : str
    limit : str
        A number, perhaps with a unit; a dose in percent is of the prescription that the structure's name states.

    Raises
    ------
    InputError
        As `Goal` does, and if the limit is no number, or in a unit that the measure has not.

    Examples
    --------
    >>> str(goal_of("PTV70", "D95", ">=", "95%")), str(goal_of("lung", "V20Gy[cc]", "<", "300 cc"))
    ('PTV70 D95 >= 66.5 Gy', 'lung V20Gy[cc] <= 300 cm³')
    """
    found = _LIMIT.match(limit.strip())
    if not found:
        raise InputError(f"the limit of {structure} is no number: write 45, or 45 Gy")
    number, unit = float(found[1].replace(",", ".")), _unit(found[2] or "")
    made = Goal(structure, what, relation, number / 100 if unit == "cgy" else number)
    if unit in ("", made.unit, "cgy" if made.unit == GRAY else None):
        return made
    prescribed = prescription_of(structure) if (unit, made.unit) == (PERCENT, GRAY) else None
    if not prescribed:
        raise InputError(f"{what} of {structure} is in {made.unit}, its limit in {found[2]}: give {made.unit}")
    return Goal(structure, what, relation, round(number * prescribed / 100, 6))


def _unit(text: str) -> str:
    known = {"": "", "gy": GRAY, "cgy": "cgy", "%": PERCENT}
    return known.get(text.lower(), VOLUME)


@dataclass(frozen=True)
class Judged:
    """A goal, what the dose has, and whether that meets it; both None where the structure is absent or empty."""

    goal: Goal
    value: float | None
    met: bool | None


def read_goals(path: Path | str) -> list[Goal]:
    """Goals from a CSV with the columns structure, measure, relation and limit; lines that begin with # are skipped.

    Raises
    ------
    InputError
        If the file is not such a table, with the line that is wrong.
    """
    path = Path(path)
    kept = [(number, line) for number, line in enumerate(_lines(path), 1) if line.strip() and not line.startswith("#")]
    if not kept:
        raise InputError(f"{path} has no goals: write a line of {', '.join(COLUMNS)}, then a line for each goal")
    separator = max(",;\t", key=kept[0][1].count)
    if max(len(line) for _, line in kept) > _LONGEST_LINE or "\0" in kept[0][1]:
        raise InputError(f"{path} is no table of goals: give a CSV file in UTF-8")
    header = [cell.strip().lower() for cell in next(csv.reader([kept[0][1]], delimiter=separator))]
    if missing := [column for column in COLUMNS if column not in header]:
        raise InputError(f"{path} lacks the column {missing[0]!r}: its first line must name {', '.join(COLUMNS)}")
    if len(kept) == 1:
        raise InputError(f"{path} has no goals below its first line: write a line for each")
    return [_goal(path, number, line, header, separator) for number, line in kept[1:]]


def _lines(path: Path) -> list[str]:
    try:
        raw = path.read_bytes()
        wide = raw[:2] in (b"\xff\xfe", b"\xfe\xff")  # as spreadsheets write "Unicode text"
        return raw.decode("utf-16" if wide else "utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a table of goals: give a CSV file in UTF-8") from error


def _goal(path: Path, number: int, line: str, header: list[str], separator: str) -> Goal:
    found = [cell.strip() for cell in next(csv.reader([line], delimiter=separator))]
    if len(found) < len(header) or any(found[len(header) :]):
        hint = ": write 45.5, not 45,5" if len(found) > len(header) and separator == "," else ""
        raise InputError(f"{path}, line {number}: has {len(found)} of {len(header)} columns{hint}")
    cells = dict(zip(header, found, strict=False))
    try:
        return goal_of(*(cells[column] for column in COLUMNS))
    except InputError as error:
        raise InputError(f"{path}, line {number}: {shortened(str(error))}") from error


def write_goals(goals: Iterable[Goal], path: Path | str) -> Path:
    """Write goals as `read_goals` reads them."""
    path = Path(path)
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        rows.writerows((goal.structure, goal.measure, goal.relation, f"{goal.limit:g}") for goal in goals)
    return path


def judged(goals: Iterable[Goal], dose: np.ndarray, structures: StructureSet) -> list[Judged]:
    """Each goal beside what the dose (Z, Y, X) in Gy has.

    Raises `InputError` where a goal counts in percent of a prescription, and its structure has none.

    Examples
    --------
    >>> from napari_mamba.radiotherapy.structures import Structure
    >>> cord = StructureSet((Structure("cord", np.ones((1, 2, 2), bool)),), np.eye(4))
    >>> judged([Goal("cord", "max", "<=", 45)], np.full((1, 2, 2), 40.0), cord)[0].met
    True
    """
    results = []
    for goal in goals:
        if goal.structure not in structures or structures[goal.structure].empty:
            results.append(Judged(goal, None, None))
            continue
        structure = structures[goal.structure]
        prescribed = structure.prescription or prescription_of(structure.name)
        value = measure(dose[structure.mask], goal.measure, structures.voxel, prescribed)
        results.append(Judged(goal, value, value <= goal.limit if goal.relation == "<=" else value >= goal.limit))
    return results


def usual(structures: StructureSet) -> list[Goal]:
    """The goals of the OpenKBP plans for the structures that are there, to begin with and to edit.

    Source: Babier et al., OpenKBP (Medical Physics 48:5549, 2021), the clinical criteria of its plans: they are of the
    head and neck, in one hospital. Of a target D99 is at least 95% of its prescription.

    Examples
    --------
    >>> from napari_mamba.radiotherapy.structures import Structure
    >>> both = (Structure("PTV70", np.ones((1, 1, 1), bool)), Structure("Spinal_Cord", np.ones((1, 1, 1), bool)))
    >>> [str(goal) for goal in usual(StructureSet(both, np.eye(4)))]
    ['PTV70 D99 >= 66.5 Gy', 'Spinal_Cord D0.1cc <= 45 Gy']
    """
    found = []
    for structure in structures:
        prescribed = structure.prescription or prescription_of(structure.name)
        if structure.target and prescribed:
            found.append(Goal(structure.name, "D99", ">=", round(COVERED * prescribed, 2)))
        found += [Goal(structure.name, what, "<=", gy) for names, what, gy in _USUAL if plain(structure.name) in names]
    return found
