"""DICOM cine series as scanners write them: slices and phases in whatever order and in however many series.

Slices are told apart by their place along the normal of the image plane, phases by their trigger time (DICOM PS3.3,
C.8.3.1: milliseconds after the R wave); of enhanced files, each frame by its functional groups (C.7.6.16). Pixels are
read by pydicom.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.heart.cine import Cine
from napari_mamba.io.common.geometry import LPS_TO_RAS, from_xyz_ras

SAME_PLACE = 0.05
"""Millimetres within which two images show the same slice."""
SAME_STEP = 0.05
"""Share of the slice distance by which distances may differ."""
PARALLEL = 1e-3
"""Difference of direction cosines of images in one stack."""


@dataclass(frozen=True, eq=False)
class _Image:
    """What the sorting needs of the header of one image: a file's, or one frame's of an enhanced file."""

    path: Path
    orientation: np.ndarray  # (6,) direction cosines along a row, then down a column
    position: np.ndarray  # (3,) LPS mm
    spacing: tuple[float, float]  # between rows, between columns
    size: tuple[int, int]
    time: float | None
    number: int
    description: str
    frame: int | None = None
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def place(self) -> float:
        return float(self.normal @ self.position)


def read_cine(place: Path | str | Sequence[Path | str]) -> Cine:
    """Read a short-axis cine from a folder (at any depth) or from files.

    Of images in several orientations those of the largest stack are taken, so that long-axis views beside it do no
    harm.

    Raises
    ------
    InputError
        If there is no cine, or a slice or a phase is missing; one sentence says which.
    """
    images = [image for file in _files(place) for image in _headers(file)]
    if not images:
        raise InputError(f"{_told(place)} holds no DICOM images with a place in the body: choose the cine's folder")
    return _assembled(_stack(_largest(images)))


def _files(place: Path | str | Sequence[Path | str]) -> Iterable[Path]:
    if not isinstance(place, str | Path):
        return [Path(one) for one in place]
    path = Path(place)
    if not path.exists():
        raise InputError(f"{path} does not exist: check the path")
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _told(place: Path | str | Sequence[Path | str]) -> str:
    return str(place) if isinstance(place, str | Path) else f"the choice of {len(place)} files"


def _headers(path: Path) -> list[_Image]:
    """The images with geometry that a file holds; none of any other file."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        frames = header.get("PerFrameFunctionalGroupsSequence")
        if not frames:
            return [_image(path, header, (header,))]
        shared = header.get("SharedFunctionalGroupsSequence") or [header]
        return [_image(path, header, _macros((group, shared[0])), index) for index, group in enumerate(frames)]
    except (InvalidDicomError, AttributeError, TypeError, ValueError, OSError):
        return []


_MACROS = (
    "PlaneOrientationSequence",
    "PlanePositionSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "CardiacSynchronizationSequence",
    "FrameContentSequence",
)


def _macros(groups: Sequence[Any]) -> list[Any]:
    """The items of a frame's functional groups, its own before those that all frames share."""
    return [group.get(name)[0] for name in _MACROS for group in groups if group.get(name)]


def _image(path: Path, header: Any, groups: Sequence[Any], frame: int | None = None) -> _Image:
    """An image by the first of `groups` that has each attribute; raises what a wrong or missing one raises."""

    def value(name: str) -> Any:
        return next((group.get(name) for group in groups if group.get(name) not in (None, "")), None)

    orientation = np.array([float(v) for v in value("ImageOrientationPatient")])
    position = np.array([float(v) for v in value("ImagePositionPatient")])
    rows, columns = (float(v) for v in value("PixelSpacing"))
    if orientation.shape != (6,) or position.shape != (3,) or not min(rows, columns) > 0:
        raise ValueError("no place in the body")
    time = value("TriggerTime" if frame is None else "NominalCardiacTriggerDelayTime")
    number = value("InstanceNumber" if frame is None else "TemporalPositionIndex")
    slope, intercept = value("RescaleSlope"), value("RescaleIntercept")
    return _Image(
        path,
        orientation,
        position,
        (rows, columns),
        (int(header.Rows), int(header.Columns)),
        None if time is None else float(time),
        (frame or 0) if number is None else int(number),
        str(header.get("SeriesDescription", "")),
        frame,
        float(slope or 1),
        float(intercept or 0),
    )


