"""What a DICOM file's header says of the slices in it: one, the frames of an enhanced file, the tiles of a mosaic."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.formats.dicom import deflated

MOSAIC_COUNT = 0x0019100A  # Siemens: NumberOfImagesInMosaic
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
    "AcquisitionTime",
    "InstanceNumber",
    "ImagesInAcquisition",
    "NumberOfSlices",
    "GridFrameOffsetVector",
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


class NotDicomError(Exception):
    """A file is no DICOM, and so none of this room's business."""


@dataclass(frozen=True)
class Slice:
    """One slice of a series, as its header describes it."""

    path: Path
    series: str
    label: str  # of the series, for people
    number: str
    size: tuple[int, int]  # (rows, columns)
    spacing: Any  # (between rows, between columns), mm, or None
    thickness: float | None  # distance between slices where no second slice tells it
    slab: float | None  # how thick the slice itself is, mm
    orientation: Any  # ndarray (2, 3): direction along a row, down a column; or None
    position: Any  # ndarray (3,): centre of the first voxel, LPS mm; or None
    frames: int  # in the file
    colour: bool
    frame: int = 0  # which of them
    corner: tuple[int, int] | None = None  # (row, column) of a mosaic's tile
    instance: str = ""
    acquisition: str = ""  # "2D" or "3D"
    slope: float = 1.0
    intercept: float = 0.0
    moment: tuple = ()  # what tells slices at one place apart: time, echo, diffusion weight, in this order
    modality: str = ""
    description: str = ""
    patient: str = ""
    study: str = ""
    bits: int = 16
    is_segmentation: bool = False
    announced: int = 0  # how many slices the file says that there are; 0 where it does not say


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
    if _is_mosaic(tags):
        return _mosaic(base, tags)
    if "PerFrameFunctionalGroupsSequence" in tags:
        return _enhanced(base, tags)
    if base.frames > 1:
        return _plain_frames(base, tags)
    return [base]


def _is_image(sop: str) -> bool:
    """Whether a SOP class is one of images that files of a series have (CT, MR, PET, X-ray and their enhanced kin)."""
    classes = ("1.1", "1.1.1", "2", "2.1", "4", "4.1", "4.3", "128", "130", "7", "7.2", "20", "481.2", "6.1", "3.1")
    return sop.startswith("1.2.840.10008.5.1.4.1.1.") and sop.removeprefix("1.2.840.10008.5.1.4.1.1.") in classes


def _common(path: Path, tags: Any, is_segmentation: bool) -> Slice:
    orientation = _numbers(tags, "ImageOrientationPatient", 6)
    position = _numbers(tags, "ImagePositionPatient", 3)
    spacing = _numbers(tags, "PixelSpacing", 2)
    if spacing is None and position is None:  # a projection: its detector's spacing is the best there is
        spacing = _numbers(tags, "ImagerPixelSpacing", 2)
    slope, intercept = _rescale(path, tags)
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
        thickness=_thickness(tags),
        slab=_slab(tags),
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
        announced=int(_sortable(tags.get("NumberOfSlices") or tags.get("ImagesInAcquisition")) or 0),
    )


def _rescale(path: Path, tags: Any, slope: float = 1.0, intercept: float = 0.0) -> tuple[float, float]:
    """Slope and intercept of a file or a frame; `InputError` where they are no numbers of a scanner."""
    given = [tags.get("RescaleSlope"), tags.get("RescaleIntercept")]
    if given[0] is None:
        given[0] = tags.get("DoseGridScaling")
    found = [default if one is None else float(one) for one, default in zip(given, (slope, intercept), strict=True)]
    if not all(abs(one) < 1e30 for one in found):
        raise InputError(f"{path} rescales its values by {found[0]:g} and {found[1]:g}: export it anew")
    return found[0], found[1]


def _thickness(tags: Any) -> float | None:
    value = tags.get("SpacingBetweenSlices") or tags.get("SliceThickness")
    return abs(float(value)) if value else None


def _slab(tags: Any) -> float | None:
    value = tags.get("SliceThickness")
    return abs(float(value)) if value else None


def _moment(tags: Any) -> tuple:
    names = ("TemporalPositionIdentifier", "EchoTime", "DiffusionBValue", "TriggerTime", "AcquisitionNumber")
    found = [(name, _sortable(tags.get(name))) for name in (*names, "AcquisitionTime", "InstanceNumber")]
    return tuple((name, value) for name, value in found if value is not None)


def _sortable(value: Any) -> float | None:
    try:
        return None if value is None or value == "" else float(value)
    except (TypeError, ValueError):
        return None


def _numbers(tags: Any, name: str, count: int) -> np.ndarray | None:
    value = tags.get(name)
    if value is None or not hasattr(value, "__len__") or len(value) != count:
        return None
    found = np.array([float(number) for number in value])
    return found if np.isfinite(found).all() and np.abs(found).max() < 1e7 else None


def _enhanced(base: Slice, tags: Any) -> list[Slice]:
    """Each frame of an enhanced file, which places them by "functional groups" (PS3.3, C.7.6.16)."""
    shared = (tags.get("SharedFunctionalGroupsSequence") or [None])[0]
    groups = list(tags.PerFrameFunctionalGroupsSequence)
    if len(groups) != base.frames:
        raise InputError(f"{base.path} describes {len(groups)} frames and announces {base.frames}: copy it anew")
    return [_of_frame(base, index, group, shared) for index, group in enumerate(groups)]


