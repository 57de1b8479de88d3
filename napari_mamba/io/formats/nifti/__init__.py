"""NIfTI-1 and NIfTI-2 (`.nii`, `.nii.gz`), read and written here rather than by SimpleITK.

SimpleITK 2.5 reads a truncated file as zeros, refuses a sheared sform, cannot write header extensions (label names)
and reports a NIfTI as written when the disk was full. The standard: Cox et al., "A (sort of) new image data format
standard: NIfTI-1", 2004, and nifti.nimh.nih.gov; which transform counts follows nibabel (github.com/nipy/nibabel).
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from napari_mamba.errors import InputError, OutputError
from napari_mamba.io.common import colour as _colour
from napari_mamba.io.common import frames as _frames
from napari_mamba.io.common import guard as _guard
from napari_mamba.io.common import source as _source
from napari_mamba.io.formats.nifti import header as _nifti_header
from napari_mamba.io.formats.nifti.fields import NIFTI_1, structure_of
from napari_mamba.io.labels import naming
from napari_mamba.io.labels.storing import storable
from napari_mamba.volume import Volume

_CHUNK = 1 << 24
_GZIP = 31  # zlib's number for its widest window in gzip's format, with neither name nor time in the header
_LONGEST_EXTENSIONS = 1 << 24
# As TotalSegmentator writes its label table: nibabel cannot give the content of code 30, Workbench's own.
_EXTENSION_CODE = 0
_LARGEST = float(np.finfo(np.float32).max) / 2
_COMMENT = 6  # plain ASCII text, by the standard


def read(path: Path, frame: _frames.Frame = None, colour: _colour.Colour = None) -> Volume:
    """Read a NIfTI image.

    Parameters
    ----------
    path : Path
        `.nii` or `.nii.gz`, told apart by content.
    frame : int or "all", optional
        Which volume of a 4D file; "all" takes each as a channel.
    colour : {"grey", "channels"}, optional
        How a colour image (RGB24, RGBA32) is taken.

    Returns
    -------
    Volume
        Scaled by scl_slope and scl_inter where they say so (float32, or float64 from 32 and 64 bit values), else in
        the file's own type. Values along the fifth axis, the standard's place for several values a voxel, are channels.

    Raises
    ------
    InputError
        If it is no NIfTI, is truncated or damaged, holds complex numbers, or is 4D or in colour and nothing is chosen.

    Examples
    --------
    >>> read(Path("t1.nii.gz")).spacing  # doctest: +SKIP
    array([1., 1., 1.])
    """
    with _opened(path) as (stream, limit):
        header, extensions = _read_header(stream, path)
        (_colour.check if header.is_colour else _colour.refuse)(colour, path)
        announced = _guard.counted((*header.shape, header.frames, header.vector), header.dtype.itemsize)
        surplus: tuple[str, ...] = ()
        if limit is None:
            _guard.check_stored(announced, path.stat().st_size - header.offset, path)
            surplus = _guard.surplus(announced, path.stat().st_size - header.offset)
        else:
            _guard.check_unpacked(announced, limit, path)
        if header.frames > 1 and header.vector > 1:
            raise InputError(f"{path} holds {header.frames} volumes of {header.vector} values a voxel: split it first")
        wanted = _frames.choose(header.frames, frame, path)
        if header.vector > 1:
            wanted = list(range(header.vector))
        if header.is_colour and len(wanted) > 1:
            raise InputError(f"{path} holds {len(wanted)} images in colour: choose one of them")
        data = _read_voxels(stream, header, wanted, path)
        _guard.to_the_end(stream, path)
    names: tuple[str, ...] = ()
    if header.is_colour:
        parts = np.moveaxis(data[0].view(np.uint8).reshape(*header.shape, header.colours), -1, 0)
        data = np.ascontiguousarray(_colour.taken(parts, colour))
        names = _colour.NAMES if colour == "channels" else ()
    source = _source.Source(_label_table(extensions), header.says_labels, header.kept.doubts + surplus, header.kept)
    names = naming.comment_names(extensions, len(data)) if header.vector > 1 else names
    return _source.attached(Volume(_scaled(data, header), header.affine, names), source)


def summary(path: Path) -> tuple[_nifti_header.Header, tuple[_source.LabelEntry, ...]]:
    """The header and the names of its labels, without the voxels."""
    with _opened(path) as (stream, _):
        header, extensions = _read_header(stream, path)
        return header, _label_table(extensions)


class _opened:
    """The stream of a file, decompressed if its content is gzip, and then the size of the file, else None."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> tuple[BinaryIO | gzip.GzipFile, int | None]:
        self.file = open(self.path, "rb")
        compressed = self.file.read(2) == b"\x1f\x8b"
        self.file.seek(0)
        if not compressed:
            return self.file, None
        return gzip.GzipFile(fileobj=self.file), os.fstat(self.file.fileno()).st_size

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        self.file.close()
        if isinstance(error, _guard.STREAM_ERRORS):
            raise InputError(f"{self.path} is truncated or damaged ({error}): copy it anew") from error


