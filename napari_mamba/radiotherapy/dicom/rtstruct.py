"""DICOM RTSTRUCT: structures as contours (PS3.3, A.19 and C.8.8)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.common.explaining import explains
from napari_mamba.io.common.geometry import LPS_TO_RAS
from napari_mamba.io.labels import rgb
from napari_mamba.radiotherapy.dicom.contours import outlines, rasterised
from napari_mamba.radiotherapy.dicom.reference import Reference, new_dataset, read_dataset, save, without_series
from napari_mamba.radiotherapy.structures import Structure, StructureSet, prescription_of
from napari_mamba.volume import Volume

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
OUTSIDE = "has nothing inside the image"
"""What a note says of a structure that lies elsewhere."""

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_COLORS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#46f0f0", "#f032e6", "#bcf60c", "#fabebe", "#008080")


@explains
def read_structures(path: Path | str, image: Volume, *, frame: str = "") -> StructureSet:
    """The structures of an RTSTRUCT as masks on an image's grid.

    Parameters
    ----------
    path : path
    image : Volume
        The planning image; only its grid is used.
    frame : str
        The image's frame of reference UID, if it is known (`reference.read_reference`): then the structures must lie
        in it.

    Returns
    -------
    StructureSet
        In the file's order, empty ones included; `notes` tell which lie outside the image, wholly or in part.

    Raises
    ------
    InputError
        If the file is no RTSTRUCT, has no structures, lies in another frame of reference, or wholly outside the image.

    Examples
    --------
    >>> structures = read_structures("rtstruct.dcm", ct)  # doctest: +SKIP
    >>> structures["spinal cord"].mask.sum()  # doctest: +SKIP
    """
    dataset = read_dataset(path, "RTSTRUCT")
    own = frame_of(dataset)
    if frame and own and own != frame:
        raise InputError(
            f"{path} lies in another frame of reference than the image: choose the structures of this image, or "
            "register the two first"
        )
    regions = {int(roi.ROINumber): roi for roi in dataset.get("StructureSetROISequence", [])}
    if not regions:
        raise InputError(f"{path} holds no structures: export them anew")
    kinds = {
        int(o.ReferencedROINumber): str(o.get("RTROIInterpretedType", "") or "")
        for o in dataset.get("RTROIObservationsSequence", [])
    }
    drawn = {int(item.ReferencedROINumber): item for item in dataset.get("ROIContourSequence", [])}
    named = _distinct({number: str(roi.get("ROIName", "") or f"structure {number}") for number, roi in regions.items()})
    structures, notes, inside = [], [], False
    for number in regions:
        contours = contours_of(drawn.get(number))
        mask = rasterised(contours, image.affine, image.shape)
        inside = inside or bool(mask.any())
        if contours and not mask.any():
            notes.append(f"{named[number]} {OUTSIDE}")
        elif contours and _beyond(contours, image):
            notes.append(f"{named[number]} reaches beyond the image: what lies outside counts nowhere")
        prescribed = prescription_of(named[number]) if kinds.get(number, "") in ("PTV", "CTV", "GTV", "") else None
        color = _color(drawn.get(number))
        structures.append(Structure(named[number], mask, color, kinds.get(number, ""), prescribed))
    if not inside:
        raise InputError(f"no structure in {path} lies inside the image: choose the structures of this image")
    return StructureSet(tuple(structures), image.affine, own, tuple(notes))


def write_structures(structures: StructureSet, path: Path | str, reference: Reference | None = None) -> Path:
    """Write structures as an RTSTRUCT; holes are contours within contours.

    Parameters
    ----------
    structures : StructureSet
    path : path
    reference : Reference, optional
        The series they were drawn on (`read_reference`): the file then names its patient, study and slices. Without
        one it is of an unnamed patient.
    """
    reference = reference or without_series(structures.frame)
    dataset = new_dataset(reference, "RTSTRUCT", SOP_CLASS)
    dataset.StructureSetLabel = "napari-mamba"
    dataset.StructureSetDate, dataset.StructureSetTime = dataset.InstanceCreationDate, dataset.InstanceCreationTime
    dataset.ReferencedFrameOfReferenceSequence = [_frame_item(reference)]
    dataset.StructureSetROISequence, dataset.ROIContourSequence, dataset.RTROIObservationsSequence = [], [], []
    for number, structure in enumerate(structures, 1):
        dataset.StructureSetROISequence.append(
            _item(
                ROINumber=number,
                ReferencedFrameOfReferenceUID=reference.frame,
                ROIName=structure.name,
                ROIGenerationAlgorithm="AUTOMATIC",
            )
        )
        dataset.ROIContourSequence.append(_contour_item(structure, number, structures.affine, reference))
        dataset.RTROIObservationsSequence.append(
            _item(
                ObservationNumber=number,
                ReferencedROINumber=number,
                RTROIInterpretedType=structure.kind or ("PTV" if structure.target else "ORGAN"),
                ROIInterpreter="",
            )
        )
    return save(dataset, path)


def _item(**values: Any) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    for key, value in values.items():
        setattr(item, key, value)
    return item


def frame_of(dataset: Any) -> str:
    """The frame of reference of the structures, or of the file."""
    for roi in dataset.get("StructureSetROISequence", []):
        if roi.get("ReferencedFrameOfReferenceUID"):
            return str(roi.ReferencedFrameOfReferenceUID)
    return str(dataset.get("FrameOfReferenceUID", "") or "")


def contours_of(drawn: Any) -> list[np.ndarray]:
    """The closed contours of a structure, corners (N, 3) in RAS millimetres."""
    found = []
    for item in (drawn.get("ContourSequence", None) or []) if drawn is not None else []:
        values = np.array(item.get("ContourData") or [], float)
        if str(item.get("ContourGeometricType", "")) not in _CLOSED or values.size < 9 or values.size % 3:
            continue
        found.append(values.reshape(-1, 3) * np.diag(LPS_TO_RAS)[:3])
    return found


def _beyond(contours: list[np.ndarray], image: Volume) -> bool:
    """Whether contours leave an image by more than a voxel."""
    back = np.linalg.inv(image.affine)
    index = np.concatenate(contours) @ back[:3, :3].T + back[:3, 3]
    return bool((index.min(0) < -1).any() or (index.max(0) > np.array(image.shape)).any())


def _color(drawn: Any) -> str:
    values = drawn.get("ROIDisplayColor") if drawn is not None else None
    if values is None or len(values) != 3:
        return ""
    return "#" + "".join(f"{min(max(int(v), 0), 255):02x}" for v in values)


def _distinct(names: Mapping[int, str]) -> dict[int, str]:
    """Names, those that occur twice with their number."""
    counts = list(names.values())
    return {number: name if counts.count(name) == 1 else f"{name} {number}" for number, name in names.items()}


def _frame_item(reference: Reference) -> Any:
    images = [_item(ReferencedSOPClassUID=s.kind, ReferencedSOPInstanceUID=s.uid) for s in reference.slices]
    item = _item(FrameOfReferenceUID=reference.frame)
    if images:
        series = _item(SeriesInstanceUID=reference.series, ContourImageSequence=images)
        study = _item(
            ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",
            ReferencedSOPInstanceUID=str(reference.shared["StudyInstanceUID"]),
            RTReferencedSeriesSequence=[series],
        )
        item.RTReferencedStudySequence = [study]
    return item


def _contour_item(structure: Structure, number: int, affine: np.ndarray, reference: Reference) -> Any:
    color = rgb(structure.color or _COLORS[(number - 1) % len(_COLORS)])
    contours = []
    for line in outlines(structure.mask, LPS_TO_RAS @ affine):
        contour = _item(
            ContourGeometricType="CLOSED_PLANAR",
            NumberOfContourPoints=len(line),
            ContourData=[f"{value:.4f}" for value in line.ravel()],
        )
        if (on := reference.nearest(line[0])) is not None:
            contour.ContourImageSequence = [_item(ReferencedSOPClassUID=on.kind, ReferencedSOPInstanceUID=on.uid)]
        contours.append(contour)
    return _item(
        ReferencedROINumber=number,
        ROIDisplayColor=[round(255 * part) for part in color],
        ContourSequence=contours,
    )
