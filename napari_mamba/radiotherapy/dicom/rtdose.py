"""DICOM RTDOSE: a dose grid in gray (PS3.3, A.18 and C.8.8.3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import InputError, OutputError
from napari_mamba.io.common.explaining import explains
from napari_mamba.io.common.geometry import LPS_TO_RAS, is_orthogonal
from napari_mamba.io.common.guard import quoted
from napari_mamba.radiotherapy.comparison import LIKELY_CENTIGRAY
from napari_mamba.radiotherapy.dicom.reference import Reference, new_dataset, read_dataset, save, without_series
from napari_mamba.volume import Volume

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.481.2"
_PLAN = "1.2.840.10008.5.1.4.1.1.481.5"
"""SOP class of RTPLAN."""
_EVEN = 0.02
"""Of the distance of planes: what offsets may differ by, since they are rounded to text."""
_AXIAL = 0.999
"""Part of a plane's normal along the body from which on its offsets can be coordinates."""
_STEPS = 2**32 - 1
_UNITS = {"GY": 1.0, "CGY": 0.01}
"""Gy of DoseUnits; the standard knows the first alone, of those that are absolute."""
_WHOLE = ("PLAN", "MULTI_PLAN", "PLAN_OVERVIEW", "RECORD", "")
"""DoseSummationType of a dose that is not of a part of the treatment."""
_PARTS = {
    "FRACTION": "one fraction group",
    "FRACTION_SESSION": "one fraction",
    "BEAM": "single beams",
    "BEAM_SESSION": "single beams in one fraction",
    "BRACHY": "single applications",
    "BRACHY_SESSION": "single applications in one fraction",
    "CONTROL_POINT": "a part of a beam",
}
"""What a dose is of that is not the plan's, by its DoseSummationType."""


@explains
def read_dose(path: Path | str, *, frame: str = "") -> Volume:
    """The dose grid of an RTDOSE file.

    Parameters
    ----------
    path : path
    frame : str
        Frame of reference UID that the dose must lie in, if one is known.

    Returns
    -------
    Volume
        Gy, float32, one channel.

    Raises
    ------
    InputError
        If the file is no RTDOSE, its values are not in gray, its planes are uneven or missing, it lies in another frame
        of reference, or the values are so high that they must be centigray.
    """
    dataset = read_dataset(path, "RTDOSE")
    own = str(dataset.get("FrameOfReferenceUID", "") or "")
    if frame and own and own != frame:
        raise InputError(f"{path} lies in another frame of reference than the image: choose the dose of this image")
    gray = _unit(dataset, path)
    scaling = dataset.get("DoseGridScaling")
    if scaling is None or not 0 < float(scaling) < np.inf:
        raise InputError(f"{path} has no dose grid scaling: export it anew")
    offsets = _offsets(dataset, path)
    try:
        stored = dataset.pixel_array
    except Exception as error:  # decoders raise anything on damaged files
        raise InputError(f"{path} has damaged or truncated values: copy it anew") from error
    values = np.asarray(stored, np.float32).reshape(len(offsets), int(dataset.Rows), int(dataset.Columns))
    values *= np.float32(float(scaling) * gray)
    if values.min() < 0:
        raise InputError(f"{path} has a dose below zero: it is a difference or an error, export the plan's dose")
    if values.max() > LIKELY_CENTIGRAY:
        raise InputError(f"{path} reaches {values.max():g} Gy: its values must be in cGy, export it anew in Gy")
    return Volume(values[np.newaxis], _affine(dataset, offsets), name=Path(path).stem)


def notes_of(path: Path | str, *, frame: str = "") -> list[str]:
    """What is to be told of an RTDOSE beside its values, a sentence each.

    It may be of a part of the plan, or weighted by what radiation does; or it may not say in which frame of reference
    it lies, while the image has one (`frame`).
    """
    dataset, name, notes = read_dataset(path, "RTDOSE"), Path(path).name, []
    what = _word(dataset, "DoseSummationType")
    if what not in _WHOLE:
        notes.append(f"{name} is the dose of {_PARTS.get(what, f'a part ({quoted(what)})')}, not of the plan")
    if _word(dataset, "DoseType") == "EFFECTIVE":
        notes.append(f"{name} is weighted by biological effect, and no physical dose")
    if frame and not dataset.get("FrameOfReferenceUID"):
        notes.append(f"{name} names no frame of reference: it is taken to lie in the image's")
    return notes


def plan_of(path: Path | str) -> str:
    """The SOP instance UID of the RTPLAN that an RTDOSE file is of; empty where it does not tell."""
    plan = next(iter(read_dataset(path, "RTDOSE").get("ReferencedRTPlanSequence", None) or []), None)
    return "" if plan is None else str(plan.get("ReferencedSOPInstanceUID", "") or "")


def _unit(dataset: Any, path: Path | str) -> float:
    """Gy of one of the file's units; raises `InputError` where it has no dose in Gy."""
    units = _word(dataset, "DoseUnits")
    if units not in _UNITS:
        unit = quoted(units) if units else "no stated unit"
        raise InputError(f"{path} has a dose in {unit}, not in Gy: export the absolute dose")
    if _word(dataset, "DoseType") == "ERROR":
        raise InputError(f"{path} is the difference of two doses: export the plan's dose")
    if "PixelData" not in dataset:
        raise InputError(f"{path} holds no dose grid, but histograms or points alone: export the dose as a grid")
    return _UNITS[units]


