"""One row a case: what the table holds, and the record of each case that a later batch reads."""

from __future__ import annotations

import csv
import io as text_io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from napari_mamba.io.common.atomic import atomic_path

DONE, FAILED = "done", "failed"
_LARGEST = 16 << 20


@dataclass(frozen=True)
class Row:
    """What came of one case.

    Attributes
    ----------
    name : str
    status : {"done", "failed"}
    seconds : float
        From reading to written.
    values : dict of str to float
        Volume of each class, or score of each class of a classification.
    unit : str
        Of the values: "ml", "1000 voxels" (the image has no voxel size), "probability", or empty.
    warnings : tuple of str
    error : str
        Why it failed, in one sentence.
    inputs : tuple of str
        Paths.
    sha256 : str
        Of the input, see `hashing.input_sha256`.
    output : str
        The label map or image, from the batch's folder.
    thumbnail : str
        A small picture, from the batch's folder; empty if there is none.
    key : str
        SHA-256 of the input, the bundle and the options together: what has the same need not run again.
    """

    name: str
    status: str
    seconds: float = 0.0
    values: dict[str, float] = field(default_factory=dict)
    unit: str = ""
    warnings: tuple[str, ...] = ()
    error: str = ""
    inputs: tuple[str, ...] = ()
    sha256: str = ""
    output: str = ""
    thumbnail: str = ""
    key: str = ""


def read_record(path: Path) -> Row | None:
    """The row that a case's record holds; None if there is none, or it is damaged."""
    try:
        if path.stat().st_size > _LARGEST:
            return None
        held = json.loads(path.read_text(encoding="utf-8"))["batch"]
        row = Row(**{entry.name: held[entry.name] for entry in fields(Row)})
        texts = (row.name, row.status, row.unit, row.error, row.sha256, row.output, row.thumbnail, row.key)
        if not all(isinstance(text, str) for text in texts):
            return None
        values = {str(name): float(value) for name, value in row.values.items()}
        known = asdict(row) | {"values": values, "warnings": tuple(map(str, row.warnings))}
        return Row(**known | {"inputs": tuple(map(str, row.inputs)), "seconds": float(row.seconds)})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def write_tables(rows: Sequence[Row], folder: Path) -> None:
    """`table.csv`, and `table.parquet` where PyArrow is installed: each whole, or as it was before.

    Raises
    ------
    OutputError
        If one cannot be written.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    lines = [_line(row, names) for row in rows]
    with atomic_path(folder / "table.csv") as temporary:
        temporary.write_text(_csv(lines), encoding="utf-8")
    if find_spec("pyarrow") is not None:
        with atomic_path(folder / "table.parquet") as temporary:
            _parquet(lines, names, temporary)


def _line(row: Row, names: Sequence[str]) -> dict[str, Any]:
    """The cells of a row. A class called like another column keeps its own, in brackets."""
    line: dict[str, Any] = {"name": row.name, "status": row.status, "seconds": round(row.seconds, 3), "unit": row.unit}
    line |= {_heading(name): row.values.get(name) for name in names}
    rest = {"warnings": " ".join(row.warnings), "error": row.error, "inputs": "; ".join(row.inputs)}
    return line | rest | {"sha256": row.sha256, "output": row.output}


_TAKEN = frozenset({"name", "status", "seconds", "unit", "warnings", "error", "inputs", "sha256", "output"})


def _heading(name: str) -> str:
    return f"[{name}]" if name in _TAKEN else name


def _csv(lines: Sequence[dict[str, Any]]) -> str:
    text = text_io.StringIO()
    headings = list(lines[0]) if lines else []
    writer = csv.DictWriter(text, headings, lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in line.items()})
    return text.getvalue()


def _parquet(lines: Sequence[dict[str, Any]], names: Sequence[str], path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    numbers = {"seconds", *map(_heading, names)}
    headings = list(lines[0]) if lines else []
    kinds = [(key, pyarrow.float64() if key in numbers else pyarrow.string()) for key in headings]
    parquet.write_table(pyarrow.Table.from_pylist(list(lines), schema=pyarrow.schema(kinds)), path)
