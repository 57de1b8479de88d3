"""What an RTSTRUCT says of each structure, from files as planning systems write them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_mamba.io.common.geometry import LPS_TO_RAS

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "")
"""Kinds of contours that enclose a region; a file that tells none means these."""
_EXCLUSIVE = "CLOSEDPLANAR_XOR"
_OPEN = "OPEN_PLANAR"
_ENDS_MEET = 0.01
"""mm between the ends of a line that is closed, whatever it is called."""


@dataclass(frozen=True, eq=False)
class Region:
    """A structure as it was drawn.

    Attributes
    ----------
    name : str
        Its own in the file: where two have one name, numbers tell them apart.
    kind : str
        DICOM's RTROIInterpretedType; empty where nobody said.
    color : str
        "#rrggbb", or empty.
    frame : str
        Frame of reference UID; empty where the file does not tell.
    contours : tuple of (N, 3) array
        Those that enclose something, corners in RAS millimetres.
    exclusive : bool
        Its contours are combined by exclusive or, as the file says.
    open, damaged : int
        Points and lines that enclose nothing; contours whose coordinates cannot be read.
    code : str
        SNOMED CT, where the file tells it.
    """

    name: str
    kind: str = ""
    color: str = ""
    frame: str = ""
    contours: tuple[np.ndarray, ...] = field(default=())
    exclusive: bool = False
    open: int = 0
    damaged: int = 0
    code: str = ""


def regions_of(dataset: Any) -> list[Region]:
    """The structures of an RTSTRUCT in the file's order, those that nobody drew included."""
    rois = {int(roi.ROINumber): roi for roi in dataset.get("StructureSetROISequence", None) or []}
    told = {int(o.ReferencedROINumber): o for o in dataset.get("RTROIObservationsSequence", None) or []}
    drawn: dict[int, list[Any]] = {}  # some programs write an item for each contour
    for item in dataset.get("ROIContourSequence", None) or []:
        drawn.setdefault(int(item.ReferencedROINumber), []).append(item)
    names = distinct({number: _text(roi, "ROIName") or f"structure {number}" for number, roi in rois.items()})
    usual = _usual_frame(dataset)
    return [
        _region(names[number], told.get(number, {}), _text(roi, "ReferencedFrameOfReferenceUID") or usual, items)
        for number, roi in rois.items()
        for items in [drawn.get(number, [])]
    ]


def frames_of(dataset: Any, regions: Sequence[Region] | None = None) -> tuple[str, ...]:
    """The frames of reference in which something is drawn, the most used one first; those of the file where none is.

    `regions` are the file's, where they are at hand.
    """
    counts: Counter[str] = Counter()
    for region in regions_of(dataset) if regions is None else regions:
        counts[region.frame] += len(region.contours)
    del counts[""]
    used = [frame for frame, count in counts.most_common() if count] or list(counts)
    return tuple(used) or tuple(filter(None, [_usual_frame(dataset)]))


def contradicts(dataset: Any, frames: Iterable[str]) -> bool:
    """Whether a file's structures lie in frames of reference that its list of those does not have."""
    listed = set(_listed_frames(dataset))
    return bool(listed) and not listed.issuperset(frames)


def distinct(names: Mapping[int, str]) -> dict[int, str]:
    """Names by number; those that occur twice get it.

    >>> distinct({1: "eye", 2: "eye", 3: "eye 2"})
    {1: 'eye 1', 2: 'eye 2 (2)', 3: 'eye 2'}
    """
    counts = Counter(names.values())
    taken = {name for name, count in counts.items() if count == 1}
    found = {}
    for number, name in names.items():
        if counts[name] > 1:
            name = f"{name} {number}"
            while name in taken:
                name = f"{name} ({number})"
            taken.add(name)
        found[number] = name
    return found


def _region(name: str, observed: Any, frame: str, items: Sequence[Any]) -> Region:
    contours, exclusive, open_, damaged = [], False, 0, 0
    for geometry, values in _drawn(items):
        points = _points(values)
        if points is None:
            damaged += 1
        elif _encloses(geometry, points):
            contours.append(points * np.diag(LPS_TO_RAS)[:3])
            exclusive = exclusive or geometry == _EXCLUSIVE
        else:
            open_ += 1
    color = next(filter(None, map(_color, items)), "")
    kind, code = _text(observed, "RTROIInterpretedType"), _code(observed)
    return Region(name, kind, color, frame, tuple(contours), exclusive, open_, damaged, code)


def _code(observed: Any) -> str:
    """The SNOMED CT code that a file gives a structure; empty where it gives none, or one of another scheme."""
    codes = observed.get("RTROIIdentificationCodeSequence", None) or []
    return next((_text(one, "CodeValue") for one in codes if _text(one, "CodingSchemeDesignator") == "SCT"), "")


def _drawn(items: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """The kind and the coordinates of each contour."""
    for item in items:
        for contour in item.get("ContourSequence", None) or []:
            yield _text(contour, "ContourGeometricType").upper().replace(" ", "_"), contour.get("ContourData", None)


def _points(values: Any) -> np.ndarray | None:
    """Corners (N, 3) in LPS millimetres; None where the numbers are none, or no triples."""
    if values is None or isinstance(values, str) or not np.size(values):
        return None
    try:
        points = np.array(values, float).reshape(-1)
    except (TypeError, ValueError):
        return None
    return points.reshape(-1, 3) if points.size % 3 == 0 and np.isfinite(points).all() else None


def _encloses(geometry: str, points: np.ndarray) -> bool:
    if len(points) < 3:
        return False
    closes = len(points) > 3 and bool(np.abs(points[0] - points[-1]).max() <= _ENDS_MEET)
    return geometry in _CLOSED or (geometry == _OPEN and closes)


def _usual_frame(dataset: Any) -> str:
    """The frame of reference of structures that tell none: the one that the file lists, or its own."""
    listed = _listed_frames(dataset)
    return listed[0] if len(listed) == 1 else _text(dataset, "FrameOfReferenceUID")


def _listed_frames(dataset: Any) -> list[str]:
    frames = dataset.get("ReferencedFrameOfReferenceSequence", None) or []
    return [frame for frame in (_text(item, "FrameOfReferenceUID") for item in frames) if frame]


def _text(item: Any, key: str) -> str:
    return str(item.get(key, "") or "").strip(" \0")


def _color(drawn: Any) -> str:
    values = drawn.get("ROIDisplayColor")
    if values is None or isinstance(values, str) or np.size(values) != 3:
        return ""
    return "#" + "".join(f"{min(max(int(float(v)), 0), 255):02x}" for v in values)
