"""The series among DICOM files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.errors import NapariMambaError, Option
from napari_mamba.io.common.guard import shortened
from napari_mamba.io.listing.series import SeriesInfo

if TYPE_CHECKING:
    from napari_mamba.io.formats.dicom.headers import Slice


def dicom_series(place: Path, files: Sequence[Path] | None = None) -> Iterator[SeriesInfo]:
    """The series of a folder at any depth, of those `files` alone, or the one that a file belongs to."""
    from napari_mamba.io.formats.dicom.files import found_beside, found_in

    if files is None and place.is_file() and place.name.upper() != "DICOMDIR":
        own, found = found_beside(place)
        series = {own.series: found.by_series()[own.series]}
    else:
        found = found_in(place if place.is_dir() else place.parent, files)
        series = found.by_series()
    entries = [_entry(members, found) for members in series.values()]
    yield from sorted(entries, key=lambda one: (one.patient, one.study, _number(one.number), one.uid))


def _number(text: str) -> tuple[int, str]:
    return (int(text), "") if text.isdigit() else (1 << 30, text)


def _entry(members: list[Slice], found: Any) -> SeriesInfo:
    from napari_mamba.io.formats.dicom import stack

    first = members[0]
    files = tuple(dict.fromkeys(entry.path for entry in members))
    known: dict[str, Any] = {
        "paths": files,
        "format": "dicom",
        "title": first.label or first.series,
        "uid": first.series,
        "number": first.number,
        "description": first.description,
        "modality": first.modality,
        "patient": first.patient,
        "study": first.study,
        "channels": 3 if first.colour else 1,
        "colour": first.colour,
        "labels": first.is_segmentation,
        "size_bytes": sum(file.stat().st_size for file in files),
    }
    try:
        found.check_whole(members)
        if first.is_segmentation:
            return SeriesInfo(**known, spacing=_spacing(first))
        moments, step = stack.arranged(members, first.path.parent)
    except NapariMambaError as error:
        return SeriesInfo(**known, problem=shortened(str(error)), _slices=tuple(members))
    names = stack.moment_names(moments) if len(moments) > 1 else []
    return SeriesInfo(
        **known,
        shape=(len(moments[0]), *first.size),
        spacing=_spacing(first, step),
        units="mm" if first.spacing else "pixel",
        frames=len(moments),
        moments=tuple(Option(index, name) for index, name in enumerate(names)),
        _slices=tuple(moments[0]),
    )


def _spacing(first: Slice, step: np.ndarray | None = None) -> tuple[float, float, float] | None:
    if not first.spacing:
        return None
    between = float(np.linalg.norm(step)) if step is not None else float(first.thickness or 1.0)
    return between, float(first.spacing[0]), float(first.spacing[1])
