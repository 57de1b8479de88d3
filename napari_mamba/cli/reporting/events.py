"""Events as JSON lines on stdout, for programs: docs/events.md."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from napari_mamba.engine.progress.events import EVENTS_VERSION

if TYPE_CHECKING:
    from napari_mamba.engine import ClassRow, Progress
    from napari_mamba.engine.progress.overall import Overall

_SECONDS_BETWEEN_EVENTS = 0.1


class JsonLines:
    """One JSON object a line on what was stdout; anything else that writes there goes to stderr meanwhile.

    Native libraries write to the file descriptor, so that is turned aside, not `sys.stdout` alone.
    """

    def __init__(self) -> None:
        self._stdout = sys.stdout
        self._descriptor = _turn_aside()
        sys.stdout = sys.stderr
        self._last = 0.0
        self._stage = ""
        self._case: dict[str, int] = {}
        self._told: set[str] = set()

    def emit(self, event: str, **fields: Any) -> None:
        """Write one event."""
        line = {"version": EVENTS_VERSION, "event": event, **self._case, **fields}
        text = json.dumps(strict(line), ensure_ascii=True, allow_nan=False) + "\n"
        if self._descriptor is None:
            self._stdout.write(text)
            self._stdout.flush()
            return
        rest = text.encode("ascii")
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def case(self, number: int, count: int, name: str) -> None:
        self._case, self._stage, self._told = {"case": number}, "", set()
        self.emit("case", count=count, name=name)

    def progress(self, event: Progress, overall: Overall) -> None:
        if event.warning:
            self.warning(event.message)
        # mirrored passes over small tiles come by the hundred a second: no reader needs them all
        due = monotonic() - self._last > _SECONDS_BETWEEN_EVENTS
        if due or event.message or event.stage != self._stage or event.done == event.total:
            self._last, self._stage = monotonic(), event.stage
            fields = {"stage": event.stage, "done": event.done, "total": event.total}
            fields |= {"fraction": round(overall.fraction, 4), "seconds_left": _rounded(overall.seconds_left)}
            self.emit("progress", **fields, message=event.message)

    def warning(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            self.emit("warning", message=message)

    def result(self, facts: dict[str, Any], rows: Sequence[ClassRow], volume_unit: str) -> None:
        self.emit("result", **facts)

    def cancelled(self) -> None:
        self.emit("result", cancelled=True, outputs={})

    def failure(self, error: BaseException) -> None:
        from napari_mamba.cli.reporting.failures import exit_code, kind, sentence

        self.emit("error", kind=kind(error), message=sentence(error), exit_code=exit_code(error))

    def end(self, done: int, failed: int, cancelled: int) -> None:
        self._case = {}
        self.emit("end", done=done, failed=failed, cancelled=cancelled)

    def close(self) -> None:
        sys.stdout = self._stdout
        if self._descriptor is not None:
            os.dup2(self._descriptor, 1)
            os.close(self._descriptor)
            self._descriptor = None


def _turn_aside() -> int | None:
    """A copy of descriptor 1, which itself becomes stderr; None where `sys.stdout` is something else."""
    try:
        if sys.stdout.fileno() != 1:
            return None
        sys.stdout.flush()
        kept = os.dup(1)
    except (AttributeError, OSError, ValueError):  # replaced by a test or a notebook, or closed
        return None
    try:
        os.dup2(2, 1)
    except OSError:  # there is no stderr
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
    return kept


def strict(value: Any) -> Any:
    """The value as JSON can hold it: NaN and infinity, which are no JSON, become null; paths become text.

    >>> strict({"mean": float("nan"), "sizes": (1, 2.5)})
    {'mean': None, 'sizes': [1, 2.5]}
    """
    if isinstance(value, dict):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [strict(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a NumPy number
        return strict(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
