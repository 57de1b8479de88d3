"""A NRRD's header: its fields, its axes sorted into space and the rest, and where they place the voxels.

Format: teem.sourceforge.net/nrrd/format.html. Geometry as ITK gives it: spaces other than RAS, LAS and LPS are taken as
LPS. What ITK leaves out is read as the format defines it: units, the spaces with time, spacings from `axis maxs`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.common import guard as _guard
from napari_mamba.io.common.geometry import from_itk, millimetres, other_unit, without_orientation

_COLOUR_KINDS = {"rgb-color", "rgba-color", "hsv-color", "xyz-color"}
_CHANNEL_KINDS = {
    "list", "vector", "covariant-vector", "point", "normal", "none", "???", "2-vector", "3-vector", "4-vector",
    "3-gradient", "3-normal",
}  # fmt: skip
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
    "right-anterior-superior-time": (-1.0, -1.0, 1.0),
    "rast": (-1.0, -1.0, 1.0),
    "left-anterior-superior-time": (1.0, -1.0, 1.0),
    "last": (1.0, -1.0, 1.0),
}
_WITH_TIME = tuple(name for name in _LPS_OF if name.endswith("time") or name in ("rast", "last"))
_PATIENT = (*_LPS_OF, "left-posterior-superior", "lps", "left-posterior-superior-time", "lpst")
_OTHER_NAMES = {"datafile": "data file", "lineskip": "line skip", "byteskip": "byte skip"}
LONGEST, _MOST_AXES = 1 << 20, 16


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
        found = []
        name = self.fields.get("space", "").lower()
        if name not in _PATIENT and "space directions" in self.fields:
            said = _guard.quoted(name) if name else "none"
            found.append(
                f"The image's header does not say how the patient lies (space: {said}): left-posterior-superior is "
                "assumed, and other programs may assume another."
            )
        elif name in _WITH_TIME:
            found.append(
                f"The image's header gives its place in the space {name}, which programs of ITK take for "
                "left-posterior-superior: they show the image, but not a result on it, on the other side."
            )
        if unit := other_unit(_unit_names(self.fields)):
            found.append(unit)
        return tuple(found)

    @property
    def is_layered(self) -> bool:
        """Whether 3D Slicer put segments that overlap into layers, one beside the other."""
        return self.kind == "list" and self.other is not None and "segment0_layer" in self.fields

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
        if self.is_layered:
            return False
        return self.kind in _COLOUR_KINDS or (self.values in (3, 4) and self.dtype == np.uint8)

    @property
    def values(self) -> int:
        single = self.other is None or self.is_series or self.is_layered
        return 1 if single else self.sizes[self.other]  # type: ignore[index]


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
    affine, units = _place(fields, vectors, space, sizes, path)
    named = fields.get("axis 0 index type") == "text"  # a sequence over names, not over time: channels
    series = other is not None and not named and (kind == "time" or any(_SERIES_KEYS.match(key) for key in fields))
    return Header(dtype, sizes, space, other, kind, series, affine, units, fields, start)


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The header's fields and key-value pairs, keys in lower case, and where the header ends."""
    with open(path, "rb") as file:
        start = file.read(LONGEST)
    if not start:
        raise InputError(f"{path} is empty: check where it came from")
    if not start.startswith(b"NRRD"):
        raise InputError(f"{path} is no NRRD file, whatever its name says: check where it came from")
    blank = re.search(rb"\r?\n\r?\n", start)
    if blank is None and len(start) == LONGEST:
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
        found = [None if vector is None or np.isnan(vector).all() else vector for vector in found]
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
    fields: dict[str, str],
    vectors: list[np.ndarray | None] | None,
    space: tuple[int, ...],
    sizes: tuple[int, ...],
    path: Path,
) -> tuple[np.ndarray, str]:
    """The affine, and its units."""
    names = _unit_names(fields)
    if len(names) > 1:
        raise InputError(f"{path} has different units along its axes ({', '.join(sorted(names))}): convert it to mm")
    unit = millimetres(names.pop()) or 1.0 if names else 1.0
    axes = space[:3]
    placed = _by_vectors(fields, vectors, axes, path) if vectors else _by_spacings(fields, axes, sizes, path)
    if placed is None:
        return without_orientation(np.ones(3)), "pixel"
    matrix, origin = placed
    size = np.linalg.norm(matrix, axis=0)
    if not np.isfinite(origin).all():
        raise InputError(f"{path} has an origin that is no number in its header: repair it there")
    if not np.isfinite(size).all() or (size == 0).any():
        raise InputError(f"{path} has a voxel size of 0, or one that is no number, in its header: repair it there")
    signs = np.array(_LPS_OF.get(fields.get("space", "").lower(), (1.0, 1.0, 1.0)))
    affine = from_itk(size, signs * origin, signs[:, np.newaxis] * matrix / size)
    affine[:3] *= unit
    return affine, "mm"


