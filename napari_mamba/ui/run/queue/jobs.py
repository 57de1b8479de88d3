"""Runs that wait, go on and are over: a plain model of the queue. No Qt."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

from psygnal import Signal

from napari_mamba.ui.run.queue.clock import TimeLimit

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.engine import Progress, Result, RunOptions
    from napari_mamba.server.client.known import Server
    from napari_mamba.ui.layers import Placement
    from napari_mamba.ui.run.process.outcome import Outcome
    from napari_mamba.volume import Volume


class State(StrEnum):
    """Of a job."""

    WAITING = "waiting"
    RUNNING = "running"
    STOPPING = "stopping"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


OVER = (State.DONE, State.FAILED, State.CANCELLED)


@dataclass(eq=False)
class Job:
    """One run.

    Parameters
    ----------
    title : str
        Of what it is run on: a layer's or a file's name.
    bundle : Bundle
    options : RunOptions
    read : callable
        Gives the volume, in the worker's thread.
    place : Placement, optional
        Where layers made of the result go; None for files.
    finish : callable, optional
        ``finish(result, volume)`` in the worker's thread, after the run: writes files, or puts a region's answer back
        into the whole. What it returns takes the result's place.
    server : Server, optional
        The computer elsewhere that it runs on; None for this one.
    cluster : str
        Address of the Dask scheduler whose workers compute it; empty where none do.
    group : str
        Of jobs that were started together, such as those of a folder.
    paths : tuple of str
        The files that its channels came from; empty where one came from none.
    frame : int, optional
        Which volume of a series.
    colours : bool
        It is run on one colour layer.
    region : str
        Name of the layer around which it is run; empty for the whole image.
    level : int
        Which resolution of a layer that has several; 0 is the finest.
    table : (str, str)
        The CSV beside the image, and what its row says; empty where there is none.

    Attributes
    ----------
    state : State
    stage : str
        What it is doing, in a word or two.
    note : str
        What else is to be said of that, such as its place in a server's queue.
    sentence : str
        How it ended, where that needs words.
    told : tuple of str
        Doubts that were said before the click: they are not said again.
    result : Result or None
        Kept until it was taken over by layers or files.
    made : list of layers
        Of its result, made in the worker's thread, until they are in the viewer.
    seconds : float
        How long it took.
    ran_on : str
        Hardware, precision and who scanned, once it is done.
    """

    title: str
    bundle: Bundle
    options: RunOptions
    read: Callable[[], Volume]
    place: Placement | None = None
    finish: Callable[[Result, Volume], Result] | None = None
    server: Server | None = None
    cluster: str = ""
    group: str = ""
    paths: tuple[str, ...] = ()
    frame: int | None = None
    colours: bool = False
    region: str = ""
    level: int = 0
    table: tuple[str, str] = ("", "")
    state: State = State.WAITING
    stage: str = ""
    note: str = ""
    sentence: str = ""
    told: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    result: Result | None = None
    from_cache: bool = False
    seconds: float = 0.0
    ran_on: str = ""
    clock: TimeLimit = field(default_factory=TimeLimit)
    cancel: threading.Event = field(default_factory=threading.Event)
    layer: Any = None
    made: list[Any] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Done, failed or cancelled."""
        return self.state in OVER

    @property
    def name(self) -> str:
        """For a list: what is run on what."""
        return f"{self.bundle.name}: {self.title}"


@dataclass
class Queue:
    """Jobs in the order in which they were asked for; one runs at a time."""

    jobs: list[Job] = field(default_factory=list)
    changed: ClassVar[Signal] = Signal()
    """Jobs came, went, or one is in another state."""
    progressed: ClassVar[Signal] = Signal(Job)
    """The running job is further."""
    ended: ClassVar[Signal] = Signal(Job)
    """A job is over."""

    def add(self, *jobs: Job) -> None:
        """Let jobs wait for their turn."""
        self.jobs += jobs
        self.changed.emit()

    @property
    def running(self) -> Job | None:
        """The job that is going on, or stopping."""
        return next((job for job in self.jobs if job.state in (State.RUNNING, State.STOPPING)), None)

    @property
    def waiting(self) -> list[Job]:
        """Those whose turn has not come."""
        return [job for job in self.jobs if job.state is State.WAITING]

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits."""
        return any(not job.over for job in self.jobs)

    def take_next(self) -> Job | None:
        """The next job, now running; None while one is going on or none waits."""
        if self.running is not None or not self.waiting:
            return None
        job = self.waiting[0]
        job.state = State.RUNNING
        job.clock.start(monotonic())
        self.changed.emit()
        return job

    def progress(self, job: Job, progress: Progress) -> None:
        """What the engine said about the running job."""
        if job.state is State.RUNNING:
            job.stage = progress.stage
            job.note = progress.message if progress.stage == "waiting" else ""
        job.clock.update(progress, monotonic())
        self.progressed.emit(job)

    def end(self, job: Job, outcome: Outcome) -> None:
        """The running job is over."""
        job.seconds = job.clock.elapsed(monotonic())
        if outcome.error:
            job.state, job.sentence = State.FAILED, outcome.error
        elif outcome.cancelled or outcome.result is None or job.cancel.is_set():
            job.state = State.CANCELLED  # even where it was done just then: "nothing will be added" was said
        else:
            job.state, job.result, job.warnings = State.DONE, outcome.result, tuple(outcome.result.warnings)
            job.ran_on = outcome.result.ran_on
        self.ended.emit(job)
        self.changed.emit()

    def stop(self, job: Job) -> None:
        """Cancel a job: one that waits is over at once, one that runs says so and ends at its next pass."""
        job.cancel.set()
        if job.state is State.WAITING:
            job.state = State.CANCELLED
            self.ended.emit(job)
        elif job.state is State.RUNNING:
            job.state = State.STOPPING
        self.changed.emit()

    def stop_all(self) -> None:
        """Cancel every job that is not over, those that wait first."""
        for job in [*reversed(self.waiting), *filter(None, [self.running])]:
            self.stop(job)

    def clear(self) -> None:
        """Forget the jobs that are over."""
        self.jobs = [job for job in self.jobs if not job.over]
        self.changed.emit()
