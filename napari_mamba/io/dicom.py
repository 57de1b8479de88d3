"""DICOM series: the headers by pydicom, the voxels by SimpleITK (GDCM, which knows the compressed transfer syntaxes).

The geometry comes from ImagePositionPatient and ImageOrientationPatient alone (DICOM PS3.3, C.7.6.2), never from
SliceThickness, which is no distance between slices.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io._geometry import LPS_TO_RAS, without_orientation
from napari_mamba.io.itk import quiet, simpleitk
from napari_mamba.volume import Volume

_TAGS = [
    "SOPClassUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "Modality",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
]
_SUFFIXES = (".dcm", ".dicom", ".ima")
_MAX_FILES = 20_000
_SAME_DIRECTION = 1e-3  # of a direction cosine: half a millimetre over 500
_SAME_STEP = 0.02  # of the slice distance: positions are rounded to text in the files


@dataclass(frozen=True)
class Slice:
    """One file of a series, as its header describes it."""

    path: Path
    series: str
    label: str  # of the series, for people
    number: str
    size: tuple[int, int]  # (rows, columns)
    spacing: Any  # (between rows, between columns), mm, or None
    thickness: float | None  # distance between slices where no second slice tells it
    orientation: Any  # ndarray (2, 3): direction along a row, down a column; or None
    position: Any  # ndarray (3,): centre of the first voxel, LPS mm; or None
    frames: int
    colour: bool


def is_dicom(path: Path) -> bool:
    """Whether the file has DICOM's preamble ("DICM" after 128 bytes)."""
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def is_folder(path: Path) -> bool:
    """Whether a DICOM file is among the first files in the folder or, if it holds only folders, below it."""
    for count, file in enumerate(_files(path)):
        if file.suffix.lower() in _SUFFIXES or is_dicom(file):
            return True
        if count > 50:
            return False
    return False


def read(path: Path, series: str | int | None = None) -> Volume:
    """Read the DICOM series in a folder, or the series that a file belongs to.

    Parameters
    ----------
    path : Path
        A folder (if it holds no files, those below it are searched), or one file: its series in its folder.
    series : str or int, optional
        SeriesInstanceUID or series number, where a folder holds several.

    Returns
    -------
    Volume
        One channel; values rescaled by RescaleSlope and RescaleIntercept (CT: Hounsfield units). The affine passes
        through the first and last slice's ImagePositionPatient, so a tilted gantry is kept as a shear.

    Raises
    ------
    InputError
        If there are several series and none is chosen, slices are missing, doubled, unevenly spaced or of different
        orientation (a localizer), or the files are colour or multi-frame images.

    Examples
    --------
    >>> read(Path("study/ct"), series=2).shape  # doctest: +SKIP
    (24, 512, 512)
    """
    if path.is_dir():
        return _read(_choose(_headers(_files(path), path), series, path), path)
    own = _header(path, force=True)
    if own is None:
        raise InputError(f"{path} is no DICOM image: check where it came from")
    if series is not None and str(series) not in (own.series, own.number):
        raise InputError(f"{path} belongs to the series {own.number}, not to {series}: leave series out")
    siblings = [entry for entry in _headers(_files(path.parent), path.parent) if entry.series == own.series]
    return _read(siblings, path)


def read_files(paths: Sequence[Path], series: str | int | None = None) -> Volume:
    """Read exactly these files as one series."""
    return _read(_choose(_headers(paths, paths[0].parent), series, paths[0].parent), paths[0].parent)


def _files(folder: Path) -> Iterable[Path]:
    """The files in `folder`; where it holds only folders, those at any depth."""
    direct = sorted(item for item in folder.iterdir() if item.is_file() and not item.name.startswith("."))
    if direct:
        return direct
    return (item for item in folder.rglob("*") if item.is_file() and not item.name.startswith("."))


