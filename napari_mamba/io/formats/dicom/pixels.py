"""The values of DICOM slices: pydicom unpacks what is stored as it is, GDCM (in SimpleITK) what is compressed.

GDCM is given the stored pixels alone, without the rescale and the photometric interpretation of the file: it inverts
MONOCHROME1 before the rescale, which changes what CT and PET values mean.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.common import colour as _colour
from napari_mamba.io.common import guard as _guard
from napari_mamba.io.common.rescaling import rescaled
from napari_mamba.io.formats.dicom.headers import Slice, has_table
from napari_mamba.io.formats.itk import quiet, simpleitk

_BY_PYDICOM = ("1.2.840.10008.1.2.5",)  # RLE, beside all that is not compressed
_JPEG = "1.2.840.10008.1.2.4."
_BY_GDCM = tuple(_JPEG + kind for kind in ("50", "51", "57", "70", "80", "81", "90", "91", "201", "202", "203"))
_WITH_MARKERS = (_JPEG + "50", _JPEG + "51")  # JPEG's first kinds, whose codecs look for JFIF's and Adobe's markers
_START_OF_SCAN, _ADOBE, _JFIF = 0xDA, 0xEE, 0xE0
_PIXEL_MODULE = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "PixelData",
)
_PLAIN = (
    "Implicit VR Little Endian", "Explicit VR Little Endian", "Explicit VR Big Endian",
    "Deflated Explicit VR Little Endian",
)  # fmt: skip
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # SOP class Secondary Capture: an image and nothing else


class Decoded:
    """The stored values of the file that was read last: the slices of one file come one after the other."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._values: Any = None

    def of(self, path: Path) -> np.ndarray:
        """What `stored` gives for a file, decoded anew only where another was asked for since."""
        if path != self._path:
            self._values = None  # before the next: two of them may not fit into memory
            self._path, self._values = path, stored(path)
        return self._values


def voxels(slices: Sequence[Slice], colour: _colour.Colour, decoded: Decoded | None = None) -> np.ndarray:
    """Values (C, Z, Y, X), rescaled; of the widest type among the slices, for each may have its own slope.

    Parameters
    ----------
    slices : sequence of Slice
    colour : {"grey", "channels"}, optional
    decoded : Decoded, optional
        Shared by the moments of a series, which may lie in one file.

    Raises
    ------
    InputError
        If a file is truncated, damaged or compressed in an unknown way.
    """
    _check_size(slices)
    decoded = decoded or Decoded()
    return np.stack([_plane(decoded.of(entry.path), entry, colour) for entry in slices], axis=1)