def _read_header(stream: BinaryIO | gzip.GzipFile, path: Path) -> tuple[_nifti_header.Header, list[bytes]]:
    """The header and the content of its extensions; the stream is then at the voxels."""
    raw = stream.read(NIFTI_1.itemsize)
    structure = structure_of(raw)
    if structure is None:
        what = "is empty" if not raw else "is no NIfTI image, whatever its name says"
        raise InputError(f"{path} {what}: check where it came from")
    raw += stream.read(structure.itemsize - len(raw))
    if len(raw) < structure.itemsize:
        raise InputError(f"{path} is truncated: it ends within its header, copy it anew")
    header = _nifti_header.parse(raw, structure, path)
    between = header.offset - len(raw)
    extensions = stream.read(min(between, _LONGEST_EXTENSIONS)) if between > 0 else b""
    _skip(stream, between - len(extensions))
    return header, _contents(extensions, header.dtype.byteorder)


def _contents(extensions: bytes, byteorder: str) -> list[bytes]:
    """The content of each extension; `extensions` begins with the four bytes of the flag."""
    place = 4
    found: list[bytes] = []
    if not extensions[:1].strip(b"\0"):
        return found
    while place + 8 <= len(extensions):
        size = int(np.frombuffer(extensions[place : place + 4], "<i4" if byteorder != ">" else ">i4")[0])
        if size < 8:
            break
        found.append(extensions[place + 8 : place + size])
        place += size
    return found


def _label_table(extensions: list[bytes]) -> tuple[_source.LabelEntry, ...]:
    """The labels of the first extension that has a table."""
    for content in extensions:
        if b"LabelTable" in content and (found := naming.from_caret_xml(content)):
            return found
    return ()


def _read_voxels(
    stream: BinaryIO | gzip.GzipFile, header: _nifti_header.Header, wanted: list[int], path: Path
) -> np.ndarray:
    """The volumes numbered `wanted` (ascending), shape (C, Z, Y, X), native byte order."""
    data = np.empty((len(wanted), *header.shape), header.dtype)
    size = data[0].nbytes
    position = 0
    for channel, number in enumerate(wanted):
        _skip(stream, (number - position) * size)
        _guard.filled(stream, data[channel], path)
        position = number + 1
    return data.astype(header.dtype.newbyteorder("="), copy=False)


def _skip(stream: BinaryIO | gzip.GzipFile, count: int) -> None:
    while count > 0:
        read = len(stream.read(min(count, _CHUNK)))
        if not read:
            return
        count -= read


def _scaled(data: np.ndarray, header: _nifti_header.Header) -> np.ndarray:
    if header.slope == 1 and header.intercept == 0:
        return data
    exact = scaled_type(data.dtype, header.slope, header.intercept)
    scaled = data.astype(exact)
    np.multiply(scaled, exact(header.slope), out=scaled)
    return np.add(scaled, exact(header.intercept), out=scaled)


def scaled_type(stored: np.dtype, slope: float, intercept: float) -> type[np.floating]:
    """The type of rescaled values: float32 where it holds all that 16 bits can become."""
    small = stored.itemsize <= 2 or stored == np.float32
    return np.float32 if small and max(abs(slope) * 2.0**16, abs(intercept)) <= _LARGEST else np.float64


def write(volume: Volume, path: Path, classes: Sequence[naming.Class] = ()) -> None:
    """Write NIfTI-1, compressed if the name ends in `.gz`, with the names of classes and channels as header extensions.

    The affine is stored as sform and, unless it is sheared, as an equal qform; but what was read from a NIfTI keeps
    that file's transforms, codes, units and description, so that it lies on it in programs that prefer either
    transform. Channels go to the fifth axis.

    Raises
    ------
    OutputError
        If an axis is longer than NIfTI-1 can say (32767), or the values do not fit an image.
    """
    array = storable(volume.data, classes)
    if max(array.shape) > 32767:
        raise OutputError(f"{path} cannot be written: NIfTI holds at most 32767 voxels an axis, choose .nrrd")
    extension = _extension(naming.caret_xml(classes)) if classes else b""
    if len(volume.channel_names) == len(array) > 1:
        extension += _extension(naming.names_comment(volume.channel_names), _COMMENT)
    offset = 352 + len(extension)
    flag = b"\x01\0\0\0" if extension else b"\0\0\0\0"
    kept = _source.of(volume).nifti
    header = _nifti_header.build(array, volume.affine, offset, kept, label_map=bool(classes)) + flag + extension
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    # zlib itself rather than a GzipFile, which on a full disk stays open and prints a traceback when it is collected.
    squeezer = zlib.compressobj(4, wbits=_GZIP) if path.name.lower().endswith(".gz") else None
    with open(path, "wb") as file:
        file.write(squeezer.compress(header) if squeezer else header)
        for channel in little:
            for plane in channel:
                content = np.ascontiguousarray(plane).data
                file.write(squeezer.compress(content) if squeezer else content)
        if squeezer:
            file.write(squeezer.flush())


def _extension(content: bytes, code: int = _EXTENSION_CODE) -> bytes:
    size = 8 + len(content)
    size += -size % 16  # the standard wants multiples of 16
    return np.array([size, code], "<i4").tobytes() + content.ljust(size - 8, b"\0")