def _of_frame(base: Slice, index: int, group: Any, shared: Any) -> Slice:
    def macro(name: str) -> Any:
        for holder in (group, shared):
            if holder is not None and holder.get(name):
                return holder.get(name)[0]
        return {}

    orientation = _numbers(macro("PlaneOrientationSequence"), "ImageOrientationPatient", 6)
    position = _numbers(macro("PlanePositionSequence"), "ImagePositionPatient", 3)
    measures = macro("PixelMeasuresSequence")
    spacing = _numbers(measures, "PixelSpacing", 2)
    slope, intercept = _rescale(base.path, macro("PixelValueTransformationSequence"), base.slope, base.intercept)
    content = macro("FrameContentSequence")
    found = [
        ("TemporalPositionIdentifier", _sortable(content.get("TemporalPositionIndex"))),
        ("EchoTime", _sortable(macro("MREchoSequence").get("EffectiveEchoTime"))),
        ("DiffusionBValue", _sortable(macro("MRDiffusionSequence").get("DiffusionBValue"))),
        ("TriggerTime", _sortable(macro("CardiacSynchronizationSequence").get("NominalCardiacTriggerDelayTime"))),
        ("InstanceNumber", float(index)),
    ]
    return replace(
        base,
        frame=index,
        orientation=base.orientation if orientation is None else orientation.reshape(2, 3),
        position=base.position if position is None else position,
        spacing=base.spacing if spacing is None else (spacing[0], spacing[1]),
        thickness=_thickness(measures) or base.thickness,
        slab=_slab(measures) or base.slab,
        slope=slope,
        intercept=intercept,
        moment=tuple((name, value) for name, value in found if value is not None),
    )


def _plain_frames(base: Slice, tags: Any) -> list[Slice]:
    """Frames without functional groups: of a dose grid, slices; of ultrasound and the like, moments of one slice."""
    offsets = tags.get("GridFrameOffsetVector")
    moments = [(*base.moment, ("Frame", float(index))) for index in range(base.frames)]
    if offsets is None or base.position is None or base.orientation is None or len(offsets) != base.frames:
        return [replace(base, frame=index, moment=moments[index]) for index in range(base.frames)]
    normal = np.cross(*base.orientation)
    first = float(offsets[0])
    return [
        replace(base, frame=index, position=base.position + normal * (float(offset) - first))
        for index, offset in enumerate(offsets)
    ]


def _is_mosaic(tags: Any) -> bool:
    """Whether Siemens tiled slices into the picture: by its kind, or by their number where that was made anonymous."""
    if "MOSAIC" in [str(word).upper() for word in tags.get("ImageType", "") or ()]:
        return True
    creator = tags.get(0x00190010)
    return creator is not None and "SIEMENS" in str(creator.value).upper() and (_mosaic_count(tags, False) or 0) > 1


def _mosaic(base: Slice, tags: Any) -> list[Slice]:
    """The slices that Siemens tiles into one picture, whose position is that of the picture's own corner.

    The layout and the shift of the corner: nipy.org/nibabel/dicom/dicom_mosaic.html.
    """
    count = _mosaic_count(tags)
    if count is None or base.orientation is None or base.position is None or base.spacing is None:
        raise InputError(
            f"{base.path} is a Siemens mosaic that does not say how many slices it holds: convert it with dcm2niix"
        )
    side = math.ceil(math.sqrt(count))
    rows, columns = base.size
    if rows % side or columns % side or not base.thickness:
        raise InputError(f"{base.path} is a Siemens mosaic that cannot be taken apart: convert it with dcm2niix")
    size = (rows // side, columns // side)
    across, down = base.orientation
    corner = base.position + across * base.spacing[1] * (columns - size[1]) / 2
    corner = corner + down * base.spacing[0] * (rows - size[0]) / 2
    normal = _mosaic_normal(tags)
    normal = np.cross(across, down) if normal is None else normal
    return [
        replace(
            base,
            size=size,
            position=corner + normal * base.thickness * index,
            corner=(index // side * size[0], index % side * size[1]),
        )
        for index in range(count)
    ]


def _mosaic_count(tags: Any, anywhere: bool = True) -> int | None:
    plain = tags.get(MOSAIC_COUNT)
    value: Any = plain.value if plain is not None else _csa(tags, "NumberOfImagesInMosaic") if anywhere else None
    if isinstance(value, bytes):
        value = int.from_bytes(value[:2], "little")
    try:
        count = int(value)
    except (TypeError, ValueError):
        return None
    return count if 0 < count <= 4096 else None


def _mosaic_normal(tags: Any) -> np.ndarray | None:
    """Siemens' own direction from slice to slice, which may run against the cross product of rows and columns."""
    value = _csa(tags, "SliceNormalVector", several=True)
    if value is None or len(value) != 3:
        return None
    normal = np.array([float(part) for part in value])
    return normal / np.linalg.norm(normal) if np.linalg.norm(normal) > 0 else None


def _csa(tags: Any, name: str, several: bool = False) -> Any:
    from nibabel.nicom import csareader

    try:
        header = csareader.get_csa_header(tags, "image")
        items = header["tags"][name]["items"] if header else []
    except Exception:  # a private header of another version, or damaged: as if it were not there
        return None
    return (items if several else items[0]) if items else None
