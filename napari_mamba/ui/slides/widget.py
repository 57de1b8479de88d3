"""The dock "Slides": scores a bag of features, and draws its patches over the slide's thumbnail."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.viewer import Viewer  # menus: napari fills it in by its type
from qtpy.QtCore import QSize
from qtpy.QtWidgets import (
    QAbstractItemView,
    QDoubleSpinBox,
    QFileDialog,
    QGridLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_mamba.engine.progress.overall import SHARES
from napari_mamba.ui.preferences import preferences
from napari_mamba.ui.run.process.engine_process import shared_engine
from napari_mamba.ui.run.process.outcome import sentence
from napari_mamba.ui.run.session import session_of
from napari_mamba.ui.slides.model import SlideModel
from napari_mamba.ui.widgets.background import Background
from napari_mamba.ui.widgets.docks import DockPage, open_widget
from napari_mamba.ui.widgets.forms import combo_box, explain, row_label
from napari_mamba.ui.widgets.theme import Notice
from napari_mamba.ui.widgets.work import Work, WorkRow

if TYPE_CHECKING:
    from napari.components import ViewerModel

NAME = "Slides"
STAGES = {"network": "Scoring the slide"}
KINDS = "Features (*.h5 *.hdf5 *.pt *.npy)"
SAVED = "Table (*.csv);;HDF5 as CLAM has it (*.h5);;QuPath (*.geojson)"
make_engine = shared_engine
"""Replaced by tests."""


class SlidesWidget(DockPage):
    """Scores of a slide.

    Parameters
    ----------
    napari_viewer : napari viewer
        The name is napari's: it fills it in.
    """

    def __init__(self, napari_viewer: ViewerModel, parent: QWidget | None = None):
        super().__init__(parent)
        self.viewer = napari_viewer
        self.library = session_of(napari_viewer).library
        self.model = SlideModel(napari_viewer, list(self.library.bundles))
        self.work, self.engine = Work(self), make_engine()
        self._background = Background(self)
        self.open = QPushButton("Open features…")
        self.open.setToolTip("A slide's features as an encoder wrote them: HDF5 with features and coords, .pt or .npy")
        self.opened = QLabel()
        self.opened.setWordWrap(True)
        self.bundle = combo_box("A model for slides")
        self.thumbnail = combo_box("The picture of the slide over which its patches are drawn: any image of two axes")
        self.downsample = QDoubleSpinBox()
        self.downsample.setRange(0.01, 4096.0)
        self.downsample.setDecimals(2)
        explain(
            self.downsample,
            "Pixels of the slide at its finest level for one pixel of the thumbnail",
            "Slide pixels for one of the thumbnail",
        )
        self.row = WorkRow(
            self.work,
            "Score the slide",
            STAGES,
            SHARES,
            "Score the whole slide, and show which patches the network weighed",
        )
        self.notice = Notice(napari_viewer)
        self.scores = self._table(("class", "score"), "Scores")
        self.patches = self._table(("patch", "x", "y", "attention"), "Patches with most attention")
        self.patches.setToolTip("Click: look at that patch")
        self.save = QPushButton("Save attention…")
        self.save.setToolTip("Of every patch: a table (.csv), HDF5, or squares for QuPath (.geojson)")
        self._lay_out()
        self._filling = False
        self.open.clicked.connect(self._ask_file)
        self.bundle.currentIndexChanged.connect(self._on_choice)
        self.thumbnail.currentIndexChanged.connect(self._on_choice)
        self.downsample.valueChanged.connect(self._on_downsample)
        self.row.asked.connect(self.run)
        self.work.ended.connect(self._on_ended)
        self.patches.cellClicked.connect(self._on_patch)
        self.save.clicked.connect(self._ask_path)
        self.model.changed.connect(self.draw)
        self.library.changed.connect(self._on_library)
        self.draw()

    @staticmethod
    def _table(headings: tuple[str, ...], name: str) -> QTableWidget:
        table = QTableWidget(0, len(headings))
        table.setHorizontalHeaderLabels(list(headings))
        table.verticalHeader().setVisible(False)
        table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setTabKeyNavigation(False)
        table.setAccessibleName(name)
        table.setToolTip(f"{name} of the slide")
        return table

    def _lay_out(self) -> None:
        grid = QGridLayout()
        for row, (name, widget) in enumerate(
            (("Model", self.bundle), ("Thumbnail", self.thumbnail), ("Downsample", self.downsample))
        ):
            grid.addWidget(row_label(name), row, 0)
            grid.addWidget(widget, row, 1)
        grid.setColumnStretch(1, 1)
        hint = QLabel("Not for clinical use: attention is what the network weighed, not where disease is.")
        hint.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.addWidget(self.open)
        layout.addWidget(self.opened)
        layout.addLayout(grid)
        for widget in (self.row, self.notice, self.scores, self.patches, self.save, hint):
            layout.addWidget(widget)
        layout.setStretchFactor(self.patches, 1)
        layout.addStretch(0)
        self.setMinimumWidth(320)

    def sizeHint(self) -> QSize:
        """Wide enough for the table."""
        return QSize(380, 680)

    def _on_library(self) -> None:
        self.model.offer(self.library.bundles)

    # ---- drawing the model

    def draw(self, *_: Any) -> None:
        """Show the model as it is."""
        model, self._filling = self.model, True
        for combo, entries, chosen in (
            (self.bundle, [(one.title, one) for one in model.bundles], model.bundle),
            (self.thumbnail, [("none", None), *((one.name, one) for one in model.thumbnails)], model.thumbnail),
        ):
            combo.clear()
            for text, value in entries:
                combo.addItem(text, value)
            values = [value for _, value in entries]
            combo.setCurrentIndex(values.index(chosen) if chosen in values else -1)
        self.downsample.setValue(model.downsample)
        self.downsample.setEnabled(model.thumbnail is not None)
        bag = model.bag
        self.opened.setText(
            "" if bag is None else f"{bag.name}: {len(bag):,} patches of {bag.features.shape[1]} features"
        )
        self.opened.setVisible(bag is not None)
        self._filling = False
        self.row.set_ready(not model.problem, model.problem)
        self.notice.say(model.message or model.problem, model.kind if model.message else "hint")
        self._fill(self.scores, model.scores())
        self._fill(self.patches, model.patches())
        self.scores.setFixedHeight(
            self.scores.horizontalHeader().sizeHint().height()
            + sum(self.scores.rowHeight(row) for row in range(self.scores.rowCount()))
            + 4
        )
        for widget in (self.scores, self.patches, self.save):
            widget.setVisible(model.result is not None)

    @staticmethod
    def _fill(table: QTableWidget, rows: Any) -> None:
        table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            for column, text in enumerate(row):
                table.setItem(number, column, QTableWidgetItem(text))

    def _on_choice(self, *_: Any) -> None:
        if self._filling:
            return
        self.model.bundle = self.bundle.currentData()
        if self.thumbnail.currentData() is not self.model.thumbnail:
            self.model.choose_thumbnail(self.thumbnail.currentData())
            self.model.show()
        self.model.changed.emit()

    def _on_downsample(self, value: float) -> None:
        if not self._filling:
            self.model.downsample = value
            self.model.show()

    def _on_patch(self, row: int, column: int) -> None:
        item = self.patches.item(row, 0)
        if item is not None:
            self.model.look_at(int(item.text()))

    # ---- opening and running

    def _ask_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a slide's features", "", KINDS)
        if path:
            self.open_bag(Path(path))

    def open_bag(self, path: Path) -> None:
        """Read a bag in a thread."""
        self.model.say("Reading the features")

        def read() -> Any:
            from napari_mamba.errors import NapariMambaError
            from napari_mamba.slides.files import read as read_bag

            try:
                return read_bag(path)
            except NapariMambaError as error:
                return sentence(str(error))

        self._background.ask(read, lambda bag: self._on_opened(bag, path), computes=True)

    def _on_opened(self, bag: Any, path: Path) -> None:
        if bag is None or isinstance(bag, str):
            self.model.say(bag or f"{path} could not be read.", "error")
            return
        self.model.take(bag)

    def run(self) -> None:
        """Score the slide."""
        from napari_mamba.engine.options import RunOptions
        from napari_mamba.errors import NapariMambaError

        if self.model.bundle is None or self.model.bag is None:
            return
        chosen = preferences()
        try:
            options = RunOptions(device=chosen.device, precision=chosen.precision)
        except NapariMambaError as error:
            self.model.say(sentence(str(error)), "error")
            return
        self.model.say("")
        arguments, work = (self.model.bag, str(self.model.bundle.path), options), self.engine.work
        self.row.begin(lambda cancel: work("slide", arguments, cancel))

    def _on_ended(self, outcome: Any) -> None:
        if not self._left:
            self.model.end(outcome)

    def _ask_path(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save the attention", "attention.csv", SAVED)
        if path:
            self.model.save(Path(path))

    # ---- closing

    def leave(self) -> None:
        """Stop listening to the viewer."""
        self.work.stop()
        self.model.close()
        self.library.changed.disconnect(self._on_library)
        self.model.changed.disconnect(self.draw)


def open_slides(viewer: Viewer) -> SlidesWidget:
    """Layers, Classify: the dock, or the one that is open brought to the front."""
    return open_widget(viewer, SlidesWidget, NAME)
