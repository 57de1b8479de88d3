"""What a run shows while it goes: a progress bar, plain lines, or JSON lines for a program."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from napari_mamba.cli.reporting.events import JsonLines
from napari_mamba.cli.reporting.failures import sentence
from napari_mamba.cli.reporting.tables import aligned, class_columns

if TYPE_CHECKING:
    from napari_mamba.engine import ClassRow, Progress
    from napari_mamba.engine.progress.overall import Overall

_SECONDS_BETWEEN_LINES = 5.0


class Reporter(Protocol):
    """Takes what happens, in its order; `close` is called, whatever happened.

    `case`, `failure` and `end` are called where there are several cases.
    """

    def case(self, number: int, count: int, name: str) -> None: ...

    def progress(self, event: Progress, overall: Overall) -> None: ...

    def warning(self, message: str) -> None: ...

    def result(self, facts: dict[str, Any], rows: Sequence[ClassRow], volume_unit: str) -> None: ...

    def cancelled(self) -> None: ...

    def failure(self, error: BaseException) -> None: ...

    def end(self, done: int, failed: int, cancelled: int) -> None: ...

    def close(self) -> None: ...


class Lines:
    """A line on stderr every few seconds, the table on stdout: for logs, pipes and terminals without a cursor."""

    def __init__(self) -> None:
        self._last = monotonic()
        self._line = ""
        self._told: set[str] = set()

    def case(self, number: int, count: int, name: str) -> None:
        self._told.clear()
        self._line = ""
        print(f"case {number + 1} of {count}: {name}", file=sys.stderr, flush=True)

    def progress(self, event: Progress, overall: Overall) -> None:
        if event.warning:
            self.warning(event.message)
        if monotonic() - self._last > _SECONDS_BETWEEN_LINES:
            self._last = monotonic()
            left = "" if overall.seconds_left is None else f", {duration(overall.seconds_left)} left"
            line = f"{event.stage} {event.done} of {event.total}{left}"
            if line != self._line:  # a worker that computes the whole tells nothing on its way
                self._line = line
                print(line, file=sys.stderr, flush=True)

    def warning(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            print(f"warning: {message}", file=sys.stderr, flush=True)

    def result(self, facts: dict[str, Any], rows: Sequence[ClassRow], volume_unit: str) -> None:
        for line in summary(facts):
            print(line)
        if rows:
            print(aligned(*class_columns(rows, volume_unit)))

    def cancelled(self) -> None:
        pass

    def failure(self, error: BaseException) -> None:
        print(f"error: {sentence(error)}", file=sys.stderr)

    def end(self, done: int, failed: int, cancelled: int) -> None:
        print(f"{done} done, {failed} failed, {cancelled} cancelled", file=sys.stderr)

    def close(self) -> None:
        pass


class Bar:
    """A bar with the stage and the time left, then a table: for a person at a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<11}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task("loading", total=1.0, left="")
        self._told: set[str] = set()

    def case(self, number: int, count: int, name: str) -> None:
        from rich.markup import escape

        self._told.clear()
        self._bar.start()
        self._bar.console.print(f"case {number + 1} of {count}: {escape(name)}", highlight=False)

    def progress(self, event: Progress, overall: Overall) -> None:
        if event.warning:
            self.warning(event.message)
        left = "" if overall.seconds_left is None else f"{duration(overall.seconds_left)} left"
        self._bar.update(self._task, description=event.stage, completed=overall.fraction, left=left)

    def warning(self, message: str) -> None:
        from rich.markup import escape

        if message in self._told:
            return
        self._told.add(message)
        self._bar.console.print(f"[yellow]warning:[/yellow] {escape(message)}", highlight=False)

    def result(self, facts: dict[str, Any], rows: Sequence[ClassRow], volume_unit: str) -> None:
        from rich import print as show
        from rich.markup import escape
        from rich.table import Table

        self._bar.stop()
        for line in summary(facts):
            show(escape(line))
        if rows:
            headings, cells = class_columns(rows, volume_unit)
            table = Table(*(escape(h) for h in headings))
            for column in (0, 2, 3, 4):
                table.columns[column].justify = "right"
            for cell_row in cells:
                table.add_row(*(escape(cell) for cell in cell_row))
            show(table)

    def cancelled(self) -> None:
        pass

    def failure(self, error: BaseException) -> None:
        self._bar.stop()
        print(f"error: {sentence(error)}", file=sys.stderr)

    def end(self, done: int, failed: int, cancelled: int) -> None:
        self._bar.stop()
        print(f"{done} done, {failed} failed, {cancelled} cancelled", file=sys.stderr)

    def close(self) -> None:
        self._bar.stop()


def reporter(events: str | None) -> Reporter:
    """The one that suits: JSON lines if asked for, a bar at a terminal, else plain lines."""
    if events is not None:
        return JsonLines()
    terminal = all(stream is not None and stream.isatty() for stream in (sys.stderr, sys.stdout))
    return Bar() if terminal else Lines()


def summary(facts: dict[str, Any]) -> list[str]:
    """What was written, the scores of a classification, what computed and for how long, one line each."""
    from napari_mamba.engine.result import Result

    lines = list(facts["outputs"].items())
    lines += [(name, f"{score:.3f}") for name, score in (facts.get("scores") or {}).items()]
    if ran_on := Result(provenance=facts.get("provenance") or {}).ran_on:
        lines.append(("computed on", ran_on))
    if facts.get("kept"):
        lines.append(("kept", "finished before, not run again"))
    else:
        lines.append(("seconds", f"{facts['seconds']:.1f}"))
    width = max(13, *(len(name) for name, _ in lines))
    return [f"{name:<{width}} {what}" for name, what in lines]


def duration(seconds: float) -> str:
    """A time span for people.

    >>> duration(8.4), duration(125), duration(7300)
    ('8 s', '2 min 05 s', '2 h 01 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
