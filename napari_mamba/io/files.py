"""Reading and writing: which module has to do with a path, and the reasons where none can read it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from napari_mamba.errors import InputError, OutputError
from napari_mamba.io.common import content
from napari_mamba.io.common.atomic import atomic_path, check_place
from napari_mamba.io.common.colour import Colour
from napari_mamba.io.common.explaining import explained
from napari_mamba.io.common.frames import Frame
from napari_mamba.io.common.geometry import largest_displacement
from napari_mamba.io.common.stacked import Stacked
from napari_mamba.io.paths import expanded
from napari_mamba.io.stores import address_of, is_address
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.io.labels import Class

_WRITERS = {
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".mgz": "mgh",
    ".mgh": "mgh",
    ".nrrd": "itk",
    ".mha": "itk",
    ".mhd": "itk",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".zarr": "ome_zarr",
    ".dcm": "dicom",
}
_READERS = _WRITERS | {
    ".nrrd": "nrrd",
    ".nhdr": "nrrd",
    ".mha": "metaimage",
    ".mhd": "metaimage",
    ".dcm": "dicom",
    ".dicom": "dicom",
    ".ima": "dicom",
    ".png": "pictures",
    ".jpg": "pictures",
    ".jpeg": "pictures",
    ".bmp": "pictures",
    ".zarr.zip": "ome_zarr",
    ".ozx": "ome_zarr",
}

SUFFIXES: tuple[str, ...] = tuple(_READERS)
"""Suffixes that `read` knows; it also takes folders of DICOM slices, and DICOM files without a suffix."""

LABEL_SUFFIXES: tuple[str, ...] = (".dcm",)
"""Suffixes that `write` knows for label maps alone: DICOM SEG, of what was read from a DICOM series."""

WRITE_SUFFIXES: tuple[str, ...] = tuple(suffix for suffix in _WRITERS if suffix not in LABEL_SUFFIXES)
"""Suffixes that `write` knows for every volume."""

_SAME_PLACE_MM = 1e-3


def read(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    series: str | int | None = None,
    frame: Frame = None,
    level: int = 0,
    colour: Colour = None,
    resample_channels: bool = False,
    channel: str | int | Sequence[str | int] | None = None,
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
        Which volume of a 4D file or series, from 0; "all" takes each as a channel.
    level : int
        Of a multi-resolution OME-Zarr or TIFF; 0 is the full resolution.
    colour : {"grey", "channels"}, optional
        How a colour image is taken: its luminance, or red, green and blue as channels.
    resample_channels : bool
        Of several files that lie on different grids: interpolate each onto the first one's, through the affines.
    channel : int, str, or sequence of these, optional
        Only these channels, in this order: numbers from 0, or the names that the file gives them.

    Returns
    -------
    Volume
        Values (C, Z, Y, X) in the file's own type, rescaled where the file says so; those of OME-Zarr stay on disk
        until indexed. NaN are kept. The affine is in RAS millimetres.

    Raises
    ------
    ChoiceError
        If it is a colour image, or holds several images or volumes, and none is chosen. Its options are data for a
        dialog.
    InputError
        If it is missing, damaged or of an unknown format, or the files of several channels do not lie on one grid.

    Examples
    --------
    >>> volume = read(["flair.nii.gz", "t1.nii.gz"])  # doctest: +SKIP
    >>> volume.channel_names  # doctest: +SKIP
    ('flair', 't1')
    """
    chosen = _Choice(series, frame, level, colour)
    if channel is not None:
        from napari_mamba.io.channels import chosen_channels

        return chosen_channels(_read_any(path, chosen, resample_channels), channel)
    return _read_any(path, chosen, resample_channels)


def _read_any(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], chosen: _Choice, resample_channels: bool
) -> Volume:
    if isinstance(path, str | os.PathLike):
        return _read_one(expanded(path), chosen)
    paths = [expanded(item) for item in path]
    if not paths:
        raise InputError("no file was given to read: name at least one")
    if len(paths) == 1:
        return _read_one(paths[0], chosen)
    if all(item.is_file() and _format(item) == "dicom" for item in paths):
        from napari_mamba.io.formats import dicom

        return explained(paths[0], lambda: dicom.read_files(paths, chosen.series, chosen.frame, chosen.colour))
    return _stack([(item, _read_one(item, chosen)) for item in paths], resample_channels)


def write(volume: Volume, path: str | os.PathLike[str], *, classes: Sequence[Class] = ()) -> Path:
    """Write an image with its geometry: beside, then renamed, so that the file is whole or not there.

    Parameters
    ----------
    volume : Volume
    path : path
        Its suffix names the format, see `WRITE_SUFFIXES` and `LABEL_SUFFIXES`. A file there is replaced.
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
    path = expanded(path)
    name = _WRITERS.get(_suffix(path, _WRITERS))
    if name is None:
        raise OutputError(f"{path} has no suffix of a format to write: choose one of {', '.join(WRITE_SUFFIXES)}")
    _check_replaceable(path, name)
    with atomic_path(path) as temporary:
        _module(name).write(volume, temporary, classes)
    return path


def check_writable(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Find out before a run whether its result could be written: by its name, its folder, and by trying.

    Parameters
    ----------
    path : path
        Of a file (or OME-Zarr folder) to be written.
    overwrite : bool
        A file that is there may be replaced.

    Raises
    ------
    OutputError
        With the reason and what to do.
    """
    path = expanded(path)
    name = _WRITERS.get(_suffix(path, _WRITERS))
    if name is None:
        raise OutputError(f"{path} has no suffix of a format to write: choose one of {', '.join(WRITE_SUFFIXES)}")
    _check_replaceable(path, name)
    check_place(path, overwrite=overwrite)


