"""`napari-mamba run`: read, run, write, and stop cleanly when asked to."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from napari_mamba.cli.failures import CANCELLED, DONE, exit_code, kind, quiet_libraries, sentence
from napari_mamba.cli.outputs import Outputs
from napari_mamba.cli.reporting import JsonLines, Reporter, reporter
from napari_mamba.errors import InputError

if TYPE_CHECKING:
    from napari_mamba.engine import Result


def run_command(
    bundle: str,
    inputs: Sequence[Path],
    outputs: Outputs,
    options: dict[str, Any],
    *,
    reading: dict[str, Any],
    overwrite: bool,
    events: str | None,
) -> int:
    """Carry the command out; returns the exit code, raises what went wrong after telling the reader of the events."""
    if events not in (None, "jsonl"):
        raise InputError(f"--events {events} is not known: the one format is jsonl")
    report = reporter(events)
    try:
        return _run(bundle, inputs, outputs, options, reading, overwrite, report)
    except BaseException as error:
        if isinstance(report, JsonLines) and not isinstance(error, BrokenPipeError):
            report.emit("error", kind=kind(error), message=sentence(error), exit_code=exit_code(error))
        raise
    finally:
        report.close()


def _run(
    name: str,
    inputs: Sequence[Path],
    outputs: Outputs,
    options: dict[str, Any],
    reading: dict[str, Any],
    overwrite: bool,
    report: Reporter,
) -> int:
    began = perf_counter()
    from napari_mamba.engine import Progress, RunOptions

    # In the order of what each costs: a wrong path should not be told after PyTorch was imported.
    chosen = RunOptions(**options)
    outputs.check(inputs, overwrite=overwrite)
    for path in inputs:
        if not path.exists():
            raise InputError(f"{path} does not exist: check the name")
    with quiet_libraries(), _cancel_on_signals() as cancel:
        report.progress(Progress("loading", 0, 1))
        from napari_mamba import bundles, io
        from napari_mamba.engine import run_to_end

        bundle = bundles.load(name)
        outputs.check_task(bundle)
        volume = io.read(list(inputs), **reading)
        result = run_to_end(volume, bundle, chosen, on_progress=report.progress, cancel=cancel)
        if result.cancelled or cancel.is_set():
            return _cancelled(report)
        report.progress(Progress("writing", 0, 1))
        outputs, told = outputs.without_replacing(overwrite=overwrite)
        facts = _facts(result, inputs, outputs)
        outputs.write(
            result, volume, bundle, {**result.report(), "inputs": facts["inputs"], "outputs": facts["outputs"]}
        )
        if cancel.is_set():
            told.append("The request to stop came while the results were being written: they were finished.")
    for message in [*result.warnings, *told]:
        report.warning(message)
    facts["seconds"] = round(perf_counter() - began, 3)
    report.result(facts, result.table, "ml" if volume.units == "mm" else "1000 voxels")
    return DONE


def _facts(result: Result, inputs: Sequence[Path], outputs: Outputs) -> dict[str, Any]:
    names = {"main": "labels" if result.labels is not None else "image"}
    return {
        "cancelled": False,
        "inputs": [str(path) for path in inputs],
        "outputs": {names.get(name, name): str(path) for name, path in outputs.chosen().items()},
        "table": [asdict(row) for row in result.table],
        "scores": result.scores,
        "warnings": list(result.warnings),
        "provenance": result.provenance,
    }


def _cancelled(report: Reporter) -> int:
    if isinstance(report, JsonLines):
        report.emit("result", cancelled=True, outputs={})
    report.close()
    print("cancelled: nothing was written", file=sys.stderr)
    return CANCELLED


@contextmanager
def _cancel_on_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C (and a polite kill) sets; a second Ctrl-C stops at once."""
    cancel = threading.Event()

    def ask(number: int, frame: Any) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()

    if threading.current_thread() is not threading.main_thread():
        yield cancel
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield cancel
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def parse_tile(text: str | None) -> int | tuple[int, ...] | None:
    """The tile as `RunOptions` takes it.

    >>> parse_tile("64"), parse_tile("32,64,64"), parse_tile("32x64x64"), parse_tile(None)
    (64, (32, 64, 64), (32, 64, 64), None)
    """
    if text is None:
        return None
    try:
        sizes = tuple(int(part) for part in text.lower().replace("x", ",").split(","))
    except ValueError:
        raise InputError(f"--tile {text} is no size: give voxels as 64 or as 32,64,64 (z, y, x)") from None
    return sizes[0] if len(sizes) == 1 else sizes


def parse_spacing(text: str | None) -> float | tuple[float, ...] | None:
    """The voxel size as `RunOptions` takes it.

    >>> parse_spacing("0.8"), parse_spacing("1,0.5,0.5"), parse_spacing(None)
    (0.8, (1.0, 0.5, 0.5), None)
    """
    if text is None:
        return None
    try:
        sides = tuple(float(part) for part in text.lower().replace("x", ",").split(","))
    except ValueError:
        raise InputError(f"--spacing {text} is no voxel size: give mm as 0.8 or as 1,0.8,0.8 (z, y, x)") from None
    return sides[0] if len(sides) == 1 else sides


def run_options(**chosen: Any) -> dict[str, Any]:
    """Only what the user chose, so that the defaults stay `RunOptions`' own."""
    return {name: value for name, value in chosen.items() if value is not None}


def read_options(series: str | None, frame: str | None, level: int) -> dict[str, Any]:
    """What `io.read` takes, from the text of the options.

    >>> read_options("3", "all", 0)
    {'series': 3, 'frame': 'all', 'level': 0}
    """
    if frame not in (None, "all") and not str(frame).isdigit():
        raise InputError(f"--frame {frame} is no volume of a 4D file: give its number from 0, or all")
    return {
        "series": int(series) if series is not None and series.isdigit() else series,
        "frame": int(frame) if frame is not None and frame.isdigit() else frame,
        "level": level,
    }
