"""MetaImage read here rather than by SimpleITK, which a damaged header can crash and which ignores zlib's checksum.

Format: itk.org/Wiki/ITK/MetaIO/Documentation. Writing is ITK's (`itk`).
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.common import colour as _colour
from napari_mamba.io.common import frames as _frames
from napari_mamba.io.common import guard as _guard
from napari_mamba.io.common import source as _source
from napari_mamba.io.common.geometry import from_itk, millimetres, other_unit
from napari_mamba.io.formats.nrrd import numbered
from napari_mamba.io.labels import naming
from napari_mamba.volume import Volume

_HEADER = 1 << 20
_TYPES = {
    "MET_CHAR": "i1",
    "MET_ASCII_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",  # of 4 bytes on every system, as MetaIO has it
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_OTHER_NAMES = {
    "elementsizes": "elementsize",
    "position": "offset",
    "origin": "offset",
    "rotation": "transformmatrix",
    "orientation": "transformmatrix",
    "elementbyteordermsb": "binarydatabyteordermsb",
}


@dataclass(frozen=True)
class Header:
    """A MetaImage's header."""

    dtype: np.dtype
    sizes: tuple[int, ...]  # x first
    values: int  # a voxel
    affine: np.ndarray
    units: str
    compressed: bool
    text: bool
    file: str  # "LOCAL", a name, a pattern with its limits, or "LIST"
    fields: dict[str, str]
    start: int  # of what follows the header, in bytes

    @property
    def shape(self) -> tuple[int, int, int]:
        sizes = self.sizes[:3]
        return (*[1] * (3 - len(sizes)), *sizes[::-1])  # type: ignore[return-value]

    @property
    def doubts(self) -> tuple[str, ...]:
        """What other programs may take differently."""
        found = [other_unit({self.fields.get("distanceunits", "")})]
        slope, offset = (self.fields.get(f"elementtointensityfunction{name}", "") for name in ("slope", "offset"))
        if slope not in ("", "1") or offset not in ("", "0"):
            found.append(
                "The image's header has a function from its numbers to intensities (slope "
                f"{_guard.quoted(slope or 1)}, offset {_guard.quoted(offset or 0)}): the numbers are taken as they "
                "are, as ITK takes them."
            )
        return tuple(filter(None, found))

    @property
    def is_colour(self) -> bool:
        return self.values in (3, 4) and self.dtype == np.uint8

    @property
    def frames(self) -> int:
        return self.sizes[3] if len(self.sizes) == 4 else 1


def read(path: Path, frame: _frames.Frame = None, colour: _colour.Colour = None) -> Volume:
    """Read `.mha` or `.mhd`; parameters and errors as those of `nrrd.read`.

    Returns
    -------
    Volume
        In the file's own type. Several `ElementNumberOfChannels` are channels. `units` is "pixel" where the header has
        neither ElementSpacing nor ElementSize.
    """
    header = parse(path)
    if header.is_colour:
        _colour.check(colour, path)
    else:
        _colour.refuse(colour, path)
    wanted = _frames.choose(header.frames, frame, path)
    if header.values > 1 and header.frames > 1:
        raise InputError(f"{path} holds {header.frames} volumes of {header.values} values a voxel: save one volume")
    array = _voxels(header, path)
    if header.frames > 1:
        array = array.reshape(header.frames, *header.shape)[wanted]
    else:
        array = np.moveaxis(array.reshape(*header.shape, header.values), -1, 0)
    if colour is not None:
        array = _colour.taken(array, colour)
    data = np.ascontiguousarray(array.astype(header.dtype.newbyteorder("="), copy=False))
    names = _colour.NAMES if colour == "channels" else ()
    classes = naming.from_segment_fields(header.fields)
    return _source.attached(
        Volume(data, header.affine, names, header.units),
        _source.Source(classes, bool(classes), header.doubts + _surplus(header, path)),
    )