def _check_size(slices: Sequence[Slice]) -> None:
    files = {entry.path for entry in slices}
    there = sum(file.stat().st_size for file in files)
    first = slices[0]
    per_slice = first.size[0] * first.size[1] * max(first.bits // 8, 1) * (3 if first.colour else 1)
    _guard.check_unpacked(per_slice * len(slices), there, first.path)


def _plane(array: np.ndarray, entry: Slice, colour: _colour.Colour) -> np.ndarray:
    """One slice (C, Y, X), rescaled."""
    plane = array[entry.frame]
    if entry.corner is not None:
        row, column = entry.corner
        plane = plane[row : row + entry.size[0], column : column + entry.size[1]]
    if plane.shape[:2] != entry.size:
        raise InputError(f"{entry.path} is damaged: its pixels are not of the size that it announces; copy it anew")
    if colour is not None:
        return _colour.taken(np.moveaxis(plane, -1, 0), colour)
    return rescaled(plane, entry.slope, entry.intercept)[np.newaxis]


def stored(path: Path) -> np.ndarray:
    """The stored values of a file, shape (frames, rows, columns) or (frames, rows, columns, 3)."""
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tags = pydicom.dcmread(path, force=True)
            syntax = tags.file_meta.TransferSyntaxUID if "TransferSyntaxUID" in tags.file_meta else None
            if syntax is not None and syntax not in (*_BY_PYDICOM, *_BY_GDCM) and syntax.name not in _PLAIN:
                raise InputError(
                    f"{path} is compressed as {_guard.quoted(syntax.name)}, which is not read here: export it without "
                    "compression"
                )
            array = _by_gdcm(tags) if syntax in _BY_GDCM else _by_pydicom(tags, syntax)
            if has_table(tags):
                array = _colours().apply_modality_lut(array, tags)
        except InputError:
            raise
        except MemoryError:
            raise
        except Exception as error:  # pydicom and GDCM raise anything on damaged pixels
            raise InputError(f"{path} is truncated, damaged or compressed in an unknown way: copy it anew") from error
    return array


def _by_pydicom(tags: Any, syntax: Any) -> np.ndarray:
    from pydicom.uid import ImplicitVRLittleEndian

    if syntax is None:
        tags.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    if not any(name in tags for name in _PIXELS):
        raise InputError(f"{tags.filename} holds no pixels: export it anew")
    several, colours = int(tags.get("NumberOfFrames") or 1) > 1, int(tags.get("SamplesPerPixel") or 1) > 1
    meaning = str(tags.get("PhotometricInterpretation", ""))
    if not colours and not meaning.startswith("PALETTE"):
        array = _by_pydicom_grey(tags)
        return array if several else array[np.newaxis]
    array = tags.pixel_array
    if meaning.startswith("PALETTE"):
        array = _in_eight_bits(_colours().apply_color_lut(array, tags))
    elif "YBR" in meaning and array.dtype == np.uint8:
        array = _colours().convert_color_space(array, tags.PhotometricInterpretation, "RGB", per_frame=several)
    return array if several else array[np.newaxis]


def _by_pydicom_grey(tags: Any) -> np.ndarray:
    """The bits that hold the value, wherever they lie: pydicom clears those above the lowest `BitsStored`."""
    allocated = int(tags.BitsAllocated)
    used = int(tags.get("BitsStored", allocated))
    high = int(tags.get("HighBit", used - 1))
    if 0 < used < allocated and "PixelData" in tags:
        tags.BitsStored, tags.HighBit = allocated, allocated - 1
    return _used_bits(tags.pixel_array, allocated, used, high)


def _colours() -> Any:
    """The module of pydicom that converts colours."""
    import importlib

    try:
        return importlib.import_module("pydicom.pixels")
    except ImportError:  # pydicom 2, as 3D Slicer 5.10 has it
        return importlib.import_module("pydicom.pixel_data_handlers.util")


def _in_eight_bits(array: np.ndarray) -> np.ndarray:
    return (array >> 8).astype(np.uint8) if array.dtype == np.uint16 else array


def _used_bits(array: np.ndarray, allocated: int, used: int, high: int) -> np.ndarray:
    """The bits that hold the value: older files keep overlays in the others."""
    low = high + 1 - used
    if not 0 < used < allocated or array.dtype.kind not in "iu" or not 0 <= low <= allocated - used:
        return array
    return (array << (allocated - used - low)) >> (allocated - used)


def _check_items(data: bytes) -> None:
    """Raise `ValueError` if the items of encapsulated pixels (PS3.5, A.4) are longer than what is there.

    GDCM takes as much memory as a damaged length says.
    """
    place = 0
    while place + 8 <= len(data):
        tag, length = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        if tag == _END:
            return
        if tag != _ITEM or place + 8 + length > len(data):
            raise ValueError("an item of the pixels is longer than the file")
        place += 8 + length


def _by_gdcm(tags: Any) -> np.ndarray:
    """The stored values of a compressed file, through a copy that holds nothing but its pixels."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID

    _check_items(bytes(tags.PixelData))
    copy = Dataset()
    for name in _PIXEL_MODULE:
        if name in tags:
            copy[name] = tags[name]
    colours = int(tags.get("SamplesPerPixel") or 1) > 1
    copy.PhotometricInterpretation = _marked(tags) if colours else "MONOCHROME2"
    copy.SOPClassUID = copy_class = UID(_CAPTURE)
    copy.SOPInstanceUID = UID("1.2.3")
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = tags.file_meta.TransferSyntaxUID
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = copy_class, copy.SOPInstanceUID
    copy.file_meta = meta
    itk = simpleitk()
    with tempfile.TemporaryDirectory(prefix="napari-mamba-") as folder:
        path = Path(folder) / "pixels.dcm"
        copy.save_as(path, enforce_file_format=True)
        with quiet():
            array = itk.GetArrayFromImage(itk.ReadImage(str(path)))
    shape = (int(tags.get("NumberOfFrames") or 1), int(tags.Rows), int(tags.Columns))
    array = array.reshape(*shape, 3) if colours else array.reshape(shape)
    if str(tags.PhotometricInterpretation).startswith("PALETTE"):
        return _in_eight_bits(_colours().apply_color_lut(array, tags))
    if colours:
        return array
    allocated, used = int(tags.BitsAllocated), int(tags.get("BitsStored", tags.BitsAllocated))
    return _used_bits(array, allocated, used, used - 1)  # overlays in the bits above are compressed along


def _marked(tags: Any) -> str:
    """What colours a JPEG's own markers say that it holds, which programs write apart from the header's word."""
    said = str(tags.PhotometricInterpretation)
    if tags.file_meta.TransferSyntaxUID not in _WITH_MARKERS or said not in ("RGB", "YBR_FULL", "YBR_FULL_422"):
        return said
    data = bytes(tags.PixelData)
    place = data.find(b"\xff\xd8") + 2
    while place >= 2 and place + 16 <= len(data) and data[place] == 0xFF and data[place + 1] != _START_OF_SCAN:
        kind, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        content = data[place + 4 : place + 2 + length]
        if kind == _JFIF and content.startswith(b"JFIF\0"):
            return "YBR_FULL_422"
        if kind == _ADOBE and content.startswith(b"Adobe") and len(content) >= 12:
            return "YBR_FULL_422" if content[11] == 1 else "RGB" if content[11] == 0 else said
        place += 2 + length
    return said
