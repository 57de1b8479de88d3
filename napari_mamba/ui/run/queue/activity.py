"""A run in napari's own list of activities, at the lower edge of its window, where other plugins' are too."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_mamba.ui.run.queue.jobs import Job
    from napari_mamba.ui.run.session import RunSession

STEPS = 100


class Activity:
    """Follows a session's queue; to be made where the viewer has a window.

    Parameters
    ----------
    session : RunSession
    """

    def __init__(self, session: RunSession):
        self._queue = session.queue
        self._job: Job | None = None
        self._bar: Any = None
        self._queue.changed.connect(self._on_changed)
        self._queue.progressed.connect(self._on_progressed)

    def close(self) -> None:
        """Take the bar away and follow no more."""
        self._queue.changed.disconnect(self._on_changed)
        self._queue.progressed.disconnect(self._on_progressed)
        self._end()

    def _on_changed(self) -> None:
        running = self._queue.running
        if running is not self._job:
            self._end()
            if running is not None:
                from napari.utils import cancelable_progress

                self._job = running
                self._bar = cancelable_progress(
                    total=STEPS, desc=running.name, cancel_callback=lambda: self._queue.stop(running)
                )

    def _on_progressed(self, job: Job) -> None:
        if self._bar is None or job is not self._job:
            return
        fraction = job.clock.fraction(monotonic())
        if fraction is not None:
            self._bar.update(max(round(STEPS * fraction) - self._bar.n, 0))

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = self._job = None
