"""What a DICOM file's header says of the slices in it: one, the frames of an enhanced file, the tiles of a mosaic."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from napari_mamba.errors import InputError
from napari_mamba.io.formats.dicom import deflated
from napari_mamba.io.formats.dicom.mosaic import MOSAIC_COUNT, is_mosaic, tiles
from napari_mamba.io.formats.dicom.multiframe import enhanced, plain_frames
from napari_mamba.io.formats.dicom.one_slice import NotDicomError, Slice, numbers, rescale, slab, sortable, thickness

__all__ = ["SEGMENTATIONS", "NotDicomError", "Slice", "begins_as_dicom", "has_preamble", "has_table", "slices_of"]

_TAGS: list[str | int] = [
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "StudyDescription",
    "StudyDate",
    "PatientName",
    "PatientID",
    "Modality",
    "ImageType",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "SliceThickness",
    "MRAcquisitionType",
    "SpacingBetweenSlices",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "BitsAllocated",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "RescaleSlope",
    "RescaleIntercept",
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "EchoTime",
    "DiffusionBValue",
    "TriggerTime",
    "AcquisitionDate",
    "AcquisitionTime",
    "InstanceNumber",
    "ImagesInAcquisition",
    "NumberOfSlices",
    "GridFrameOffsetVector",
    "FrameIncrementPointer",
    "FrameTime",
    "FrameTimeVector",
    "CineRate",
    "SliceVector",
    "SliceLocationVector",
    "DetectorInformationSequence",
    "ModalityLUTSequence",
    "DoseGridScaling",
    "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
    "SegmentSequence",
    0x00190010,
    MOSAIC_COUNT,
    0x00290010,
    0x00291010,
]
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_LARGEST_SIDE, _MOST_FRAMES = 65535, 100_000


_RADIOGRAPHS = ("1.2.840.10008.5.1.4.1.1.12.1", "1.2.840.10008.5.1.4.1.1.12.2")  # XA and XRF
_DECIMALS = (
    "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "ImagerPixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept", "EchoTime", "TriggerTime",
)  # fmt: skip
_FIRST_GROUPS, _IMPLICIT_LIMIT = (b"\x02\0", b"\x08\0"), 1 << 16


def has_table(tags: Any) -> bool:
    """Whether stored values become real ones by a table (PS3.3, C.11.1); XA's and XRF's is about the beam alone."""
    return "ModalityLUTSequence" in tags and str(tags.get("SOPClassUID", "")) not in _RADIOGRAPHS


def begins_as_dicom(path: Path) -> bool:
    """Whether the file begins with two elements of a DICOM data set, in order, as files without a preamble do."""
    with open(path, "rb") as file:
        start = file.read(_IMPLICIT_LIMIT)
    place, last = 0, -1
    for _ in range(2):
        head = start[place : place + 8]
        if len(head) < 8 or head[:2] not in _FIRST_GROUPS:
            return False
        tag = int.from_bytes(head[:2], "little") << 16 | int.from_bytes(head[2:4], "little")
        explicit = head[4:6].isalpha() and head[4:6].isupper()
        length = int.from_bytes(head[6:8] if explicit else head[4:8], "little")
        if tag <= last or length >= _IMPLICIT_LIMIT or (explicit and head[4:6] in (b"OB", b"OW", b"SQ", b"UN", b"UT")):
            return False
        place, last = place + 8 + length, tag
    return True


def _with_points(tags: Any) -> None:
    """Put a decimal point where a program wrote its country's comma: the standard knows points alone (PS3.5, 6.2)."""
    from pydicom.datadict import tag_for_keyword

    for name in _DECIMALS:
        if name not in tags:
            continue
        item = tags.get_item(tag_for_keyword(name))
        value = getattr(item, "value", None)
        if isinstance(value, bytes) and b"," in value:
            tags[item.tag] = item._replace(value=value.replace(b",", b"."))


