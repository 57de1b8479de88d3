"""`train DATASET --network`: told as lines for people or as events for programs."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from napari_mamba.cli.reporting.events import JsonLines
from napari_mamba.cli.reporting.failures import CANCELLED, DONE, quiet_libraries
from napari_mamba.cli.reporting.progress import duration
from napari_mamba.cli.runs.running import cancel_on_signals

if TYPE_CHECKING:
    from napari_mamba.training.nnunet.options import Trained, TrainProgress

_SECONDS_BETWEEN_LINES = 10.0


def train_networks(dataset: Path, output: Path, chosen: dict[str, Any], *, jsonl: bool) -> int:
    """Train; prints the bundles' paths and the comparison, or events. Returns the exit code."""
    report = _Events() if jsonl else _Lines()
    try:
        with quiet_libraries(), cancel_on_signals() as cancel:
            result = _run(dataset, output, chosen, report, cancel)
    except BaseException as error:
        report.failure(error)
        raise
    else:
        report.result(result)
    finally:
        report.close()
    return CANCELLED if result.cancelled else DONE


def _run(
    dataset: Path, output: Path, chosen: dict[str, Any], report: _Lines | _Events, cancel: threading.Event
) -> Trained:
    from napari_mamba.training.nnunet.guide import train
    from napari_mamba.training.nnunet.options import TrainOptions

    events = train(dataset, output, TrainOptions(**chosen), cancel)
    while True:
        try:
            report.progress(next(events))
        except StopIteration as end:
            return end.value


class _Lines:
    """Sentences on stderr; paths and the table on stdout."""

    def __init__(self) -> None:
        self._last, self._began, self._doing = 0.0, monotonic(), ""
        self._first: tuple[float, float] | None = None

    def progress(self, event: TrainProgress) -> None:
        if event.warning:
            _say(f"warning: {event.message}")
            return
        doing = f"{event.stage} {event.network} {event.fold}"
        what = event.facts.get("what")
        if doing == self._doing and what != "epoch" and monotonic() - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last, self._doing = monotonic(), doing
        _say(self._sentence(event))

    def _sentence(self, event: TrainProgress) -> str:
        facts = event.facts
        if not facts:
            return f"{event.stage} {event.done} of {event.total}" + (f": {event.message}" if event.message else "")
        place = f"{event.network}, fold {event.fold}"
        if event.stage == "validating":
            return f"{place}: validating on the people left out"
        epochs = f" of {facts['epochs']}" if facts.get("epochs") else ""
        told = f"{place}: epoch {facts['epoch'] + 1}{epochs}, step {facts['iteration']} of {facts['iterations']}, "
        told += f"loss {facts['loss']:.3f}"
        if facts["what"] == "epoch":
            told += f", pseudo Dice {facts['dice']:.3f}, {facts['seconds']:.0f} s"
        return told + self._left(event.overall)

    def _left(self, overall: float) -> str:
        """Of the whole command, from how fast training has been since it began."""
        if self._first is None:
            self._first = (monotonic(), overall)
            return ""
        since, before = self._first
        if overall - before < 0.005:
            return ""
        return f", {duration((monotonic() - since) * (1 - overall) / (overall - before))} left"

    def result(self, result: Trained) -> None:
        if result.cancelled:
            _say("stopped: --resume goes on from the last checkpoint")
            return
        for name, score in result.scores.items():
            people, found = score["people"], score["dice"]
            who = f"{people} left-out {'people' if people > 1 else 'person'}"
            spread = f" ± {found['sd']:.3f}" if found.get("n", 0) > 1 else ""
            _say(f"{name}: Dice {found.get('mean', float('nan')):.3f}{spread} on {who}")
        _say("not for clinical use")
        if result.table is not None:
            print(result.table.read_text(encoding="utf-8"))
        for path in result.bundles.values():
            print(path)

    def failure(self, error: BaseException) -> None:
        """The command's entry point says it."""

    def close(self) -> None:
        """Nothing is open."""


class _Events:
    """JSON lines: docs/events.md."""

    def __init__(self) -> None:
        self._lines, self._last, self._stage = JsonLines(), 0.0, ""

    def progress(self, event: TrainProgress) -> None:
        if event.warning:
            self._lines.warning(event.message)
            return
        due = monotonic() - self._last > 0.1 or event.stage != self._stage or event.facts.get("what") == "epoch"
        if not due:
            return
        self._last, self._stage = monotonic(), event.stage
        fields = {"stage": event.stage, "done": event.done, "total": event.total, "fraction": round(event.overall, 4)}
        more = {"network": event.network, "fold": event.fold, "training": event.facts} if event.network else {}
        self._lines.emit("progress", **fields, seconds_left=None, message=event.message, **more)

    def result(self, result: Trained) -> None:
        outputs = {name: str(path) for name, path in result.bundles.items()}
        outputs |= {"table": str(result.table)} if result.table else {}
        facts = {"scores": result.scores, "warnings": list(result.warnings)} if not result.cancelled else {}
        self._lines.emit("result", cancelled=result.cancelled, outputs=outputs, **facts)

    def failure(self, error: BaseException) -> None:
        self._lines.failure(error)

    def close(self) -> None:
        self._lines.close()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
