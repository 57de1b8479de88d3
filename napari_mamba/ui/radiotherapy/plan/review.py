"""What is looked at in a plan, as plain data: doses, structures, isodoses, goals, and what was measured. No Qt."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from psygnal import SignalGroupDescriptor

from napari_mamba.errors import InputError
from napari_mamba.radiotherapy import comparison
from napari_mamba.radiotherapy.dvh import report
from napari_mamba.radiotherapy.dvh.goals import Goal, Judged, usual
from napari_mamba.radiotherapy.dvh.histogram import COLUMNS, Curve
from napari_mamba.radiotherapy.dvh.review import Reviewed, review
from napari_mamba.radiotherapy.isodose import COLORS, DEFAULT, Level, level
from napari_mamba.radiotherapy.structures import StructureSet, is_outline, prescriptions
from napari_mamba.ui.radiotherapy.layers import check_frames, dose_of, structures_of
from napari_mamba.volume import Volume

ISODOSES = tuple(zip((part.strip() for part in DEFAULT.split(",")), COLORS, strict=True))
LETTERS = "AB"


@dataclass(frozen=True, eq=False)
class Measurement:
    """What `PlanReview.measure` found."""

    structures: StructureSet
    reviewed: Reviewed


@dataclass(frozen=True)
class Row:
    """A line of the table: a structure under one dose. `letter` says which, where there are two."""

    structure: str
    letter: str
    color: str
    values: tuple[float, ...]
    shown: bool


@dataclass(frozen=True, eq=False)
class Line:
    """A curve to draw. `number` is that of its dose."""

    curve: Curve
    number: int
    color: str
    strong: bool


@dataclass
class PlanReview:
    """One dose, or two beside each other, in the structures of some labels layers.

    Parameters
    ----------
    dose, other : Image layer or None
        Gy, or what their layers' unit says.
    layers : tuple of Labels layers
        Whose structures are looked at.
    prescription : float
        Gy that are 100%; 0 where there is none.
    isodoses : tuple of (str, str)
        Levels ("95%", "20 Gy") and their colours.
    goals : tuple of Goal
    hidden : frozenset of str
        Structures whose curves are not drawn.
    selected : str
        The structure that stands out.
    measured : Measurement or None
    """

    dose: Any = None
    other: Any = None
    layers: tuple[Any, ...] = ()
    prescription: float = 0.0
    isodoses: tuple[tuple[str, str], ...] = ISODOSES
    goals: tuple[Goal, ...] = ()
    hidden: frozenset[str] = frozenset()
    selected: str = ""
    measured: Measurement | None = field(default=None, compare=False)
    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    # ---- measuring

    @property
    def doses(self) -> list[Any]:
        """The layers of the doses, in their order."""
        return [layer for layer in (self.dose, self.other) if layer is not None]

    @property
    def problem(self) -> str:
        """What is to be chosen before anything can be measured; empty where that is done."""
        if self.dose is None:
            return "Open a dose (RTDOSE, or an image in Gy), or predict one, and choose it here."
        if self.dose is self.other:
            return "A and B are the same dose: choose another for B, or none."
        if not self.layers:
            return "Open an RTSTRUCT, or draw labels, and tick their layer."
        return ""

    def measure(self) -> Measurement:
        """Histograms, table and goals; takes a moment, and may run in a thread.

        Raises
        ------
        InputError
            If something is not chosen, is no dose, or lies in another frame of reference.
        """
        if self.problem:
            raise InputError(self.problem)
        check_frames([*self.doses, *self.layers])
        structures = structures_of(self.layers)
        doses = {layer.name: dose_of(layer) for layer in self.doses}
        return Measurement(structures, review(doses, structures, self.goals))

    def take(self, measured: Measurement) -> None:
        """Show what was measured; the first structures bring the prescription and the goals with them."""
        if not self.prescription:
            self.prescription = highest_prescription(measured.structures)
        self.measured = measured

    def suggest_goals(self) -> tuple[Goal, ...]:
        """The usual goals for the structures that are chosen."""
        structures = self.measured.structures if self.measured else structures_of(self.layers)
        return tuple(usual(structures))

    # ---- what is shown

    @property
    def levels(self) -> list[Level]:
        """The isodoses, hottest first; raises `InputError` as `isodose.level` does."""
        found = [level(text, color, self.prescription or None) for text, color in self.isodoses]
        return sorted(found, key=lambda one: -one.dose)

    def rows(self) -> list[Row]:
        """The table: of each structure a line a dose."""
        if self.measured is None:
            return []
        colors, found = self.colors, []
        for name in colors:
            own = [row for row in self.measured.reviewed.rows if row["structure"] == name]
            for number, row in enumerate(own):
                letter = LETTERS[number] if len(own) > 1 else ""
                values = tuple(float(row[column]) for column in (*COLUMNS, "volume"))
                found.append(Row(name, letter, colors[name], values, name not in self.hidden))
        return found

    def lines(self) -> list[Line]:
        """The curves of the structures that are not hidden."""
        if self.measured is None:
            return []
        colors = self.colors
        return [
            Line(curve, number, colors[curve.name], curve.name == self.selected)
            for number, curves in enumerate(self.measured.reviewed.curves.values())
            for curve in curves
            if curve.name not in self.hidden
        ]

    @property
    def colors(self) -> dict[str, str]:
        """Of each structure, its own or one of a list; targets come first, the highest prescription before others."""
        if self.measured is None:
            return {}
        known = list(enumerate(self.measured.structures))
        known.sort(key=lambda one: (not one[1].target, is_outline(one[1]), -(one[1].prescription or 0.0), one[0]))
        return {s.name: s.color or report.COLORS[n % len(report.COLORS)] for n, s in known}

    def judged(self) -> list[list[Judged]]:
        """A list a goal: how each dose stands; empty before measuring."""
        if self.measured is None:
            return []
        return [list(one) for one in zip(*self.measured.reviewed.goals.values(), strict=True)]

    def center(self, name: str) -> np.ndarray | None:
        """The middle of a structure in RAS millimetres; None where it is empty."""
        if self.measured is None or name not in self.measured.structures or self.measured.structures[name].empty:
            return None
        places = np.argwhere(self.measured.structures[name].mask)
        middle = places[np.abs(places - places.mean(0)).sum(1).argmin()]
        return (self.measured.structures.affine @ [*middle, 1])[:3]

    # ---- two doses

    def difference(self) -> Volume:
        """A minus B in Gy, on B's grid; raises `InputError` where there are not two doses of one place."""
        dose, other = self._both()
        return comparison.difference(dose, other)

    def gamma(self, percent: float, distance: float) -> comparison.Gamma:
        """The gamma index of A, B being the reference; see `comparison.gamma`."""
        dose, other = self._both()
        return comparison.gamma(dose, other, percent=percent, distance=distance)

    def _both(self) -> tuple[Volume, Volume]:
        if self.other is None or self.dose is None or self.dose is self.other:
            raise InputError("a comparison needs two doses: choose one for A and another for B")
        check_frames([self.dose, self.other])
        doses = dose_of(self.dose), dose_of(self.other)
        for one in doses:
            comparison.check_dose(one)
        return doses

    # ---- files

    def write_tables(self, path: Path | str) -> list[Path]:
        """The table as CSV, and beside it the curves of each dose; returns what was written."""
        assert self.measured is not None
        path = Path(path) if Path(path).suffix else Path(path).with_suffix(".csv")
        written = [path]
        path.write_text(report.table_csv(self.measured.reviewed.rows), encoding="utf-8")
        for number, curves in enumerate(self.measured.reviewed.curves.values()):
            other = path.with_name(f"{path.stem}_curves_{LETTERS[number]}.csv")
            other.write_text(report.curves_csv(curves), encoding="utf-8")
            written.append(other)
        return written

    def write_picture(self, path: Path | str) -> Path:
        """The histograms of what is not hidden, as PNG."""
        assert self.measured is not None
        path = Path(path) if Path(path).suffix else Path(path).with_suffix(".png")
        shown = {
            name: [curve for curve in curves if curve.name not in self.hidden]
            for name, curves in self.measured.reviewed.curves.items()
        }
        return report.draw(shown, path)


def highest_prescription(structures: StructureSet) -> float:
    """Gy of the target with the most; 0 where no target says it."""
    try:
        return max(prescriptions(structures).values())
    except InputError:
        found = [s.prescription for s in structures.targets if s.prescription]
        return max(found, default=0.0)
