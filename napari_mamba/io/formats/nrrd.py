"""NRRD read here rather than by SimpleITK, which a damaged header can crash, and which knows no bzip2.

Format: teem.sourceforge.net/nrrd/format.html. Geometry as ITK gives it: spaces other than RAS, LAS and LPS are taken as
LPS. Writing is ITK's (`itk`).
"""

from __future__ import annotations

import bz2
import gzip
import io as memory
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io import labels
from napari_mamba.io.common import colour as _colour
from napari_mamba.io.common import frames as _frames
from napari_mamba.io.common import guard as _guard
from napari_mamba.io.common import source as _source
from napari_mamba.io.common.geometry import from_itk, millimetres, without_orientation
from napari_mamba.volume import Volume

_COLOUR_KINDS = {"rgb-color", "rgba-color", "hsv-color", "xyz-color"}
_CHANNEL_KINDS = {"list", "vector", "point", "normal", "none", "???", "2-vector", "3-vector", "4-vector"}
_SPACE_KINDS = {"domain", "space"}
_SERIES_KEYS = re.compile(r"axis \d+ index|multivolume\.|dwmri_")
_TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_TYPE_OF = {name: kind for kind, names in _TYPES.items() for name in names.split(", ")}
_LPS_OF = {  # what turns a vector of the space into LPS
    "right-anterior-superior": (-1.0, -1.0, 1.0),
    "ras": (-1.0, -1.0, 1.0),
    "left-anterior-superior": (1.0, -1.0, 1.0),
    "las": (1.0, -1.0, 1.0),
}
_PATIENT = (*_LPS_OF, "left-posterior-superior", "lps")
_OTHER_NAMES = {"datafile": "data file", "lineskip": "line skip", "byteskip": "byte skip"}
_HEADER, _MOST_AXES = 1 << 20, 16


