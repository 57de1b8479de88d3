"""SNOMED CT codes of classes, in the words that 3D Slicer and DICOM segmentations use.

A class has a `code` ("SCT:5366008"), its `meaning` ("Hippocampus") and a `laterality`. 3D Slicer keeps them with each
segment as one line: context, category, type and modifier, each as scheme^value^meaning, joined by "~"
(vtkSlicerTerminologiesModuleLogic::SerializeTerminologyEntry; DICOM PS3.3 C.8.20.2).
"""

from __future__ import annotations

from typing import Any

CONTEXT = "Segmentation category and type - DICOM master list"
"""3D Slicer's list that holds the codes of the shipped bundles."""
REGIONS = "Anatomic codes - DICOM master list"
CATEGORY = ("SCT", "123037004", "Anatomical Structure")
LATERALITIES = {
    "left": ("SCT", "7771000", "Left"),
    "right": ("SCT", "24028007", "Right"),
    "both": ("SCT", "51440002", "Right and left"),
}
NOTHING = ("", "", "")


def terminology_entry(label_class: Any) -> str:
    """The line by which 3D Slicer knows what a segment is; empty for a class without a code.

    Parameters
    ----------
    label_class : object
        With `code`, `meaning` and `laterality`, all optional: `bundles.LabelClass` has them.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> left = SimpleNamespace(name="left one", code="SCT:5366008", meaning="Hippocampus", laterality="left")
    >>> terminology_entry(left).split("~")[1:4]
    ['SCT^123037004^Anatomical Structure', 'SCT^5366008^Hippocampus', 'SCT^7771000^Left']
    """
    scheme, colon, value = str(getattr(label_class, "code", "")).partition(":")
    if not colon:
        return ""
    kind = (scheme, value, getattr(label_class, "meaning", "") or label_class.name)
    side = LATERALITIES.get(getattr(label_class, "laterality", ""), NOTHING)
    parts = [CONTEXT, _triple(CATEGORY), _triple(kind), _triple(side), REGIONS, _triple(NOTHING), _triple(NOTHING)]
    return "~".join(parts)


def _triple(code: tuple[str, str, str]) -> str:
    return "^".join(" ".join(part.translate(_RESERVED).split()) for part in code)


_RESERVED = str.maketrans(dict.fromkeys("~^|", " "))
