"""`napari-mamba batch`: the cohort's events, told as those of several cases of `run`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mamba.cli.reporting.events import JsonLines
from napari_mamba.cli.reporting.failures import CANCELLED, DONE, SOME_FAILED, quiet_libraries
from napari_mamba.cli.reporting.progress import Reporter, reporter
from napari_mamba.cli.runs.storing import joined
from napari_mamba.errors import InputError
from napari_mamba.io.paths import expanded

if TYPE_CHECKING:
    from napari_mamba.cohort import CaseEnded, Row


def batch_command(
    name: str,
    inputs: Sequence[str],
    folder: Path,
    options: dict[str, Any],
    *,
    reading: dict[str, Any],
    suffixes: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    as_bids: bool = False,
    events: str | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    rows: Path | None = None,
) -> int:
    """Carry the command out; returns the exit code, raises what stopped the whole batch."""
    from napari_mamba.cli.runs.running import cancel_on_signals

    if events not in (None, "jsonl"):
        raise InputError(f"--events {events} is not known: the one format is jsonl")
    report = reporter(events)
    how: dict[str, Any] = {"reading": reading, "resume": resume, "overwrite": overwrite, "as_bids": as_bids}
    how["rows"] = rows
    try:
        with quiet_libraries(), cancel_on_signals() as cancel, ExitStack() as stack:
            device = str(options.get("device", "auto"))
            cluster = joined(scheduler, workers, device, stack, lambda line: print(line, file=sys.stderr))
            how["cluster"] = cluster
            return _run(name, inputs, suffixes, expanded(folder), options, how, report, cancel)
    except BaseException as error:
        if isinstance(report, JsonLines) and not isinstance(error, BrokenPipeError):
            report.failure(error)
        raise
    finally:
        report.close()


def _run(
    name: str,
    inputs: Sequence[str],
    suffixes: Sequence[str],
    folder: Path,
    options: dict[str, Any],
    how: dict[str, Any],
    report: Reporter,
    cancel: threading.Event,
) -> int:
    from napari_mamba import bundles
    from napari_mamba.cohort import CaseStarted, find_cases, run_batch
    from napari_mamba.cohort.places import batch_folder
    from napari_mamba.engine import Progress, RunOptions
    from napari_mamba.engine.progress.overall import Overall

    chosen = RunOptions(**options)
    bundle = bundles.load(name)
    cases = find_cases(inputs, [channel.name for channel in bundle.channels], suffixes=suffixes)
    overall, running = Overall(len(cases)), run_batch(cases, bundle, folder, chosen, cancel=cancel, **how)
    begun = 0
    while True:
        try:
            event = next(running)
        except StopIteration as end:
            if begun > len(end.value):
                report.cancelled()
            code = _ended(end.value, len(cases), report)
            print(f"summary: {batch_folder(folder, as_bids=how['as_bids']) / 'summary.html'}", file=sys.stderr)
            return code
        if isinstance(event, CaseStarted):
            begun += 1
            report.case(event.number, event.count, event.name)
        elif isinstance(event, Progress):
            overall.add(event)
            report.progress(event, overall)
        else:
            _tell(event, bundle.task, batch_folder(folder, as_bids=how["as_bids"]), report)
            overall.end_run(measured=not event.kept and event.error is None)


def _tell(ended: CaseEnded, task: str, folder: Path, report: Reporter) -> None:
    row = ended.row
    if ended.error is not None:
        report.failure(ended.error)
        return
    result = ended.result
    for message in result.warnings if result is not None else ():
        report.warning(message)
    facts = {
        "cancelled": False,
        "kept": ended.kept,
        "inputs": list(row.inputs),
        "outputs": {"labels" if task == "segmentation" else "image": str(folder / row.output)} if row.output else {},
        "table": [asdict(line) for line in result.table] if result is not None else [],
        "scores": result.scores if result is not None else None,
        "warnings": list(row.warnings),
        "seconds": round(row.seconds, 3),
    }
    report.result(facts, result.table if result is not None else [], row.unit)


def _ended(rows: Sequence[Row], count: int, report: Reporter) -> int:
    failed = sum(row.status == "failed" for row in rows)
    report.end(len(rows) - failed, failed, count - len(rows))
    if len(rows) < count:
        return CANCELLED
    return SOME_FAILED if failed else DONE