def _headers(files: Iterable[Path], folder: Path) -> list[Slice]:
    slices = []
    for count, file in enumerate(files):
        if count == _MAX_FILES:
            raise InputError(f"{folder} holds more than {_MAX_FILES} files: name the folder of one series")
        entry = _header(file, force=file.suffix.lower() in _SUFFIXES)
        if entry is not None:
            slices.append(entry)
    if not slices:
        raise InputError(f"{folder} holds no DICOM image: name the folder of one DICOM series")
    return slices


def _header(path: Path, force: bool) -> Slice | None:
    """The slice in a file, or None if it holds no DICOM image."""
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd values of tags are judged below
        try:
            if not force and not is_dicom(path):
                return None
            tags = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS, force=force)
            return None if "Rows" not in tags or "SeriesInstanceUID" not in tags else _slice(path, tags)
        except (pydicom.errors.InvalidDicomError, EOFError):
            return None


def _slice(path: Path, tags: Any) -> Slice:
    orientation = _numbers(tags, "ImageOrientationPatient", 6)
    position = _numbers(tags, "ImagePositionPatient", 3)
    spacing = _numbers(tags, "PixelSpacing", 2)
    if spacing is None and position is None:  # a projection: its detector's spacing is the best there is
        spacing = _numbers(tags, "ImagerPixelSpacing", 2)
    thickness = tags.get("SpacingBetweenSlices") or tags.get("SliceThickness")
    number = str(tags.get("SeriesNumber", "") or "")
    words = [number, tags.get("Modality", ""), tags.get("SeriesDescription", "")]
    return Slice(
        path=path,
        series=str(tags.SeriesInstanceUID),
        label=" ".join(str(word) for word in words if word),
        number=number,
        size=(int(tags.Rows), int(tags.Columns)),
        spacing=None if spacing is None else (spacing[0], spacing[1]),
        thickness=abs(float(thickness)) if thickness else None,
        orientation=None if orientation is None else orientation.reshape(2, 3),
        position=position,
        frames=int(tags.get("NumberOfFrames") or 1),
        colour=int(tags.get("SamplesPerPixel") or 1) > 1
        or str(tags.get("PhotometricInterpretation", "")).startswith("PALETTE"),
    )


def _numbers(tags: Any, name: str, count: int) -> np.ndarray | None:
    value = tags.get(name)
    if value is None or not hasattr(value, "__len__") or len(value) != count:
        return None
    return np.array([float(number) for number in value])


def _choose(slices: list[Slice], series: str | int | None, folder: Path) -> list[Slice]:
    """The slices of one series; `InputError` with the list of them if it is not clear which."""
    by_series: dict[str, list[Slice]] = defaultdict(list)
    for entry in slices:
        by_series[entry.series].append(entry)
    wanted = [
        members for uid, members in by_series.items() if series is None or str(series) in (uid, members[0].number)
    ]
    if len(wanted) == 1:
        return wanted[0]
    listing = "; ".join(
        f"{members[0].label or uid} ({len(members)} files, UID {uid})" for uid, members in sorted(by_series.items())
    )
    if not wanted:
        raise InputError(f"{folder} has no series {series}, choose one of: {listing}")
    raise InputError(f"{folder} holds {len(wanted)} DICOM series, choose one by series=number or UID: {listing}")


def _read(slices: list[Slice], source: Path) -> Volume:
    first = slices[0]
    _check_alike(slices, source)
    if len(slices) == 1 and (first.position is None or first.orientation is None):
        return Volume(
            _voxels(slices),
            without_orientation(np.array([1.0, *(first.spacing or (1.0, 1.0))])),
            units="mm" if first.spacing else "pixel",
            name=_file_name(first.label),
        )
    slices, step = _in_order(slices, source)
    matrix = np.eye(4)  # (z, y, x) index to LPS
    matrix[:3, 0] = step
    matrix[:3, 1] = slices[0].orientation[1] * slices[0].spacing[0]
    matrix[:3, 2] = slices[0].orientation[0] * slices[0].spacing[1]
    matrix[:3, 3] = slices[0].position
    return Volume(_voxels(slices), LPS_TO_RAS @ matrix, name=_file_name(first.label))


