"""What a run tells while it goes on, and where it stops when it is asked to."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from time import perf_counter

from napari_mamba.engine.progress.events import Progress
from napari_mamba.engine.progress.record import Record, TimeEstimator

Events = Generator[Progress, None, None]


class Cancelled(Exception):
    """The user asked to stop."""


class Reporter:
    """Events of one run: each looks at the cancel flag before and after, and warnings are kept in the record.

    Parameters
    ----------
    record : Record
    cancel : threading.Event
        Set it to stop the run at its next event, by `Cancelled`.
    """

    def __init__(self, record: Record, cancel: threading.Event):
        self.record, self.cancel = record, cancel

    def stage(self, stage: str) -> Events:
        """Begin a stage, and say so."""
        self.record.start_stage(stage)
        yield from self.say(stage, 0, 1)

    def say(
        self,
        stage: str,
        done: int,
        total: int,
        seconds_left: float | None = None,
        message: str = "",
        warning: bool = False,
    ) -> Events:
        """Report how far a stage is."""
        if self.cancel.is_set():
            raise Cancelled
        yield Progress(stage, done, total, seconds_left, message, warning)
        if self.cancel.is_set():
            raise Cancelled

    def warn(self, stage: str, done: int, total: int, sentences: Sequence[str]) -> Events:
        """Report sentences that the user should read, each once in the record."""
        for sentence in sentences:
            yield from self.say(stage, done, total, message=self.record.warn(sentence), warning=True)

    def follow(self, passes: Iterator[None], total: int) -> Events:
        """Drive the network's passes, and report each with the time that the others will take."""
        estimate = TimeEstimator(total)
        yield from self.say("network", 0, total)
        since = perf_counter()
        for _ in passes:
            estimate.add(perf_counter() - since)
            yield from self.say("network", estimate.done, total, estimate.seconds_left)
            since = perf_counter()  # after the event: the time of its consumer is not ours
