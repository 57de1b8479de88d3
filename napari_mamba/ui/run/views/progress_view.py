"""Draws the queue: the running job's bar and time, and a list of the jobs where there are several."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QTimer, Slot
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_mamba.ui.run.choice.texts import duration, stage_text
from napari_mamba.ui.run.queue.jobs import Job, State
from napari_mamba.ui.widgets.tips import tip

if TYPE_CHECKING:
    from napari_mamba.ui.run.queue.jobs import Queue

STEPS = 1000
MARKS = {
    State.WAITING: "…",
    State.RUNNING: "▶",
    State.STOPPING: "■",
    State.DONE: "✓",
    State.FAILED: "✗",
    State.CANCELLED: "–",
}


class ProgressView(QWidget):
    """A bar that moves with the clock as well as with what the engine says, so that it moves within a long pass too."""

    def __init__(self, queue: Queue, parent: QWidget | None = None):
        super().__init__(parent)
        self.queue = queue
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setAccessibleName("Progress")
        self.stage = QLabel()
        self.stage.setWordWrap(True)
        self.list = QListWidget()
        self.list.setAccessibleName("Runs")
        self.list.setToolTip("The runs, in their order")
        self.list.setMaximumHeight(110)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.stop_one = QPushButton("Cancel this one")
        self.stop_one.setToolTip("Cancel the run that is selected in the list")
        self.clear_done = QPushButton("Clear list")
        self.clear_done.setToolTip("Take the runs that are over off the list")
        row = QHBoxLayout()
        row.addWidget(self.stop_one)
        row.addWidget(self.clear_done)
        row.addStretch(1)
        self._several = QWidget()
        inner = QVBoxLayout(self._several)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.addWidget(self.list)
        inner.addLayout(row)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.bar, self.stage, self._several):
            layout.addWidget(widget)
        self._timer = QTimer(self)
        self._timer.setInterval(200)
        self._timer.timeout.connect(self._tick)
        self.stop_one.clicked.connect(self._on_stop_one)
        self.clear_done.clicked.connect(lambda: queue.clear())
        queue.changed.connect(self.draw)
        queue.progressed.connect(self._on_progressed)
        self.draw()

    def disconnect_from_model(self) -> None:
        """The dock is closed; the queue goes on."""
        self.queue.changed.disconnect(self.draw)
        self.queue.progressed.disconnect(self._on_progressed)

    @Slot()
    def draw(self) -> None:
        """Show the queue as it is."""
        running = self.queue.running
        for widget in (self.bar, self.stage):
            widget.setVisible(running is not None)
        if running is None:
            self._timer.stop()
        elif not self._timer.isActive():
            self._timer.start()
        self._several.setVisible(len(self.queue.jobs) > 1)
        row = self.list.currentRow()
        self.list.clear()
        for job in self.queue.jobs:
            item = QListWidgetItem(f"{MARKS[job.state]}  {job.name}  {_note(job)}".rstrip())
            item.setData(Qt.ItemDataRole.UserRole, job)
            item.setToolTip(tip(job.sentence or f"{job.name}: {job.state}"))
            self.list.addItem(item)
        self.list.setCurrentRow(min(row, self.list.count() - 1))
        self.stop_one.setEnabled(self.queue.busy)
        self.clear_done.setEnabled(any(job.over for job in self.queue.jobs))
        self._tick()

    def _on_progressed(self, job: Job) -> None:
        self._tick()

    def _tick(self) -> None:
        job = self.queue.running
        if job is None:
            return
        now = monotonic()
        fraction = None if job.state is State.STOPPING else job.clock.fraction(now)
        if fraction is None:
            self.bar.setRange(0, 0)
        else:
            self.bar.setRange(0, STEPS)
            self.bar.setValue(round(STEPS * fraction))
        self.stage.setText(stage_text(job, now))

    def _on_stop_one(self) -> None:
        item = self.list.currentItem()
        job = item.data(Qt.ItemDataRole.UserRole) if item else None
        if job is not None and not job.over:
            self.queue.stop(job)


def _note(job: Job) -> str:
    if job.state is State.DONE:
        return "(from before)" if job.from_cache else f"({duration(job.seconds)})"
    return "" if job.state in (State.WAITING, State.RUNNING) else f"({job.state})"
