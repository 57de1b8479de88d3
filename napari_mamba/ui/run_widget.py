"""The dock widget "Run a model": choose a model and its image, run it, and see labels and a table appear."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker
from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent, Qt, Slot
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QShortcut,
    QVBoxLayout,
    QWidget,
)

from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.channels_box import ChannelsBox
from napari_mamba.ui.layers import Placement, layers_to_volume
from napari_mamba.ui.model_box import ModelBox
from napari_mamba.ui.options_box import OptionsBox
from napari_mamba.ui.results.layers import add_result
from napari_mamba.ui.results.table import ResultsTable
from napari_mamba.ui.run_worker import Outcome, RunController, preload

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_mamba.bundles import Bundle
    from napari_mamba.engine import Progress, Result

ERROR, WARNING, PLAIN = "#ff6b6b", "#e0a030", ""
NO_IMAGE = "Open an image first: drop a file into the window, or take File ▸ Open Sample ▸ napari-mamba."


class RunWidget(QWidget):
    """Runs bundles on a viewer's image layers. Enter runs, Escape cancels.

    Parameters
    ----------
    napari_viewer : napari viewer
        The name is napari's: it fills it in.
    """

    def __init__(self, napari_viewer: ViewerModel, parent: QWidget | None = None):
        super().__init__(parent)
        self.viewer = napari_viewer
        self.model = ModelBox()
        self.channels = ChannelsBox(napari_viewer)
        self.options = OptionsBox()
        self.run_button = QPushButton("Run")
        self.cancel_button = QPushButton("Cancel")
        self.bar = QProgressBar()
        self.stage = QLabel()
        self.message = QLabel()
        self.table = ResultsTable()
        self.copy_button = QPushButton("Copy table")
        self.controller = RunController(self)
        self._preload: Any = None
        self._job: tuple[Bundle, Placement, float] | None = None
        self._layer: Layer | None = None
        self._source = ""
        self._build()
        self._connect()
        self._on_model()

    # ---- looks

    def _build(self) -> None:
        self.run_button.setToolTip("Run the model on the chosen image (Enter)")
        self.cancel_button.setToolTip("Stop the run; nothing is added (Escape)")
        self.copy_button.setToolTip("Copy the table to the clipboard, to paste into a spreadsheet (Ctrl+C)")
        for label in (self.stage, self.message):
            label.setWordWrap(True)
        self.message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.message.setTextFormat(Qt.TextFormat.PlainText)
        self.bar.setTextVisible(False)
        buttons = QHBoxLayout()
        buttons.addWidget(self.run_button, 2)
        buttons.addWidget(self.cancel_button, 1)
        inner = QWidget()
        layout = QVBoxLayout(inner)
        layout.setSpacing(10)
        layout.addWidget(_heading("Model"))
        layout.addWidget(self.model)
        layout.addWidget(_heading("Input"))
        layout.addWidget(self.channels)
        layout.addWidget(self.options)
        layout.addLayout(buttons)
        for widget in (self.bar, self.stage, self.message, self.table, self.copy_button):
            layout.addWidget(widget)
        layout.addStretch(1)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setFrameShape(QScrollArea.Shape.NoFrame)
        area.setWidget(inner)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(area)
        self.setMinimumWidth(360)  # a class of two words fits the table
        self._show_table(False)
        self._set_running(False)

    def _connect(self) -> None:
        self.model.changed.connect(self._on_model)
        self.model.failed.connect(self._fail)
        self.channels.changed.connect(self._on_channels)
        self.options.devices_known.connect(self._on_devices_known)
        self.run_button.clicked.connect(self.run)
        self.cancel_button.clicked.connect(self.cancel)
        self.copy_button.clicked.connect(self.table.copy)
        self.table.itemSelectionChanged.connect(self._on_row)
        self.controller.progressed.connect(self._on_progress)
        self.controller.ended.connect(self._on_ended)
        for key, slot in (("Return", self.run), ("Enter", self.run), ("Escape", self.cancel)):
            shortcut = QShortcut(QKeySequence(key), self)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(slot)

    def _set_running(self, running: bool) -> None:
        for widget in (self.model, self.channels, self.options):
            widget.setEnabled(not running)
        self.cancel_button.setEnabled(running)
        self.bar.setVisible(running)
        self.stage.setVisible(running)
        self._on_channels()

    def _show_table(self, visible: bool) -> None:
        self.table.setVisible(visible)
        self.copy_button.setVisible(visible)

    def _say(self, text: str, color: str = PLAIN) -> None:
        self.message.setText(text)
        self.message.setStyleSheet(f"color: {color}" if color else "")
        self.message.setVisible(bool(text))

    # ---- choosing

    @property
    def preloading(self) -> bool:
        """Whether what runs need is still being imported in the background; a run may start all the same."""
        return self._preload is not None

    @Slot()
    def _on_devices_known(self) -> None:
        self._preload = create_worker(preload, _start_thread=False, _ignore_errors=True)
        self._preload.returned.connect(self._on_preloaded)
        self._preload.start()

    @Slot(object)
    def _on_preloaded(self, _: None) -> None:
        self._preload = None

    @Slot()
    def _on_model(self) -> None:
        bundle = self.model.bundle
        self.options.set_bundle(bundle)
        self.channels.set_channels(bundle.channels if bundle else ())
        self._on_channels()

    @Slot()
    def _on_channels(self) -> None:
        layers = self.channels.layers
        ready = bool(layers) and all(layer is not None for layer in layers)
        self.run_button.setEnabled(ready and not self.controller.running)
        if self.message.text() == NO_IMAGE and ready:
            self._say("")
        elif self.model.bundle is not None and not ready and not self.message.text():
            self._say(NO_IMAGE)

    # ---- running

    @Slot()
    def run(self) -> None:
        """Start a run with what is chosen; what is wrong with that is said in one sentence."""
        bundle = self.model.bundle
        if not self.run_button.isEnabled() or bundle is None:
            return
        self._say("")
        self._show_table(False)
        try:
            volume, place = layers_to_volume([layer for layer in self.channels.layers if layer is not None])
            options = self.options.options(bundle, place.order)
        except NapariMambaError as error:
            self._fail(str(error))
            return
        self._job = (bundle, place, perf_counter())
        self.bar.setRange(0, 0)
        self.stage.setText("Starting")
        self.controller.start(volume, bundle, options)
        self._set_running(True)

    @Slot()
    def cancel(self) -> None:
        """Stop the run at its next tile."""
        if self.controller.running:
            self.cancel_button.setEnabled(False)
            self.stage.setText("Stopping after this tile")
            self.bar.setRange(0, 0)
            self.controller.cancel()

    @Slot(object)
    def _on_progress(self, progress: Progress) -> None:
        if progress.message:
            self._say(progress.message)
        if not self.cancel_button.isEnabled():
            return  # cancelled: leave "Stopping" there
        self.bar.setRange(0, progress.total if progress.total > 1 else 0)
        self.bar.setValue(progress.done)
        self.stage.setText(stage_text(progress))

    @Slot(object)
    def _on_ended(self, outcome: Outcome) -> None:
        assert self._job is not None
        bundle, place, started = self._job
        self._job = None
        self._set_running(False)
        if outcome.error:
            self._fail(outcome.error)
        elif outcome.result is None or outcome.result.cancelled:
            self._say("Cancelled. Nothing was added.")
        else:
            self._show_result(outcome.result, bundle, place, perf_counter() - started)

    def _show_result(self, result: Result, bundle: Bundle, place: Placement, seconds: float) -> None:
        self._hide_earlier(place.name)
        self._layer = add_result(self.viewer, result, bundle, place)
        self._source = place.name
        done = f"Done in {duration(seconds)}."
        self._say("\n".join([done, *result.warnings]), WARNING if result.warnings else PLAIN)
        if result.scores is not None:
            self.table.show_scores(result.scores)
        elif result.table:
            self.table.show_classes(result.table, place.units)
        self._show_table(result.scores is not None or bool(result.table))

    def _hide_earlier(self, source: str) -> None:
        """Labels of two runs drawn over each other cannot be told apart: the earlier ones are kept, but hidden."""
        if self._layer is not None and self._layer in self.viewer.layers and self._source == source:
            self._layer.visible = False

    @Slot(str)
    def _fail(self, sentence: str) -> None:
        self._say(sentence, ERROR)
        show_error(sentence)

    @Slot()
    def _on_row(self) -> None:
        """A class chosen in the table becomes the selected label."""
        item = self.table.item(self.table.currentRow(), 0)
        index = item.data(Qt.ItemDataRole.UserRole) if item else None
        if index is not None and self._layer in self.viewer.layers:
            self._layer.selected_label = index

    # ---- leaving

    def event(self, event: QEvent) -> bool:
        """A widget that is taken out of its window stops its run: nobody could see it end."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._leave()
        return super().event(event)

    def closeEvent(self, event: Any) -> None:
        """The same when it is closed as a window of its own."""
        self._leave()
        super().closeEvent(event)

    def _leave(self) -> None:
        self.controller.cancel()
        self.channels.disconnect_from_viewer()


def stage_text(progress: Progress) -> str:
    """What a run is doing, how far it is and how long it will take, in a line.

    Examples
    --------
    >>> from napari_mamba.engine import Progress
    >>> stage_text(Progress("network", 3, 8, 75.2))
    'Network, 3 of 8, about 1 min 15 s left'
    """
    parts = [progress.stage.capitalize()]
    if progress.total > 1:
        parts.append(f"{progress.done} of {progress.total}")
    if progress.seconds_left is not None:
        parts.append(f"about {duration(progress.seconds_left)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """A duration as one says it.

    Examples
    --------
    >>> duration(0.42), duration(12.3), duration(200), duration(7500)
    ('0.4 s', '12 s', '3 min 20 s', '2 h 5 min')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _heading(text: str) -> QLabel:
    label = QLabel(f"<b>{text}</b>")
    label.setContentsMargins(0, 4, 0, 0)
    return label