def _word(dataset: Any, key: str) -> str:
    return str(dataset.get(key, "") or "").strip(" \0").upper()


def _offsets(dataset: Any, path: Path | str) -> np.ndarray:
    """What the file says of each plane's place, mm; evenly spaced."""
    frames = int(dataset.get("NumberOfFrames") or 1)
    vector = dataset.get("GridFrameOffsetVector")
    if frames == 1:
        return np.zeros(1)
    if vector is None or len(vector) != frames:
        raise InputError(f"{path} does not say where its {frames} planes lie: export it anew")
    offsets = np.array([float(value) for value in vector])
    steps = np.diff(offsets)
    if np.ptp(steps) > _EVEN * abs(np.median(steps)) or not np.abs(steps).min() > 0:
        raise InputError(f"{path} has unevenly spaced planes: export the dose on an even grid")
    return offsets


def _affine(dataset: Any, offsets: np.ndarray) -> np.ndarray:
    orientation = np.array([float(v) for v in dataset.ImageOrientationPatient]).reshape(2, 3)
    row, column = (float(v) for v in dataset.PixelSpacing)
    step = (offsets[-1] - offsets[0]) / max(len(offsets) - 1, 1)
    if len(offsets) == 1:
        step = float(dataset.get("SliceThickness") or 1.0)
    # Offsets count along the normal from the first plane; where the first one is not zero they are z coordinates.
    along = np.cross(*orientation)
    if offsets[0] and abs(along[2]) > _AXIAL:
        along = np.array([0.0, 0.0, 1.0])
    matrix = np.eye(4)
    matrix[:3, 0] = along * step
    matrix[:3, 1] = orientation[1] * row
    matrix[:3, 2] = orientation[0] * column
    matrix[:3, 3] = [float(v) for v in dataset.ImagePositionPatient]
    return LPS_TO_RAS @ matrix


def write_dose(
    dose: Volume, path: Path | str, reference: Reference | None = None, *, kind: str = "PHYSICAL", summed: str = "PLAN"
) -> Path:
    """Write a dose in gray as an RTDOSE file of 32 bits a voxel.

    Parameters
    ----------
    dose : Volume
        Gy, one channel, never negative.
    path : path
    reference : Reference, optional
        The series that it belongs to (`read_reference`); without one it is of an unnamed patient. The file names its
        `plan`, or, as the standard asks for one, a plan that there is nowhere.
    kind, summed : str
        DoseType and DoseSummationType.

    Raises
    ------
    OutputError
        If the dose is negative or not finite, or lies on a sheared grid, which the format cannot express.
    """
    values = np.asarray(dose.data[0], np.float64)
    if dose.channels != 1 or not np.isfinite(values).all() or values.min() < 0:
        raise OutputError("a dose to write has one channel of finite values that are never negative")
    if not is_orthogonal(dose.affine, 1e-4):
        raise OutputError("the dose lies on a sheared grid, which RTDOSE cannot express: resample it to right angles")
    matrix, values = _right_handed(LPS_TO_RAS @ dose.affine, values)
    sides = np.linalg.norm(matrix[:3, :3], axis=0)
    reference = reference or without_series()
    dataset = new_dataset(reference, "RTDOSE", SOP_CLASS, "Dose (napari-mamba)")
    dataset.ImagePositionPatient = [_text(v) for v in matrix[:3, 3]]
    directions = [*(matrix[:3, 2] / sides[2]), *(matrix[:3, 1] / sides[1])]
    dataset.ImageOrientationPatient = [_text(v) for v in directions]
    dataset.PixelSpacing, dataset.SliceThickness = [_text(sides[1]), _text(sides[2])], _text(sides[0])
    dataset.GridFrameOffsetVector = [_text(sides[0] * n) for n in range(len(values))]
    dataset.FrameIncrementPointer = 0x3004000C  # GridFrameOffsetVector
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 32, 32, 31, 0
    dataset.DoseUnits, dataset.DoseType, dataset.DoseSummationType = "GY", kind, summed
    dataset.ReferencedRTPlanSequence = [_plan_item(reference.plan)]
    dataset.DoseComment = "Predicted or processed by napari-mamba. Not for clinical use."
    scaling = f"{max(float(values.max()), 1e-3) / _STEPS * (1 + 1e-8):.9e}"
    dataset.DoseGridScaling = scaling
    dataset.PixelData = np.rint(values / float(scaling)).clip(0, _STEPS).astype("<u4").tobytes()
    return save(dataset, path)


def _plan_item(uid: str) -> Any:
    from pydicom.dataset import Dataset
    from pydicom.uid import generate_uid

    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = _PLAN, uid or generate_uid()
    return item


def _right_handed(matrix: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same grid with planes along the cross product of its rows and columns, as the offsets count."""
    if np.cross(matrix[:3, 2], matrix[:3, 1]) @ matrix[:3, 0] >= 0:
        return matrix, values
    turned = matrix.copy()
    turned[:3, 3] += matrix[:3, 0] * (len(values) - 1)
    turned[:3, 0] *= -1
    return turned, values[::-1]


def _text(value: float) -> str:
    """A number in the 16 characters that DICOM's decimal strings have."""
    return f"{value:.10g}" if abs(value) >= 1e-4 or value == 0 else f"{value:.8e}"
