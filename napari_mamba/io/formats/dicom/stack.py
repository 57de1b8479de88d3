"""From the slices of a series to a volume: alike, in order, evenly spaced, and one of several moments chosen."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.common import colour as _colour
from napari_mamba.io.common import frames as _frames
from napari_mamba.io.common import source as _source
from napari_mamba.io.common.geometry import LPS_TO_RAS, without_orientation
from napari_mamba.io.formats.dicom import pixels
from napari_mamba.io.formats.dicom.headers import Slice
from napari_mamba.volume import Volume

_SAME_DIRECTION = 1e-3  # of a direction cosine: half a millimetre over 500
_UNIT = 0.02  # a direction's length from 1, and two directions from a right angle: they are rounded to text
_SAME_STEP = 0.02  # of the slice distance: positions are rounded to text in the files
_NAMES = {
    "TemporalPositionIdentifier": "time point {:g}",
    "EchoTime": "echo time {:g} ms",
    "DiffusionBValue": "b = {:g} s/mm²",
    "TriggerTime": "{:g} ms after the trigger",
    "AcquisitionNumber": "acquisition {:g}",
    "Frame": "frame {:g}",
    "ImageType": "{}",
}


def assembled(slices: list[Slice], source: Path, frame: _frames.Frame, colour: _colour.Colour) -> Volume:
    """The volume of a series' slices; errors as those of `dicom.read`."""
    moments, step = arranged(slices, source)
    first = moments[0][0]
    if first.colour:
        _colour.check(colour, first.path)
    else:
        _colour.refuse(colour, first.path)
    wanted = _frames.choose(len(moments), frame, source, "time or echo", moment_names(moments))
    decoded = pixels.Decoded()
    data = np.concatenate([pixels.voxels(moments[index], colour, decoded) for index in wanted])
    names = _colour.NAMES if colour == "channels" and len(wanted) == 1 else ()
    name = _file_name(first.label)
    files = tuple(dict.fromkeys(entry.path for entry in moments[wanted[0]]))
    header = _source.Source(
        dicom=files, slice_thickness=first.slab, acquisition=first.acquisition, doubts=doubts_about(moments)
    )
    if step is None:
        affine = without_orientation(np.array([1.0, *(first.spacing or (1.0, 1.0))]))
        volume = Volume(data, affine, names, units="mm" if first.spacing else "pixel", name=name)
    else:
        volume = Volume(data, affine_of(first, step), names, name=name)
    return _source.attached(volume, header)


