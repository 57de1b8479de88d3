"""The dock "Learn": draws its viewer's session and hands clicks to it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer, Slot
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_mamba.ui.learn.choices_view import ChoicesView, PlaceLine
from napari_mamba.ui.learn.curve_view import CurveView
from napari_mamba.ui.learn.host import learn_host_of
from napari_mamba.ui.learn.images.pairs_view import PairsView
from napari_mamba.ui.learn.session import IDLE, RUNNING, STOPPING
from napari_mamba.ui.run.choice.texts import duration
from napari_mamba.ui.run.session import session_of
from napari_mamba.ui.widgets.docks import DockPage
from napari_mamba.ui.widgets.forms import combo_box, explain, row_label
from napari_mamba.ui.widgets.theme import Notice

if TYPE_CHECKING:
    from napari.components import ViewerModel

LAYERS, PLACE = range(2)
STAGES = {
    "checking": "Looking at the labels",
    "preparing": "Preparing the images",
    "pretraining": "Looking at images without labels",
    "training": "Learning",
    "validating": "Scoring the held-out",
    "previewing": "Making a preview",
    "writing": "Writing the model",
    "writing the images": "Writing the images",
    "starting": "Starting",
}


class LearnWidget(DockPage):
    """A model of one's own from images and labels in the window, in a folder or on a list.

    Parameters
    ----------
    napari_viewer : napari viewer
        The name is napari's: it fills it in.
    """

    def __init__(self, napari_viewer: ViewerModel, parent: QWidget | None = None):
        super().__init__(parent)
        self.host = learn_host_of(napari_viewer)
        self.session = self.host.session
        self.viewer = self.session.viewer
        self.start_from = combo_box("The model to begin from: one that knows similar images learns from fewer")
        self.name = QLineEdit()
        explain(self.name, "What the new model is called", "Name of the new model")
        self.source = QComboBox()
        self.source.addItems(["Layers of this window", "A folder or a list"])
        explain(self.source, "Where images and labels are", "Images and labels")
        self.pairs = PairsView(self.session)
        self.place = PlaceLine(
            "A folder with images/ and labels/ (or imagesTr/, labelsTr/), or a CSV: image,label,person",
            "images/ and labels/, or a CSV",
            "Lists (*.csv)",
        )
        self.choices = ChoicesView(self.session)
        self.before = Notice(self.viewer)
        self.start_button = QPushButton("Learn")
        self.stop_button = QPushButton("Stop")
        self.bar = QProgressBar()
        self.where = QLabel()
        self.where.setWordWrap(True)
        self.curve = CurveView(self.viewer, self.session.curve)
        self.message = Notice(self.viewer)
        self.use_button = QPushButton("Run it")
        self.correct_button = QPushButton("Correct…")
        self.go_on_button = QPushButton("Go on")
        self.resume_button = QPushButton("Resume")
        self.discard_button = QPushButton("Discard")
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(30)
        self._build()
        self._connect()
        self.draw()

    # ---- looks

    def _build(self) -> None:
        self.start_button.setToolTip("Write the images, and learn in a process of its own")
        self.stop_button.setToolTip("Keep the best so far, and end. Once more ends it at once.")
        self.use_button.setToolTip("Choose the new model in the dock 'Run a model'")
        self.correct_button.setToolTip("Take the preview for its image's labels, and open the tools to correct them")
        self.go_on_button.setToolTip("Learn on from the new model with the labels as they are now, the same held out")
        self.resume_button.setToolTip("Go on with a training that was stopped or killed, from its checkpoint")
        self.discard_button.setToolTip("Delete the stopped training")
        inner = QWidget()
        layout = QVBoxLayout(inner)
        layout.setSpacing(6)
        for title, widget in (("Begin from", self.start_from), ("New model", self.name), ("Images", self.source)):
            row = QHBoxLayout()
            row.addWidget(row_label(title))
            row.addWidget(widget, 1)
            layout.addLayout(row)
        layout.addWidget(self.pairs)
        layout.addWidget(self.place)
        layout.addWidget(self.choices)
        layout.addWidget(self.before)
        layout.addLayout(_row((self.start_button, 3), (self.stop_button, 1)))
        layout.addLayout(_row((self.resume_button, 3), (self.discard_button, 1)))
        layout.addWidget(self.bar)
        layout.addWidget(self.where)
        layout.addWidget(self.message)
        layout.addLayout(_row((self.use_button, 1), (self.correct_button, 1), (self.go_on_button, 1)))
        layout.addWidget(self.curve)
        layout.addWidget(QLabel("For research. Not for clinical use."))
        layout.addStretch(1)
        self._area = area = QScrollArea()
        area.setWidgetResizable(True)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setFrameShape(QScrollArea.Shape.NoFrame)
        area.setWidget(inner)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(area)
        self.setMinimumWidth(400)

    def _connect(self) -> None:
        self._later.timeout.connect(self.draw)
        self.session.changed.connect(self._draw_later)
        self.start_from.activated.connect(lambda i: self.session.choose_bundle(self.start_from.itemData(i)))
        self.name.editingFinished.connect(self._on_name)
        self.source.activated.connect(self._on_source)
        self.place.changed.connect(lambda text: setattr(self.session.choices, "place", text))
        self.start_button.clicked.connect(self.host.start)
        self.stop_button.clicked.connect(self.session.stop)
        self.use_button.clicked.connect(self.use)
        self.correct_button.clicked.connect(self.correct)
        self.go_on_button.clicked.connect(self.go_on)
        self.resume_button.clicked.connect(self.resume)
        self.discard_button.clicked.connect(self._on_discard)
        self.host.watched += 1
        leave = self._leave_once
        self.destroyed.connect(lambda *_: leave())

    def _draw_later(self, *_: Any) -> None:
        if not self._later.isActive():
            self._later.start()

    @Slot()
    def draw(self) -> None:
        """Show the session as it is."""
        session, choices = self.session, self.session.choices
        idle = session.state == IDLE
        self._draw_starts()
        if not self.name.hasFocus():
            self.name.setText(choices.name)
        if choices.place:
            self.source.setCurrentIndex(PLACE)
        folder = self.source.currentIndex() == PLACE
        self.pairs.setVisible(not folder)
        self.place.setVisible(folder)
        if choices.place and not self.place.line.hasFocus():
            self.place.line.setText(choices.place)
        self.pairs.draw()
        for widget in (self.start_from, self.name, self.source, self.place, self.choices):
            widget.setEnabled(idle)
        remarks = session.remarks() if idle else []
        worst = next((kind for kind in ("error", "warning") if any(kind == k for k, _ in remarks)), "hint")
        self.before.say("\n".join(text for _, text in remarks), worst)
        self.start_button.setEnabled(session.ready and (not folder or bool(choices.place)))
        self.start_button.setText("Learn" if idle else "Learning…")
        self.stop_button.setEnabled(session.state in (RUNNING, STOPPING))
        self.stop_button.setText("End now" if session.state == STOPPING else "Stop")
        self._draw_progress(idle)
        self._draw_end(idle)

    def _draw_starts(self) -> None:
        starts = self.session.starts
        if [self.start_from.itemData(i) for i in range(self.start_from.count())] != starts:
            self.start_from.clear()
            for bundle in starts:
                self.start_from.addItem(bundle.name, bundle)
                self.start_from.setItemData(self.start_from.count() - 1, bundle.title, Qt.ItemDataRole.ToolTipRole)
        if self.session.bundle in starts:
            self.start_from.setCurrentIndex(starts.index(self.session.bundle))

    def _draw_progress(self, idle: bool) -> None:
        session = self.session
        self.bar.setVisible(not idle)
        self.where.setVisible(not idle)
        self.curve.setVisible(not idle or bool(session.curve.losses or session.curve.scores))
        if idle:
            return
        known = session.stage in ("training", "preparing", "checking", "pretraining")
        self.bar.setRange(0, 1000 if known else 0)
        self.bar.setValue(round(1000 * session.fraction))
        left = "" if session.seconds_left is None else f", about {duration(session.seconds_left)} left"
        said = STAGES.get(session.stage, session.stage)
        text = "Stopping: the best so far is kept" if session.state == STOPPING else said + left
        self.where.setText("\n".join(part for part in (text + ".", session.told) if part))

    def _draw_end(self, idle: bool) -> None:
        session = self.session
        kind, text = session.last if idle and session.last is not None else ("hint", "")
        told = text and text != self.message.text()
        self.message.say(text, kind)
        done = idle and session.made is not None
        preview = self.host.preview is not None and self.host.preview in self.viewer.layers
        self.use_button.setVisible(done)
        self.correct_button.setVisible(preview and idle)
        self.go_on_button.setVisible(done and not session.choices.place)
        stopped = next(iter(session.unfinished), None) if idle else None
        self.resume_button.setVisible(stopped is not None)
        self.discard_button.setVisible(stopped is not None)
        if told:  # when the layout is done
            QTimer.singleShot(
                50, lambda: None if self._left else self._area.ensureWidgetVisible(self.use_button, 0, 60)
            )
        if stopped is not None:
            self.resume_button.setText(f"Resume {stopped.output.name}")

    # ---- clicks

    def _on_name(self) -> None:
        self.session.choices.name = self.name.text().strip()

    def _on_source(self, index: int) -> None:
        self.session.choices.place = self.place.line.text().strip() if index == PLACE else ""
        self.draw()

    def use(self) -> None:
        """Choose the new model in the dock "Run a model", and open that."""
        if self.session.made is None:
            return
        session_of(self.viewer).choose_bundle(self.session.made)
        if getattr(self.viewer, "window", None) is not None:
            from napari_mamba.ui.menus import open_dock

            open_dock(self.viewer)  # type: ignore[arg-type]

    def correct(self) -> None:
        """The preview becomes the labels of its image, and the dock Results opens on it."""
        if not self.host.use_preview():
            return
        self.viewer.layers.selection = {self.host.preview}  # type: ignore[arg-type]
        if getattr(self.viewer, "window", None) is not None:
            from napari_mamba.ui.results.panel import CLASSES, open_panel

            open_panel(self.viewer, CLASSES).classes.show_layer(self.host.preview)  # type: ignore[arg-type]

    def go_on(self) -> None:
        """Learn on from the new model."""
        if self.session.go_on():
            self.host.start()

    def resume(self) -> None:
        """Go on with the latest stopped training."""
        if self.session.unfinished:
            self.session.resume(self.session.unfinished[0])

    def _on_discard(self) -> None:
        if self.session.unfinished:
            self.session.discard(self.session.unfinished[0])

    # ---- leaving

    def leave(self) -> None:
        """A dock that is closed throws this widget away; the session stays, and what runs."""
        self.host.watched -= 1
        with suppress(RuntimeError):
            self._later.stop()
        self.session.changed.disconnect(self._draw_later)
        self.choices.disconnect_from_model()
        self.curve.disconnect_from_model()


def _row(*widgets: tuple[QWidget, int]) -> QHBoxLayout:
    row = QHBoxLayout()
    for widget, share in widgets:
        row.addWidget(widget, share)
    return row
