"""What was measured, one JSON file a kind of GPU, and the page that is made of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.gpu.rows import Found, Row

RESULTS = Path(__file__).with_name("results")
PAGE = Path(__file__).parents[2] / "docs" / "gpu_measured.md"
TITLES = {
    "runs": "Whole runs, from a volume to labels or an image",
    "scan": "The scan",
    "autograd": "Small calls through autograd",
    "networks": "Whole networks on a tile of 128³",
}
_HEAD = """# On a GPU: what was measured

Written by `python -m benchmarks.gpu --write`, from `benchmarks/gpu/results/`. Each number is a median of calls in one
process, or of new processes where a row says so. "times" is a peer's time over ours; where the peer was not installed
beside us, its time on the same kind of GPU stands in, and the row says from where. "Host-bound" means that the GPU
waits: the same calls in a CUDA graph take less. [How the kernels work](scan_cuda.md) is another page.
"""


def kind_of(machine: str) -> str:
    """A GPU's short name, for a file: "NVIDIA H200, driver …" is "h200"."""
    words = machine.partition(",")[0].lower().removeprefix("nvidia").split()
    return "-".join(words) or "unknown"


class Results:
    """Rows that were measured on one kind of GPU; each is on disk as soon as it is there.

    Parameters
    ----------
    machine : str
    folder : path, optional
        Where they are written; the environment variable RESULTS, else the room's own folder. What that folder lacks is
        taken from the room's own.
    """

    def __init__(self, machine: str, folder: Path | None = None) -> None:
        name = f"{kind_of(machine)}.json"
        self.path = (folder or Path(os.environ.get("RESULTS", RESULTS))) / name
        self.rows: dict[str, dict[str, Any]] = {}
        for path in (RESULTS / name, self.path):
            if path.is_file():
                self.rows |= json.loads(path.read_text(encoding="utf-8"))["rows"]
        self.machine = machine

    def keep(self, row: Row, found: Found) -> None:
        """Put a row in the place of what was there."""
        facts = {"value": found.value, "note": found.note, "details": found.details}
        self.rows[row.key] = {"machine": self.machine, "date": date.today().isoformat(), **facts}
        self.save()

    def save(self) -> None:
        """Write the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"rows": self.rows}, indent=1, ensure_ascii=False)
        self.path.write_text(text + "\n", encoding="utf-8")


def merge(files: Iterable[Path]) -> None:
    """Put rows that were measured elsewhere into the room's own files, the later of two of one name.

    A row without a number (its peer was not there) takes no measured one's place.
    """
    for file in files:
        found = json.loads(file.read_text(encoding="utf-8"))["rows"]
        target = RESULTS / file.name
        rows = json.loads(target.read_text(encoding="utf-8"))["rows"] if target.is_file() else {}
        for key, row in found.items():
            if key not in rows or (row["date"] >= rows[key]["date"] and row["value"] is not None):
                rows[key] = row
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps({"rows": rows}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def cells(row: Row, value: float | None, note: str, details: dict[str, Any]) -> str:
    """A line of a table."""
    shown = "–" if value is None else f"{value:.3g}"
    reached = {True: "yes", False: "**no**", None: ""}[row.reached(value)]
    beside = "; ".join([*([note] if note else []), *(f"{name} {_plain(found)}" for name, found in details.items())])
    return f"| {row.what} | {row.unit} | {row.aim} | {shown} | {reached} | {beside} |"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {_plain(one)}" for name, one in value.items()) + ")"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


HEADS = "| | unit | goal | measured | reached | beside it |\n| --- | --- | ---: | ---: | --- | --- |"


def page(rows: Iterable[Row]) -> str:
    """The page, of all kinds of GPU that were measured."""
    rows, lines = list(rows), [_HEAD]
    for path in sorted(RESULTS.glob("*.json")):
        known = json.loads(path.read_text(encoding="utf-8"))["rows"]
        for part, title in TITLES.items():
            mine = [row for row in rows if row.part == part and row.key in known]
            if not mine:
                continue
            machines = sorted({f"{known[row.key]['machine']} {known[row.key]['date']}." for row in mine})
            lines += [f"## {title}: {path.stem.upper()}\n", *machines, f"\n{HEADS}"]
            for row in mine:
                facts = known[row.key]
                lines.append(cells(row, facts["value"], facts["note"], facts["details"]))
            lines.append("")
    return "\n".join(lines)


def write_page(rows: Iterable[Row]) -> None:
    """Write docs/gpu_measured.md, unless the rows went into another folder or the pages are not here."""
    if "RESULTS" in os.environ or not PAGE.parent.is_dir():
        return
    PAGE.write_text(page(rows), encoding="utf-8")
    print(f"wrote {PAGE}")
