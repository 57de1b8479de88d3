"""What a TIFF's own metadata say: the files of the image, voxel sizes, names, and what its numbers mean.

ImageJ's description: imagej.net/ij/developer (Calibration.java, FileInfo.java); OME-XML: docs.openmicroscopy.org.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.common import calibration as _calibration
from napari_mamba.io.common import guard as _guard
from napari_mamba.io.common.geometry import millimetres

_MIN_IS_WHITE, _RGB, _PALETTE, _YCBCR = 0, 2, 3, 6  # TIFF's numbers of what a value means
_STRAIGHT_LINE, _UNCALIBRATED = 0, (20, 21)  # ImageJ's numbers of functions from stored to real values
_OTHER_COLOURS = {5: "printing colours (CMYK)", 8: "CIELAB", 9: "CIELAB", 10: "CIELAB", 32844: "LogL", 32845: "LogLuv"}


@dataclass(frozen=True)
class Calibration:
    """Voxel sizes and names.

    Attributes
    ----------
    spacing : ndarray (3,)
        Along (z, y, x), in mm where `unit` is "mm".
    unit : "mm" or None
        None where the file names no length: proportions only.
    names : tuple of str
        Of the channels.
    comment : str
        The text that may hold our own note.
    slope, intercept : float
        From stored to real values.
    doubts : tuple of str
    """

    spacing: np.ndarray
    unit: str | None = None
    names: tuple[str, ...] = ()
    comment: str = ""
    slope: float = 1.0
    intercept: float = 0.0
    doubts: tuple[str, ...] = ()


def calibrated(file: Any, image: Any) -> Calibration:
    """What ImageJ or OME wrote of an image's voxel sizes and values; ones where neither did."""
    if file.is_ome and file.ome_metadata:
        return _ome(file.ome_metadata, list(file.series).index(image))
    if file.is_imagej and file.imagej_metadata:
        return _imagej(file.imagej_metadata, file.pages[0].tags)
    shown = {
        _MIN_IS_WHITE: "that 0 is white: its numbers are taken as they are, other programs turn them round.",
        _PALETTE: "the colour of each of its numbers: the numbers are taken, not the colours.",
    }.get(int(image.keyframe.photometric))
    return Calibration(np.ones(3), doubts=(f"The TIFF says {shown}",) if shown else ())


def _imagej(metadata: dict[str, Any], tags: Any) -> Calibration:
    unit = str(metadata.get("unit", ""))
    units = [str(metadata.get("zunit", unit)), str(metadata.get("yunit", unit)), unit]
    sizes = [abs(float(metadata.get("spacing") or 1.0))]
    sizes += [_per_pixel(tags.get(name)) for name in ("YResolution", "XResolution")]
    spacing, known = _in_millimetres(sizes, units)
    slope, intercept, doubts = _function(metadata)
    return Calibration(
        spacing, known, (), str(metadata.get(_calibration.KEY, "")), slope, intercept, doubts
    )  # fmt: skip


def _function(metadata: dict[str, Any]) -> tuple[float, float, tuple[str, ...]]:
    """ImageJ's function from stored to real values, as it has for signed 16 bits: slope, intercept, doubts."""
    kind = metadata.get("cf")
    if kind is None or kind in _UNCALIBRATED:
        return 1.0, 0.0, ()
    try:
        slope, intercept = float(metadata.get("c1", 1.0)), float(metadata.get("c0", 0.0))
    except (TypeError, ValueError):
        slope = float("nan")
    if kind == _STRAIGHT_LINE and 0 < abs(slope) < 1e30 and abs(intercept) < 1e30:
        return slope, intercept, ()
    return (
        1.0,
        0.0,
        ("ImageJ noted a curve from the file's numbers to real values; the numbers are taken as they are.",),
    )


def _in_millimetres(sizes: list[float], units: list[str]) -> tuple[np.ndarray, str | None]:
    """Sizes in mm and "mm"; as they are and None where a unit is no length, so that their proportions stay."""
    scales = [millimetres(unit) for unit in units]
    if None in scales:
        return np.array(sizes), None
    return np.array(sizes) * np.array(scales, np.float64), "mm"


def _per_pixel(tag: Any) -> float:
    """Length of a pixel from a resolution tag, a fraction of pixels per unit."""
    if tag is None:
        return 1.0
    numerator, denominator = tag.value
    return denominator / numerator if numerator and denominator else 1.0


def _ome(xml: str, index: int) -> Calibration:
    tree = parsed(xml)
    pixels = [node for node in tree.iter() if node.tag.endswith("}Pixels")]
    if index >= len(pixels):
        return Calibration(np.ones(3), comment=xml)
    node = pixels[index]
    names = tuple(child.get("Name", "") for child in node if child.tag.endswith("}Channel"))
    names = names if all(names) else ()
    needed = "ZYX" if int(node.get("SizeZ", 1)) > 1 else "YX"
    sizes = [abs(float(node.get(f"PhysicalSize{axis}") or (0.0 if axis in needed else 1.0))) for axis in "ZYX"]
    if not all(0 < size < np.inf for size in sizes):  # left out, or 0, as programs write what they do not know
        return Calibration(np.ones(3), names=names)
    spacing, unit = _in_millimetres(sizes, [node.get(f"PhysicalSize{axis}Unit", "µm") for axis in "ZYX"])
    comments = [child.text or "" for child in tree.iter() if child.tag.endswith("}Value")]
    return Calibration(spacing, unit, names, " ".join(comments))


def is_coloured(photometric: int, path: Path) -> bool:
    """Whether several samples a pixel are colours rather than channels; `InputError` where they are odd ones."""
    if other := _OTHER_COLOURS.get(int(photometric)):
        raise InputError(f"{path} is a picture in {other}: save it in red, green and blue")
    return int(photometric) in (_RGB, _PALETTE, _YCBCR)


def files_of(file: Any, path: Path) -> set[Path]:
    """The files of the image: the OME metadata may name others beside.

    Raises
    ------
    InputError
        If one of them is not there: tifffile would give zeros in its place.
    """
    files = {path}
    if not file.is_ome or not file.ome_metadata:
        return files
    for node in parsed(file.ome_metadata, path).iter():
        if node.tag.endswith("}BinaryOnly"):
            other = _guard.quoted(node.get("MetadataFile") or "another file")
            raise InputError(f"{path} holds pixels alone, and {other} what they are: save the whole image as one file")
        name = node.get("FileName") if node.tag.endswith("}UUID") else None
        if name and not (path.parent / Path(name).name).is_file():
            raise InputError(f"{path} is one file of several, and {_guard.quoted(name)} is missing: put it beside")
        if name:
            files.add(path.parent / Path(name).name)
    return files


def parsed(xml: str, path: Path | None = None) -> ElementTree.Element:
    """OME-XML; `InputError` where it is damaged or defines entities, which none does and which can fill the memory."""
    if "<!ENTITY" in xml or "<!DOCTYPE" in xml:
        raise InputError(f"{path or 'the file'} has OME metadata that define entities: save it anew")
    try:
        return ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise InputError(f"{path or 'the file'} has damaged OME metadata: save it anew") from error
