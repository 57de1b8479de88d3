"""DICOM segmentations (PS3.3, A.51) through highdicom, in and out."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import ChoiceError, InputError, Option, OutputError
from napari_mamba.io.common import guard as _guard
from napari_mamba.io.common import source as _source
from napari_mamba.io.common.geometry import LPS_TO_RAS
from napari_mamba.io.formats.dicom.headers import SEGMENTATIONS, Slice
from napari_mamba.io.labels import naming
from napari_mamba.io.labels.storing import storable
from napari_mamba.volume import Volume

_TRACKING = "napari-mamba label "  # and the label's own value: segments are numbered 1, 2, 3
_HALF = 0.5
_STRUCTURE = ("123037004", "SCT", "Anatomical Structure")


def read(members: Sequence[Slice], source: Path) -> Volume:
    """The label map of a segmentation, one label a segment, on the grid of its own slices.

    Parameters
    ----------
    members : sequence of Slice
        Of one series.
    source : Path
        What the user named, for messages.

    Returns
    -------
    Volume
        One channel of unsigned integers. Where segments overlap, the later one lies on top, and a doubt says so.

    Raises
    ------
    ChoiceError
        If the series holds several segmentations.
    InputError
        If it is damaged, or its frames make no regular grid.
    """
    files = list(dict.fromkeys(entry.path for entry in members))
    if len(files) > 1:
        raise ChoiceError(
            f"{source} holds {len(files)} segmentations of one series: name the file of one",
            "path",
            [Option(str(file), file.name) for file in files],
        )
    path = files[0]
    frame = members[0]
    _guard.check_unpacked(frame.size[0] * frame.size[1] * frame.frames, path.stat().st_size, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _read(path, frame)
        except (InputError, MemoryError):
            raise
        except Exception as error:  # highdicom and pydicom raise anything on damaged files
            raise InputError(f"{path} is a damaged DICOM segmentation: export it anew") from error


def _highdicom() -> Any:
    try:
        import highdicom
    except ImportError as error:
        raise InputError(
            "DICOM segmentations need highdicom, which is not installed: pip install highdicom, or choose .seg.nrrd"
        ) from error
    return highdicom


def _read(path: Path, frame: Slice) -> Volume:
    seg = _highdicom().seg.segread(path)
    array, matrix, doubts = _shares(seg) if seg.segmentation_type.value == "FRACTIONAL" else _combined(seg, path)
    array, matrix = _along_the_normal(array, matrix)
    segments = [seg.get_segment_description(number) for number in seg.segment_numbers]
    array, values = _own_values(array, segments)
    classes = tuple(_entry(segment, value) for segment, value in zip(segments, values, strict=True))
    name = frame.description or path.stem
    volume = Volume(storable(array[np.newaxis].astype(np.int64), classes), LPS_TO_RAS @ matrix, name=name)
    return _source.attached(volume, _source.Source(classes, True, doubts))


def segments(path: Path) -> list[tuple[_source.LabelEntry, Volume]]:
    """The segments of a segmentation, each a mask, so that they may overlap; an entry's `index` is its segment's.

    Empty where the file is another one. Raises `InputError` where it is damaged, or its frames make no regular grid.
    """
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if str(pydicom.dcmread(path, specific_tags=["SOPClassUID"]).get("SOPClassUID", "")) not in SEGMENTATIONS:
                return []
            seg = _highdicom().seg.segread(path)
            found = seg.get_volume(combine_segments=False)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # highdicom and pydicom raise anything on damaged files
        raise InputError(f"{path} is a damaged DICOM segmentation: export it anew") from error
    masks, matrix = np.asarray(found.array) >= _HALF, np.array(found.affine, dtype=np.float64)
    read = []
    for position, number in enumerate(seg.segment_numbers):
        mask, turned = _along_the_normal(masks[..., position], matrix)
        entry = _entry(seg.get_segment_description(number), int(number))
        read.append((entry, Volume(mask[np.newaxis], LPS_TO_RAS @ turned)))
    return read


def _combined(seg: Any, path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """The segments in one map, its matrix, and what is doubtful."""
    doubts: tuple[str, ...] = ()
    try:
        found = seg.get_volume(combine_segments=True, rescale_fractional=False)
    except RuntimeError:  # segments overlap; the error keeps highdicom's tables locked
        found = None
    if found is None:
        doubts = (_source.OVERLAP,)
        again = _highdicom().seg.segread(path)
        found = again.get_volume(combine_segments=True, rescale_fractional=False, skip_overlap_checks=True)
    return np.asarray(found.array), np.array(found.affine, dtype=np.float64), doubts


def _shares(seg: Any) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """As `_combined`, of a fractional segmentation: the segment with most of a voxel, where that is half or more."""
    found = seg.get_volume(combine_segments=False)
    shares = np.asarray(found.array)  # (z, y, x, segments)
    numbers = np.array(list(seg.segment_numbers), np.uint16)
    array = np.where(shares.max(axis=-1) >= _HALF, numbers[shares.argmax(axis=-1)], 0)
    doubt = "The file holds shares of voxels, no labels: a segment counts where it has half of a voxel or more."
    return array, np.array(found.affine, dtype=np.float64), (doubt,)


def _along_the_normal(array: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The map and its LPS matrix with slices in the order in which `stack` puts those of an image."""
    if matrix[:3, 0] @ np.cross(matrix[:3, 2], matrix[:3, 1]) >= 0:
        return array, matrix
    turned = matrix.copy()
    turned[:3, 3] += (array.shape[0] - 1) * matrix[:3, 0]
    turned[:3, 0] *= -1
    return array[::-1], turned