def doubts_about(moments: Sequence[Sequence[Slice]]) -> tuple[str, ...]:
    """What the numbers in the headers say against the slices that are there, and what had to be assumed of values."""
    found = []
    first = moments[0][0]
    files = {entry.path: entry for moment in moments for entry in moment}
    numbers = {dict(entry.moment).get("InstanceNumber") for entry in files.values()}
    if len(moments) == 1 and len(files) > 1 and None not in numbers and len(numbers) == len(files):
        missing = round(max(numbers) - len(files))  # type: ignore[type-var, operator]
        if not 0 < missing <= max(3, len(files) // 2):  # numbers that begin elsewhere count something else
            missing = first.announced - len(files)
        if 0 < missing <= max(3, len(files) // 2):
            found.append(
                f"The series may lack {missing} slice{'s' * (missing > 1)} at its ends: {len(files)} are there, and by "
                f"their headers there are {len(files) + missing}. Compare with where it was exported."
            )
    if any(entry.slope == 0 for entry in files.values()):
        found.append("The files' rescale slope is 0, with which all values would be equal: 1 is taken instead.")
    if first.assumed:
        found.append(first.assumed)
    return tuple(found)


def affine_of(first: Slice, step: np.ndarray) -> np.ndarray:
    """The affine (z, y, x) index to RAS of a stack: its first slice, and the step (3,) in LPS mm to the next."""
    matrix = np.eye(4)
    matrix[:3, 0] = step
    matrix[:3, 1] = first.orientation[1] * first.spacing[0]
    matrix[:3, 2] = first.orientation[0] * first.spacing[1]
    matrix[:3, 3] = first.position
    return LPS_TO_RAS @ matrix


def arranged(slices: list[Slice], source: Path) -> tuple[list[list[Slice]], np.ndarray | None]:
    """The slices of each moment in order, and the step (3,) in LPS mm between slices; None where nothing places them.

    Raises
    ------
    InputError
        If they are no evenly spaced stack.
    """
    _check_alike(slices, source)
    if slices[0].position is None or slices[0].orientation is None:
        return [[entry] for entry in _by_moment(slices)], None
    moments = _moments(slices)
    ordered, step = _in_order(moments[0], source)
    return [ordered, *(_in_order(moment, source)[0] for moment in moments[1:])], step


def moment_names(moments: Sequence[Sequence[Slice]]) -> list[str]:
    """What tells the moments apart, in words: the first thing that differs between all of them."""
    described = [dict(moment[0].moment) for moment in moments]
    for key, text in _NAMES.items():
        values = [one.get(key) for one in described]
        if None not in values and len(set(values)) == len(values):
            return [text.format(value) for value in values]
    return [f"volume {index}" for index in range(len(moments))]


def _file_name(label: str) -> str:
    """The label without what a file name may not hold ("CH/AB/PEL")."""
    return re.sub(r"[^\w .()+-]+", "-", label).strip()[:100]


def _check_alike(slices: list[Slice], source: Path) -> None:
    """`InputError` unless the slices are those of one stack."""
    first = slices[0]
    for entry in slices:
        if entry.colour != first.colour:
            raise InputError(f"{source} mixes grey and colour images: take out {entry.path.name}")
        if entry.size != first.size:
            raise InputError(
                f"{source} mixes slices of {first.size} and {entry.size} pixels: take out {entry.path.name}"
            )
        several = entry.path != first.path or first.position is not None
        if several and (entry.position is None or entry.orientation is None or entry.spacing is None):
            if len(slices) == 1:
                continue
            raise InputError(
                f"{entry.path} lacks its position, orientation or pixel spacing: take it out of the folder"
            )
    if first.orientation is None or first.position is None:
        return
    if first.spacing is None or min(first.spacing) <= 0:
        raise InputError(f"{first.path} gives no pixel spacing: convert it with a tool that lets you state it")
    for entry in slices:
        if np.abs(entry.orientation - first.orientation).max() > _SAME_DIRECTION:
            raise InputError(
                f"{source} mixes slices of different orientation, as a localizer does "
                f"({first.path.name}, {entry.path.name}): keep one orientation in the folder"
            )
        if not np.allclose(entry.spacing, first.spacing, rtol=1e-3):
            raise InputError(f"{source} mixes pixel spacings {first.spacing} and {entry.spacing} mm: split the series")
    lengths = np.linalg.norm(first.orientation, axis=1)
    if np.abs(lengths - 1).max() > _UNIT or abs(np.dot(*first.orientation)) > _UNIT:
        raise InputError(
            f"{first.path} has an orientation whose rows and columns are no unit vectors at right angles: repair it"
        )


def _by_moment(slices: Sequence[Slice]) -> list[Slice]:
    keys = [key for key in _NAMES if all(key in dict(entry.moment) for entry in slices)]
    keys += ["AcquisitionTime", "InstanceNumber"]
    return sorted(slices, key=lambda entry: [dict(entry.moment).get(key, 0.0) for key in keys])


def _moments(slices: list[Slice]) -> list[list[Slice]]:
    """The slices of each time point or echo, where each place has the same number of them; else all as one."""
    normal = np.cross(*slices[0].orientation)
    places: dict[int, list[Slice]] = defaultdict(list)
    along = np.array([float(entry.position @ normal) for entry in slices])
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    distinct = gaps[gaps > 1e-3]
    same = max(1e-3, _SAME_STEP * float(np.median(distinct))) if len(distinct) else 1e-3
    number = 0
    for rank, index in enumerate(order):
        number += rank > 0 and gaps[rank - 1] >= same
        places[number].append(slices[index])
    counts = {len(members) for members in places.values()}
    if counts == {1} or len(counts) > 1:
        return [slices]
    sorted_places = [_by_moment(members) for members in places.values()]
    return [[members[moment] for members in sorted_places] for moment in range(counts.pop())]


def _in_order(slices: list[Slice], source: Path) -> tuple[list[Slice], np.ndarray]:
    """The slices along their normal, and the step (3,) in LPS mm from one to the next."""
    normal = np.cross(*slices[0].orientation)
    if len(slices) == 1:
        return slices, normal * (slices[0].thickness or 1.0)
    order = sorted(slices, key=lambda entry: float(entry.position @ normal))
    places = np.array([entry.position @ normal for entry in order])
    gaps = np.diff(places)
    usual = float(np.median(gaps))
    doubled = int(np.argmin(gaps))
    if gaps[doubled] < max(1e-3, _SAME_STEP * usual):
        raise InputError(
            f"{source} holds slices at the same place ({_called(order[doubled])}, {_called(order[doubled + 1])}), "
            f"doubled or of several time points or echoes, and not the same number at each: keep one of each"
        )
    wide = int(np.argmax(gaps))
    if gaps[wide] > 1.5 * usual:
        other = gaps[gaps > 1.5 * usual]
        if len(other) > 2 and np.ptp(other) < _SAME_STEP * usual:
            raise InputError(
                f"{source} has slices {usual:.2f} mm apart in one part and {gaps[wide]:.2f} mm in another: fetch "
                "those that are missing or, if none is, resample it to even spacing first"
            )
        raise InputError(
            f"{source} misses slices: {gaps[wide]:.2f} mm lie between {_called(order[wide])} and "
            f"{_called(order[wide + 1])}, elsewhere {usual:.2f} mm; fetch the whole series"
        )
    step = (order[-1].position - order[0].position) / (len(order) - 1)
    ideal = order[0].position + np.arange(len(order))[:, np.newaxis] * step
    off = np.linalg.norm([entry.position for entry in order] - ideal, axis=1)
    if off.max() > max(1e-2, _SAME_STEP * usual):
        raise InputError(
            f"{source} has unevenly spaced slices ({gaps.min():.3f} to {gaps.max():.3f} mm, "
            f"{_called(order[int(off.argmax())])} is {off.max():.3f} mm off): resample it to even spacing first"
        )
    return order, step


def _called(entry: Slice) -> str:
    return entry.path.name if entry.frames == 1 else f"frame {entry.frame} of {entry.path.name}"