def has_preamble(path: Path) -> bool:
    """Whether the file has DICOM's preamble ("DICM" after 128 bytes)."""
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def slices_of(path: Path, *, force: bool) -> list[Slice]:
    """The slices in a file.

    Returns
    -------
    list of Slice
        Empty where it is DICOM but no image (a report, a plan, a DICOMDIR).

    Raises
    ------
    InputError
        If it is cut off or damaged.
    NotDicomError
        If it is no DICOM at all.
    """
    import pydicom

    deflated.check(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd values of tags are judged below
        try:
            tags = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS, force=force)  # type: ignore[arg-type]
        except pydicom.errors.InvalidDicomError as error:
            raise NotDicomError from error
        except (EOFError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            if not has_preamble(path):
                raise NotDicomError from error
            raise InputError(f"{path} is cut off in its header: copy it anew") from error
        except Exception as error:  # pydicom raises anything on damaged elements, and on what is no DICOM
            if not has_preamble(path):
                raise NotDicomError from error
            raise InputError(f"{path} has a damaged DICOM header: copy it anew") from error
        try:
            _with_points(tags)
            return _slices(path, tags)
        except (InputError, NotDicomError):
            raise
        except Exception as error:  # a tag of another type than the standard gives it
            raise InputError(f"{path} has a damaged DICOM header ({type(error).__name__}): copy it anew") from error


def _slices(path: Path, tags: Any) -> list[Slice]:
    sop = str(tags.get("SOPClassUID", ""))
    meta = str(tags.file_meta.get("MediaStorageSOPClassUID", "")) if hasattr(tags, "file_meta") else ""
    if "Rows" not in tags or "SeriesInstanceUID" not in tags:
        if _is_image(sop or meta):
            raise InputError(f"{path} is cut off in its header: copy it anew")
        if not (sop or meta) and "SeriesInstanceUID" not in tags:
            if has_preamble(path):
                raise InputError(f"{path} is cut off in its header: copy it anew")
            raise NotDicomError
        return []
    base = _common(path, tags, sop in SEGMENTATIONS)
    if not 0 < max(base.size) <= _LARGEST_SIDE or min(base.size) < 1 or not 1 <= base.frames <= _MOST_FRAMES:
        raise InputError(f"{path} has a damaged DICOM header (size {base.size}, {base.frames} frames): copy it anew")
    if is_mosaic(tags):
        return tiles(base, tags)
    if "PerFrameFunctionalGroupsSequence" in tags:
        return enhanced(base, tags)
    if base.frames > 1:
        return plain_frames(base, tags)
    return [base]


def _is_image(sop: str) -> bool:
    """Whether a SOP class is one of images that files of a series have (CT, MR, PET, X-ray and their enhanced kin)."""
    classes = ("1.1", "1.1.1", "2", "2.1", "4", "4.1", "4.3", "128", "130", "7", "7.2", "20", "481.2", "6.1", "3.1")
    return sop.startswith("1.2.840.10008.5.1.4.1.1.") and sop.removeprefix("1.2.840.10008.5.1.4.1.1.") in classes


def _common(path: Path, tags: Any, is_segmentation: bool) -> Slice:
    orientation = numbers(tags, "ImageOrientationPatient", 6)
    position = numbers(tags, "ImagePositionPatient", 3)
    spacing = numbers(tags, "PixelSpacing", 2)
    if spacing is None and position is None:  # a projection: its detector's spacing is the best there is
        spacing = numbers(tags, "ImagerPixelSpacing", 2)
    slope, intercept = (1.0, 0.0) if has_table(tags) else rescale(path, tags)
    number = str(tags.get("SeriesNumber", "") or "")
    words = [number, tags.get("Modality", ""), tags.get("SeriesDescription", "")]
    photometric = str(tags.get("PhotometricInterpretation", ""))
    return Slice(
        path=path,
        series=str(tags.SeriesInstanceUID),
        label=" ".join(str(word) for word in words if word),
        number=number,
        size=(int(tags.Rows), int(tags.Columns)),
        spacing=None if spacing is None else (spacing[0], spacing[1]),
        thickness=thickness(tags),
        slab=slab(tags),
        acquisition=str(tags.get("MRAcquisitionType", "") or ""),
        orientation=None if orientation is None else orientation.reshape(2, 3),
        position=position,
        frames=int(tags.get("NumberOfFrames") or 1),
        colour=int(tags.get("SamplesPerPixel") or 1) > 1 or photometric.startswith("PALETTE"),
        instance=str(tags.get("SOPInstanceUID", "")),
        slope=slope,
        intercept=intercept,
        moment=_moment(tags),
        modality=str(tags.get("Modality", "") or ""),
        description=str(tags.get("SeriesDescription", "") or ""),
        patient=str(tags.get("PatientName", "") or tags.get("PatientID", "") or ""),
        study=" ".join(str(tags.get(key, "") or "") for key in ("StudyDate", "StudyDescription")).strip(),
        bits=int(tags.get("BitsAllocated", 16) or 16),
        is_segmentation=is_segmentation,
        announced=int(sortable(tags.get("NumberOfSlices") or tags.get("ImagesInAcquisition")) or 0),
    )


def _moment(tags: Any) -> tuple:
    names = ("TemporalPositionIdentifier", "EchoTime", "DiffusionBValue", "TriggerTime", "AcquisitionNumber")
    found = [(name, sortable(tags.get(name))) for name in (*names, "AcquisitionTime", "InstanceNumber")]
    day = sortable(tags.get("AcquisitionDate")) or 0.0  # 20261130; the time is 235959: a scan may go on past midnight
    by_day = [(name, value + 1e6 * day if name == "AcquisitionTime" and value else value) for name, value in found]
    words = tags.get("ImageType") or ()
    kind = "" if isinstance(words, str) else "\\".join(str(word) for word in list(words)[2:])  # "M" and "P", "WATER"
    return (*((name, value) for name, value in by_day if value is not None), *([("ImageType", kind)] if kind else ()))
