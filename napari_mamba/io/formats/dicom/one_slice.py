"""One slice as its header describes it, and its tags as numbers that can be relied on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import InputError


class NotDicomError(Exception):
    """A file is no DICOM, and so none of this room's business."""


@dataclass(frozen=True)
class Slice:
    """One slice of a series, as its header describes it."""

    path: Path
    series: str
    label: str  # of the series, for people
    number: str
    size: tuple[int, int]  # (rows, columns)
    spacing: Any  # (between rows, between columns), mm, or None
    thickness: float | None  # distance between slices where no second slice tells it
    slab: float | None  # how thick the slice itself is, mm
    orientation: Any  # ndarray (2, 3): direction along a row, down a column; or None
    position: Any  # ndarray (3,): centre of the first voxel, LPS mm; or None
    frames: int  # in the file
    colour: bool
    frame: int = 0  # which of them
    corner: tuple[int, int] | None = None  # (row, column) of a mosaic's tile
    instance: str = ""
    acquisition: str = ""  # "2D" or "3D"
    slope: float = 1.0
    intercept: float = 0.0
    moment: tuple = ()  # what tells slices at one place apart: time, echo, diffusion weight, in this order
    modality: str = ""
    description: str = ""
    patient: str = ""
    study: str = ""
    bits: int = 16
    is_segmentation: bool = False
    announced: int = 0  # how many slices the file says that there are; 0 where it does not say
    assumed: str = ""  # what had to be assumed about its place, a sentence


def rescale(path: Path, tags: Any, slope: float = 1.0, intercept: float = 0.0) -> tuple[float, float]:
    """Slope and intercept of a file or a frame; `InputError` where they are no numbers of a scanner."""
    given = [tags.get("RescaleSlope"), tags.get("RescaleIntercept")]
    if given[0] is None:
        given[0] = tags.get("DoseGridScaling")
    found = [default if one is None else float(one) for one, default in zip(given, (slope, intercept), strict=True)]
    if not all(abs(one) < 1e30 for one in found):
        raise InputError(f"{path} rescales its values by {found[0]:g} and {found[1]:g}: export it anew")
    return found[0], found[1]


def thickness(tags: Any) -> float | None:
    value = tags.get("SpacingBetweenSlices") or tags.get("SliceThickness")
    return abs(float(value)) if value else None


def slab(tags: Any) -> float | None:
    value = tags.get("SliceThickness")
    return abs(float(value)) if value else None


def sortable(value: Any) -> float | None:
    try:
        return None if value is None or value == "" else float(value)
    except (TypeError, ValueError):
        return None


def numbers(tags: Any, name: str, count: int) -> np.ndarray | None:
    value = tags.get(name)
    if value is None or not hasattr(value, "__len__") or len(value) != count:
        return None
    found = np.array([float(number) for number in value])
    return found if np.isfinite(found).all() and np.abs(found).max() < 1e7 else None
