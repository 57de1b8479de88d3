"""The dock "Heart": follows the left ventricle of a cine, and shows its beat beside the playing images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.viewer import Viewer  # menus: napari fills it in by its type
from qtpy.QtCore import QSize, QTimer
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_mamba.engine.progress.overall import FOLLOWING
from napari_mamba.ui.heart.curve import BeatPlot
from napari_mamba.ui.heart.layers import cine_layer, labels_layer, slices_across
from napari_mamba.ui.heart.model import HeartModel
from napari_mamba.ui.preferences import preferences
from napari_mamba.ui.run.process.engine_process import shared_engine
from napari_mamba.ui.run.process.outcome import sentence
from napari_mamba.ui.widgets.background import Background
from napari_mamba.ui.widgets.docks import DockPage, open_widget
from napari_mamba.ui.widgets.forms import combo_box
from napari_mamba.ui.widgets.theme import Notice
from napari_mamba.ui.widgets.work import Work, WorkRow

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_mamba.ui.run.process.outcome import Outcome

NAME = "Heart"
BUNDLE = "heart-mr"
STAGES = {"network": "Following the heart: phase"}
make_engine = shared_engine
"""Replaced by tests."""


class HeartWidget(DockPage):
    """The beat of a cine.

    Parameters
    ----------
    napari_viewer : napari viewer
        The name is napari's: it fills it in.
    """

    def __init__(self, napari_viewer: ViewerModel, parent: QWidget | None = None):
        super().__init__(parent)
        self.viewer = napari_viewer
        self.model = HeartModel(napari_viewer)
        self.work, self.engine = Work(self), make_engine()
        self._background = Background(self)
        self.cine = combo_box("A short-axis cine: an image layer of four axes, the first of them time")
        self.open = QPushButton("Open folder…")
        self.open.setToolTip("A folder of DICOM files as a scanner writes them: phases and slices are sorted")
        self.row = WorkRow(
            self.work, "Follow the heart", STAGES, FOLLOWING, "Outline every phase, and draw the volume over the beat"
        )
        self.notice = Notice(napari_viewer)
        self.plot = BeatPlot(self.model.show_phase)
        self.table = QTableWidget(0, 2)
        self.table.horizontalHeader().setVisible(False)
        self.table.verticalHeader().setVisible(False)
        self.table.horizontalHeader().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setTabKeyNavigation(False)
        self.table.setAccessibleName("Numbers of the beat")
        self.table.setToolTip("Volumes, ejection fraction and mass, from the phases that are drawn")
        self.measure = QPushButton("Measure again")
        self.measure.setToolTip("After the labels were corrected by hand")
        self.save = QPushButton("Save…")
        self.save.setToolTip("The curve as a table (.csv) or as a picture (.png, .pdf, .svg)")
        self._lay_out()
        self._filling = False
        self._asked_of: tuple[Any, Any] | None = None
        self.cine.currentIndexChanged.connect(self._on_choice)
        self.open.clicked.connect(self._ask_folder)
        self.row.asked.connect(self.run)
        self.work.ended.connect(self._on_ended)
        self.measure.clicked.connect(lambda: self.model.measure())
        self.save.clicked.connect(self._ask_path)
        self.model.changed.connect(self.draw)
        self.model.moved.connect(self._on_moved)
        self._later = QTimer(self)  # while it plays, the table follows at a reader's pace
        self._later.setSingleShot(True)
        self._later.setInterval(80)
        self._later.timeout.connect(self._draw_table)
        self.draw()

    def _lay_out(self) -> None:
        first = QHBoxLayout()
        first.addWidget(QLabel("Cine"))
        first.addWidget(self.cine, 1)
        first.addWidget(self.open)
        last = QHBoxLayout()
        last.addWidget(self.measure)
        last.addWidget(self.save)
        hint = QLabel("Not for clinical use: look at the labels of every phase.")
        hint.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.addLayout(first)
        for widget in (self.row, self.notice, self.plot, self.table):
            layout.addWidget(widget)
        layout.addLayout(last)
        layout.addWidget(hint)
        layout.addStretch(1)
        self.setMinimumWidth(320)

    def sizeHint(self) -> QSize:
        """Wide enough for the curve."""
        return QSize(380, 620)

    # ---- drawing the model

    def draw(self, *_: Any) -> None:
        """Show the model as it is."""
        model, self._filling = self.model, True
        self.cine.clear()
        for layer in model.cines:
            self.cine.addItem(layer.name, layer)
        self.cine.setCurrentIndex(model.cines.index(model.layer) if model.layer in model.cines else -1)
        self._filling = False
        self.row.set_ready(not model.problem, model.problem)
        self.notice.say(model.message or model.problem, model.kind if model.message else "hint")
        self.plot.show_beat(model.beat, model.phase)
        for widget in (self.plot, self.table, self.save):
            widget.setVisible(model.beat is not None)
        self.measure.setVisible(model.labels is not None)
        self._draw_table()

    def _draw_table(self) -> None:
        rows = self.model.rows()
        self.table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            for column, text in enumerate(row):
                self.table.setItem(number, column, QTableWidgetItem(text))
        height = sum(self.table.rowHeight(row) for row in range(len(rows))) + 4
        self.table.setFixedHeight(height)

    def _on_moved(self) -> None:
        self.plot.show_marker(self.model.phase)
        if not self._later.isActive():
            self._later.start()

    def _on_choice(self, *_: Any) -> None:
        if not self._filling:
            self.model.choose(self.cine.currentData())

    # ---- opening and running

    def _ask_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Open a cine")
        if folder:
            self.open_cine(Path(folder))

    def open_cine(self, place: Path) -> None:
        """Read a cine in a thread, and add it as a layer."""
        self.model.say("Reading the cine")

        def read() -> Any:
            from napari_mamba.errors import NapariMambaError
            from napari_mamba.heart.files import read as read_cine

            try:
                return read_cine(place)
            except NapariMambaError as error:
                return sentence(str(error))

        self._background.ask(read, lambda cine: self._on_opened(cine, place), computes=True)

    def _on_opened(self, cine: Any, place: Path) -> None:
        if cine is None or isinstance(cine, str):
            self.model.say(cine or f"{place} could not be read.", "error")
            return
        from napari.layers import Layer

        layer = self.viewer.add_layer(Layer.create(*cine_layer(cine, str(place))))
        self.model.choose(layer)
        self._face_slices(layer)

    def _face_slices(self, layer: Any) -> None:
        """Show the slices as they were scanned: time and the stack's axis on sliders."""
        if self.viewer.dims.ndim != 4:
            return
        across = slices_across(layer)
        rest = [axis for axis in (1, 2, 3) if axis != across]
        self.viewer.dims.order = (0, across, *rest)
        self.viewer.dims.set_current_step(across, layer.data.shape[across] // 2)
        self.viewer.reset_view()

    def run(self) -> None:
        """Follow the heart in the chosen cine."""
        from napari_mamba import bundles
        from napari_mamba.engine.options import RunOptions
        from napari_mamba.errors import NapariMambaError

        chosen = preferences()
        try:
            cine, bundle = self.model.cine(), bundles.load(BUNDLE)
            options = RunOptions(device=chosen.device, precision=chosen.precision)
        except NapariMambaError as error:
            self.model.say(sentence(str(error)), "error")
            return
        self.model.say("")
        self._asked_of = (self.model.layer, bundle)
        arguments, work = (cine, str(bundle.path), options), self.engine.work
        self.row.begin(lambda cancel: work("follow", arguments, cancel))

    def _on_ended(self, outcome: Outcome) -> None:
        found = self.model.end(outcome)
        if found is None or self._left or self._asked_of is None:
            return
        layer, bundle = self._asked_of
        if layer not in self.viewer.layers:
            self.model.say("The cine was removed meanwhile. Nothing was added.", "warning")
            return
        labels = labels_layer(found.labels, layer, bundle)
        self.viewer.add_layer(labels)
        self.model.layer = layer
        self.model.take(labels)
        self._face_slices(layer)

    def _ask_path(self) -> None:
        kinds = "Table (*.csv);;Picture (*.png *.pdf *.svg)"
        path, _ = QFileDialog.getSaveFileName(self, "Save the curve", "beat.csv", kinds)
        if path:
            self.model.save(Path(path))

    # ---- closing

    def leave(self) -> None:
        """Stop listening to the viewer."""
        self.work.stop()
        self.model.close()
        self.model.changed.disconnect(self.draw)
        self.model.moved.disconnect(self._on_moved)


def open_heart(viewer: Viewer) -> HeartWidget:
    """Layers, Measure: the dock, or the one that is open brought to the front."""
    return open_widget(viewer, HeartWidget, NAME)
