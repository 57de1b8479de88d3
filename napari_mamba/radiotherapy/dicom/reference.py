"""What DICOM files of one patient share: the patient, the study, the frame of reference, and the CT's slices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.common.explaining import explained, explains
from napari_mamba.io.common.guard import quoted
from napari_mamba.io.formats.dicom.headers import has_preamble

_PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
_STUDY = ("StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName")
BARE = ("", ".dcm", ".dicom", ".ima")
"""Suffixes of files that are looked into although they lack DICOM's preamble."""
CT = "1.2.840.10008.5.1.4.1.1.2"
"""SOP class of CT images."""


@dataclass(frozen=True)
class Slice:
    """One image of a series: what it is called and where its first voxel lies (LPS, mm)."""

    kind: str
    uid: str
    position: tuple[float, float, float]


@dataclass(frozen=True)
class Reference:
    """The series that structures or a dose belong to.

    Attributes
    ----------
    frame, series, modality : str
        Frame of reference UID; series UID; "CT", …
    shared : mapping of str to value
        DICOM keywords of the patient and the study, and their values.
    slices : tuple of Slice
        In no order; empty where no DICOM series is known.
    normal : (float, float, float)
        Of the slices, LPS.
    plan : str
        SOP instance UID of the RTPLAN that a dose is of; empty where there is none.
    """

    frame: str
    series: str
    modality: str
    shared: Mapping[str, Any]
    slices: tuple[Slice, ...] = ()
    normal: tuple[float, float, float] = (0.0, 0.0, 1.0)
    plan: str = ""

    def nearest(self, point: np.ndarray) -> Slice | None:
        """The slice on which a point (3,) in LPS lies, or is nearest to."""
        if not self.slices:
            return None
        normal = np.array(self.normal)
        return min(self.slices, key=lambda one: abs(float((np.array(one.position) - point) @ normal)))


@explains
def read_reference(folder: Path | str) -> Reference:
    """The one DICOM image series in a folder, from its headers.

    Raises
    ------
    InputError
        If the folder holds no series, or several, or its slices do not share a frame of reference.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give the one that holds the CT's DICOM slices")
    found = _headers(sorted(item for item in folder.iterdir() if item.is_file()))
    if not found:
        raise InputError(f"{folder} holds no DICOM slices with a place: give the folder of the planning CT")
    if len({header.SeriesInstanceUID for header in found}) > 1:
        raise InputError(f"{folder} holds several DICOM series: keep the planning CT alone in it")
    return _shared(found, str(folder))


def series_of(files: Sequence[Path]) -> Reference | None:
    """The DICOM series of some files (`io.series_files`); None where there are none any more.

    Raises
    ------
    InputError
        If its slices do not share a frame of reference.
    """
    found = _headers(files)
    return explained(files[0].parent, lambda: _shared(found, str(files[0].parent))) if found else None


def _headers(files: Iterable[Path]) -> list[Any]:
    """Those of the slices among some files."""
    import pydicom

    found = []
    for file in files:
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True)
        except Exception:  # no DICOM, or a damaged one: pydicom raises anything
            continue
        if "ImagePositionPatient" in header and header.get("Modality") not in ("RTDOSE", "RTSTRUCT", "RTPLAN"):
            found.append(header)
    return found


def _shared(found: list[Any], place: str) -> Reference:
    """What the slices of one series share."""
    frames = {str(header.get("FrameOfReferenceUID", "")) for header in found}
    if len(frames) > 1 or "" in frames:
        raise InputError(f"the slices in {place} do not share a frame of reference: export the series anew")
    first = found[0]
    orientation = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    x, y, z = np.cross(*orientation)
    return Reference(
        frame=frames.pop(),
        series=str(first.SeriesInstanceUID),
        modality=str(first.get("Modality", "")),
        shared={key: first.get(key) for key in (*_PATIENT, *_STUDY) if key in first},
        slices=tuple(
            Slice(str(h.SOPClassUID), str(h.SOPInstanceUID), tuple(float(v) for v in h.ImagePositionPatient))  # type: ignore[arg-type]
            for h in found
        ),
        normal=(float(x), float(y), float(z)),
    )


def without_series(frame: str = "") -> Reference:
    """For images that came without DICOM headers: identifiers of their own, and an unnamed patient."""
    from pydicom.uid import generate_uid

    shared = {"PatientName": "", "PatientID": "", "PatientBirthDate": "", "PatientSex": ""}
    shared |= {"StudyInstanceUID": generate_uid(), "StudyID": "", "StudyDate": "", "StudyTime": ""}
    return Reference(frame or generate_uid(), generate_uid(), "", {**shared, "AccessionNumber": ""})


def new_dataset(reference: Reference, modality: str, sop_class: str, described: str = "") -> Any:
    """A DICOM data set with what every file of this patient has, today's date, and what a list of series shows."""
    from datetime import datetime

    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class), generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for key, value in {"StudyID": "", "ReferringPhysicianName": "", **reference.shared}.items():
        setattr(dataset, key, value)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.SeriesInstanceUID, dataset.SeriesNumber = modality, generate_uid(), None
    dataset.InstanceNumber, dataset.OperatorsName, dataset.SeriesDescription = 1, "", described
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = reference.frame, ""
    now = datetime.now()
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.Manufacturer, dataset.ManufacturerModelName = "napari-mamba", "napari-mamba"
    return dataset


def save(dataset: Any, path: Path | str) -> Path:
    """Write a DICOM file: beside, then renamed."""
    from napari_mamba.io.common.atomic import atomic_path

    path = Path(path)
    with atomic_path(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
    return path


def read_dataset(path: Path | str, modality: str) -> Any:
    """A DICOM file of one modality; raises `InputError` where it is none, or another."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist: check the name")
    try:
        dataset = _dataset(path)
        found = str(dataset.get("Modality", ""))
    except Exception as error:  # parsers raise anything on damaged files
        raise InputError(f"{path} is no DICOM file, or a damaged one: export it anew") from error
    if found != modality:
        kind = quoted(found) if found else "no known modality"
        raise InputError(f"{path} is a DICOM file of {kind}, not {modality}: choose another")
    return dataset


def _dataset(path: Path) -> Any:
    """A file's data set, also where it has no DICOM preamble, as some programs leave it out."""
    import pydicom
    from pydicom.errors import InvalidDicomError
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    try:
        return pydicom.dcmread(path)
    except InvalidDicomError:
        dataset = pydicom.dcmread(path, force=True)
        if "SOPClassUID" not in dataset:
            raise
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit = dataset.original_encoding[0]
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        return dataset


def modality_of(path: Path) -> str:
    """DICOM's modality of a file; empty where it is no DICOM file, or a damaged one."""
    import pydicom

    tags = ["Modality", "SOPClassUID"]
    try:
        bare = path.suffix.lower() in BARE and not has_preamble(path)
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags, force=bare)
        return str(header.get("Modality", "")) if not bare or "SOPClassUID" in header else ""
    except Exception:  # no DICOM, or a damaged one: the reading itself says what is wrong with it
        return ""
