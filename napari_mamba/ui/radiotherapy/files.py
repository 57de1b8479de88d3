"""The DICOM series that layers lie on: half a series told, RTDOSE and RTSTRUCT written that belong to it. No Qt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from napari_mamba import io
from napari_mamba.errors import InputError, NapariMambaError
from napari_mamba.radiotherapy.dicom.grids import check_slices
from napari_mamba.radiotherapy.dicom.reference import Reference, series_of, without_series
from napari_mamba.radiotherapy.dicom.rtdose import plan_of, write_dose
from napari_mamba.radiotherapy.dicom.rtstruct import write_structures
from napari_mamba.radiotherapy.sources import modality
from napari_mamba.ui.layers import KEY
from napari_mamba.ui.radiotherapy.layers import check_frames, dose_of, frame_of, structures_of

ENDING = ".dcm"


def series_under(layer: Any) -> Reference | None:
    """The DICOM series that a layer was opened from, or whose grid it was made on; None where there is none."""
    return _reference(io.series_files(layer.metadata.get(KEY, {}).get("header")))


@lru_cache(maxsize=4)
def _reference(files: tuple[Path, ...]) -> Reference | None:
    """Cached: the headers of some hundred files are asked for at every change of a plan."""
    return series_of(files)


def check_whole(ct: Any, layers: Iterable[Any]) -> None:
    """Raise `InputError` where a layer's RTSTRUCT was drawn on slices that the CT's layer lacks."""
    reference = series_under(ct)
    if reference is None:
        return
    for path in dict.fromkeys(str(layer.metadata.get(KEY, {}).get("path", "")) for layer in layers):
        if path and modality(Path(path)) == "RTSTRUCT":
            try:
                check_slices(path, reference)
            except InputError as error:
                raise InputError(str(error).replace(path, Path(path).name)) from error  # a line of a window is short


def save_dose(dose: Any, path: Path | str, layers: Sequence[Any] = ()) -> Path:
    """Write a dose layer as RTDOSE.

    Parameters
    ----------
    dose : Image layer
    path : path
        ".dcm" is added where it has no ending.
    layers : sequence of layers
        Where the planning CT may be: the file then names its patient, study and frame of reference.

    Raises
    ------
    OutputError
        If the file cannot be written, or the dose is none.
    """
    reference = replace(reference_for([dose], layers), plan=_plan_of(dose))
    return write_dose(dose_of(dose), _ended(path), reference)


def _plan_of(dose: Any) -> str:
    """The RTPLAN that a dose layer is of, where it was opened from an RTDOSE file that is still there."""
    path = Path(str(dose.metadata.get(KEY, {}).get("path", "")))
    try:
        return plan_of(path) if path.is_file() and modality(path) == "RTDOSE" else ""
    except NapariMambaError:
        return ""


def save_structures(chosen: Sequence[Any], path: Path | str, layers: Sequence[Any] = ()) -> Path:
    """Write the structures of labels layers as RTSTRUCT; parameters and errors as those of `save_dose`."""
    structures = structures_of(chosen)
    return write_structures(structures, _ended(path), reference_for(chosen, layers))


def reference_for(chosen: Sequence[Any], layers: Sequence[Any] = ()) -> Reference:
    """The series that some layers belong to: their own, else that of a layer in their frame of reference.

    Where no DICOM series is open, one of an unnamed patient.
    """
    check_frames(chosen)
    frame = next((found for found in map(frame_of, chosen) if found), "")
    for layer in chosen:
        if (own := series_under(layer)) is not None:
            return own
    for layer in layers if frame else ():
        if frame_of(layer) == frame and (other := series_under(layer)) is not None:
            return other
    return without_series(frame)


def _ended(path: Path | str) -> Path:
    path = Path(path)
    if path.suffix.lower() not in ("", ENDING):
        raise InputError(f"RTDOSE and RTSTRUCT are DICOM files: give {path.name} the ending {ENDING}")
    return path if path.suffix else path.with_suffix(ENDING)
