"""What images are in a file, in a folder, on a CD or among dropped files: headers are read, voxels are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_mamba.errors import ChoiceError, InputError, NapariMambaError, Option
from napari_mamba.io.common.frames import Frame
from napari_mamba.io.common.guard import shortened
from napari_mamba.io.paths import expanded
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.io.common.colour import Colour
    from napari_mamba.io.formats.dicom.headers import Slice

_MOST_FILES = 2000  # of formats of one file an image, in a folder


@dataclass(frozen=True)
class SeriesInfo:
    """One image that may be opened, by its header.

    Attributes
    ----------
    paths : tuple of Path
        Its files, or the folder of a store.
    format : str
        "dicom", "nifti", "mgh", "nrrd", "metaimage", "tiff", "ome_zarr" or "pictures".
    title : str
        For a list: number, modality and description of a DICOM series, else the file's name.
    uid, number, description, modality, patient, study : str
        Of a DICOM series; empty where the format has none.
    shape : (int, int, int) or None
        Voxels along (z, y, x); None where the header alone does not tell.
    spacing : (float, float, float) or None
        In mm along (z, y, x).
    units : str
        "mm" or "pixel".
    channels, frames : int
        Values a voxel; time points, echoes or diffusion weights, of which one is chosen.
    colour, labels : bool
        A colour image; a segmentation.
    images, moments : tuple of Option
        Values for `series` where one file holds several images; for `frame` where there are several frames.
    size_bytes : int
        On disk.
    problem : str
        Why it cannot be read, in one sentence; empty where nothing is known against it.
    """

    paths: tuple[Path, ...]
    format: str
    title: str
    uid: str = ""
    number: str = ""
    description: str = ""
    modality: str = ""
    patient: str = ""
    study: str = ""
    shape: tuple[int, int, int] | None = None
    spacing: tuple[float, float, float] | None = None
    units: str = "mm"
    channels: int = 1
    frames: int = 1
    colour: bool = False
    labels: bool = False
    images: tuple[Option, ...] = ()
    moments: tuple[Option, ...] = ()
    size_bytes: int = 0
    problem: str = ""
    _slices: tuple[Slice, ...] = field(default=(), repr=False, compare=False)

    def read(self, *, frame: Frame = None, colour: Colour = None, series: str | int | None = None) -> Volume:
        """The image; parameters and errors as those of `napari_mamba.io.read`."""
        from napari_mamba.io.files import read

        if self.problem:
            raise InputError(self.problem)
        target: Any = list(self.paths) if len(self.paths) > 1 else self.paths[0]
        if self.format == "dicom":
            series = None if len(self.paths) > 1 else self.uid or None
        return read(target, frame=frame, colour=colour, series=series)

    def preview(self, size: int = 128) -> np.ndarray:
        """The middle slice, at most `size` pixels along a side, windowed between its 1st and 99th percentile.

        Of a DICOM series that slice's file alone is read, of an OME-Zarr that slice's chunks.

        Returns
        -------
        ndarray of uint8, shape (rows, columns)

        Raises
        ------
        InputError
            If it cannot be read.
        """
        plane = self._middle()
        step = max(1, -(-max(plane.shape) // size))
        return windowed(plane[::step, ::step])

    def _middle(self) -> np.ndarray:
        if self._slices:
            from napari_mamba.io.formats.dicom import pixels

            middle = self._slices[len(self._slices) // 2]
            return np.asarray(pixels.voxels([middle], "grey" if self.colour else None)[0, 0], dtype=np.float32)
        first: Frame = 0 if self.frames > 1 else None
        image = self.images[0].value if self.images else None
        volume = self.read(frame=first, colour="grey" if self.colour else None, series=image)
        return np.asarray(volume.data[0, volume.shape[0] // 2], dtype=np.float32)


def windowed(plane: np.ndarray) -> np.ndarray:
    """Values (rows, columns) as grey levels, black and white at the 1st and 99th percentile."""
    finite = plane[np.isfinite(plane)]
    if finite.size == 0:
        return np.zeros(plane.shape, np.uint8)
    black, white = np.percentile(finite, [1, 99])
    scaled = (np.nan_to_num(plane) - black) / (white - black if white > black else 1.0)
    return np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)


def list_series(place: str | PathLike[str] | Sequence[str | PathLike[str]]) -> list[SeriesInfo]:
    """The images in a place, without reading their voxels.

    Parameters
    ----------
    place : path, or sequence of paths
        A file, a folder (its DICOM series at any depth, on a CD with a DICOMDIR, and its other images), or files that
        were dropped together: those of one DICOM series are one entry.

    Returns
    -------
    list of SeriesInfo
        By patient, study and number. What cannot be read has its `problem`.

    Raises
    ------
    InputError
        If nothing there is an image.

    Examples
    --------
    >>> [entry.title for entry in list_series("patient")]  # doctest: +SKIP
    ['2 MR t1_mprage', '5 MR t2_space']
    """
    from napari_mamba.io.files import SUFFIXES, _format, explained

    several = not isinstance(place, str | PathLike)
    paths = [expanded(item) for item in place] if several else [expanded(place)]  # type: ignore[union-attr,arg-type]
    if not paths:
        raise InputError("no file was given: name at least one")
    found: list[SeriesInfo] = []
    dicom_files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} does not exist: check the name")
        kind = _format(path)
        if kind == "dicom" and path.is_file() and several:
            dicom_files.append(path)
        elif kind == "dicom":
            found += explained(path, lambda path=path: list(_dicom(path)))  # type: ignore[misc]
        elif kind is not None:
            found.append(_one(path, kind))
        if path.is_dir() and kind != "ome_zarr":
            found += _others_in(path)
    if dicom_files:
        found += explained(dicom_files[0], lambda: list(_dicom(dicom_files[0].parent, dicom_files)))
    if not found:
        raise InputError(f"{paths[0]} holds no image of a format known here: {', '.join(SUFFIXES)}")
    return found


def _others_in(folder: Path) -> Iterator[SeriesInfo]:
    """The images of other formats than DICOM in a folder."""
    from napari_mamba.io.files import _READERS, _suffix

    for count, path in enumerate(sorted(folder.iterdir())):
        if count >= _MOST_FILES:
            return
        kind = _READERS.get(_suffix(path, _READERS))
        if path.name.startswith(".") or kind is None or kind == "dicom":
            continue
        if path.is_file() or kind == "ome_zarr":
            yield _one(path, kind)


def _one(path: Path, kind: str) -> SeriesInfo:
    """An image of one file, or a store."""
    from napari_mamba.io.files import explained

    size = path.stat().st_size if path.is_file() else 0
    common: dict[str, Any] = {"paths": (path,), "format": kind, "title": path.name, "size_bytes": size}
    try:
        return SeriesInfo(**common, **explained(path, lambda: _DESCRIBED[kind](path)))
    except NapariMambaError as error:
        return SeriesInfo(**common, problem=str(error))


def _moments(count: int) -> tuple[Option, ...]:
    return tuple(Option(index, f"volume {index}") for index in range(count)) if count > 1 else ()


def _nifti(path: Path) -> dict[str, Any]:
    from napari_mamba.io.formats import nifti

    header, classes = nifti.summary(path)
    return {
        "shape": header.shape,
        "spacing": _spacing(header.affine),
        "frames": header.frames,
        "moments": _moments(header.frames),
        "channels": header.vector,
        "colour": header.is_colour,
        "labels": bool(classes) or header.says_labels,
    }


def _mgh(path: Path) -> dict[str, Any]:
    from napari_mamba.io.formats import mgh

    start = mgh.start(path)
    (x, y, z, frames), _ = mgh.parse(start, path)
    size = np.frombuffer(start[30:42], ">f4").astype(float) if start[28:30] == b"\0\1" else np.ones(3)
    spacing = (float(size[2]), float(size[1]), float(size[0]))
    return {"shape": (z, y, x), "spacing": spacing, "frames": frames, "moments": _moments(frames)}


def _nrrd(path: Path) -> dict[str, Any]:
    from napari_mamba.io import labels
    from napari_mamba.io.formats import nrrd

    header = nrrd.parse(path)
    return {
        "shape": header.shape,
        "spacing": _spacing(header.affine),
        "units": header.units,
        "frames": header.frames,
        "moments": _moments(header.frames),
        "channels": header.values,
        "colour": header.is_colour,
        "labels": bool(labels.from_segment_fields(header.fields)),
    }


def _metaimage(path: Path) -> dict[str, Any]:
    from napari_mamba.io import labels
    from napari_mamba.io.formats import metaimage

    header = metaimage.parse(path)
    return {
        "shape": header.shape,
        "spacing": _spacing(header.affine),
        "units": header.units,
        "frames": header.frames,
        "moments": _moments(header.frames),
        "channels": header.values,
        "colour": header.is_colour,
        "labels": bool(labels.from_segment_fields(header.fields)),
    }


def _by_reading(path: Path) -> dict[str, Any]:
    """For stores, whose values stay on disk; and for pictures, which are small."""
    from napari_mamba.io.common import source as _source
    from napari_mamba.io.files import read

    chosen: dict[str, Any] = {}
    asked: dict[Literal["series", "frame", "colour"], tuple[Option, ...]] = {}
    answers: dict[str, Any] = {"frame": 0, "colour": "grey"}
    for _ in range(3):
        try:
            volume = read(path, **chosen)
            break
        except ChoiceError as error:
            asked[error.argument] = error.options  # type: ignore[index]
            chosen[error.argument] = answers.get(error.argument, error.options[0].value)
    moments = tuple(option for option in asked.get("frame", ()) if option.value != "all")
    return {
        "shape": volume.shape,
        "spacing": _spacing(volume.affine),
        "units": volume.units,
        "frames": max(1, len(moments)),
        "moments": moments,
        "images": asked.get("series", ()),
        "channels": volume.channels,
        "colour": "colour" in asked,
        "labels": _source.of(volume).says_labels or bool(_source.classes_of(volume)),
    }


def _tiff(path: Path) -> dict[str, Any]:
    from napari_mamba.io.formats import tiff

    return tiff.summary(path)


_DESCRIBED: dict[str, Callable[[Path], dict[str, Any]]] = {
    "nifti": _nifti,
    "mgh": _mgh,
    "nrrd": _nrrd,
    "metaimage": _metaimage,
    "tiff": _tiff,
    "ome_zarr": _by_reading,
    "pictures": _by_reading,
}


def _spacing(affine: np.ndarray) -> tuple[float, float, float]:
    z, y, x = np.linalg.norm(affine[:3, :3], axis=0)
    return float(z), float(y), float(x)


def _dicom(place: Path, files: Sequence[Path] | None = None) -> Iterator[SeriesInfo]:
    from napari_mamba.io.formats.dicom.files import found_beside, found_in

    if files is None and place.is_file() and place.name.upper() != "DICOMDIR":
        own, found = found_beside(place)
        series = {own.series: found.by_series()[own.series]}
    else:
        found = found_in(place if place.is_dir() else place.parent, files)
        series = found.by_series()
    entries = [_dicom_series(members, found) for members in series.values()]
    yield from sorted(entries, key=lambda one: (one.patient, one.study, _number(one.number), one.uid))


def _number(text: str) -> tuple[int, str]:
    return (int(text), "") if text.isdigit() else (1 << 30, text)


def _dicom_series(members: list[Slice], found: Any) -> SeriesInfo:
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
            return SeriesInfo(**known, spacing=_dicom_spacing(first))
        moments, step = stack.arranged(members, first.path.parent)
    except NapariMambaError as error:
        return SeriesInfo(**known, problem=shortened(str(error)), _slices=tuple(members))
    names = stack.moment_names(moments) if len(moments) > 1 else []
    return SeriesInfo(
        **known,
        shape=(len(moments[0]), *first.size),
        spacing=_dicom_spacing(first, step),
        units="mm" if first.spacing else "pixel",
        frames=len(moments),
        moments=tuple(Option(index, name) for index, name in enumerate(names)),
        _slices=tuple(moments[0]),
    )


def _dicom_spacing(first: Slice, step: np.ndarray | None = None) -> tuple[float, float, float] | None:
    if not first.spacing:
        return None
    between = float(np.linalg.norm(step)) if step is not None else float(first.thickness or 1.0)
    return between, float(first.spacing[0]), float(first.spacing[1])
