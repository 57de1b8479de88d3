"""Reading and writing images, by the module of each one's format."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_mamba.errors import InputError, OutputError
from napari_mamba.io.common.atomic import atomic_path, check_place
from napari_mamba.io.common.colour import Colour
from napari_mamba.io.common.explaining import explained
from napari_mamba.io.common.frames import Frame
from napari_mamba.io.detection import WRITE_SUFFIXES, WRITERS, format_of, known_format, module_of, stem, suffix_of
from napari_mamba.io.paths import expanded
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.io.labels.naming import Class


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
    if all(item.is_file() and format_of(item) == "dicom" for item in paths):
        from napari_mamba.io.formats import dicom

        return explained(paths[0], lambda: dicom.read_files(paths, chosen.series, chosen.frame, chosen.colour))
    from napari_mamba.io.channels import stacked

    return stacked([(item, _read_one(item, chosen)) for item in paths], resample_channels)


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
    name = WRITERS.get(suffix_of(path, WRITERS))
    if name is None:
        raise OutputError(f"{path} has no suffix of a format to write: choose one of {', '.join(WRITE_SUFFIXES)}")
    _check_replaceable(path, name)
    with atomic_path(path) as temporary:
        module_of(name).write(volume, temporary, classes)
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
    name = WRITERS.get(suffix_of(path, WRITERS))
    if name is None:
        raise OutputError(f"{path} has no suffix of a format to write: choose one of {', '.join(WRITE_SUFFIXES)}")
    _check_replaceable(path, name)
    check_place(path, overwrite=overwrite)


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
    name = known_format(path)
    options = vars(chosen)
    for key, value in options.items():
        if key not in _CHOICES[name] and value not in (None, 0 if key == "level" else None):
            raise InputError(f"{path} has nothing that {key}={value!r} could choose: leave {key} out")
    volume = module_of(name).read(path, **{key: options[key] for key in _CHOICES[name]})
    if np.dtype(volume.data.dtype).kind not in "biuf":
        raise InputError(f"{path} holds values of the type {volume.data.dtype}: save their magnitude or another number")
    return volume if volume.name else replace(volume, name=stem(path))


def _check_replaceable(path: Path, name: str) -> None:
    if not os.path.isdir(path):
        return
    if name != "ome_zarr" or not any((path / entry).exists() for entry in (".zgroup", ".zarray", "zarr.json")):
        raise OutputError(f"{path} cannot be written: a folder of that name is there, choose another name")
