"""SHA-256 of what is read for a case."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from napari_mamba.errors import InputError

_POINTS = {
    ".mhd": re.compile(rb"ElementDataFile\s*=\s*([^\r\n]+)", re.I),
    ".nhdr": re.compile(rb"data ?file:\s*([^\r\n]+)", re.I),
}


def input_sha256(paths: Sequence[Path]) -> str:
    """SHA-256 of one file's bytes; of several files or a folder, that of the lines ``<sha256>  <place>``.

    The lines stand in the order of the channels, those of a folder in that of the names, as ``sha256sum`` prints
    them. The voxels that a header names (.mhd, .nhdr) count with it.

    Raises
    ------
    InputError
        If a file cannot be read.
    """
    files = [file for path in paths for file in _files(path)]
    try:
        if len(files) == 1 and files[0][1].is_file():
            return _sha256(files[0][1])
        lines = "".join(f"{_sha256(path)}  {name}\n" for name, path in files)
    except OSError as error:
        raise InputError(f"{error.filename or paths[0]} cannot be read ({error.strerror}): check the file") from error
    return hashlib.sha256(lines.encode()).hexdigest()


def _files(path: Path) -> list[tuple[str, Path]]:
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file())
        return [(file.relative_to(path).as_posix(), file) for file in inside]
    pattern = _POINTS.get(path.suffix.lower())
    if pattern is None or not path.is_file():
        return [(path.name, path)]
    with open(path, "rb") as file:
        match = pattern.search(file.read(1 << 16))
    beside = {other for other in path.parent.glob(f"{glob_safe(path.stem)}.*") if other.is_file()}
    if match is not None:
        named = path.parent / match[1].decode("utf-8", "replace").strip()
        beside |= {named} if named.is_file() else set()
    return [(path.name, path), *((other.name, other) for other in sorted(beside - {path}))]


def glob_safe(name: str) -> str:
    """A name in which no character is a pattern."""
    return re.sub(r"([\[*?])", r"[\1]", name)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
