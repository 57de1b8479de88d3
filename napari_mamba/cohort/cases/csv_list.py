"""A list of cases as people keep it in a spreadsheet."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from napari_mamba.cohort.cases.case import Case
from napari_mamba.errors import InputError
from napari_mamba.io.paths import expanded, is_there

_LARGEST = 64 << 20


def read_list(path: Path, channels: Sequence[str]) -> list[Case]:
    """The cases of a CSV file: a column `name`, and one column a channel with paths of images.

    Columns called like the bundle's channels may stand in any order; others are taken in theirs. Paths count from the
    file's folder. A comma, a semicolon or a tab separates. A file that is missing is a problem of its case alone.

    Raises
    ------
    InputError
        If the file cannot be read, has no column `name`, or another number of columns than the bundle has channels.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path} is too large for a list of cases: split it")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8: save it as CSV UTF-8") from error
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    try:
        lines = [
            line for line in csv.reader(text.splitlines(), delimiter=separator) if any(cell.strip() for cell in line)
        ]
    except csv.Error as error:
        raise InputError(f"{path} is no table ({error}): save it as CSV UTF-8") from error
    if len(lines) < 2:
        raise InputError(f"{path} holds no case: write a line of headings, and one line a case")
    headings = [cell.strip() for cell in lines[0]]
    order = _columns(path, headings, channels)
    named = headings.index("name")
    return [_case(path, number, line, named, order, headings) for number, line in enumerate(lines[1:], start=2)]


def _columns(path: Path, headings: list[str], channels: Sequence[str]) -> list[int]:
    """Where each channel's paths stand."""
    if headings.count("name") != 1:
        raise InputError(f"{path} needs one column called name: write its heading in the first line")
    others = [index for index, heading in enumerate(headings) if heading and heading != "name"]
    folded = {headings[index].casefold(): index for index in others}
    if all(channel.casefold() in folded for channel in channels):
        return [folded[channel.casefold()] for channel in channels]
    if len(others) != len(channels):
        wanted = ", ".join(channels)
        raise InputError(f"{path} has {len(others)} columns beside name: give one a channel of the bundle ({wanted})")
    return others


def _case(path: Path, number: int, line: list[str], named: int, order: list[int], headings: list[str]) -> Case:
    cells = [cell.strip() for cell in line] + [""] * (len(headings) - len(line))
    name = cells[named]
    if not name:
        raise InputError(f"{path}, line {number} has no name: give each case its own")
    inputs, problem = [], ""
    for index in order:
        if not cells[index]:
            problem = problem or f"{path.name} names no file for {headings[index]}: fill in its cell"
            continue
        file = path.parent / expanded(cells[index])
        inputs.append(file)
        if not is_there(file):
            problem = problem or f"{file} does not exist: check the line of {name} in {path.name}"
    return Case(name, tuple(inputs), problem=problem)