def _file_name(label: str) -> str:
    """The label without what a file name may not hold ("CH/AB/PEL")."""
    return re.sub(r"[^\w .()+-]+", "-", label).strip()


def _check_alike(slices: list[Slice], source: Path) -> None:
    """`InputError` unless the files are grey slices of one stack."""
    first = slices[0]
    for entry in slices:
        if entry.colour:
            raise InputError(f"{entry.path} is a colour DICOM image: convert it to grey first")
        if entry.frames > 1:
            raise InputError(f"{entry.path} is a multi-frame DICOM file: convert it to NIfTI first, with dcm2niix")
        if entry.size != first.size:
            raise InputError(
                f"{source} mixes slices of {first.size} and {entry.size} pixels: take out {entry.path.name}"
            )
        if len(slices) > 1 and (entry.position is None or entry.orientation is None or entry.spacing is None):
            raise InputError(
                f"{entry.path} lacks its position, orientation or pixel spacing: take it out of the folder"
            )
    if first.orientation is None or first.position is None:
        return
    if first.spacing is None:
        raise InputError(f"{first.path} gives no pixel spacing: convert it with a tool that lets you state it")
    for entry in slices:
        if np.abs(entry.orientation - first.orientation).max() > _SAME_DIRECTION:
            raise InputError(
                f"{source} mixes slices of different orientation, as a localizer does "
                f"({first.path.name}, {entry.path.name}): keep one orientation in the folder"
            )
        if not np.allclose(entry.spacing, first.spacing, rtol=1e-3):
            raise InputError(f"{source} mixes pixel spacings {first.spacing} and {entry.spacing} mm: split the series")


def _in_order(slices: list[Slice], source: Path) -> tuple[list[Slice], np.ndarray]:
    """The slices along their normal, and the step (3,) in LPS mm from one to the next."""
    normal = np.cross(*slices[0].orientation)
    if len(slices) == 1:
        return slices, normal * (slices[0].thickness or 1.0)
    order = sorted(slices, key=lambda entry: float(entry.position @ normal))
    places = np.array([entry.position @ normal for entry in order])
    gaps = np.diff(places)
    usual = float(np.median(gaps))
    doubled = int(np.argmin(gaps))
    if gaps[doubled] < max(1e-3, _SAME_STEP * usual):
        raise InputError(
            f"{source} holds slices at the same place ({order[doubled].path.name}, {order[doubled + 1].path.name}), "
            f"doubled or of several time points or echoes: keep one of each"
        )
    wide = int(np.argmax(gaps))
    if gaps[wide] > 1.5 * usual:
        raise InputError(
            f"{source} misses slices: {gaps[wide]:.2f} mm lie between {order[wide].path.name} and "
            f"{order[wide + 1].path.name}, elsewhere {usual:.2f} mm; fetch the whole series"
        )
    step = (order[-1].position - order[0].position) / (len(order) - 1)
    ideal = order[0].position + np.arange(len(order))[:, np.newaxis] * step
    off = np.linalg.norm([entry.position for entry in order] - ideal, axis=1)
    if off.max() > max(1e-2, _SAME_STEP * usual):
        raise InputError(
            f"{source} has unevenly spaced slices ({gaps.min():.3f} to {gaps.max():.3f} mm, "
            f"{order[int(off.argmax())].path.name} is {off.max():.3f} mm off): resample it to even spacing first"
        )
    return order, step


def _voxels(slices: list[Slice]) -> np.ndarray:
    """Values (1, Z, Y, X), rescaled; of the widest type among the slices, for each may have its own slope."""
    itk = simpleitk()
    planes = []
    for entry in slices:
        try:
            with quiet():
                plane = itk.GetArrayFromImage(itk.ReadImage(str(entry.path)))
        except RuntimeError as error:
            raise InputError(
                f"{entry.path} is truncated, damaged or compressed in an unknown way: copy it anew"
            ) from error
        planes.append(plane.reshape(entry.size))
    return np.stack(planes)[np.newaxis]
