"""The work on one case: read, run, written, with a row whatever comes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from napari_mamba import io
from napari_mamba.cohort.cases import bids
from napari_mamba.cohort.cases.case import Case
from napari_mamba.cohort.hashing import input_sha256
from napari_mamba.cohort.places import Places
from napari_mamba.cohort.row import DONE, FAILED, Row, read_record
from napari_mamba.cohort.summary.thumbnail import write_thumbnail
from napari_mamba.engine import Progress, Result, RunOptions
from napari_mamba.engine import run as run_engine
from napari_mamba.errors import InputError, NapariMambaError
from napari_mamba.io.common.atomic import atomic_path

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle


@dataclass(frozen=True)
class CaseEnded:
    """A case has its row. `kept`: it was finished before, and was not run again."""

    row: Row
    kept: bool = False
    result: Result | None = None
    error: Exception | None = None


@dataclass
class Work:
    """What all cases share."""

    bundle: Bundle
    target: Path
    options: RunOptions
    reading: dict[str, Any]
    resume: bool
    cancel: Any = None
    rows: Path | None = None
    """A table with a row for each case, for bundles that take one beside the image."""

    def run(self, case: Case, place: Places) -> Generator[Progress, None, CaseEnded | None]:
        """One case; None if it was cancelled. What goes wrong is its row's, and ends no other case."""
        began, touched = perf_counter(), False
        row = Row(case.name, FAILED, inputs=tuple(map(str, case.inputs)))
        try:
            if case.problem:
                raise InputError(case.problem)
            options = self.options_of(case)
            digest = input_sha256(case.inputs)
            row = replace(row, sha256=digest, key=self.key(digest, case, options))
            if self.resume and (before := self.finished(row, place)) is not None:
                return CaseEnded(before, kept=True)
            touched = True
            self.forget(place)
            volume = io.read(list(case.inputs), **{**self.reading, **case.reading})
            result = yield from run_engine(volume, self.bundle, options, self.cancel)
            if result.cancelled:
                return None
            yield Progress("writing", 0, 1)
            row = _measured(row, result, volume.units, place)
            return CaseEnded(self.write(row, volume, result, place, began), result=result)
        except Exception as error:
            if touched:  # where the input is away (a disk that is not mounted), what was made of it before stays
                self.forget(place)
            failed = replace(row, status=FAILED, error=sentence_of(error), seconds=perf_counter() - began)
            return CaseEnded(replace(failed, values={}, output="", thumbnail=""), error=error)

    def options_of(self, case: Case) -> RunOptions:
        """The options, with the case's row of the table where there is one: a cell is its name, or that of its file."""
        if self.rows is None:
            return self.options
        try:
            row = io.row_of(self.rows, case.name)
        except InputError:
            row = io.row_of(self.rows, case.inputs[0].name)
        return replace(self.options, row=row)

    def key(self, digest: str, case: Case, options: RunOptions) -> str:
        """What decides about an answer: the input, the bundle, the options."""
        facts = [digest, self.bundle.sha256, options.to_dict(), self.reading, case.reading]
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()

    def finished(self, row: Row, place: Places) -> Row | None:
        """The row of an earlier batch that is still true of this case."""
        before = read_record(self.target / place.record)
        if before is None or (before.key, before.status, before.name) != (row.key, DONE, row.name):
            return None
        if place.output is not None and not (self.target / place.output).is_file():
            return None
        known = {"inputs": row.inputs, "output": _text(place.output), "thumbnail": place.thumbnail.as_posix()}
        return replace(before, **known)  # type: ignore[arg-type]

    def forget(self, place: Places) -> None:
        """Remove what an earlier batch left of a case, so that no old answer stands beside a new row."""
        for path in (place.record, place.output, place.thumbnail, place.lookup):
            if path is not None:
                (self.target / path).unlink(missing_ok=True)

    def write(self, row: Row, volume: Any, result: Result, place: Places, began: float) -> Row:
        """The files of a case, its record last: what has one is whole."""
        (self.target / place.record).parent.mkdir(parents=True, exist_ok=True)
        if place.output is not None:
            if result.labels is not None:
                io.write(result.labels, self.target / place.output, classes=self.bundle.classes)
            elif result.image is not None:
                io.write(result.image, self.target / place.output)
        if place.lookup is not None:
            write_text(self.target / place.lookup, bids.lookup(self.bundle.classes))
        write_thumbnail(volume, result, self.bundle, self.target / place.thumbnail)
        row = replace(row, seconds=perf_counter() - began)
        _write_record(self.target / place.record, row, result)
        return row


def _write_record(path: Path, row: Row, result: Result) -> None:
    facts = {**result.report(), "Sources": list(row.inputs), "batch": asdict(row)}
    held = json.loads(json.dumps(facts, default=str), parse_constant=lambda _: None)  # NaN is no JSON
    write_text(path, json.dumps(held, indent=2, ensure_ascii=False) + "\n")


def _measured(row: Row, result: Result, units: str, place: Places) -> Row:
    values = {entry.name: float(entry.ml) for entry in result.table}
    unit = ("ml" if units == "mm" else "1000 voxels") if values else ""
    if result.scores:
        values, unit = {name: float(score) for name, score in result.scores.items()}, "probability"
    files = {"output": _text(place.output), "thumbnail": place.thumbnail.as_posix()}
    return replace(row, status=DONE, values=values, unit=unit, warnings=tuple(result.warnings), **files)  # type: ignore[arg-type]


def _text(path: Path | None) -> str:
    return "" if path is None else path.as_posix()


def sentence_of(error: Exception) -> str:
    if isinstance(error, NapariMambaError):
        text = str(error)
    elif isinstance(error, MemoryError):
        text = "the computer's memory is full: close other programs, or choose a smaller tile"
    elif isinstance(error, OSError):
        text = f"{error}: check the disk and its free space"
    else:
        text = f"{type(error).__name__}: {error} (a fault in napari-mamba: please report it)"
    return " ".join(text.split())


def write_text(path: Path, text: str) -> None:
    """A text file, whole or not there."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
