"""`napari-mamba run`: read, run, write, one case or several, and stop cleanly when asked to."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from napari_mamba.cli.reporting.events import JsonLines
from napari_mamba.cli.reporting.failures import CANCELLED, DONE, SOME_FAILED, quiet_libraries, sentence
from napari_mamba.cli.reporting.progress import Reporter, reporter
from napari_mamba.cli.runs import features, films, slides
from napari_mamba.cli.runs.cases import Case, read_cases
from napari_mamba.cli.runs.colours import in_colour
from napari_mamba.cli.runs.outputs import Outputs
from napari_mamba.cli.runs.storing import Storing, is_store, joined, run_on_cluster, run_stored
from napari_mamba.errors import InputError
from napari_mamba.io.stores import is_address
from napari_mamba.opening import importing

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.cluster import Cluster
    from napari_mamba.engine import Progress, Result
    from napari_mamba.volume import Volume


@dataclass
class _Tally:
    """What came of the cases so far."""

    done: int = 0
    failed: list[str] = field(default_factory=list)
    cancelled: int = 0


class _Stopped(Exception):
    """The user asked to stop."""


def run_command(
    bundle: str,
    cases: Case | Path,
    options: dict[str, Any],
    *,
    reading: dict[str, Any],
    overwrite: bool,
    events: str | None,
    storing: Storing | None = None,
    row: tuple[Path | None, str] = (None, ""),
) -> int:
    """Carry the command out; returns the exit code, raises what went wrong after telling the reader of the events.

    Of the cases in a file each is announced, and one that fails does not end the others.
    """
    if events not in (None, "jsonl"):
        raise InputError(f"--events {events} is not known: the one format is jsonl")
    report = reporter(events)
    try:
        with ExitStack() as stack:
            work = _Work(options, reading, overwrite, report, storing or Storing(), stack, row=row)
            if isinstance(cases, Path):
                return _run_many(bundle, read_cases(cases), work)
            return _run_one(bundle, cases, work)
    except BaseException as error:
        if isinstance(report, JsonLines) and not isinstance(error, BrokenPipeError):
            report.failure(error)
        raise
    finally:
        report.close()


@dataclass
class _Work:
    """What all cases of a command share."""

    options: dict[str, Any]
    reading: dict[str, Any]
    overwrite: bool
    report: Reporter
    storing: Storing
    stack: ExitStack
    loaded: Bundle | None = None
    joined: Cluster | None = None
    row: tuple[Path | None, str] = (None, "")
    """The table beside the images, and what its row says where it is not the image's name."""

    def check(self, case: Case) -> None:
        """Raise what can be known before PyTorch is imported: in the order of what each costs."""
        self.chosen(case)
        self.storing.check(case.outputs.main)
        case.outputs.check(case.inputs, overwrite=self.overwrite, resume=self.storing.resume)
        for path in case.inputs:
            if not is_address(path) and not path.exists():
                raise InputError(f"{path} does not exist: check the name")

    def chosen(self, case: Case) -> Any:
        """The case's `RunOptions`."""
        from napari_mamba.engine import RunOptions

        asked = {name: True for name in ("uncertainty", "probabilities", "residual") if getattr(case.outputs, name)}
        region = {"region": case.region} if case.region else {}
        table, says = self.row
        row = {} if case.row is None else {"row": case.row}
        if table is not None and case.row is None:
            from napari_mamba.io import row_of

            name = says or (case.inputs[0].name if case.inputs else case.name)
            row = {"row": row_of(table, name)}
        return RunOptions(**{**self.options, **asked, **region, **row})

    def bundle(self, name: str) -> Bundle:
        """The bundle, read once for all cases."""
        from napari_mamba import bundles

        if self.loaded is None:
            self.loaded = bundles.load(name)
        return self.loaded

    def cluster(self) -> Cluster | None:
        """The workers that compute, joined once for all cases; None for this process."""
        if self.joined is None:
            storing, device = self.storing, str(self.options.get("device", "auto"))
            self.joined = joined(
                storing.scheduler, storing.workers, device, self.stack, lambda line: print(line, file=sys.stderr)
            )
        return self.joined


def _run_one(name: str, case: Case, work: _Work) -> int:
    from napari_mamba.engine.progress.overall import Overall

    work.check(case)
    with quiet_libraries(), cancel_on_signals() as cancel:
        try:
            _run_case(name, case, work, Overall(), cancel)
        except _Stopped:
            return _cancelled(work.report, stored=is_store(case.outputs.main))
    return DONE


def _run_many(name: str, cases: Sequence[Case], work: _Work) -> int:
    from napari_mamba.engine.progress.overall import Overall

    overall, tally = Overall(len(cases)), _Tally()
    with quiet_libraries(), cancel_on_signals() as cancel:
        for number, case in enumerate(cases):
            if cancel.is_set():
                tally.cancelled += 1
                continue
            work.report.case(number, len(cases), case.name)
            try:
                work.check(case)
                _run_case(name, case, work, overall, cancel)
            except _Stopped:
                work.report.cancelled()
                tally.cancelled += 1
            except (KeyboardInterrupt, BrokenPipeError):
                raise
            except Exception as error:
                work.report.failure(error)
                tally.failed.append(f"{case.name}: {sentence(error)}")
                overall.end_run(measured=False)
            else:
                tally.done += 1
                overall.end_run()
    work.report.end(tally.done, len(tally.failed), tally.cancelled)
    if tally.cancelled:
        return CANCELLED
    return SOME_FAILED if tally.failed else DONE


