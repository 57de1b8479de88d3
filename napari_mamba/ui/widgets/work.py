"""One long piece of work in a thread, with a bar, a sentence about it, and a button that stops it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from typing import Any

from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, Signal, Slot
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget
from superqt.utils import GeneratorWorker

from napari_mamba.engine.progress.overall import Overall
from napari_mamba.ui.run.choice.texts import duration
from napari_mamba.ui.run.process.outcome import Outcome, sentence_of

STEPS = 1000
Steps = Generator[Any, None, Outcome]


class _Worker(GeneratorWorker):
    """Stops by an event that the work looks at; superqt's own way abandons the generator."""

    cancel: threading.Event

    def quit(self) -> None:
        self.cancel.set()

    def run(self) -> None:
        with suppress(RuntimeError):  # the window, and the signals with it, may be gone before the work is
            super().run()


def _safely(begin: Callable[[threading.Event], Steps], cancel: threading.Event) -> Steps:
    """The steps; what they raise becomes an outcome, for a worker loses a RuntimeError."""
    try:
        return (yield from begin(cancel))
    except Exception as error:
        return Outcome(error=sentence_of(error))


class Work(QObject):
    """Drives a generator of `Progress` that returns an `Outcome`; one at a time.

    Signals
    -------
    progressed : Progress
    ended : Outcome
        Always comes, once a start.
    """

    progressed = Signal(object)
    ended = Signal(object)

    def __init__(self, parent: QObject | None = None):
        super().__init__(parent)
        self._worker: _Worker | None = None

    @property
    def running(self) -> bool:
        """Whether something is going on."""
        return self._worker is not None

    def start(self, begin: Callable[[threading.Event], Steps]) -> None:
        """Call `begin` with the event that stops it, and drive what it returns in a thread."""
        if self._worker is not None:
            return
        cancel = threading.Event()
        worker = create_worker(_safely, begin, cancel, _start_thread=False, _worker_class=_Worker, _ignore_errors=True)
        worker.cancel = cancel
        worker.yielded.connect(self._on_yielded)
        worker.returned.connect(self._on_returned)
        self._worker = worker
        worker.start()

    def stop(self) -> None:
        """Ask it to stop."""
        if self._worker is not None:
            self._worker.quit()

    @Slot(object)
    def _on_yielded(self, progress: Any) -> None:
        if self._worker is not None:
            self.progressed.emit(progress)

    @Slot(object)
    def _on_returned(self, outcome: Any) -> None:
        self._worker = None
        self.ended.emit(outcome)


class WorkRow(QWidget):
    """A button that starts some work, one that stops it, and a bar while it goes on.

    Parameters
    ----------
    work : Work
    name : str
        Of the button.
    stages : mapping
        What each stage of the work is called.
    shares : mapping
        What part of the work each stage is.
    tip : str
        What the button does, where nothing speaks against it.
    """

    asked = Signal()

    def __init__(self, work: Work, name: str, stages: Mapping[str, str], shares: Mapping[str, float], tip: str):
        super().__init__()
        self.work, self._stages, self._shares, self._tip = work, stages, shares, tip
        self.start_button, self.stop_button = QPushButton(name), QPushButton("Cancel")
        self.bar, self.stage = QProgressBar(), QLabel()
        self.start_button.setToolTip(tip)
        self.stop_button.setToolTip("Stop this; nothing is added")
        self.bar.setTextVisible(False)
        self.bar.setAccessibleName("Progress")
        self.stage.setWordWrap(True)
        buttons = QHBoxLayout()
        buttons.addWidget(self.start_button, 1)
        buttons.addWidget(self.stop_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(buttons)
        layout.addWidget(self.bar)
        layout.addWidget(self.stage)
        self._ready = True
        self.start_button.clicked.connect(self.asked)
        self.stop_button.clicked.connect(self._stop)
        work.progressed.connect(self._on_progressed)
        work.ended.connect(self.draw)
        self.draw()

    def begin(self, steps: Callable[[threading.Event], Steps]) -> None:
        """Start, and show that."""
        self._overall = Overall(shares=self._shares)
        self.bar.setRange(0, 0)
        self.stage.setText("Starting")
        self.work.start(steps)
        self.draw()

    def set_ready(self, ready: bool, why: str = "") -> None:
        """Whether the button can be pressed; if not, its tooltip says why."""
        self._ready = ready
        self.start_button.setToolTip(why or self._tip)
        self.draw()

    @Slot()
    def draw(self, *_: Any) -> None:
        """Show what goes on."""
        running = self.work.running
        self.start_button.setEnabled(self._ready and not running)
        for widget in (self.stop_button, self.bar, self.stage):
            widget.setVisible(running)
        self.stop_button.setEnabled(running)

    def _stop(self) -> None:
        self.stop_button.setEnabled(False)
        self.bar.setRange(0, 0)
        self.stage.setText("Stopping. Nothing will be added.")
        self.work.stop()

    def _on_progressed(self, event: Any) -> None:
        if not self.stop_button.isEnabled():
            return
        self._overall.add(event)
        self.bar.setRange(0, STEPS)
        self.bar.setValue(round(STEPS * self._overall.fraction))
        text = self._stages.get(event.stage, event.stage.capitalize())
        if event.total > 1:
            text += f", {min(event.done + 1, event.total)} of {event.total}"
        left = self._overall.seconds_left
        self.stage.setText(text if left is None else f"{text}, about {duration(max(left, 1.0))} left")
