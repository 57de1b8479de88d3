"""What `dvh` does: read, measure, compare, print, write."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mamba.cli.reporting.failures import quiet_libraries
from napari_mamba.cli.runs.outputs import check_place, write_text
from napari_mamba.errors import InputError

if TYPE_CHECKING:
    from napari_mamba.radiotherapy.dvh.goals import Judged
    from napari_mamba.volume import Volume


@dataclass(frozen=True)
class Report:
    """Where each thing goes; None: not asked for."""

    table: Path | None = None
    curves: Path | None = None
    picture: Path | None = None
    difference: Path | None = None

    def check(self, *, overwrite: bool, compared: bool) -> None:
        """Raise what would otherwise be found out at the end."""
        for path in filter(None, vars(self).values()):
            check_place(path, overwrite=overwrite)
        if self.difference and not compared:
            raise InputError("--difference needs a second dose: name it with --against")


def criteria_of(text: str) -> tuple[float, float]:
    """Percent and millimetres of "3,3"; raises `InputError`."""
    try:
        percent, distance = (float(part) for part in text.replace("%", "").replace("mm", "").split(","))
    except ValueError:
        raise InputError(f"{text!r} is no pair of percent and mm: write 3,3") from None
    if not (percent > 0 and distance > 0):
        raise InputError("percent and mm of the gamma index are above zero")
    return percent, distance


def show(
    dose_path: Path,
    structures_paths: Sequence[Path],
    against: Path | None,
    outputs: Report,
    *,
    overwrite: bool,
    image: Path | None,
    goals: Path | None,
    names: str,
    unit: str,
    criteria: str,
) -> None:
    """Print the table, the goals and the comparison, and write what was asked for."""
    outputs.check(overwrite=overwrite, compared=against is not None)
    percent, distance = criteria_of(criteria)
    with quiet_libraries():
        from napari_mamba import io
        from napari_mamba.radiotherapy import comparison, sources
        from napari_mamba.radiotherapy.dicom.grids import frame_at
        from napari_mamba.radiotherapy.dvh import report
        from napari_mamba.radiotherapy.dvh.goals import read_goals
        from napari_mamba.radiotherapy.dvh.review import review

        wanted = read_goals(goals) if goals else []
        ct, reference = sources.planning_ct(image, structures_paths) if image else (None, None)
        frame = (reference.frame if reference else "") or frame_at(dose_path)
        dose, told = sources.told_dose(dose_path, unit=unit, frame=frame)
        structures = sources.structures_of(
            structures_paths, ct or dose, names=sources.names_of(names), frame=frame, reference=reference
        )
        doses = {dose_path.name: dose}
        other = None
        if against:
            other, more = sources.told_dose(against, unit=unit, frame=frame)
            doses[_apart(against, dose_path)], told = other, (*told, *more)
        found = review(doses, structures, wanted)
        for note in dict.fromkeys((*told, *found.notes)):
            print(f"note: {note}", file=sys.stderr)
        rows = found.rows if other else [{k: v for k, v in row.items() if k != "dose"} for row in found.rows]
        print_table(rows)
        print_goals(found.goals)
        if other is not None:
            _compare(dose, other, percent, distance)
        if outputs.table:
            write_text(outputs.table, report.table_csv(rows))
        if outputs.curves:
            write_text(outputs.curves, report.curves_csv(found.curves[dose_path.name]))
        if outputs.picture:
            report.draw(found.curves, outputs.picture)
        if outputs.difference and other is not None:
            io.write(comparison.difference(dose, other), outputs.difference)


def print_goals(goals: Mapping[str, Sequence[Judged]]) -> None:
    """A line for each goal and dose: green where it is met and red where not, on a screen that has colours."""
    import typer

    looks = {True: ("met", "green"), False: ("NOT MET", "red"), None: ("no such structure", None)}
    for name, judged in goals.items():
        for one in judged:
            state, color = looks[one.met]
            value = "" if one.value is None else f"{one.value:.4g} {one.goal.unit}"
            dose = f"  {name}" if len(goals) > 1 else ""
            typer.secho(f"{state:<18}{one.goal!s:<44}{value}{dose}", fg=color)


def _apart(against: Path, dose: Path) -> str:
    """The second dose's name, told from the first's."""
    return against.name if against.name != dose.name else f"{against.parent.name}/{against.name}"


def _compare(dose: Volume, other: Volume, percent: float, distance: float) -> None:
    from napari_mamba.radiotherapy import comparison

    try:
        agreed = comparison.gamma(dose, other, percent=percent, distance=distance)
    except InputError as error:  # the tables and the difference are worth having without it
        print(f"note: no gamma index is given: {error}", file=sys.stderr)
        return
    print(f"gamma {percent:g}%/{distance:g} mm: {agreed.pass_rate:.1f}% of the voxels above {agreed.cutoff:g}% pass")


def print_table(rows: list[dict[str, Any]]) -> None:
    """Rows of one kind as columns of text, a number's unit in its column's heading."""
    cells = [[_heading(column) for column in rows[0]], *([_short(value) for value in row.values()] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _heading(column: str) -> str:
    from napari_mamba.radiotherapy.dvh.measures import VOLUME, parsed

    if column in ("dose", "structure"):
        return column
    return f"{column}, {VOLUME if column == 'volume' else parsed(column).unit}"


def _short(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return "-" if value != value else f"{value:.2f}"
