"""Files and stores to `Volume`, and back: NIfTI, NRRD, MetaImage, DICOM series, TIFF, OME-Zarr.

docs/formats.md says what is read from each format, what is kept on writing, and what is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from napari_mamba.errors import InputError, NapariMambaError, OutputError
from napari_mamba.io._atomic import atomic_path
from napari_mamba.io._frames import Frame
from napari_mamba.io._geometry import largest_displacement
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.io.labels import Class

_WRITERS = {
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".nrrd": "itk",
    ".mha": "itk",
    ".mhd": "itk",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".zarr": "ome_zarr",
}
_READERS = _WRITERS | {
    ".nhdr": "itk",
    ".dcm": "dicom",
    ".dicom": "dicom",
    ".ima": "dicom",
    ".png": "itk",
    ".jpg": "itk",
    ".jpeg": "itk",
    ".bmp": "itk",
}

SUFFIXES: tuple[str, ...] = tuple(_READERS)
"""Suffixes that `read` knows; it also takes folders of DICOM slices, and DICOM files without a suffix."""

WRITE_SUFFIXES: tuple[str, ...] = tuple(_WRITERS)
"""Suffixes that `write` knows."""

_SAME_PLACE_MM = 1e-3


def read(
    path: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    series: str | int | None = None,
    frame: Frame = None,
    level: int = 0,
    resample_channels: bool = False,
) -> Volume:
    """Read an image with its geometry.

    Parameters
    ----------
    path : path, or sequence of paths
        A file, a folder of DICOM slices, or an OME-Zarr store. Several are channels on one grid, in the order given;
        several DICOM files of one series are that series.
    series : str or int, optional
        Which of several images in one place: a DICOM SeriesInstanceUID or series number, a number in a TIFF or a
        bioformats2raw store.
    frame : int or "all", optional
        Which volume of a 4D file, from 0; "all" takes each as a channel.
    level : int
        Of a multi-resolution OME-Zarr or TIFF; 0 is the full resolution.
    resample_channels : bool
        Of several files that lie on different grids: interpolate each onto the first one's, through the affines.

    Returns
    -------
    Volume
        Values (C, Z, Y, X) in the file's own type, rescaled where the file says so; those of OME-Zarr stay on disk
        until indexed. NaN are kept. The affine is in RAS millimetres.

    Raises
    ------
    InputError
        If it is missing, damaged, of an unknown format, a colour image, or holds several volumes and none is chosen;
        or if the files of several channels do not lie on one grid.

    Examples
    --------
    >>> volume = read(["flair.nii.gz", "t1.nii.gz"])  # doctest: +SKIP
    >>> volume.channel_names  # doctest: +SKIP
    ('flair', 't1')
    """
    if isinstance(path, str | PathLike):
        return _read_one(Path(fspath(path)).expanduser(), series, frame, level)
    paths = [Path(fspath(item)).expanduser() for item in path]
    if not paths:
        raise InputError("no file was given to read: name at least one")
    if len(paths) == 1:
        return _read_one(paths[0], series, frame, level)
    if all(item.is_file() and _format(item) == "dicom" for item in paths):
        from napari_mamba.io import dicom

        return _explained(paths[0], lambda: dicom.read_files(paths, series))
    return _stack([(item, _read_one(item, series, frame, level)) for item in paths], resample_channels)


def write(volume: Volume, path: str | PathLike[str], *, classes: Sequence[Class] = ()) -> Path:
    """Write an image with its geometry: beside, then renamed, so that the file is whole or not there.

    Parameters
    ----------
    volume : Volume
    path : path
        Its suffix names the format, see `WRITE_SUFFIXES`. A file there is replaced.
    classes : sequence of objects with `index`, `name` and `color` ("#rrggbb")
        If given, the volume is a label map: stored in the smallest unsigned type, its class names in the header.

    Returns
    -------
    Path
        Of the file (or OME-Zarr folder) written.

    Raises
    ------
    OutputError
        If the suffix is unknown, the folder is missing or not writable, the disk is full, or the values do not fit.

    Examples
    --------
    >>> write(volume, "labels.nii.gz", classes=bundle.classes)  # doctest: +SKIP
    PosixPath('labels.nii.gz')
    """
    path = Path(fspath(path)).expanduser()
    name = _WRITERS.get(_suffix(path, _WRITERS))
    if name is None:
        raise OutputError(f"{path} has no suffix of a format to write: choose one of {', '.join(WRITE_SUFFIXES)}")
    _check_replaceable(path, name)
    with atomic_path(path) as temporary:
        _module(name).write(volume, temporary, classes)
    return path


def can_read(path: str | PathLike[str]) -> bool:
    """Whether `read` is likely to take `path`, judged by its name and at most a few bytes of it."""
    try:
        return _format(Path(fspath(path)).expanduser()) is not None
    except OSError:
        return False


def _module(name: str) -> ModuleType:
    from importlib import import_module  # so that a NIfTI costs no import of zarr or pydicom

    return import_module(f"napari_mamba.io.{name}")


def _suffix(path: Path, known: dict[str, str]) -> str:
    """The longest known suffix that the name ends in, or an empty string."""
    name = path.name.lower()
    return max((suffix for suffix in known if name.endswith(suffix) and name != suffix), key=len, default="")


def _format(path: Path) -> str | None:
    """The name of the module that reads `path`, or None."""
    if path.is_dir():
        if any((path / name).is_file() for name in (".zgroup", ".zattrs", "zarr.json")):
            return "ome_zarr"
        from napari_mamba.io import dicom

        return "dicom" if dicom.is_folder(path) else None
    name = _READERS.get(_suffix(path, _READERS))
    if name is not None:
        return name
    from napari_mamba.io import dicom

    return "dicom" if path.is_file() and dicom.is_dicom(path) else None


def _read_one(path: Path, series: str | int | None, frame: Frame, level: int) -> Volume:
    return _explained(path, lambda: _read(path, series, frame, level))


def _read(path: Path, series: str | int | None, frame: Frame, level: int) -> Volume:
    if "://" in str(path) or str(path).startswith(("http:/", "https:/", "s3:/")):
        raise InputError(f"{path} is an address on the network: download it first")
    if not path.exists():
        raise InputError(f"{path} does not exist: check the name")
    name = _format(path)
    if name is None and path.is_dir():
        empty = not any(path.iterdir())
        what = "is empty" if empty else "holds neither DICOM slices nor an OME-Zarr store"
        raise InputError(f"the folder {path} {what}: name the image file, or the folder of one DICOM series")
    if name is None:
        raise InputError(f"{path} is of no format known here: convert it to one of {', '.join(SUFFIXES)}")
    module = _module(name)
    if name in ("nifti", "itk"):
        _refuse(path, series=series, level=level or None)
        volume = module.read(path, frame)
    elif name == "dicom":
        _refuse(path, frame=frame, level=level or None)
        volume = module.read(path, series)
    else:
        volume = module.read(path, series=series, frame=frame, level=level)
    return volume if volume.name else replace(volume, name=_stem(path))


def _refuse(path: Path, **options: object) -> None:
    for key, value in options.items():
        if value is not None:
            raise InputError(f"{path} has nothing that {key}={value!r} could choose: leave {key} out")


def _stem(path: Path) -> str:
    name = path.resolve().name
    suffix = _suffix(path, _READERS)
    stem = name[: -len(suffix)] if suffix else name
    return stem[:-4] if stem.lower().endswith((".ome", ".seg")) else stem


def _explained(path: Path, reader: Callable[[], Volume]) -> Volume:
    """The result of `reader()`, or an `InputError` of one sentence whatever a parser raised on a damaged file."""
    try:
        return reader()
    except NapariMambaError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from error
    except PermissionError as error:
        raise InputError(f"{path} may not be read by you: change its permissions, or copy it") from error
    except MemoryError as error:
        raise InputError(f"{path} does not fit in memory: crop it, or read a coarser level of it") from error
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}): check the file or copy it anew"
        ) from error
    except Exception as error:  # third-party parsers raise anything on damaged files
        detail = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise InputError(f"{path} is damaged or of another format than its name says ({detail})") from error


def _stack(volumes: list[tuple[Path, Volume]], resample: bool = False) -> Volume:
    """Several images as the channels of one; `InputError` if they do not lie on the same grid."""
    path, first = volumes[0]
    if resample:
        volumes = [(other_path, _onto(other, first)) for other_path, other in volumes]
    names: list[str] = []
    for other_path, other in volumes:
        if other.shape != first.shape:
            raise InputError(
                f"{other_path} has {_by(other.shape)} voxels (z, y, x) and {path} {_by(first.shape)}: channels must "
                f"lie on one grid, resample one onto the other (--resample-channels)"
            )
        apart = largest_displacement(first.affine, other.affine, first.shape)
        if apart > _SAME_PLACE_MM:
            raise InputError(
                f"{other_path} lies up to {apart:.3g} mm away from {path}: channels must lie on one grid, resample one "
                f"onto the other (--resample-channels)"
            )
        if other.channels == 1:
            names.append(other.channel_names[0] if other.channel_names else other.name)
        else:
            names += other.channel_names or [f"{other.name} {i}" for i in range(other.channels)]
    data = np.concatenate([np.asarray(volume.data) for _, volume in volumes])
    return replace(first, data=data, channel_names=tuple(names))


def _onto(other: Volume, first: Volume) -> Volume:
    """`other`, interpolated onto the grid of `first` unless it lies on it."""
    same = other.shape == first.shape
    if same and largest_displacement(first.affine, other.affine, first.shape) <= _SAME_PLACE_MM:
        return other
    from napari_mamba.io.channels import onto_grid

    return onto_grid(other, first)


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _check_replaceable(path: Path, name: str) -> None:
    if not path.is_dir():
        return
    if name != "ome_zarr" or not any((path / entry).exists() for entry in (".zgroup", ".zarray", "zarr.json")):
        raise OutputError(f"{path} cannot be written: a folder of that name is there, choose another name")