def _run_case(name: str, case: Case, work: _Work, overall: Any, cancel: threading.Event) -> None:
    began = perf_counter()
    from napari_mamba.engine import Progress

    report = work.report

    def tell(event: Progress) -> None:
        overall.add(event)
        report.progress(event, overall)

    tell(Progress("loading", 0, 1))
    with importing():
        from napari_mamba import io
        from napari_mamba.engine import run_to_end
        from napari_mamba.engine.networks.waking import wake

        bundle = work.bundle(name)  # which imports PyTorch
    slide = slides.is_slide(case, bundle)
    case.outputs.check_task(bundle)
    reading = {**work.reading, **case.reading}
    if work.storing.dry_run:
        from napari_mamba.cli.runs.forecasts import tell_forecast

        emit = report.emit if isinstance(report, JsonLines) else None
        workers, output = work.storing.workers or 1, case.outputs.main
        tell_forecast(case.inputs, reading, bundle, output, work.chosen(case), workers=workers, emit=emit)
        return
    ended: Any = False
    if slide:
        ended = slides.run_case(case, bundle, work.chosen(case), tell, cancel, overwrite=work.overwrite)
    elif bundle.task == "features":
        ended = features.run_case(case, bundle, work.chosen(case), reading, tell, cancel, overwrite=work.overwrite)
    elif films.is_film(reading, bundle):
        ended = films.run_case(case, bundle, work.chosen(case), reading, tell, cancel, overwrite=work.overwrite)
    if ended is None:
        raise _Stopped
    if ended:
        _tell_end(report, *ended)
        return
    stored = _stored(case, work, bundle, tell, cancel)
    if stored is None:
        if not work.storing.asked:
            precision = str(work.options.get("precision", "auto"))
            wake(str(work.options.get("device", "auto")), precision, bundle.task)
        volume = _read(case.inputs, reading, bundle)
        case.outputs.check_image(volume)
        cluster = work.cluster() if work.storing.asked else None
        if cluster is None:
            result = run_to_end(volume, bundle, work.chosen(case), on_progress=tell, cancel=cancel)
        else:
            beside = next(iter(case.outputs.chosen().values()), Path("here")).parent
            result = run_on_cluster(volume, bundle, work.chosen(case), cluster, beside, tell=tell, cancel=cancel)
    else:
        result = stored
        volume = result.labels or result.image or io.open_volume(case.inputs, **reading)
    if result.cancelled or (cancel.is_set() and stored is None):
        raise _Stopped
    tell(Progress("writing", 0, 1))
    asked = case.outputs if stored is None else replace(case.outputs, main=None)
    outputs, notes = asked.without_replacing(overwrite=work.overwrite)
    facts = _facts(result, case.inputs, replace(outputs, main=outputs.main or case.outputs.main))
    named = {"inputs": facts["inputs"], "outputs": facts["outputs"]}
    if stored is not None and outputs.overlay is not None:
        volume = io.open_volume(case.inputs, **reading)
    outputs.write(result, volume, bundle, {**result.report(), **named})
    if cancel.is_set():
        notes.append("The request to stop came while the results were being written: they were finished.")
    for message in [*result.warnings, *notes]:
        report.warning(message)
    facts["seconds"] = round(perf_counter() - began, 3)
    report.result(facts, result.table, "ml" if volume.units == "mm" else "1000 voxels")


def _read(inputs: Sequence[Path], reading: dict[str, Any], bundle: Bundle) -> Volume:
    """The image; colours as the bundle takes them, where nothing else is chosen."""
    from napari_mamba import io

    def read(colour: Any) -> Volume:
        return io.read(list(inputs), **{**reading, "colour": colour})

    return in_colour(read, reading.get("colour"), bundle)


def _tell_end(report: Reporter, facts: dict[str, Any], warnings: Sequence[str]) -> None:
    for message in warnings:
        report.warning(message)
    report.result(facts, [], "ml")


def _stored(
    case: Case, work: _Work, bundle: Bundle, tell: Callable[[Progress], None], cancel: threading.Event
) -> Result | None:
    """The result of a run into a Zarr store; None where it is another output, or the image has to be in memory."""
    if case.outputs.main is None or not is_store(case.outputs.main):
        return None
    return run_stored(
        case.inputs,
        {**work.reading, **case.reading},
        bundle,
        case.outputs.main,
        work.chosen(case),
        work.storing,
        overwrite=work.overwrite,
        tell=tell,
        cancel=cancel,
        cluster=work.cluster,
    )


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


def _cancelled(report: Reporter, stored: bool) -> int:
    report.cancelled()
    report.close()
    what = "what is finished stays, go on with --resume" if stored else "nothing was written"
    print(f"cancelled: {what}", file=sys.stderr)
    return CANCELLED


@contextmanager
def cancel_on_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C (and a polite kill) sets; a second Ctrl-C stops at once."""
    cancel = threading.Event()

    def ask(number: int, frame: Any) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()

    if threading.current_thread() is not threading.main_thread():
        yield cancel
        return
    polite = [
        signal.SIGINT,
        signal.SIGTERM,
        *filter(None, [getattr(signal, "SIGBREAK", None)]),
    ]  # the last is Windows's
    before = {number: signal.signal(number, ask) for number in polite}
    try:
        yield cancel
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
