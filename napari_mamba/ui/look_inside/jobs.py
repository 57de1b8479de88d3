"""Requests in a worker thread, one at a time; of those that wait, the latest counts."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, Signal, Slot
from superqt.utils import GeneratorWorker

from napari_mamba.ui.look_inside.requests import Answer, Request, fulfil

if TYPE_CHECKING:
    from napari_mamba.engine import Progress


POINTER = "pointer"
"""Tag of requests that follow the pointer: a later one takes the place of one that runs."""


class _Worker(GeneratorWorker):
    cancel: threading.Event
    asked: Request

    def quit(self) -> None:
        self.cancel.set()

    def run(self) -> None:
        with suppress(RuntimeError):  # the window may be gone before the work is
            super().run()


def _relay(request: Request, cancel: threading.Event) -> Generator[Progress, None, Answer]:
    warnings.simplefilter("ignore")  # napari would pop each up as a notification
    return (yield from fulfil(request, cancel))


class Jobs(QObject):
    """Carries requests out and hands on what came of them.

    Signals
    -------
    progressed : Progress
    answered : Answer
        Once a request, unless a later one took its place while it waited.
    """

    progressed = Signal(object)
    answered = Signal(object)

    def __init__(self, parent: QObject | None = None):
        super().__init__(parent)
        self._worker: _Worker | None = None
        self._waiting: Request | None = None

    @property
    def running(self) -> bool:
        return self._worker is not None

    @property
    def waits(self) -> bool:
        """Whether a request waits for the present one."""
        return self._waiting is not None

    def ask(self, request: Request) -> None:
        """Start a request, or have it wait until the present one is done."""
        if self._worker is not None:
            self._waiting = request
            if self._worker.asked.kind == request.kind == "maps" and request.tag == POINTER:
                self._worker.cancel.set()  # the pointer has moved on
            return
        cancel = threading.Event()
        self.destroyed.connect(cancel.set)
        worker = create_worker(_relay, request, cancel, _start_thread=False, _worker_class=_Worker, _ignore_errors=True)
        worker.cancel, worker.asked = cancel, request
        worker.yielded.connect(self._on_yielded)
        worker.returned.connect(self._on_returned)
        self._worker = worker
        worker.start()

    def cancel(self) -> None:
        """Stop what runs and forget what waits."""
        self._waiting = None
        if self._worker is not None:
            self._worker.quit()

    @Slot(object)
    def _on_yielded(self, progress: Any) -> None:
        if self._worker is not None:
            self.progressed.emit(progress)

    @Slot(object)
    def _on_returned(self, answer: Any) -> None:
        self._worker = None
        waiting, self._waiting = self._waiting, None
        self.answered.emit(answer)
        if waiting is not None and self._worker is None:
            self.ask(waiting)
        elif waiting is not None:
            self._waiting = waiting
