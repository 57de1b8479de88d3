"""The slices of a file of many frames: enhanced ones by their groups, others by what little they say of each frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.formats.dicom.one_slice import Slice, numbers, rescale, slab, sortable, thickness

_SLICES, _OFFSETS = 0x00540080, 0x00182005  # tags that FrameIncrementPointer names: SliceVector, SliceLocationVector
_VOLUMES = ("CT", "MR", "PT")  # modalities whose frames, where nothing says that they are moments, are slices
_FILM = ("FrameTime", "FrameTimeVector", "CineRate")
_ULTRASOUND = "The image lies in the place of the ultrasound's own volume, which says nothing of the patient's axes."
_FOLLOWING = (
    "The file gives the place of its first frame alone: the others are taken to follow it every {:g} mm, as by its {}."
)
_NOWHERE = "The file does not say how the patient lies: its frames are taken as axial slices, {:g} mm apart."


def enhanced(base: Slice, tags: Any) -> list[Slice]:
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

    orientation = numbers(macro("PlaneOrientationSequence"), "ImageOrientationPatient", 6)
    position = numbers(macro("PlanePositionSequence"), "ImagePositionPatient", 3)
    assumed = ""
    if position is None and orientation is None:
        orientation = numbers(macro("PlaneOrientationVolumeSequence"), "ImageOrientationVolume", 6)
        position = numbers(macro("PlanePositionVolumeSequence"), "ImagePositionVolume", 3)
        assumed = "" if position is None else _ULTRASOUND
    measures = macro("PixelMeasuresSequence")
    spacing = numbers(measures, "PixelSpacing", 2)
    slope, intercept = rescale(base.path, macro("PixelValueTransformationSequence"), base.slope, base.intercept)
    content = macro("FrameContentSequence")
    found = [
        ("TemporalPositionIdentifier", sortable(content.get("TemporalPositionIndex"))),
        ("EchoTime", sortable(macro("MREchoSequence").get("EffectiveEchoTime"))),
        ("DiffusionBValue", sortable(macro("MRDiffusionSequence").get("DiffusionBValue"))),
        ("TriggerTime", sortable(macro("CardiacSynchronizationSequence").get("NominalCardiacTriggerDelayTime"))),
        ("InstanceNumber", float(index)),
    ]
    return replace(
        base,
        frame=index,
        assumed=assumed,
        orientation=base.orientation if orientation is None else orientation.reshape(2, 3),
        position=base.position if position is None else position,
        spacing=base.spacing if spacing is None else (spacing[0], spacing[1]),
        thickness=thickness(measures) or base.thickness,
        slab=slab(measures) or base.slab,
        slope=slope,
        intercept=intercept,
        moment=tuple((name, value) for name, value in found if value is not None),
    )


def plain_frames(base: Slice, tags: Any) -> list[Slice]:
    """Frames without functional groups: slices where the file says so in any way, else moments of one slice."""
    if (offsets := _offsets(tags)) is not None and len(offsets) == base.frames and base.position is not None:
        return _stacked(base, [float(one) - float(offsets[0]) for one in offsets])
    if (places := _tomogram(base, tags)) is not None:
        return places
    between, word = tags.get("SpacingBetweenSlices"), "spacing between slices"
    if not between:
        between, word = tags.get("SliceThickness"), "slice thickness"
    if base.modality in _VOLUMES and between and not any(tags.get(name) for name in _FILM):
        return _following(base, float(between), word)
    moments = [(*base.moment, ("Frame", float(index))) for index in range(base.frames)]
    return [replace(base, frame=index, moment=moments[index]) for index in range(base.frames)]


def _offsets(tags: Any) -> Sequence[Any] | None:
    """How far each frame lies along the normal: of a dose grid, or of a file that counts its frames by location."""
    if (grid := tags.get("GridFrameOffsetVector")) is not None:
        return grid  # type: ignore[no-any-return]
    return tags.get("SliceLocationVector") if _OFFSETS in _pointers(tags) else None


def _pointers(tags: Any) -> list[int]:
    value = tags.get("FrameIncrementPointer")
    if value is None:
        return []
    return [int(one) for one in value] if isinstance(value, list | tuple) or hasattr(value, "append") else [int(value)]


def _stacked(base: Slice, offsets: Sequence[float]) -> list[Slice]:
    if base.position is None or base.orientation is None:
        return [replace(base, frame=index, moment=(("Frame", float(index)),)) for index in range(base.frames)]
    normal = np.cross(*base.orientation)
    return [replace(base, frame=index, position=base.position + normal * by) for index, by in enumerate(offsets)]


def _tomogram(base: Slice, tags: Any) -> list[Slice] | None:
    """The slices of reconstructed nuclear medicine, gated or not; None where the file is none (PS3.3, C.8.4.15).

    A negative spacing stacks against the normal. Frames with one slice's number are moments.
    """
    numbered = tags.get("SliceVector")
    detector = (tags.get("DetectorInformationSequence") or [{}])[0]
    position, orientation = (
        numbers(tags if name in tags else detector, name, count)
        for name, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6))
    )
    between = tags.get("SpacingBetweenSlices") or tags.get("SliceThickness")
    if (
        _SLICES not in _pointers(tags) or numbered is None or len(numbered) != base.frames
        or position is None or orientation is None or not between
    ):  # fmt: skip
        return None
    placed = replace(base, position=position, orientation=orientation.reshape(2, 3))
    counted: Counter = Counter()
    found = []
    for one, number in zip(_stacked(placed, [(int(n) - 1) * float(between) for n in numbered]), numbered, strict=True):
        found.append(replace(one, moment=(*base.moment, ("Frame", float(counted[int(number)])))))
        counted[int(number)] += 1
    return found


def _following(base: Slice, between: float, word: str) -> list[Slice]:
    """Frames one behind the other along the normal, as dental CT without functional groups means them."""
    assumed = _FOLLOWING.format(abs(between), word)
    if base.position is None or base.orientation is None:
        assumed = _NOWHERE.format(abs(between))
        base = replace(base, position=np.zeros(3), orientation=np.eye(3)[:2])
    return _stacked(replace(base, assumed=assumed), [index * between for index in range(base.frames)])