def parse(path: Path) -> Header:
    """The header alone; raises `InputError` with the reason where it cannot be read."""
    fields, start = _fields(path)
    sizes = _integers(fields, "dimsize", path)
    if fields.get("ndims") != str(len(sizes)) or not 2 <= len(sizes) <= 4:
        raise InputError(f"{path} has {_guard.quoted(fields.get('ndims', '?'))} axes and {len(sizes)} sizes: no volume")
    (values,) = _integers(fields, "elementnumberofchannels", path, "1")[:1] or (0,)
    if min(*sizes, values) < 1:
        raise InputError(f"{path} has the size {min(*sizes, values)} in its header: the image is empty or damaged")
    kind = _TYPES.get(fields.get("elementtype", "").removesuffix("_ARRAY"))
    if kind is None:
        raise InputError(f"{path} holds values of the type {_guard.quoted(fields.get('elementtype', 'none'))}")
    dtype = np.dtype(kind).newbyteorder(">" if _flag(fields, "binarydatabyteordermsb") else "<")
    affine, units = _place(fields, len(sizes), path)
    text = not _flag(fields, "binarydata", "true")
    compressed = _flag(fields, "compresseddata")
    return Header(
        dtype, sizes, values, affine, units, compressed, text, fields["elementdatafile"], fields, start
    )  # fmt: skip


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The header's fields, keys in lower case, and where it ends: with the line of ElementDataFile."""
    with open(path, "rb") as file:
        start = file.read(_HEADER)
    if not start:
        raise InputError(f"{path} is empty: check where it came from")
    last = re.search(rb"(?im)^\s*ElementDataFile\s*=\s*([^\r\n]*)\r?(\n|\Z)", start)
    if last is None or b"=" not in start[:200]:
        raise InputError(f"{path} is no MetaImage file, whatever its name says: check where it came from")
    fields: dict[str, str] = {}
    for line in start[: last.start()].decode("utf-8", "replace").splitlines():
        key, equals, text = line.partition("=")
        if equals:
            key = key.strip().lower()
            fields.setdefault(_OTHER_NAMES.get(key, key), text.strip())
    fields["elementdatafile"] = last.group(1).decode("utf-8", "replace").strip()
    if fields["elementdatafile"].upper().startswith("LIST"):
        fields["elementdatafile"] = "LIST\n" + start[last.end() :].decode("utf-8", "replace")
    if fields.get("objecttype", "Image").lower() != "image" or "dimsize" not in fields:
        raise InputError(f"{path} is no image but {_guard.quoted(fields.get('objecttype', 'something'))}")
    return fields, last.end()


def _flag(fields: dict[str, str], key: str, default: str = "") -> bool:
    """As MetaIO reads a flag: by its first letter, of "True", "T" or "1"."""
    return fields.get(key, default)[:1] in ("T", "t", "1")


def _integers(fields: dict[str, str], key: str, path: Path, default: str = "") -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in fields.get(key, default).split())
    except ValueError as error:
        raise InputError(f"{path} has a {key} that is no number ({_guard.quoted(fields[key])})") from error


def _numbers(fields: dict[str, str], key: str, count: int, path: Path) -> np.ndarray | None:
    if key not in fields:
        return None
    try:
        found = np.array([float(word) for word in fields[key].split()])
    except ValueError as error:
        raise InputError(f"{path} has a {key} that is no number: repair its header") from error
    if not np.isfinite(found).all():
        raise InputError(f"{path} has a {key} that is no number: repair its header")
    if len(found) < count:
        raise InputError(f"{path} has {len(found)} numbers as its {key}, {count} are needed: repair its header")
    return found[:count]


def _place(fields: dict[str, str], rank: int, path: Path) -> tuple[np.ndarray, str]:
    """The affine, and its units."""
    spacing = _numbers(fields, "elementspacing", rank, path)
    if spacing is None:
        spacing = _numbers(fields, "elementsize", rank, path)
    units = "pixel" if spacing is None else "mm"
    if spacing is None:
        spacing = np.ones(rank)
    if (spacing[:3] == 0).any():
        raise InputError(f"{path} has a voxel size of 0 in its header: repair its ElementSpacing")
    unit = millimetres(fields.get("distanceunits")) or 1.0
    size, origin, direction = np.ones(3), np.zeros(3), np.eye(3)
    inside = min(rank, 3)
    size[:inside] = np.abs(spacing[:inside]) * unit
    offset = _numbers(fields, "offset", rank, path)
    if offset is not None:
        origin[:inside] = offset[:inside] * unit
    matrix = _numbers(fields, "transformmatrix", rank * rank, path)
    if matrix is not None:  # a row is the direction of an axis
        direction[:inside, :inside] = matrix.reshape(rank, rank)[:inside, :inside].T
    direction[:, :inside] *= np.sign(spacing[:inside])  # a negative spacing runs against its axis, as ITK has it
    return from_itk(size, origin, direction), units


