"""A cine read from what scanners and converters write, and labels over time written with the source's time axis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba import io
from napari_mamba.errors import InputError
from napari_mamba.heart.cine import Cine, check_cine
from napari_mamba.heart.dicom_cine import read_cine
from napari_mamba.io.moving.opening import nifti_times
from napari_mamba.io.moving.writing import write_over_time

_NIFTI = (".nii", ".nii.gz")


def read(place: Path | str) -> Cine:
    """Read a cine: a folder of DICOM files, a DICOM file of many frames, or an image of four dimensions.

    Returns
    -------
    Cine
        With times where the source has them; a NIfTI has them where it says a step and its unit.

    Raises
    ------
    InputError
        If there is no cine, or images are missing; one sentence says which.

    Examples
    --------
    >>> read("sax.nii.gz").times  # doctest: +SKIP
    array([  0.,  45.,  90., ...])
    """
    path = Path(place)
    if not path.exists():
        raise InputError(f"{path} does not exist: check the name")
    known = path.name.lower().endswith(tuple(ending for ending in io.SUFFIXES if ending not in _DICOM_ENDINGS))
    cine = _of_image(path) if known else read_cine(path)
    check_cine(cine)
    return cine


_DICOM_ENDINGS = (".dcm", ".dicom", ".ima")


def _of_image(path: Path) -> Cine:
    volume = io.read(path, frame="all")
    if volume.units != "mm":
        raise InputError(f"{path} knows no millimetres: volumes need the voxel's size, give it first")
    times, unit = (None, "msec")
    if path.name.lower().endswith(_NIFTI):
        times, unit = nifti_times(path, volume.channels)
    return Cine(np.asarray(volume.data), volume.affine, times, None, volume.name, unit)


def write_labels(labels: np.ndarray, cine: Cine, path: Path, classes: Sequence[Any] = ()) -> Path:
    """Write labels over time as a NIfTI of four dimensions, with the names of the classes and the cine's time axis.

    Parameters
    ----------
    labels : ndarray of int, shape (T, Z, Y, X)
    cine : Cine
        What they are of: its place, times and unit of time. A NIfTI holds one step; of uneven times it is their mean.
    path : Path
        Ends in .nii or .nii.gz.
    classes : sequence of LabelClass
    """
    return write_over_time(
        labels, path, affine=cine.affine, times=cine.times, time_unit=cine.time_unit, classes=classes
    )