def _by_vectors(
    fields: dict[str, str], vectors: list[np.ndarray | None], axes: tuple[int, ...], path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Steps (3, 3) as columns and the origin, by `space directions`; one slice in space has its normal as the third."""
    matrix, origin = np.eye(3), np.zeros(3)
    for column, axis in enumerate(axes):
        step = vectors[axis]
        matrix[:, column] = 0.0
        matrix[: len(step[:3]), column] = step[:3]  # type: ignore[index,arg-type]
    if len(axes) == 2 and len(vectors[axes[0]]) > 2:  # type: ignore[arg-type]
        normal = np.cross(matrix[:, 0], matrix[:, 1])
        length = np.linalg.norm(normal)
        matrix[:, 2] = normal / length if length > 0 else 0.0
    given = _origin(fields, path)
    origin[: len(given)] = given
    return matrix, origin


def _by_spacings(
    fields: dict[str, str], axes: tuple[int, ...], sizes: tuple[int, ...], path: Path
) -> tuple[np.ndarray, np.ndarray] | None:
    """As `_by_vectors`, by `spacings`, or `axis mins` and `axis maxs`; None where neither is there.

    A negative spacing runs against its axis. `axis mins` are the border of the first voxel, or its centre where the
    axis is centred on nodes (the format's "Axis ordering" and "centerings").
    """
    count = len(sizes)
    steps, lowest = _numbers(fields, "spacings", count, path), _numbers(fields, "axis mins", count, path)
    highest = _numbers(fields, "axis maxs", count, path)
    nodes = [word.lower() == "node" for word in _words(fields, "centerings", count, path)] or [False] * count
    if not steps and lowest and highest:
        gaps = [max(size - 1, 1) if node else size for size, node in zip(sizes, nodes, strict=True)]
        steps = [(high - low) / gap for high, low, gap in zip(highest, lowest, gaps, strict=True)]
    if not steps:
        return None
    matrix, origin = np.eye(3), np.zeros(3)
    given = _origin(fields, path)
    origin[: len(given)] = given
    for column, axis in enumerate(axes):
        matrix[column, column] = steps[axis]
        if lowest and not given and np.isfinite(lowest[axis]):
            origin[column] = lowest[axis] + (0.0 if nodes[axis] else steps[axis] / 2)
    return matrix, origin


def _unit_names(fields: dict[str, str]) -> set[str]:
    return set(re.findall(r'"([^"]*)"', fields.get("space units", "")))


def _origin(fields: dict[str, str], path: Path) -> list[float]:
    return _floats(fields.get("space origin", "").strip("()").replace(",", " "), path, "space origin")[:3]


def _numbers(fields: dict[str, str], key: str, count: int, path: Path) -> list[float]:
    """A number for each axis, or none."""
    found = _floats(fields.get(key, ""), path, key)
    if found and len(found) != count:
        raise InputError(f"{path} has {len(found)} {key} for {count} axes: repair its header")
    return found


def _floats(text: str, path: Path, what: str) -> list[float]:
    try:
        return [float(word) for word in text.split()]
    except ValueError as error:
        raise InputError(f"{path} has {what} that are no numbers: repair its header") from error