@dataclass(frozen=True)
class Header:
    """A NRRD's header, its axes sorted into space and the rest."""

    dtype: np.dtype
    sizes: tuple[int, ...]  # fastest axis first, as in the file
    space: tuple[int, ...]  # which of them are space (or, where four are, space and time)
    other: int | None  # which one holds a voxel's values
    kind: str  # of the other, in lower case
    is_series: bool  # the other axis is time
    affine: np.ndarray
    units: str
    fields: dict[str, str]
    start: int  # of what follows the header, in bytes

    @property
    def doubts(self) -> tuple[str, ...]:
        """What had to be assumed about its place."""
        name = self.fields.get("space", "").lower()
        if name in _PATIENT or "space directions" not in self.fields:
            return ()
        return (
            f"The image's header does not say how the patient lies (space: {_guard.quoted(name) if name else 'none'}): "
            "left-posterior-superior is assumed, and other programs may assume another.",
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        sizes = [self.sizes[axis] for axis in self.space[:3]]
        return (*[1] * (3 - len(sizes)), *sizes[::-1])  # type: ignore[return-value]

    @property
    def frames(self) -> int:
        if len(self.space) == 4:
            return self.sizes[self.space[3]]
        return self.sizes[self.other] if self.is_series and self.other is not None else 1

    @property
    def is_colour(self) -> bool:
        return self.kind in _COLOUR_KINDS or (self.values in (3, 4) and self.dtype == np.uint8)

    @property
    def values(self) -> int:
        return self.sizes[self.other] if self.other is not None and not self.is_series else 1


def read(path: Path, frame: _frames.Frame = None, colour: _colour.Colour = None) -> Volume:
    """Read a NRRD, attached or detached (`.nhdr`), raw, in text, gzip or bzip2.

    Parameters
    ----------
    path : Path
    frame : int or "all", optional
        Which volume of a series; "all" takes each as a channel.
    colour : {"grey", "channels"}, optional
        How a colour image is taken.

    Returns
    -------
    Volume
        In the file's own type. The values of a "list" or "vector" axis are channels. `units` is "pixel" where the
        header has no spacing.

    Raises
    ------
    InputError
        If it is damaged, or its axes are not those of a volume.
    ChoiceError
        If it holds several volumes or colours and none is chosen.
    """
    header = parse(path)
    if header.is_colour:
        _colour.check(colour, path)
    else:
        _colour.refuse(colour, path)
    wanted = _frames.choose(header.frames, frame, path)
    array = _voxels(header, path).reshape(header.sizes[::-1])
    rank = len(header.sizes)
    order = [rank - 1 - axis for axis in (*([] if header.other is None else [header.other]), *header.space[::-1])]
    array = array.transpose(order)  # values, (time,) z, y, x
    if header.other is None:
        array = array[np.newaxis]
    if len(header.space) == 4:
        array = array[0]
    array = array.reshape(len(array), *header.shape)
    if header.frames > 1:
        array = array[wanted]
    if colour is not None and header.values in (3, 4):
        array = _colour.taken(array, colour)
    data = np.ascontiguousarray(array.astype(header.dtype.newbyteorder("="), copy=False))
    names = _colour.NAMES if colour == "channels" else labels.channel_names(header.fields, len(data))
    classes = labels.from_segment_fields(header.fields)
    says = bool(classes) or "segmentation" in " ".join(header.fields)
    source = _source.Source(classes, says, header.doubts)
    return _source.attached(Volume(data, header.affine, names, header.units), source)


def parse(path: Path) -> Header:
    """The header alone.

    Raises
    ------
    InputError
        With the reason, if it cannot be read or its axes are not a volume's.
    """
    fields, start = _fields(path)
    sizes = _sizes(fields, path)
    name = fields.get("type", "").lower()
    if name not in _TYPE_OF:
        raise InputError(f"{path} holds values of the type {_guard.quoted(name)}: convert it to numbers")
    big = fields.get("endian", "little").lower() == "big"
    dtype = np.dtype(_TYPE_OF[name]).newbyteorder(">" if big else "<")
    kinds = _words(fields, "kinds", len(sizes), path)
    vectors = _vectors(fields.get("space directions"), len(sizes), path)
    space, other = _axes(sizes, kinds, vectors, path)
    kind = kinds[other].lower() if kinds and other is not None else ""
    affine, units = _place(fields, vectors, space, len(sizes), path)
    named = fields.get("axis 0 index type") == "text"  # a sequence over names, not over time: channels
    series = other is not None and not named and (kind == "time" or any(_SERIES_KEYS.match(key) for key in fields))
    return Header(dtype, sizes, space, other, kind, series, affine, units, fields, start)


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The header's fields and key-value pairs, keys in lower case, and where the header ends."""
    with open(path, "rb") as file:
        start = file.read(_HEADER)
    if not start:
        raise InputError(f"{path} is empty: check where it came from")
    if not start.startswith(b"NRRD"):
        raise InputError(f"{path} is no NRRD file, whatever its name says: check where it came from")
    blank = re.search(rb"\r?\n\r?\n", start)
    if blank is None and len(start) == _HEADER:
        raise InputError(f"{path} has a header of more than 1 MB: check where it came from")
    end = (blank.start(), blank.end()) if blank else (len(start), len(start))
    fields: dict[str, str] = {}
    lines = start[: end[0]].decode("utf-8", "replace").splitlines()[1:]
    for number, line in enumerate(lines):
        pair = re.split(r":=|: ", line, maxsplit=1)
        if not line.startswith("#") and len(pair) == 2:
            key = pair[0].strip().lower()
            key = _OTHER_NAMES.get(key, key)
            fields[key] = pair[1].strip()
            if key == "data file" and fields[key].upper().startswith("LIST"):
                fields["data file"] = "LIST\n" + "\n".join(lines[number + 1 :])
                break
    if "dimension" not in fields or "sizes" not in fields:
        raise InputError(f"{path} is no whole NRRD file (no sizes in its header): check where it came from")
    return fields, end[1]


def _words(fields: dict[str, str], key: str, count: int, path: Path) -> list[str]:
    found = fields.get(key, "").split()
    if found and len(found) != count:
        raise InputError(f"{path} names {len(found)} {key} for {count} axes: repair its header")
    return found


def _sizes(fields: dict[str, str], path: Path) -> tuple[int, ...]:
    try:
        sizes = tuple(int(size) for size in fields["sizes"].split())
        same = int(fields["dimension"]) == len(sizes)
    except ValueError as error:
        raise InputError(f"{path} has sizes that are no numbers ({_guard.quoted(fields['sizes'])})") from error
    if not same or not 2 <= len(sizes) <= _MOST_AXES:
        raise InputError(f"{path} has {_guard.quoted(fields['dimension'])} axes and {len(sizes)} sizes: no volume")
    if min(sizes) < 1:
        raise InputError(f"{path} has the size {min(sizes)} in its header: the image is empty or damaged")
    return sizes


def _vectors(text: str | None, count: int, path: Path) -> list[np.ndarray | None] | None:
    """The step of each axis, None where an axis is not in space; None where the header has no directions."""
    if text is None:
        return None
    try:
        found = [
            None if word == "none" else np.array([float(n) for n in word.strip("()").split(",")])
            for word in re.findall(r"none|\([^)]*\)", text)
        ]
    except ValueError as error:
        raise InputError(f"{path} has space directions that are no numbers: repair its header") from error
    lengths = {len(vector) for vector in found if vector is not None}
    if len(found) != count or len(lengths) != 1 or lengths.pop() not in (2, 3, 4):
        raise InputError(f"{path} has space directions that do not fit its {count} axes: repair its header")
    return found


def _axes(
    sizes: tuple[int, ...], kinds: list[str], vectors: list[np.ndarray | None] | None, path: Path
) -> tuple[tuple[int, ...], int | None]:
    """Which axes are space, and which one is not."""
    if vectors is not None:
        space = [axis for axis, vector in enumerate(vectors) if vector is not None]
    elif kinds:
        space = [axis for axis, kind in enumerate(kinds) if kind.lower() in _SPACE_KINDS]
    else:
        space = list(range(min(len(sizes), 4)))
    rest = [axis for axis in range(len(sizes)) if axis not in space]
    odd = [kinds[axis].lower() for axis in rest if kinds]
    if any(kind not in _CHANNEL_KINDS | _COLOUR_KINDS | {"time"} for kind in odd) or len(rest) > 1:
        raise InputError(
            f"{path} has axes of the kind {', '.join(map(_guard.quoted, odd)) or 'none'}: save it as one volume with "
            "three space axes"
        )
    if not 2 <= len(space) <= 4 or (len(space) == 4 and rest):
        raise InputError(f"{path} has {len(space)} axes in space and {len(rest)} others: save one volume of it")
    return tuple(space), rest[0] if rest else None


def _place(
    fields: dict[str, str], vectors: list[np.ndarray | None] | None, space: tuple[int, ...], count: int, path: Path
) -> tuple[np.ndarray, str]:
    """The affine, and its units."""
    names = set(re.findall(r'"([^"]*)"', fields.get("space units", "")))
    if len(names) > 1:
        raise InputError(f"{path} has different units along its axes ({', '.join(sorted(names))}): convert it to mm")
    unit = millimetres(names.pop()) or 1.0 if names else 1.0
    matrix, origin = np.eye(3), np.zeros(3)
    rank = min(len(space), 3)
    if vectors is not None:
        for column, axis in enumerate(space[:3]):
            step = vectors[axis]
            matrix[: len(step[:3]), column] = step[:3]  # type: ignore[index,arg-type]
        given = _numbers(fields.get("space origin", "").strip("()").replace(",", " "), path, "space origin")[:3]
        origin[: len(given)] = given
    else:
        steps = _numbers(fields.get("spacings", ""), path, "spacings")
        if not steps:
            return without_orientation(np.ones(3)), "pixel"
        if len(steps) != count:
            raise InputError(f"{path} has {len(steps)} spacings for {count} axes: repair its header")
        matrix[range(rank), range(rank)] = [abs(steps[axis]) for axis in space[:3]]
    size = np.linalg.norm(matrix, axis=0)
    if not np.isfinite(origin).all():
        raise InputError(f"{path} has an origin that is no number in its header: repair it there")
    if not np.isfinite(size).all() or (size == 0).any():
        raise InputError(f"{path} has a voxel size of 0, or one that is no number, in its header: repair it there")
    signs = np.array(_LPS_OF.get(fields.get("space", "").lower(), (1.0, 1.0, 1.0)))
    affine = from_itk(size, signs * origin, signs[:, np.newaxis] * matrix / size)
    affine[:3] *= unit
    return affine, "mm"


def _numbers(text: str, path: Path, what: str) -> list[float]:
    try:
        return [float(word) for word in text.split()]
    except ValueError as error:
        raise InputError(f"{path} has {what} that are no numbers: repair its header") from error


def _voxels(header: Header, path: Path) -> np.ndarray:
    """The values, in one dimension, in the file's order."""
    encoding = header.fields.get("encoding", "raw").lower()
    announced = _guard.counted(header.sizes, header.dtype.itemsize)
    files = _files(header, path)
    there = sum(file.stat().st_size for file in files) - (0 if files != [path] else header.start)
    if encoding == "raw":
        _guard.check_stored(announced, there, path)
    else:
        _guard.check_unpacked(announced, there, path)
    if encoding in ("txt", "text", "ascii"):
        return _text(header, files, announced, there, path)
    openers = {"raw": open, "gz": gzip.open, "gzip": gzip.open, "bz2": bz2.open, "bzip2": bz2.open}
    if encoding not in openers:
        raise InputError(f"{path} is stored as {_guard.quoted(encoding)}: save it as raw or gzip")
    data = np.empty(announced // header.dtype.itemsize, header.dtype)
    parts = np.split(data, len(files)) if len(data) % len(files) == 0 else []
    if not parts:
        raise InputError(f"{path} spreads its voxels unevenly over {len(files)} files: save it as one")
    for file, part in zip(files, parts, strict=True):
        with open(file, "rb") as raw:
            raw.seek(header.start if file == path else 0)
            _skip(raw, header, encoding, part.nbytes)
            try:
                stream = raw if encoding == "raw" else openers[encoding](raw)  # type: ignore[operator]
                _guard.filled(stream, part, path)
                if stream is not raw:
                    _guard.to_the_end(stream, path)
            except (*_guard.STREAM_ERRORS, OSError) as error:
                raise InputError(f"{path} is truncated or damaged ({error}): copy it anew") from error
    return data


def _skip(raw: memory.BufferedReader, header: Header, encoding: str, size: int) -> None:
    """Go past `line skip` and `byte skip`; those of a compressed file count before it is unpacked."""
    try:
        lines, count = (int(header.fields.get(key, "0")) for key in ("line skip", "byte skip"))
    except ValueError:
        lines, count = 0, 0
    for _ in range(min(max(lines, 0), 10_000)):
        raw.readline(_HEADER)
    if count == -1 and encoding == "raw":
        raw.seek(-size, os.SEEK_END)
    elif count > 0:
        raw.seek(count, os.SEEK_CUR)


def _text(header: Header, files: list[Path], announced: int, there: int, path: Path) -> np.ndarray:
    if len(files) > 1 or there > 1 << 28:
        raise InputError(f"{path} is a very large text file: save it as raw or gzip")
    content = files[0].read_bytes()[header.start if files[0] == path else 0 :]
    try:
        values = np.array(content.split(), header.dtype.newbyteorder("="))
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path} holds something else than numbers where its voxels should be") from error
    if len(values) * header.dtype.itemsize != announced:
        raise InputError(f"{path} is truncated: its header announces other than the {len(values):,} values it holds")
    return values


def _files(header: Header, path: Path) -> list[Path]:
    text = header.fields.get("data file")
    if text is None:
        return [path]
    if text.startswith("LIST"):
        return [_guard.beside(path, name.strip()) for name in text.splitlines()[1:] if name.strip()]
    words = text.split()
    if len(words) in (4, 5) and "%" in words[0]:
        return [_guard.beside(path, name) for name in numbered(words[0], words[1:4], path)]
    return [_guard.beside(path, text)]


def numbered(pattern: str, limits: list[str], path: Path) -> list[str]:
    """The names that a pattern such as "slice%03d.raw" stands for, from first to last number by a step."""
    match = re.fullmatch(r"([^%]*)%(0?)(\d{0,2})d([^%]*)", pattern)
    try:
        first, last, step = (int(word) for word in limits)
        numbers = range(first, last + (1 if step > 0 else -1), step)
    except ValueError as error:
        raise InputError(f"{path} names its files by a pattern that cannot be read: save it as one file") from error
    if match is None or not 0 < len(numbers) <= 100_000:
        raise InputError(f"{path} names its files by a pattern that cannot be read: save it as one file")
    head, zero, width, tail = match.groups()
    return [f"{head}{n:{zero}{width}d}{tail}" for n in numbers]
