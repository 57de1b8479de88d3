"""What a file says of its size is held against the file, before memory is taken or time is spent."""

from __future__ import annotations

import bz2
import gzip
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from napari_mamba.errors import InputError

LARGE = 1 << 29
"""Bytes below which any file may be unpacked, however well it is compressed."""
RATIO = 250
"""Bytes that one stored byte may become beyond that: whole-body label maps reach 100, bombs 1000 and more."""
LONGEST = 300
"""Characters of an error sentence beside the paths in it: a longer one quotes the file rather than explains it."""
ZARR_METADATA = (".zarray", ".zattrs", ".zgroup", ".zmetadata", "zarr.json")
"""Names of a Zarr store's files that are no chunks."""
_QUOTED = 60
_LONGEST_PATHS = 1000
_ADDRESS = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+):/{1,2}(?=[^/\\])")
_PATH = re.compile(r"""["'(]?([\w.~-]*/|[A-Za-z]:\\|\\\\\w)""")  # of a file's garbage, a word may hold any sign
_CHUNK = 1 << 24
STREAM_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile)


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an address such as "s3://bucket/image.zarr", also where `Path` has folded its slashes.

    >>> is_address(Path("s3://bucket/image.zarr")), is_address("C:/image.zarr"), is_address("image.zarr")
    (True, False, False)
    """
    return bool(_ADDRESS.match(os.fspath(path)))


def address_of(path: str | os.PathLike[str]) -> str:
    """The address, with both slashes; a path on this machine as it is.

    >>> address_of(Path("s3://bucket/image.zarr"))
    's3://bucket/image.zarr'
    """
    return _ADDRESS.sub(r"\1://", os.fspath(path), count=1)


def quoted(text: object) -> str:
    """A file's own text as it may stand in a sentence: printable, on one line, short.

    >>> quoted("a\\x00b" + "c" * 99)[:6], len(quoted("c" * 99))
    ("'a b", 63)
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)[: 4 * _QUOTED]).split())
    return repr(line if len(line) <= _QUOTED else line[:_QUOTED] + "…")


def shortened(text: str) -> str:
    """A sentence of at most `LONGEST` characters and its paths: the middle goes, the reason and the advice stay."""
    words = "".join(c if c.isprintable() else " " for c in text).split()
    line = " ".join(words)
    paths = min(sum(len(word) for word in words if _PATH.match(word)), _LONGEST_PATHS)
    if len(line) <= LONGEST + paths:
        return line
    return f"{line[: paths + LONGEST * 2 // 3]} … {line[-(LONGEST // 3 - 3) :]}"


def counted(sizes: Sequence[int], itemsize: int) -> int:
    """Bytes of an array, in Python's own integers: NumPy's would overflow on a damaged header."""
    total = itemsize
    for size in sizes:
        total *= int(size)
    return total


def check_stored(announced: int, there: int, path: object) -> None:
    """Raise `InputError` if voxels that are stored as they are do not fit in the bytes that are there."""
    if announced > there:
        raise InputError(
            f"{path} is truncated: its header announces {announced:,} bytes of voxels and {max(there, 0):,} are there; "
            "copy it anew"
        )


def surplus(announced: int, there: int) -> tuple[str, ...]:
    """A doubt where voxels that are stored as they are leave at least as many bytes over as the header tells of."""
    if announced <= 0 or there < 2 * announced:
        return ()
    return (
        f"The file holds {there:,} bytes of voxels and its header tells of {announced:,}: the rest is left out, and "
        "the header's sizes or type may be wrong.",
    )


def check_unpacked(announced: int, there: int, path: object) -> None:
    """Raise `InputError` if compressed voxels would become more than a real image of this size on disk does."""
    if announced > max(LARGE, RATIO * there):
        raise InputError(
            f"{path} announces more voxels than so small a file holds ({_bytes(announced)} from {_bytes(there)}): it "
            "is damaged, or made to fill the memory; check where it came from"
        )


def _bytes(count: int) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.3g} {unit}" if count < 1e6 else f"{count:.1e} {unit}"
        count //= 1000
    return ""


def filled(stream: BinaryIO | gzip.GzipFile | bz2.BZ2File, data: np.ndarray, path: object) -> None:
    """Fill a contiguous array from a stream; `InputError` if it ends before."""
    buffer = data.reshape(-1).view(np.uint8)
    done = 0
    while done < len(buffer):
        chunk = stream.read(min(_CHUNK, len(buffer) - done))
        if not chunk:
            raise InputError(
                f"{path} is truncated: {done:,} of {len(buffer):,} bytes of voxels are there, copy it anew"
            )
        buffer[done : done + len(chunk)] = np.frombuffer(chunk, np.uint8)
        done += len(chunk)


def to_the_end(stream: Any, path: object) -> None:
    """Read what lies behind the voxels, for there a compressed stream has its checksum; refuse an endless rest."""
    rest = 0
    while chunk := stream.read(_CHUNK):
        rest += len(chunk)
        if rest > LARGE:
            raise InputError(f"{path} goes on for more than 500 MB behind its voxels: check where it came from")


def beside(header: Path, name: str) -> Path:
    """The file that a header names for its voxels: a regular file in the header's own folder, or below it.

    Raises
    ------
    InputError
        If it is missing, no regular file (a device would never end), or lies elsewhere: a header from a stranger
        has no say over other folders.
    """
    target = header.parent / name
    folder = header.parent.resolve()
    if not target.resolve().is_relative_to(folder):
        raise InputError(f"{header} names voxels outside its folder ({quoted(name)}): put the file beside it")
    if not target.exists():
        raise InputError(f"{header} keeps its voxels in {quoted(name)}, which is not beside it: copy that file too")
    if not target.is_file():
        raise InputError(f"{header} names {quoted(name)} for its voxels, which is no file: check where it came from")
    return target