def _own_values(array: np.ndarray, segments: Sequence[Any]) -> tuple[np.ndarray, list[int]]:
    """The map with the values that the labels had when they were written here, and those values."""
    numbers = [int(segment.segment_number) for segment in segments]
    noted = [str(segment.get("TrackingID", "")) for segment in segments]
    if not all(re.fullmatch(f"{_TRACKING}[0-9]{{1,9}}", note) for note in noted):
        return array, numbers
    values = [int(note.removeprefix(_TRACKING)) for note in noted]
    if len(set(values)) < len(values) or 0 in values:
        return array, numbers
    table = np.zeros(max(numbers) + 1, np.int64)
    table[numbers] = values
    return table[array], values


def _entry(segment: Any, value: int) -> _source.LabelEntry:
    color = ""
    lab: Any = segment.get("RecommendedDisplayCIELabValue")
    if lab is not None and len(lab) == 3:
        from highdicom.color import CIELabColor

        red, green, blue = CIELabColor.from_dicom_value(tuple(lab)).to_rgb()
        color = f"#{red:02x}{green:02x}{blue:02x}"
    kind = segment.segmented_property_type
    code = f"{kind.scheme_designator}:{kind.value}"
    return _source.LabelEntry(value, naming.one_line(segment.segment_label), color, code)


def write(volume: Volume, path: Path, classes: Sequence[naming.Class] = ()) -> None:
    """Write a label map as a binary DICOM segmentation that refers to the series it was made from.

    Parameters
    ----------
    volume : Volume
        Labels on the grid of a DICOM series that `io.read` gave: the segmentation carries its patient and study.
    path : Path
    classes : sequence of Class
        Segments are numbered by their order, as the standard asks; `code` ("SCT:10200004") names a class's concept.

    Raises
    ------
    OutputError
        If there are no classes, the volume was not made from a DICOM series of one file a slice, or no label is drawn.
    """
    if not classes:
        raise OutputError(f"{path} cannot be written: DICOM is written for label maps alone, choose .nii.gz")
    sources = sources_of(volume, path)
    array = storable(volume.data, classes)[0]
    drawn = [entry for entry in naming.foreground(classes) if (array == entry.index).any()]
    if not drawn:
        raise OutputError(f"{path} cannot be written: no label is drawn, and a segmentation without one is not allowed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _segmentation(sources, array, drawn).save_as(path)


def sources_of(volume: Volume, path: Path) -> Sequence[Path]:
    """The files that a segmentation of this image, written to `path`, refers to.

    Raises
    ------
    OutputError
        If the image was not made from a DICOM series of one file a slice.
    """
    sources = _source.of(volume).dicom
    if not sources or len(sources) not in (1, volume.shape[0]):
        raise OutputError(f"{path} cannot be written: a DICOM segmentation refers to a DICOM series; choose .nii.gz")
    return sources


def _segmentation(sources: Sequence[Path], array: np.ndarray, drawn: Sequence[naming.Class]) -> Any:
    import pydicom

    hd = _highdicom()
    numbered = np.zeros(array.shape, np.uint8 if len(drawn) < 256 else np.uint16)
    for number, entry in enumerate(drawn, 1):
        numbered[array == entry.index] = number
    return hd.seg.Segmentation(
        source_images=[pydicom.dcmread(file) for file in sources],
        pixel_array=numbered,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        omit_empty_frames=False,  # so that it comes back on the whole grid
        segment_descriptions=[_description(number, entry) for number, entry in enumerate(drawn, 1)],
        series_instance_uid=hd.UID(),
        series_number=900,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="napari-mamba",
        manufacturer_model_name="napari-mamba",
        software_versions="1",
        device_serial_number="0",
        series_description="Labels by napari-mamba, not for clinical use",
    )


def _description(number: int, entry: naming.Class) -> Any:
    import highdicom as hd
    from highdicom.color import CIELabColor
    from pydicom.sr.coding import Code

    red, green, blue = (round(255 * part) for part in naming.rgb(entry.color))
    scheme, _, value = str(getattr(entry, "code", "") or "").partition(":")
    name = naming.one_line(entry.name)[:64] or f"label {entry.index}"
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        tracking_uid=hd.UID(),
        tracking_id=f"{_TRACKING}{entry.index}",
        segmented_property_category=Code(*_STRUCTURE),
        segmented_property_type=Code(value, scheme, name) if value else Code(*_STRUCTURE),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="napari-mamba", version="1", family=Code("123109", "DCM", "Artificial Intelligence")
        ),
        display_color=CIELabColor.from_rgb(red, green, blue),
    )
