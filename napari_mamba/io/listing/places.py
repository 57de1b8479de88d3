"""What images are in a file, in a folder, on a CD or among dropped files: headers are read, voxels are not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from napari_mamba.errors import InputError, NapariMambaError
from napari_mamba.io.common.explaining import explained
from napari_mamba.io.detection import READERS, SUFFIXES, format_of, suffix_of
from napari_mamba.io.listing.dicom import dicom_series
from napari_mamba.io.listing.headers import DESCRIBED
from napari_mamba.io.listing.series import SeriesInfo
from napari_mamba.io.paths import expanded

_MOST_FILES = 2000  # of formats of one file an image, in a folder


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
    several = not isinstance(place, str | PathLike)
    paths = [expanded(item) for item in place] if several else [expanded(place)]  # type: ignore[union-attr,arg-type]
    if not paths:
        raise InputError("no file was given: name at least one")
    found: list[SeriesInfo] = []
    dicom_files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} does not exist: check the name")
        kind = format_of(path)
        if kind == "dicom" and path.is_file() and several:
            dicom_files.append(path)
        elif kind == "dicom":
            found += explained(path, lambda path=path: list(dicom_series(path)))  # type: ignore[misc]
        elif kind is not None:
            found.append(_one(path, kind))
        if path.is_dir() and kind != "ome_zarr":
            found += _others_in(path)
    if dicom_files:
        found += explained(dicom_files[0], lambda: list(dicom_series(dicom_files[0].parent, dicom_files)))
    if not found:
        raise InputError(f"{paths[0]} holds no image of a format known here: {', '.join(SUFFIXES)}")
    return found


def _others_in(folder: Path) -> Iterator[SeriesInfo]:
    """The images of other formats than DICOM in a folder."""
    for count, path in enumerate(sorted(folder.iterdir())):
        if count >= _MOST_FILES:
            return
        kind = READERS.get(suffix_of(path, READERS))
        if path.name.startswith(".") or kind is None or kind == "dicom":
            continue
        if path.is_file() or kind == "ome_zarr":
            yield _one(path, kind)


def _one(path: Path, kind: str) -> SeriesInfo:
    """An image of one file, or a store."""
    size = path.stat().st_size if path.is_file() else 0
    common: dict[str, Any] = {"paths": (path,), "format": kind, "title": path.name, "size_bytes": size}
    try:
        return SeriesInfo(**common, **explained(path, lambda: DESCRIBED[kind](path)))
    except NapariMambaError as error:
        return SeriesInfo(**common, problem=str(error))