def can_read(path: str | os.PathLike[str]) -> bool:
    """Whether `read` is likely to take `path`, judged by its name and at most a few bytes of it."""
    try:
        return _format(expanded(path)) is not None
    except OSError:
        return False


def _module(name: str) -> ModuleType:
    from importlib import import_module  # so that a NIfTI costs no import of zarr or pydicom

    return import_module(f"napari_mamba.io.formats.{name}")


def _suffix(path: Path, known: dict[str, str]) -> str:
    """The longest known suffix that the name ends in, or an empty string."""
    name = path.name.lower()
    return max((suffix for suffix in known if name.endswith(suffix) and name != suffix), key=len, default="")


def _format(path: Path) -> str | None:
    """The name of the module that reads `path`, or None."""
    if path.is_dir():
        if any((path / name).is_file() for name in (".zgroup", ".zattrs", "zarr.json")):
            return "ome_zarr"
        from napari_mamba.io.formats import dicom

        return "dicom" if dicom.is_folder(path) else None
    if path.name.upper() == "DICOMDIR" and path.is_file():
        return "dicom"
    name = _READERS.get(_suffix(path, _READERS))
    if name is not None:
        return name
    from napari_mamba.io.formats import dicom

    return "dicom" if path.is_file() and dicom.is_dicom(path) else None


@dataclass(frozen=True)
class _Choice:
    """Which of several images in one place."""

    series: str | int | None
    frame: Frame
    level: int
    colour: Colour


# What each format lets choose; the others are refused, since a choice that is ignored would be a wrong answer.
_CHOICES = {
    "nifti": ("frame", "colour"),
    "mgh": ("frame",),
    "nrrd": ("frame", "colour"),
    "metaimage": ("frame", "colour"),
    "pictures": ("colour",),
    "dicom": ("series", "frame", "colour"),
    "tiff": ("series", "frame", "level", "colour"),
    "ome_zarr": ("series", "frame", "level"),
}


def _read_one(path: Path, chosen: _Choice) -> Volume:
    return explained(path, lambda: _read(path, chosen))


def _read(path: Path, chosen: _Choice) -> Volume:
    name = _known_format(path)
    options = vars(chosen)
    for key, value in options.items():
        if key not in _CHOICES[name] and value not in (None, 0 if key == "level" else None):
            raise InputError(f"{path} has nothing that {key}={value!r} could choose: leave {key} out")
    volume = _module(name).read(path, **{key: options[key] for key in _CHOICES[name]})
    if np.dtype(volume.data.dtype).kind not in "biuf":
        raise InputError(f"{path} holds values of the type {volume.data.dtype}: save their magnitude or another number")
    return volume if volume.name else replace(volume, name=stem(path))


def _known_format(path: Path) -> str:
    """The module that reads a path; `InputError` with the reason where there is none."""
    if is_address(path):
        if ".zarr" in path.name.lower():
            return "ome_zarr"
        raise InputError(f"{address_of(path)} is an address, of which Zarr stores alone are read: download it first")
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path} is a link to a file that is not there: fetch it (git annex get, datalad get)")
    if not path.exists():
        raise InputError(f"{path} does not exist: check the name")
    if not path.is_dir() and not path.is_file():
        raise InputError(f"{path} is a device or a pipe, not a file: copy what it gives to a file first")
    if reason := content.not_an_image(path):
        raise InputError(f"{path} {reason}")
    name = _format(path)
    if name is None and path.is_dir():
        empty = not any(path.iterdir())
        what = "is empty" if empty else "holds neither DICOM slices nor an OME-Zarr store"
        raise InputError(f"the folder {path} {what}: name the image file, or the folder of one DICOM series")
    if name is None and (reason := content.of_another_kind(path)):
        raise InputError(f"{path} {reason}")
    if name is None:
        raise InputError(f"{path} is of no format known here: convert it to one of {', '.join(SUFFIXES)}")
    return name


def stem(path: Path) -> str:
    """The name of a file without the suffix of its format."""
    name = path.resolve().name
    suffix = _suffix(path, _READERS)
    stem = name[: -len(suffix)] if suffix else name
    return stem[:-4] if stem.lower().endswith((".ome", ".seg")) else stem


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
    parts = [volume.data for _, volume in volumes]
    lazily = any(not isinstance(part, np.ndarray) for part in parts)
    data = Stacked(parts) if lazily else np.concatenate(parts)
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
    if not os.path.isdir(path):
        return
    if name != "ome_zarr" or not any((path / entry).exists() for entry in (".zgroup", ".zarray", "zarr.json")):
        raise OutputError(f"{path} cannot be written: a folder of that name is there, choose another name")