def _largest(images: list[_Image]) -> list[_Image]:
    """The most images that are parallel and of one size."""
    groups: list[list[_Image]] = []
    for image in images:
        for group in groups:
            first = group[0]
            if image.size == first.size and np.abs(image.orientation - first.orientation).max() < PARALLEL:
                group.append(image)
                break
        else:
            groups.append([image])
    return max(groups, key=len)


def _stack(images: list[_Image]) -> list[list[_Image]]:
    """Slices along the normal, each with its phases in order."""
    slices: dict[int, list[_Image]] = defaultdict(list)
    places: list[float] = []
    for image in sorted(images, key=lambda one: one.place):
        if not places or image.place - places[-1] > SAME_PLACE:
            places.append(image.place)
        slices[len(places) - 1].append(image)
    stack = [_in_time(slices[z]) for z in range(len(places))]
    counts = [len(phases) for phases in stack]
    usual = max(set(counts), key=counts.count)
    odd = [z for z, count in enumerate(counts) if count != usual]
    if odd:
        raise InputError(
            f"slice {odd[0] + 1} of {len(stack)} has {counts[odd[0]]} phases and the others {usual}: "
            "images are missing, or of two scans; choose the files of one complete cine"
        )
    if usual < 2:
        raise InputError(f"each of these {len(stack)} slices has one phase: a cine has several, choose its folder")
    steps = np.diff(places)
    if len(steps) > 1 and steps.max() > (1 + SAME_STEP) * np.median(steps):
        gap = int(steps.argmax())
        raise InputError(
            f"between slices {gap + 1} and {gap + 2} lie {steps[gap]:.1f} mm and elsewhere {np.median(steps):.1f} mm: "
            "a slice is missing"
        )
    return stack


def _in_time(images: list[_Image]) -> list[_Image]:
    """The phases of one slice by their trigger times; by their numbers where times are missing or all the same."""
    times = [image.time for image in images]
    known = all(time is not None for time in times)
    if known and len(set(times)) == len(times):
        return sorted(images, key=lambda image: (image.time or 0.0, image.number))
    if known and len(set(times)) > 1:
        raise InputError(
            "two images of one slice have the same trigger time: the files hold two scans, choose those of one"
        )
    return sorted(images, key=lambda image: image.number)


def _assembled(stack: list[list[_Image]]) -> Cine:
    first = stack[0][0]
    read = _Reader()
    data = np.stack([np.stack([read(image) for image in phases]) for phases in stack], axis=1)
    distance = (stack[-1][0].place - first.place) / (len(stack) - 1) if len(stack) > 1 else 1.0
    matrix = np.eye(4)
    matrix[:3, 0] = first.orientation[:3] * first.spacing[1]
    matrix[:3, 1] = first.orientation[3:] * first.spacing[0]
    across = (stack[-1][0].position - first.position) / (len(stack) - 1) if len(stack) > 1 else first.normal * distance
    matrix[:3, 2] = across
    matrix[:3, 3] = first.position
    times = np.array([[image.time for image in phases] for phases in stack], dtype=object).T
    trigger = None if (times == None).any() else times.astype(float)  # noqa: E711  # elementwise
    if trigger is not None and not (np.diff(trigger.mean(axis=1)) > 0).all():
        trigger = None  # all the same, as of files that only fill the field
    mean = None if trigger is None else trigger.mean(axis=1)
    return Cine(data, from_xyz_ras(LPS_TO_RAS @ matrix), mean, trigger, first.description)


class _Reader:
    """Reads pixels (Y, X) float32 in the scanner's units; of a file of many frames once for all of them."""

    def __init__(self) -> None:
        self._frames: dict[Path, np.ndarray] = {}

    def __call__(self, image: _Image) -> np.ndarray:
        stored = self._frames[image.path] if image.path in self._frames else _stored(image.path)
        if image.frame is not None:
            self._frames[image.path] = stored
            stored = stored if stored.ndim == 2 else stored[image.frame]
        if stored.ndim != 2:
            raise InputError(f"{image.path.name} holds more than one grey image: this is no cine of single images")
        return (stored * image.slope + image.intercept).astype(np.float32)


def _stored(path: Path) -> np.ndarray:
    import pydicom

    try:
        return pydicom.dcmread(path).pixel_array
    except Exception as error:  # pydicom raises whatever its decoders do
        raise InputError(f"the pixels of {path.name} cannot be read: the file is damaged, or packed oddly") from error
