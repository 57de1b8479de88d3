"""What the dialog offers of the doses in a place: each file, and the sum of those of a plan's parts. No Qt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_mamba.radiotherapy.dicom.beams import plans_in_parts

if TYPE_CHECKING:
    from napari_mamba.io import SeriesInfo


def with_sums(entries: Sequence[SeriesInfo]) -> list[SeriesInfo]:
    """The images of a place with a line for each dose, since a series may hold several, and before them their sums.

    A sum is a line of several paths; it is offered for doses of single beams or fraction groups of one plan that lie in
    one folder.
    """
    doses = [entry for entry in entries if entry.modality == "RTDOSE" and not entry.problem]
    if not doses:
        return list(entries)
    alone = {path: _alone(entry, path) for entry in doses for path in sorted(entry.paths)}
    folders = dict.fromkeys(path.parent for path in alone)
    sums = [
        _sum([alone[path] for path in parts])
        for folder in folders
        for parts in plans_in_parts(sorted(path for path in alone if path.parent == folder))
    ]
    place = next(number for number, entry in enumerate(entries) if entry in doses)
    others = [entry for entry in entries if entry not in doses]
    before = sum(entry not in doses for entry in entries[:place])
    return [*others[:before], *sums, *alone.values(), *others[before:]]


def whole_plan(entries: Sequence[SeriesInfo]) -> list[int]:
    """Which lines make up a plan, where there is but one: its CT, structures and, if there is one, dose; else none.

    Of several doses the first one is a sum (`with_sums`), or it is not clear which one is meant.
    """
    readable = [number for number, entry in enumerate(entries) if not entry.problem]
    ct, drawn, doses = (
        [number for number in readable if entries[number].modality == kind] for kind in ("CT", "RTSTRUCT", "RTDOSE")
    )
    if len(ct) != 1 or len(drawn) != 1:
        return []
    clear = len(doses) == 1 or (len(doses) > 1 and len(entries[doses[0]].paths) == len(doses) - 1)
    return [*ct, *doses[: int(clear)], *drawn]


def _alone(entry: SeriesInfo, path: Path) -> SeriesInfo:
    several = len(entry.paths) > 1
    title = f"{entry.title}: {path.name}" if several else entry.title
    return replace(entry, paths=(path,), title=title, frames=1, moments=())


def _sum(parts: Sequence[SeriesInfo]) -> SeriesInfo:
    paths = tuple(part.paths[0] for part in parts)
    return replace(parts[0], paths=paths, title=f"Dose of the plan: the sum of {len(parts)} doses", uid="", number="")
