"""Label maps on their way to a file: the smallest integer type, and the class names in the header's own way.

Where each format has a place for names: NIfTI, a header extension as TotalSegmentator writes it (Connectome
Workbench's `CaretExtension` XML with a `LabelTable`); NRRD, 3D Slicer's segment fields; OME-Zarr, `image-label`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from xml.sax.saxutils import escape

import numpy as np

from napari_mamba.errors import OutputError
from napari_mamba.io.common.source import LabelEntry
from napari_mamba.io.terminology import terminology_entry


class Class(Protocol):
    """What this module needs of a class: `bundles.LabelClass` has it."""

    @property
    def index(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def color(self) -> str: ...


def storable(data: Any, classes: Sequence[Class] = ()) -> np.ndarray:
    """The values as an array of a type that every format here and its readers know.

    Parameters
    ----------
    data : array-like, shape (C, Z, Y, X)
    classes : sequence of Class
        If given, `data` is a label map: whole numbers, one channel, stored as uint8, uint16 or uint32.

    Returns
    -------
    ndarray, shape (C, Z, Y, X)
        Of the same values. Label maps, and integers of 64 bits, which many programs do not open, get the smallest
        type that holds them; bool becomes uint8, float16 becomes float32.

    Raises
    ------
    OutputError
        If a label map holds fractions or negative numbers, or the values have no place in an image file.

    Examples
    --------
    >>> storable(np.full((1, 2, 2, 2), 300)).dtype
    dtype('uint16')
    """
    array = np.asarray(data)
    if array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
        raise OutputError(f"values of the type {array.dtype} have no place in an image file: convert them to float32")
    if classes:
        return _label_map(array, max(entry.index for entry in classes))
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype.kind in "ui" and array.dtype.itemsize == 8:
        return array.astype(_smallest(array.min(), array.max()))
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _label_map(array: np.ndarray, largest_index: int) -> np.ndarray:
    if array.shape[0] != 1:
        raise OutputError(f"a label map has one channel, this one has {array.shape[0]}: write them one by one")
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.round(array)).all()):
        raise OutputError("the label map holds values that are no whole numbers: write it without classes")
    if array.min() < 0:
        raise OutputError(f"the label map holds the negative value {array.min()}: write it without classes")
    return array.astype(_smallest(0, max(int(array.max()), largest_index)))


def _smallest(low: int, high: int) -> np.dtype:
    # uint8 and uint16 first: int8 is what readers know least.
    for kind in (np.uint8, np.uint16, np.int16, np.uint32, np.int32, np.uint64):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.int64)


def rgb(color: str) -> tuple[float, float, float]:
    """Red, green and blue, 0 to 1, of "#rrggbb"; grey where the text is no such colour."""
    digits = color.lstrip("#")
    try:
        red, green, blue = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    except ValueError:
        return 0.5, 0.5, 0.5
    return red, green, blue


def foreground(classes: Sequence[Class]) -> list[Class]:
    """The classes without the background (index 0)."""
    return [entry for entry in classes if entry.index != 0]


def one_line(name: str) -> str:
    """The name without line breaks, which would end a header field."""
    return " ".join(str(name).split())


def caret_xml(classes: Sequence[Class]) -> bytes:
    """The `CaretExtension` XML of a NIfTI header extension."""
    rows = []
    for entry in foreground(classes):
        red, green, blue = rgb(entry.color)
        rows.append(
            f'<Label Key="{entry.index}" Red="{red:.6g}" Green="{green:.6g}" Blue="{blue:.6g}" Alpha="1">'
            f"{escape(one_line(entry.name))}</Label>"
        )
    table = "\n".join(rows)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<CaretExtension>\n<VolumeInformation Index="0">\n'
        f"<LabelTable>\n{table}\n</LabelTable>\n<VolumeType>Label</VolumeType>\n</VolumeInformation>\n</CaretExtension>"
    ).encode()


def segment_fields(classes: Sequence[Class], shape: tuple[int, int, int]) -> dict[str, str]:
    """Key-value pairs by which 3D Slicer knows the segments of a `.seg.nrrd`; `shape` is (Z, Y, X)."""
    extent = " ".join(f"0 {n - 1}" for n in shape[::-1])
    fields = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for number, entry in enumerate(foreground(classes)):
        color = " ".join(f"{value:.6g}" for value in rgb(entry.color))
        segment = {
            "ID": f"Segment_{entry.index}",
            "Name": one_line(entry.name),
            "NameAutoGenerated": "0",
            "Color": color,
            "ColorAutoGenerated": "0",
            "Extent": extent,
            "LabelValue": str(entry.index),
            "Layer": "0",
            "Tags": f"TerminologyEntry:{entry_text}|" if (entry_text := terminology_entry(entry)) else "|",
        }
        fields |= {f"Segment{number}_{key}": value for key, value in segment.items()}
    return fields


def channel_fields(names: Sequence[str]) -> dict[str, str]:
    """Key-value pairs by which 3D Slicer opens an NRRD as a sequence whose items are named after the channels.

    See vtkMRMLVolumeSequenceStorageNode; the names are percent-encoded there, since a space separates them.

    >>> channel_fields(["left hippocampus", "CSF"])["axis 0 index values"]
    'left%20hippocampus CSF'
    """
    if not names:
        return {}
    return {
        "DataNodeClassName": "vtkMRMLScalarVolumeNode",
        "axis 0 index type": "text",
        "axis 0 index values": " ".join((one_line(name) or "unnamed").translate(_ENCODED) for name in names),
    }


_ENCODED = str.maketrans({"%": "%25", " ": "%20", "'": "%27", ">": "%3E", "<": "%3C", '"': "%22"})
"""What Slicer decodes (vtkMRMLNode::URLDecodeString), and nothing else."""


def channel_names(header: Mapping[str, str], count: int) -> tuple[str, ...]:
    """The names that `channel_fields` wrote; empty where the header (lower-case keys) has not as many."""
    from urllib.parse import unquote

    if header.get("axis 0 index type") != "text":
        return ()
    names = tuple(unquote(name) for name in header.get("axis 0 index values", "").split())
    return names if len(names) == count else ()


def names_comment(names: Sequence[str]) -> bytes:
    """The names of channels as the text of a NIfTI header extension, ASCII.

    >>> names_comment(["CSF", "groß"])
    b'{"channel_names": ["CSF", "gro\\\\u00df"]}'
    """
    return json.dumps({"channel_names": [one_line(name) for name in names]}).encode("ascii")


def comment_names(extensions: Sequence[bytes], count: int) -> tuple[str, ...]:
    """The names that `names_comment` wrote; empty where no extension has as many."""
    for content in extensions:
        if not content.startswith(b'{"channel_names"') or len(content) > _LONGEST_COMMENT:
            continue
        try:
            names = json.loads(content.rstrip(b"\0"))["channel_names"]
        except (ValueError, KeyError, RecursionError):
            continue
        if isinstance(names, list) and len(names) == count and all(isinstance(name, str) for name in names):
            return tuple("".join(letter for letter in name[:200] if letter.isprintable()) for name in names)
    return ()


_LONGEST_COMMENT = 1 << 20


def image_label(classes: Sequence[Class], version: str) -> dict[str, Any]:
    """The `image-label` metadata of OME-Zarr."""
    entries = foreground(classes)
    return {
        "version": version,
        "colors": [
            {"label-value": entry.index, "rgba": [round(255 * value) for value in rgb(entry.color)] + [255]}
            for entry in entries
        ],
        "properties": [{"label-value": entry.index, "name": one_line(entry.name)} for entry in entries],
    }


def as_text(classes: Sequence[Class]) -> str:
    """One class after the other, for a format that has nothing but a comment: "1 Anterior #ff0000; 2 ..."."""
    return "; ".join(f"{entry.index} {one_line(entry.name)} {entry.color}" for entry in foreground(classes))


def hex_color(red: float, green: float, blue: float) -> str:
    """ "#rrggbb" of three numbers from 0 to 1."""
    return "#" + "".join(f"{round(255 * min(max(part, 0.0), 1.0)):02x}" for part in (red, green, blue))


def from_caret_xml(content: bytes) -> tuple[LabelEntry, ...]:
    """The labels of a `CaretExtension`; nothing where the XML is damaged, or defines entities, which none does."""
    from xml.etree import ElementTree

    if b"<!" in content:
        return ()
    try:
        table = ElementTree.fromstring(content.rstrip(b"\0").strip())
        found = [
            LabelEntry(int(label.get("Key", "")), one_line(label.text or ""), hex_color(*_rgb_of(label)))
            for label in table.iter("Label")
        ]
    except (ElementTree.ParseError, ValueError, OverflowError):
        return ()
    return tuple(entry for entry in found if entry.index != 0)


def _rgb_of(label: Any) -> tuple[float, float, float]:
    red, green, blue = (float(label.get(name, 0.5)) for name in ("Red", "Green", "Blue"))
    return red, green, blue


def from_segment_fields(fields: Mapping[str, str]) -> tuple[LabelEntry, ...]:
    """The segments of a `.seg.nrrd`, by 3D Slicer's key-value pairs; nothing where there are none.

    Keys are compared in lower case. Segments of an older file without `LabelValue` are numbered from 1.
    """
    lower = {key.lower(): text for key, text in fields.items()}
    found, number = [], 0
    while (name := lower.get(f"segment{number}_name")) is not None:
        try:
            value = int(lower.get(f"segment{number}_labelvalue", number + 1))
            red, green, blue = (float(part) for part in lower.get(f"segment{number}_color", "0.5 0.5 0.5").split())
        except ValueError:
            value, (red, green, blue) = number + 1, (0.5, 0.5, 0.5)
        found.append(LabelEntry(value, one_line(name), hex_color(red, green, blue)))
        number += 1
    return tuple(found)


def from_image_label(metadata: Any) -> tuple[LabelEntry, ...]:
    """The labels of OME-Zarr's `image-label` metadata; what is odd in it is left out."""
    if not isinstance(metadata, dict):
        return ()
    colors, names = {}, {}
    for entry in _dicts(metadata.get("colors")):
        rgba = entry.get("rgba")
        if isinstance(rgba, list) and len(rgba) >= 3 and all(isinstance(part, int | float) for part in rgba[:3]):
            colors[entry.get("label-value")] = hex_color(*(part / 255 for part in rgba[:3]))
    for entry in _dicts(metadata.get("properties")):
        name = entry.get("name", entry.get("class", entry.get("label")))
        if isinstance(name, str):
            names[entry.get("label-value")] = one_line(name)
    values = sorted(value for value in {*colors, *names} if type(value) is int and value != 0)
    return tuple(LabelEntry(v, names.get(v, f"label {v}"), colors.get(v, "")) for v in values)


def _dicts(value: Any) -> list[dict]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
