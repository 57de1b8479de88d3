"""`adapt`: a bundle from a bundle and labelled images, told as lines or as events."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from napari_mamba.cli.reporting.events import JsonLines
from napari_mamba.cli.reporting.failures import CANCELLED, DONE, quiet_libraries
from napari_mamba.cli.runs.running import cancel_on_signals

if TYPE_CHECKING:
    from napari_mamba.training.adaptation.options import Adapted, AdaptProgress

_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_BETWEEN_EVENTS = 0.1


def adapt_bundle(bundle: str, data: Path, output: Path, chosen: dict[str, Any], *, jsonl: bool) -> int:
    """Adapt; prints the bundle's path, or events. Returns the exit code."""
    report = _Events() if jsonl else _Lines()
    try:
        with quiet_libraries(), cancel_on_signals() as cancel:
            result = _run(bundle, data, output, chosen, report, cancel)
    except BaseException as error:
        report.failure(error)
        raise
    else:
        report.result(result)
    finally:
        report.close()
    return CANCELLED if result.cancelled else DONE


def _run(
    bundle: str, data: Path, output: Path, chosen: dict[str, Any], report: _Lines | _Events, cancel: threading.Event
) -> Adapted:
    from napari_mamba.training.adaptation.adapt import adapt
    from napari_mamba.training.adaptation.options import AdaptOptions

    events = adapt(bundle, data, output, AdaptOptions(**chosen), cancel)
    while True:
        try:
            report.progress(next(events))
        except StopIteration as end:
            return end.value


class _Lines:
    """Sentences for people on stderr; the bundle's path on stdout."""

    def __init__(self) -> None:
        self._last = 0.0

    def progress(self, event: AdaptProgress) -> None:
        if event.warning:
            _say(event.message)
        elif event.stage == "training" and event.loss is not None:
            if monotonic() - self._last > _SECONDS_BETWEEN_LINES:
                self._last = monotonic()
                left = "" if event.seconds_left is None else f", {event.seconds_left / 60:.1f} minutes left"
                _say(f"step {event.done}, loss {event.loss:.3f}{left}")
        elif event.preview:
            _say(f"preview: {event.preview}")
        elif event.message and event.score is not None:
            _say(event.message + (", the best so far" if event.best else ""))
        elif event.message and event.stage == "preparing":
            _say(f"prepared {event.message} ({event.done} of {event.total})")

    def result(self, result: Adapted) -> None:
        if result.path is None:
            _say("stopped before there was anything to keep: --resume goes on if there is a checkpoint")
            return
        if result.score is None:
            _say("the score is unknown: nobody was held out, or it was stopped before")
        else:
            count = result.score.people
            _say(f"Dice {result.score.mean:.3f} on {count} held-out {'people' if count > 1 else 'person'}"
                 + (f", standard deviation {result.score.sd:.3f}" if count > 1 else ""))  # fmt: skip
        _say(f"peak memory {result.facts['peak_memory_bytes'] / 2**30:.1f} GB; not for clinical use")
        print(result.path)

    def failure(self, error: BaseException) -> None:
        """The command's entry point says it."""

    def close(self) -> None:
        """Nothing is open."""


class _Events:
    """JSON lines: docs/events.md."""

    def __init__(self) -> None:
        self._lines, self._last, self._stage = JsonLines(), 0.0, ""

    def progress(self, event: AdaptProgress) -> None:
        from napari_mamba.training.adaptation.adapt import as_json

        if event.warning:
            self._lines.emit("warning", message=event.message)
            return
        told = event.score is not None or event.preview or (event.stage == "validating" and event.done)
        if not told and event.stage == self._stage and monotonic() - self._last < _SECONDS_BETWEEN_EVENTS:
            return
        self._last, self._stage = monotonic(), event.stage
        self._lines.emit("progress", **as_json(event))

    def result(self, result: Adapted) -> None:
        outputs = {"bundle": str(result.path)} if result.path else {}
        self._lines.emit("result", cancelled=result.cancelled, outputs=outputs, adapted=result.facts)

    def failure(self, error: BaseException) -> None:
        self._lines.failure(error)

    def close(self) -> None:
        self._lines.close()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
