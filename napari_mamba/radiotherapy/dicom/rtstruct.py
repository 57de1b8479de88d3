"""DICOM RTSTRUCT: structures as contours (PS3.3, A.19 and C.8.8)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.common.explaining import explains
from napari_mamba.io.common.geometry import LPS_TO_RAS
from napari_mamba.io.labels.naming import rgb
from napari_mamba.radiotherapy.dicom.contours import outlines, rasterised
from napari_mamba.radiotherapy.dicom.planes import usual_distance
from napari_mamba.radiotherapy.dicom.reference import Reference, new_dataset, read_dataset, save, without_series
from napari_mamba.radiotherapy.dicom.regions import Region, contradicts, frames_of, regions_of
from napari_mamba.radiotherapy.structures import OUTSIDE, Structure, StructureSet, kind_of, prescription_of
from napari_mamba.volume import Volume

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"
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
        In the file's order, empty ones included; `notes` tell which lie outside the image, wholly or in part, which are
        points or lines alone, and which are left out, since they lie in another frame of reference than the image or,
        where its is not known, than most.

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
    regions = regions_of(dataset)
    if not regions:
        raise InputError(f"{path} holds no structures: export them anew")
    frames = frames_of(dataset, regions)
    if frame and frames and frame not in frames:
        raise InputError(
            f"{path} lies in another frame of reference than the image: choose the structures of this image, or "
            "register the two first"
        )
    own = frame if frame in frames else next(iter(frames), "")
    elsewhere = [region for region in regions if region.frame and own and region.frame != own]
    kept = [region for region in regions if region not in elsewhere]
    thickness = usual_distance([contour for region in kept for contour in region.contours])
    structures, notes = [], _file_notes(contradicts(dataset, frames), elsewhere, kept)
    for region in kept:
        mask, told = _drawn(region, image, thickness)
        notes += told
        prescribed = prescription_of(region.name) if region.kind in ("PTV", "CTV", "GTV", "") else None
        structures.append(Structure(region.name, mask, region.color, region.kind, prescribed, region.code))
    if not any(region.contours for region in kept):
        raise InputError(f"{path} names structures, but holds no contours: export them anew")
    if not any(structure.mask.any() for structure in structures):
        raise InputError(f"no structure in {path} lies inside the image: choose the structures of this image")
    return StructureSet(tuple(structures), image.affine, own, tuple(notes))


def _file_notes(contradicting: bool, elsewhere: Sequence[Region], kept: Sequence[Region]) -> list[str]:
    """What is to be told of the file as a whole."""
    notes = []
    if contradicting:
        notes.append("the structures name another frame of reference than their file lists: check that they fit")
    if drawn := [region.name for region in elsewhere if region.contours]:
        notes.append(f"{_listed(drawn)}: left out, drawn in another frame of reference")
    if lines := [region.name for region in kept if region.open and not region.contours]:
        notes.append(f"{_listed(lines)}: points or open lines, which enclose nothing")
    return notes


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _drawn(region: Region, image: Volume, thickness: float | None) -> tuple[np.ndarray, list[str]]:
    """A structure's mask, and a sentence for all that is odd about it."""
    notes = [f"{region.name} has {region.damaged} damaged contours: they are left out"] if region.damaged else []
    if region.open and region.contours:
        notes.append(f"{region.name} has points or open lines beside its contours: they are left out")
    contours = region.contours
    try:
        mask = rasterised(contours, image.affine, image.shape, thickness=thickness, exclusive=region.exclusive)
    except InputError:  # the other structures can do without it
        notes.append(f"{region.name}: left empty, its contours do not lie in parallel planes")
        return np.zeros(image.shape, bool), notes
    if contours and not mask.any():
        notes.append(f"{region.name} {OUTSIDE}")
    elif contours and _beyond(contours, image):
        notes.append(f"{region.name} reaches beyond the image: what lies outside counts nowhere")
    return mask, notes


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
    dataset = new_dataset(reference, "RTSTRUCT", SOP_CLASS, "Structures (napari-mamba)")
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
        dataset.RTROIObservationsSequence.append(_observed(structure, number))
    return save(dataset, path)


def _observed(structure: Structure, number: int) -> Any:
    """What a structure is: its kind, and its code where it has one."""
    kind = kind_of(structure)
    item = _item(ObservationNumber=number, ReferencedROINumber=number, RTROIInterpretedType=kind, ROIInterpreter="")
    if structure.code:
        code = _item(CodeValue=structure.code, CodingSchemeDesignator="SCT", CodeMeaning=structure.name[:64])
        item.RTROIIdentificationCodeSequence = [code]
    return item


def _item(**values: Any) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    for key, value in values.items():
        setattr(item, key, value)
    return item


def _beyond(contours: Sequence[np.ndarray], image: Volume) -> bool:
    """Whether contours leave an image by more than a voxel."""
    back = np.linalg.inv(image.affine)
    index = np.concatenate(contours) @ back[:3, :3].T + back[:3, 3]
    return bool((index.min(0) < -1).any() or (index.max(0) > np.array(image.shape)).any())


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
    drawn = _item(ReferencedROINumber=number, ROIDisplayColor=[round(255 * part) for part in color])
    if contours:  # the standard knows no sequence without an item
        drawn.ContourSequence = contours
    return drawn
