"""The dock widget "Run a model": draws its viewer's session and hands clicks to it; it holds no state of its own."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, Qt, QTimer, Slot
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QScrollArea, QShortcut, QVBoxLayout, QWidget

from napari_mamba.ui.context_menu import add_to_layer_menu
from napari_mamba.ui.run.choice.texts import ended_text, estimate_text
from napari_mamba.ui.run.host import host_of
from napari_mamba.ui.run.parts import Parts
from napari_mamba.ui.run.process.outcome import sentence
from napari_mamba.ui.run.queue.jobs import Job
from napari_mamba.ui.run.store.menu import StoreView
from napari_mamba.ui.run.views.more_menu import run_menu
from napari_mamba.ui.widgets.theme import Notice

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_mamba.ui.run.queue.estimates import Estimate


class RunWidget(QWidget):
    """Runs bundles on a viewer's image layers. Enter runs, Escape cancels.

    What is chosen, what is queued and what runs belongs to the viewer's session: closing the dock loses none of it.

    Parameters
    ----------
    napari_viewer : napari viewer
        The name is napari's: it fills it in.
    parts : Parts, optional
        The views, where they are made already.
    """

    def __init__(self, napari_viewer: ViewerModel, parent: QWidget | None = None, parts: Parts | None = None):
        super().__init__(parent)
        add_to_layer_menu()
        self.host = host_of(napari_viewer)
        if parts is None:
            parts = Parts(self.host)
            for _ in parts.make():
                pass
        self.session = self.host.session
        self.viewer = self.session.viewer
        self.model, self.channels, self.options = parts.model, parts.channels, parts.options
        self.progress, self.results = parts.progress, parts.results
        self.run_button = QPushButton("Run")
        self.cancel_button = QPushButton("Cancel")
        self.more_button = QPushButton("More")
        self.before = Notice(self.viewer)
        self.stored = StoreView(self.host)
        self.message = Notice(self.viewer)
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(0)
        self._left = False
        self._wrong = ""
        self._told: Any = None
        self._build()
        self._connect()
        self.draw()
        QTimer.singleShot(0, self.host.prepare)  # after the window has drawn this

    # ---- looks

    def _build(self) -> None:
        self.run_button.setToolTip("Run the model on the chosen image (Enter)")
        self.cancel_button.setToolTip("Stop all runs; nothing more is added (Escape)")
        self.more_button.setToolTip("Run on a folder, copy this run as a script or a command, or reset the options")
        self.more_button.setMenu(run_menu(self, self.host, self.message))
        buttons = QHBoxLayout()
        buttons.addWidget(self.run_button, 3)
        buttons.addWidget(self.cancel_button, 1)
        buttons.addWidget(self.more_button, 1)
        inner = QWidget()
        layout = QVBoxLayout(inner)
        layout.setSpacing(10)
        layout.addWidget(_heading("Model"))
        layout.addWidget(self.model)
        layout.addWidget(_heading("Input"))
        layout.addWidget(self.channels)
        layout.addWidget(self.options)
        layout.addWidget(self.before)
        layout.addLayout(buttons)
        for widget in (self.progress, self.stored, self.message, self.results):
            layout.addWidget(widget)
        layout.addStretch(1)
        area = self._area = QScrollArea()
        area.setWidgetResizable(True)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setFrameShape(QScrollArea.Shape.NoFrame)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        area.setWidget(inner)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(area)
        self.setMinimumWidth(360)  # a class of two words fits the table
        self._order_tabs()

    def _order_tabs(self) -> None:
        """Tab goes as one reads; rows that were made later would come last. The results follow by themselves."""
        options = self.options
        stops: list[QWidget] = [self.model.combo, self.model.more, self.model.summary, *self.channels.combos]
        stops += [
            options.device,
            options.texts["table"],
            options.texts["table_row"],
            *options.trial.stops,
            options.folded.toggleButton(),
            *options.stops,
        ]
        stops += [self.run_button, self.cancel_button, self.more_button]
        stops += [self.progress.list, self.progress.stop_one, self.progress.clear_done]
        for before, after in pairwise(stops):
            QWidget.setTabOrder(before, after)

    def _connect(self) -> None:
        self._later.timeout.connect(self.draw)
        self.model.failed.connect(self._fail)
        self.model.opener.busy.connect(self._forget_wrong)
        self.model.opener.report.connect(lambda text: self.message.say(text, "good"))
        self.session.changed.connect(self._draw_later)
        self.session.bundle_changed.connect(self._on_bundle)
        self.session.queue.changed.connect(self._draw_later)
        self.host.added.connect(self._on_added)
        self.host.runner.ended.connect(self._on_ended)
        self.host.devices_known.connect(self.draw)
        self.host.stored.changed.connect(self._on_stored)
        self.host.estimated.connect(self._on_estimated)
        self.host.watched += 1
        leave = self._leave  # a window that closes tells its widgets no change of parent
        self.destroyed.connect(lambda *_: leave())
        self.run_button.clicked.connect(self.run)
        self.cancel_button.clicked.connect(self.cancel)
        for key, slot in (("Return", self.run), ("Enter", self.run), ("Escape", self.cancel)):
            shortcut = QShortcut(QKeySequence(key), self)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(slot)

    def _draw_later(self, *_: Any) -> None:
        self._later.start()

    @Slot()
    def draw(self) -> None:
        """Show the session as it is."""
        if self._left:
            return
        session = self.session
        remarks = session.remarks()
        self.run_button.setEnabled(bool(session.inputs.runs) and all(one.kind == "warning" for one in remarks))
        count = len(session.inputs.runs)
        waits = session.queue.running is not None
        self.run_button.setText(f"Run {count} layers" if count > 1 else "Run after the present one" if waits else "Run")
        self.cancel_button.setEnabled(session.queue.busy or self.host.stored.busy)
        worst = "error" if any(one.kind == "error" for one in remarks) else remarks[0].kind if remarks else "hint"
        text = [one.text for one in remarks]
        if not remarks and not session.queue.busy:
            text = [estimate_text(session.estimate, self._free())]
        self.before.say("\n".join(text), worst)
        if self._wrong:
            self.message.say(self._wrong, "error")
        elif session.last is not None:
            self.message.say(*ended_text(session.last))
        elif self.message.kind != "good" or session.queue.busy:
            self.message.say("")

    def _free(self) -> int | None:
        return next((one.free for one in self.session.devices if one.name == self.session.device), None)

    # ---- doing

    @property
    def preloading(self) -> bool:
        """Whether what runs need is still being imported in the background; a run may start all the same."""
        return self.host.preparing

    @Slot()
    def run(self) -> None:
        """Queue a run of what is chosen, or one for each selected layer."""
        if not self.run_button.isEnabled():
            return
        self._wrong = ""
        jobs = self.session.start()
        estimate: Estimate | None = self.session.estimate
        if estimate is not None:
            for job in jobs:
                job.clock.expected, job.clock.pass_seconds = estimate.seconds, estimate.pass_seconds
        if not self.host.stored.busy:
            self.host.stored.forget()
        self.draw()
        self._show(self.progress)

    @Slot()
    def cancel(self) -> None:
        """Stop what runs and what waits."""
        self.session.queue.stop_all()
        self.host.stored.stop()

    def _on_added(self, job: Job) -> None:
        if self._left:  # older PySide6 goes on calling the slots of a widget that is gone
            return
        assert job.result is not None
        assert job.place is not None
        self.results.show_result(job.result, job.bundle, job.place, job.layer)

    @Slot()
    def _on_stored(self) -> None:
        if self._left:
            return
        self.cancel_button.setEnabled(self.session.queue.busy or self.host.stored.busy)
        if self.stored.isVisibleTo(self) and self._told is not self.host.stored.run:
            self._told = self.host.stored.run
            self._show(self.stored)

    def _show(self, widget: QWidget) -> None:
        """Scroll to what has just begun or ended below the button, once it is laid out."""

        def show() -> None:
            if not self._left:
                self._area.ensureWidgetVisible(widget, 0, 60)

        QTimer.singleShot(50, show)

    @Slot(object)
    def _on_ended(self, _: Job) -> None:
        self.draw()

    def _on_bundle(self) -> None:
        self._order_tabs()
        self.results.clear()
        self._wrong = ""
        self.message.say("")

    def _on_estimated(self, _: Any) -> None:
        self.draw()

    @Slot(str)
    def _fail(self, text: str) -> None:
        self._wrong = sentence(text)
        self.message.say(self._wrong, "error")
        self._show(self.message)

    @Slot(bool)
    def _forget_wrong(self, _: bool) -> None:
        self._wrong = ""

    # ---- leaving

    def event(self, event: QEvent) -> bool:
        """A dock that is closed takes this widget out of it and throws it away; the session stays, and its runs."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._leave()
        return super().event(event)

    def closeEvent(self, event: Any) -> None:
        """The same when it is closed as a window of its own."""
        self._leave()
        super().closeEvent(event)

    def _leave(self) -> None:
        if self._left:
            return
        self._left = True
        self.host.watched -= 1
        with suppress(RuntimeError):  # where Qt has already thrown it away
            self._later.stop()
        self.session.changed.disconnect(self._draw_later)
        self.session.bundle_changed.disconnect(self._on_bundle)
        self.session.queue.changed.disconnect(self._draw_later)
        for part in (self.model, self.channels, self.options, self.progress):
            part.disconnect_from_model()
        self.results.disconnect_from_viewer()


def _heading(text: str) -> QLabel:
    label = QLabel(f"<b>{text}</b>")
    label.setContentsMargins(0, 4, 0, 0)
    return label
