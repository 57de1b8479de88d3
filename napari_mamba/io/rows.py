"""Rows of a table beside images: a CSV with headings, a row a person or image."""

from __future__ import annotations

import csv
import os
from functools import lru_cache
from pathlib import Path

from napari_mamba.errors import InputError
from napari_mamba.io.common.guard import quoted
from napari_mamba.io.paths import expanded

MOST_BYTES, MOST_SHOWN = 1 << 26, 5


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """The rows of a CSV, separated by commas, semicolons or tabs, under its headings.

    Raises
    ------
    InputError
        If the file cannot be read, or has no row below its headings.

    Examples
    --------
    >>> read_rows("people.csv")[0]["age"]  # doctest: +SKIP
    '71'
    """
    path = expanded(path)
    try:
        state = path.stat()
        if state.st_size > MOST_BYTES:
            raise InputError(f"{path} is larger than any table of people: check the file")
        return [dict(row) for row in _rows(path, state.st_mtime_ns)]
    except UnicodeDecodeError:
        raise InputError(f"{path} is no text: save the table as CSV (UTF-8)") from None
    except OSError as error:
        raise InputError(f"the table {path} cannot be read ({error.strerror or error}): check its name") from error


@lru_cache(maxsize=4)  # a window asks for a row whenever it draws
def _rows(path: Path, changed: int) -> list[dict[str, str]]:
    text = path.read_text(encoding="utf-8-sig")
    lines = text.splitlines()
    first = lines[0] if lines else ""
    delimiter = max(",;\t", key=first.count)
    try:
        rows = [
            {
                heading.strip(): (cell or "").strip()
                for heading, cell in row.items()
                if heading and isinstance(cell, str)
            }
            for row in csv.DictReader(lines, delimiter=delimiter)
        ]
    except csv.Error as error:
        raise InputError(f"{path} is no CSV ({error}): save the table as CSV (UTF-8)") from error
    rows = [row for row in rows if any(row.values())]
    if not rows:
        raise InputError(f"{path} has no row below its headings: check the file")
    return rows


def row_of(path: str | os.PathLike[str], name: str) -> dict[str, str]:
    """The row of a table in which a cell is `name`, with or without a file's suffix; of a table of one row, that one.

    Parameters
    ----------
    path : path
        The CSV.
    name : str
        Of the image, or what its row says.

    Raises
    ------
    InputError
        If no row says so, or several do.
    """
    rows = read_rows(path)
    wanted = {name.strip(), _stem(name)} - {""}
    found = [row for row in rows if any(cell in wanted or _stem(cell) in wanted for cell in row.values())]
    if len(found) == 1:
        return found[0]
    if not found and len(rows) == 1:
        return rows[0]
    if found:
        raise InputError(f"{len(found)} rows of {path} say {quoted(name)}: keep one row for each image")
    some = ", ".join(next(iter(row.values())) for row in rows[:MOST_SHOWN])
    some += ", …" if len(rows) > MOST_SHOWN else ""
    raise InputError(
        f"no row of {path} says {quoted(name)}; its first are of {some}: write the image's name into a cell of its "
        "row, or say which row it is"
    )


def _stem(name: str) -> str:
    """A file's name without folders and suffixes.

    >>> _stem("people/sub-01_T1w.nii.gz")
    'sub-01_T1w'
    """
    return Path(name.strip().replace("\\", "/")).name.split(".", 1)[0]
