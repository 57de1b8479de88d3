"""The grid that an RTSTRUCT's contours are filled on: its planning CT's where that is at hand, or one of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba import io
from napari_mamba.errors import InputError, NapariMambaError
from napari_mamba.radiotherapy.dicom.planes import normal_of, planes_of
from napari_mamba.radiotherapy.dicom.reference import Reference, read_dataset
from napari_mamba.radiotherapy.dicom.regions import frames_of, regions_of
from napari_mamba.volume import Volume

SIDE = 1.0
"""mm within a plane, of a grid that is made for contours."""
_MOST_VOXELS = 3e8
_MOST_FILES = 5000


@dataclass(frozen=True)
class Drawn:
    """What an RTSTRUCT was drawn on.

    Attributes
    ----------
    frames : tuple of str
        UIDs of its frames of reference, the most used one first; empty where not told.
    series : tuple of str
        UIDs of the image series, those of the first frame first.
    """

    frames: tuple[str, ...] = ()
    series: tuple[str, ...] = ()


def drawn_on(path: Path | str) -> Drawn:
    """What an RTSTRUCT was drawn on; raises `InputError` where the file is none."""
    dataset = read_dataset(path, "RTSTRUCT")
    frames = frames_of(dataset)
    series = [(frame != next(iter(frames), frame), uid) for frame, uid, _ in _series(dataset)]
    return Drawn(frames, tuple(uid for _, uid in sorted(series, key=lambda one: one[0]) if uid))


def _series(dataset: Any) -> Iterator[tuple[str, str, Any]]:
    """The frame of reference, the UID and the slices of each image series that an RTSTRUCT names."""
    for frame in dataset.get("ReferencedFrameOfReferenceSequence", None) or []:
        for study in frame.get("RTReferencedStudySequence", None) or []:
            for series in study.get("RTReferencedSeriesSequence", None) or []:
                images = series.get("ContourImageSequence", None) or []
                yield str(frame.get("FrameOfReferenceUID", "") or ""), str(series.get("SeriesInstanceUID", "")), images


def check_slices(path: Path | str, reference: Reference) -> None:
    """Raise `InputError` where an RTSTRUCT was drawn on slices of a series that are not there: it is half a series."""
    there = {one.uid for one in reference.slices}
    drawn = {
        str(image.get("ReferencedSOPInstanceUID", ""))
        for _, uid, images in _series(read_dataset(path, "RTSTRUCT"))
        if uid == reference.series
        for image in images
    }
    if missing := drawn - there:
        raise InputError(
            f"{path} was drawn on {len(drawn)} slices of this CT, and {len(missing)} of them are missing: copy the "
            "whole series"
        )


def frame_at(path: Path | str) -> str:
    """The frame of reference UID of a DICOM file, or of the first one in a folder; empty for all else."""
    from napari_mamba.io.formats import dicom

    path = Path(path)
    if path.is_dir():
        files: Iterator[Path] = (file for file in sorted(path.iterdir()) if file.is_file())
    else:
        files = iter([path])
    for file in files:
        try:
            if dicom.is_dicom(file):
                return _tag(file, "FrameOfReferenceUID")
        except (OSError, NapariMambaError):
            return ""
    return ""


def planning_image(path: Path | str) -> Volume | None:
    """The image series that an RTSTRUCT was drawn on, if its files lie beside it, below or in a folder beside it."""
    path = Path(path)
    named = drawn_on(path).series
    if not named:
        return None
    folders = [path.parent, *_folders(path.parent), *_folders(path.parent.parent)]
    found: dict[str, Path] = {}
    for folder in dict.fromkeys(folders):
        for file in _first_files(folder, path):
            found.setdefault(_tag(file, "SeriesInstanceUID"), folder)
        if named[0] in found:
            break
    for series in filter(found.__contains__, named):
        try:
            return io.read(found[series], series=series)
        except NapariMambaError:  # half a series, say: a grid of its own is better than none
            return None
    return None


def own_grid(path: Path | str, side: float = SIDE) -> Volume:
    """An empty image about all contours of an RTSTRUCT: its slices are their planes, its voxels `side` mm in them.

    Raises
    ------
    InputError
        If there are no contours, they lie in crossing planes, or the grid would be too large.
    """
    dataset = read_dataset(path, "RTSTRUCT")
    regions = regions_of(dataset)
    frame = next(iter(frames_of(dataset, regions)), "")
    contours = [one for region in regions if region.frame in (frame, "") for one in region.contours]
    if not contours:
        raise InputError(f"{path} holds no contours: export them anew")
    normal = normal_of(contours)
    normal = normal * np.sign(normal[np.argmax(np.abs(normal))])
    across = np.eye(3)[np.argmin(np.abs(normal))]
    across = across - (across @ normal) * normal
    across /= np.linalg.norm(across)
    axes = np.stack([normal, np.cross(normal, across), across], axis=1)  # columns: z, y, x
    local = [contour @ axes for contour in contours]
    gaps = np.diff(planes_of(np.array([one[:, 0].mean() for one in local]))[0])
    steps = np.array([float(np.median(gaps)) if len(gaps) else 2 * side, side, side])
    points = np.concatenate(local)
    low, high = points.min(0), points.max(0)
    low[1:], high[1:] = low[1:] - 2 * side, high[1:] + 2 * side
    shape = np.round((high - low) / steps).astype(int) + 1
    if np.prod(shape.astype(float)) > _MOST_VOXELS:
        raise InputError(f"the contours in {path} spread over {shape} voxels: open their CT first")
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes * steps, axes @ low
    return Volume(np.broadcast_to(np.uint8(0), (1, *shape)), affine, name=Path(path).stem)


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))[:50]
    except OSError:
        return []


def _first_files(folder: Path, own: Path) -> Iterator[Path]:
    """The DICOM files of a folder, but of folders of one series the first alone."""
    from napari_mamba.io.formats import dicom

    seen = 0
    try:
        for file in sorted(folder.iterdir()):
            seen += 1
            if seen > _MOST_FILES:
                return
            if file.is_file() and file != own and dicom.is_dicom(file):
                yield file
                if folder != own.parent:
                    return
    except OSError:
        return


def _tag(file: Path, name: str) -> str:
    import pydicom

    try:
        return str(pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[name]).get(name, "") or "")
    except Exception:  # parsers raise anything on damaged files: it is not the one that is looked for
        return ""
