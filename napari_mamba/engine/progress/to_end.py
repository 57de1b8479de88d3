"""A generator of events, drained: for whoever wants the result alone."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

from napari_mamba.engine.progress.events import Progress

_Answer = TypeVar("_Answer")


def to_end(
    events: Generator[Progress, None, _Answer], on_progress: Callable[[Progress], None] | None = None
) -> _Answer:
    """What a run returns; each of its events is handed to `on_progress`."""
    while True:
        try:
            progress = next(events)
        except StopIteration as end:
            return end.value
        if on_progress is not None:
            on_progress(progress)