def _surplus(header: Header, path: Path) -> tuple[str, ...]:
    if header.compressed or header.text:
        return ()
    announced = _guard.counted((*header.sizes, header.values), header.dtype.itemsize)
    files = _files(header, path)
    return _guard.surplus(
        announced, sum(file.stat().st_size for file in files) - (header.start if files == [path] else 0)
    )


def _voxels(header: Header, path: Path) -> np.ndarray:
    """The values, in one dimension, in the file's order."""
    count = _guard.counted((*header.sizes, header.values), 1)
    announced = count * header.dtype.itemsize
    files = _files(header, path)
    there = sum(file.stat().st_size for file in files) - (header.start if files == [path] else 0)
    if header.compressed or header.text:
        _guard.check_unpacked(announced, there, path)
    else:
        _guard.check_stored(announced, there, path)
    if header.text:
        return _text(header, files, count, there, path)
    if count % len(files):
        raise InputError(f"{path} spreads its voxels unevenly over {len(files)} files: save it as one")
    data = np.empty(count, header.dtype)
    (skip,) = _integers(header.fields, "headersize", path, "0")[:1] or (0,)
    for file, part in zip(files, np.split(data, len(files)), strict=True):
        with open(file, "rb") as raw:
            raw.seek(header.start if file == path else 0)
            if skip == -1 and not header.compressed:
                raw.seek(-part.nbytes, 2)
            elif skip > 0:  # counted from the file's first byte, of one that begins with the header, too
                raw.seek(skip)
            if header.compressed:
                _inflate(raw, part, path)
            else:
                _guard.filled(raw, part, path)
    return data


def _inflate(raw: BinaryIO, part: np.ndarray, path: Path) -> None:
    """Unpack a zlib stream, whose checksum and length must be right."""
    buffer = part.view(np.uint8)
    engine, done = zlib.decompressobj(wbits=47), 0  # zlib or gzip
    try:
        while not engine.eof:
            chunk = engine.unconsumed_tail or raw.read(1 << 20)
            if not chunk and done == len(buffer):
                raise InputError(f"{path} is truncated: the checksum behind its voxels is not there, copy it anew")
            if not chunk:
                raise InputError(
                    f"{path} is truncated: {done:,} of {len(buffer):,} bytes of voxels are there, copy it anew"
                )
            out = engine.decompress(chunk, 1 << 24)
            if done + len(out) > len(buffer):
                raise InputError(f"{path} holds more voxels than its header announces: it is damaged, copy it anew")
            buffer[done : done + len(out)] = np.frombuffer(out, np.uint8)
            done += len(out)
    except zlib.error as error:
        raise InputError(f"{path} is damaged ({error}): copy it anew") from error
    if done < len(buffer):
        raise InputError(f"{path} is truncated: {done:,} of {len(buffer):,} bytes of voxels are there, copy it anew")


def _text(header: Header, files: list[Path], count: int, there: int, path: Path) -> np.ndarray:
    if len(files) > 1 or there > 1 << 28:
        raise InputError(f"{path} is a very large text file: save it in binary")
    content = files[0].read_bytes()[header.start if files[0] == path else 0 :]
    try:
        values = np.array(content.split(), header.dtype.newbyteorder("="))
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path} holds something else than numbers where its voxels should be") from error
    if len(values) != count:
        raise InputError(f"{path} is truncated: its header announces {count:,} values, {len(values):,} are there")
    return values


def _files(header: Header, path: Path) -> list[Path]:
    if header.file.upper() == "LOCAL":
        return [path]
    if header.file.startswith("LIST"):
        return [_guard.beside(path, name.strip()) for name in header.file.splitlines()[1:] if name.strip()] or [path]
    words = header.file.split()
    if len(words) == 4 and "%" in words[0]:
        return [_guard.beside(path, name) for name in numbered(words[0], words[1:], path)]
    return [_guard.beside(path, header.file)]
