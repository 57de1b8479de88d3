"""The cases of one command: one named by arguments, or many from a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from napari_mamba.cli.runs.outputs import Outputs
from napari_mamba.errors import InputError

_OUTPUTS = tuple(f.name for f in fields(Outputs))
_READING = {"series": str, "frame": (str, int), "level": int, "colour": str, "channel": (str, int)}
_LARGEST = 64 << 20


@dataclass(frozen=True)
class Case:
    """What is read and written once.

    Attributes
    ----------
    inputs : tuple of Path
        One image, or its channels.
    outputs : Outputs
    name : str
        For progress and logs.
    reading : dict
        What `io.read` takes besides, where it differs from the command's options.
    region : tuple of float, optional
        See `RunOptions.region`; instead of the command's.
    row : dict of str to str, optional
        See `RunOptions.row`; instead of one of the command's table.
    """

    inputs: tuple[Path, ...]
    outputs: Outputs
    name: str = ""
    reading: dict[str, Any] = field(default_factory=dict)
    region: tuple[float, ...] | None = None
    row: dict[str, str] | None = None


def read_cases(path: Path) -> list[Case]:
    """The cases of a file: a JSON list of objects, or one object a line.

    Each object has `inputs` (a path or a list of paths) and outputs by the names of the command's options: `output`,
    `probabilities`, `uncertainty`, `residual`, `report`, `table`, `overlay`; `name`, `region`, `row`, `series`, `frame`
    and `level` if need be. Paths count from the file's folder.

    Raises
    ------
    InputError
        If the file cannot be read, or a case is none.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read(_LARGEST + 1)
        if len(raw) > _LARGEST:
            raise InputError(f"{path} is too large for a list of cases: split it")
        text = raw.decode("utf-8-sig").strip()
        items = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines() if line]
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name the file of the cases") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no list of cases: write a JSON list of objects, see docs/events.md") from error
    if not items:
        raise InputError(f"{path} holds no case: write one JSON object for each")
    return [_case(item, number, path) for number, item in enumerate(items)]


def _case(item: Any, number: int, path: Path) -> Case:
    where = f"{path}, case {number}"
    if not isinstance(item, dict):
        raise InputError(f"{where} is no object: write inputs and output of each case, see docs/events.md")
    item = dict(item)
    if "output" in item:
        item["main"] = item.pop("output")
    folder = path.absolute().parent
    given = item.pop("inputs", None)
    inputs = [given] if isinstance(given, str) else given
    if not isinstance(inputs, list) or not inputs or not all(isinstance(one, str) and one for one in inputs):
        raise InputError(f"{where} has no inputs: write a path, or a list of paths, one a channel")
    outputs = {key: folder / _text(item.pop(key), key, where) for key in _OUTPUTS if item.get(key) is not None}
    name = str(item.pop("name", "") or Path(inputs[0]).name)[:200]
    region = item.pop("region", None)
    if region is not None and not (
        isinstance(region, list) and len(region) == 6 and all(isinstance(n, int | float) for n in region)
    ):
        raise InputError(f"{where}: a region is six numbers in RAS mm")
    row = item.pop("row", None)
    if row is not None and not (isinstance(row, dict) and all(isinstance(cell, str) for cell in row.values())):
        raise InputError(f"{where}: a row is an object of texts, the cells by their headings")
    reading = {key: item.pop(key) for key in _READING if item.get(key) is not None}
    for key, value in reading.items():
        if not isinstance(value, _READING[key]) or isinstance(value, bool):  # type: ignore[arg-type]
            raise InputError(f"{where}: {key} has a value that it cannot have")
    if odd := [key for key, value in item.items() if value is not None]:
        raise InputError(f"{where} has the unknown field {str(odd[0])[:40]!r}: see docs/events.md")
    paths = tuple(folder / one for one in inputs)
    return Case(paths, Outputs(**outputs), name, reading, tuple(region) if region else None, row)


def _text(value: Any, key: str, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise InputError(f"{where}: {key} is the path of a file")
    return value


def one_case(inputs: Sequence[Path] | None, outputs: Outputs) -> Case:
    """The case that the arguments name."""
    if not inputs:
        raise InputError("no image was named: give INPUT, or a list of them with --cases")
    return Case(tuple(inputs), outputs, inputs[0].name)
