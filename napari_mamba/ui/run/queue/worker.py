"""Drives a session's queue: one worker thread after another, so that the window stays alive; no widget in here.

superqt's `quit` abandons a generator, whose clean-up then happens in the main thread. So a run is stopped by an event
that it looks at, and ends with an `Outcome` in every case.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, QTimer, Signal, Slot
from superqt.utils import GeneratorWorker

from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.results.layers import make_layers, warm_up
from napari_mamba.ui.run.process.engine_process import EngineProcess, EngineThread
from napari_mamba.ui.run.process.outcome import Outcome, remote_outcome, sentence
from napari_mamba.ui.run.queue.cache import run_key
from napari_mamba.ui.run.queue.estimates import Measured, key_of
from napari_mamba.ui.run.queue.jobs import Job, State

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_mamba.engine import Progress
    from napari_mamba.ui.run.queue.cache import ResultCache
    from napari_mamba.ui.run.session import RunSession

TURN_MS = 10
"""Between two steps of a run's end: at once, they would come in one turn of the event loop with other timers of 0."""
_log = logging.getLogger(__name__)


def events_of(
    job: Job, engine: EngineProcess | EngineThread, cache: ResultCache, viewer: ViewerModel | None = None
) -> Generator[Progress, None, Outcome]:
    """A job from reading to finished layers; driven in the worker thread, and raises nothing."""
    try:
        volume = job.read()
        key = run_key(volume, job.bundle, job.options) if cache.limit and job.server is None else ""
        kept = cache.get(key)
        if job.server is not None:
            outcome = yield from remote_outcome(volume, job.bundle, job.options, job.cancel, job.server)
            if outcome.error:
                return outcome
        elif kept is not None:
            job.from_cache = True
            outcome = Outcome(kept)
        elif job.cluster:
            request = (volume, str(job.bundle.path), job.options, job.cluster)
            outcome = yield from engine.work("on_cluster", request, job.cancel)
            if outcome.error:
                return outcome
        else:
            outcome = yield from engine.run(volume, job.bundle, job.options, job.cancel)
            if outcome.result is not None and not outcome.cancelled:
                cache.put(key, outcome.result)
                outcome.measured["voxels"] = int(np.prod(volume.shape))
        result = outcome.result
        if result is None or outcome.cancelled:
            return outcome
        if job.finish is not None:
            result = job.finish(result, volume)
        if result.labels is not None:
            warm_up(job.bundle.classes, result.labels.data.dtype)
        if viewer is not None and job.place is not None:
            job.made = make_layers(viewer, result, job.bundle, job.place)
        return Outcome(result, measured=outcome.measured)
    except NapariMambaError as error:
        return Outcome(error=sentence(str(error)))
    except MemoryError:
        return Outcome(error="Memory ran out: close other programs, or crop the image.")
    except Exception as error:  # a bug, or a store that fails while it is read: said, never waited for
        _log.exception("a run failed")
        reason = " ".join(str(error).split())[:200]
        return Outcome(error=f"The run stopped ({type(error).__name__}: {reason}): please report this.")


class RunWorker(GeneratorWorker):
    """A generator worker that stops by the job's own event, not by leaving the generator suspended."""

    job: Job | None

    def quit(self) -> None:
        """Ask the run to stop; napari calls this when its window closes."""
        if self.job is not None:
            self.job.cancel.set()

    def run(self) -> None:
        """Called by Qt in the worker thread. The window, and the signals with it, may be gone before the run is."""
        with suppress(RuntimeError):  # of the signals; `events_of` raises none
            super().run()


class Runner(QObject):
    """Runs the jobs of a session's queue, one at a time, in the order in which they were added.

    Parameters
    ----------
    session : RunSession
    engine : EngineProcess or EngineThread
    deliver : callable
        ``deliver(job)`` gives the steps in which a job that is over is put into the viewer, each short; raises nothing.

    Signals
    -------
    ended : Job
        A job that ran is over and delivered; always comes, once a job. Those that are cancelled while they wait only
        tell the queue.
    """

    ended = Signal(object)

    def __init__(
        self,
        session: RunSession,
        engine: EngineProcess | EngineThread,
        deliver: Callable[[Job], Iterator[None]],
        parent: QObject | None = None,
    ):
        super().__init__(parent)
        self.session = session
        self.engine = engine
        self.deliver = deliver
        self._worker: RunWorker | None = None
        self._ending: Iterator[None] = iter(())
        self._turn = QTimer(self)
        self._turn.setSingleShot(True)
        self._turn.setInterval(TURN_MS)
        self._turn.timeout.connect(self._go_on)
        session.queue.changed.connect(self._next)

    @property
    def running(self) -> bool:
        """Whether a job is going on."""
        return self._worker is not None

    def _next(self) -> None:
        if self._worker is not None:
            return
        job = self.session.queue.take_next()
        if job is None:
            return
        worker = create_worker(
            events_of,
            job,
            self.engine,
            self.session.cache,
            self.session.viewer,
            _start_thread=False,
            _worker_class=RunWorker,
            _ignore_errors=True,
        )
        worker.job = job
        worker.yielded.connect(self._on_yielded)
        worker.returned.connect(self._on_returned)
        self._worker = worker
        worker.start()

    @Slot(object)
    def _on_yielded(self, progress: Any) -> None:
        if self._worker is not None and self._worker.job is not None:
            self.session.queue.progress(self._worker.job, progress)

    @Slot(object)
    def _on_returned(self, outcome: Outcome) -> None:
        assert self._worker is not None
        job, self._worker.job = self._worker.job, None  # napari keeps its workers, and so the job
        assert job is not None
        self._remember(job, outcome)
        self.session.queue.end(job, outcome)
        self._ending = self._end(job)
        self._turn.start()

    def _end(self, job: Job) -> Iterator[None]:
        yield from self.deliver(job)
        self._worker = None
        self.ended.emit(job)
        self._next()

    @Slot()
    def _go_on(self) -> None:
        """One step of the end in a turn of the event loop, so that the window draws in between."""
        if next(self._ending, self) is not self:
            self._turn.start()

    def _remember(self, job: Job, outcome: Outcome) -> None:
        """Keep what the run took, for the next estimate."""
        passes, result = outcome.measured.get("passes"), outcome.result
        if not passes or result is None or result.cancelled or job.state is not State.RUNNING:
            return
        spent = result.provenance.get("seconds", {})
        device = result.provenance.get("device", {}).get("type", "")
        on_device = result.provenance.get("memory", {}).get("device_bytes")
        measured = Measured(
            seconds=sum(spent.values()),
            network_seconds=spent.get("network", 0.0),
            passes=passes,
            voxels=outcome.measured["voxels"],
            memory=on_device or outcome.measured["memory"],
        )
        self.session.estimates.add(key_of(job.bundle, device.partition(":")[0], job.options), measured)
