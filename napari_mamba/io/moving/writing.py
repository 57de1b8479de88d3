"""Labels and images over time, written with the source's time axis and unit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import OutputError
from napari_mamba.io.common.atomic import atomic_path
from napari_mamba.io.common.geometry import to_xyz_ras
from napari_mamba.io.labels import naming
from napari_mamba.io.moving.film import MILLISECONDS

NIFTI, TIFF = (".nii", ".nii.gz"), (".tif", ".tiff")
SUFFIXES = (*NIFTI, *TIFF)


def write_over_time(
    data: np.ndarray,
    path: Path,
    *,
    affine: np.ndarray,
    units: str = "mm",
    times: np.ndarray | None = None,
    time_unit: str = "msec",
    classes: Sequence[Any] = (),
) -> Path:
    """Write values over time: a NIfTI of four dimensions, or a TIFF as ImageJ has it.

    Parameters
    ----------
    data : ndarray, shape (T, Z, Y, X) of labels or of one channel, or (T, C, Z, Y, X)
        Several channels go into a TIFF alone.
    path : Path
        Its suffix is the format, one of `SUFFIXES`.
    affine : ndarray, shape (4, 4)
        From voxel index (z, y, x, 1) to RAS+ mm.
    units : {"mm", "pixel"}
    times : ndarray, shape (T,), optional
        In ms. Both formats hold one step; of uneven times it is their mean.
    time_unit : {"msec", "sec", "usec"}
    classes : sequence of LabelClass
        Of labels; NIfTI keeps their names.
    """
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        raise OutputError(
            f"{path} has no suffix of a format for results over time: choose one of {', '.join(SUFFIXES)}"
        )
    if data.ndim == 5 and data.shape[1] == 1:
        data = data[:, 0]
    with atomic_path(path) as temporary:
        if name.endswith(NIFTI):
            if data.ndim == 5:
                raise OutputError(f"{path} cannot hold colours over time: write a .tif")
            _nifti(data, temporary, affine, units, times, time_unit, classes)
        else:
            _tiff(data, temporary, affine, units, times)
    return path


def _nifti(
    data: np.ndarray,
    path: Path,
    affine: np.ndarray,
    units: str,
    times: np.ndarray | None,
    time_unit: str,
    classes: Sequence[Any],
) -> None:
    import nibabel

    image = nibabel.Nifti1Image(np.ascontiguousarray(data.transpose(3, 2, 1, 0)), to_xyz_ras(affine))
    header: Any = image.header
    space = "mm" if units == "mm" else "unknown"
    if times is not None and len(times) > 1:
        factor = MILLISECONDS[time_unit]
        header["pixdim"][4] = np.diff(times).mean() / factor
        header["toffset"] = times[0] / factor
        header.set_xyzt_units(space, time_unit)
    else:
        header.set_xyzt_units(space)
    if data.dtype.kind == "u":
        header["intent_code"] = 1002  # NIFTI_INTENT_LABEL
    if classes:
        header.extensions.append(nibabel.nifti1.Nifti1Extension(0, naming.caret_xml(classes)))
    nibabel.save(image, path)


def _tiff(data: np.ndarray, path: Path, affine: np.ndarray, units: str, times: np.ndarray | None) -> None:
    import tifffile

    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    metadata: dict[str, Any] = {"axes": "TZYX", "spacing": float(spacing[0])}
    if units == "mm":
        metadata["unit"] = "mm"
    if times is not None and len(times) > 1:
        metadata["finterval"] = float(np.diff(times).mean()) / 1000
    if data.ndim == 5:
        metadata["axes"], data = "TZCYX", data.transpose(0, 2, 1, 3, 4)
    resolution = (1 / float(spacing[2]), 1 / float(spacing[1]))
    kind = data.dtype if data.dtype in (np.uint8, np.uint16, np.float32) else np.float32
    tifffile.imwrite(path, data.astype(kind, copy=False), imagej=True, resolution=resolution, metadata=metadata)
