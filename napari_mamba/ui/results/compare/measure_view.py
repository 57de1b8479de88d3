"""Numbers about two layers, and two images along a line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QDoubleSpinBox,
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

from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.results.compare.differences import Measured, Pair, measure_layers
from napari_mamba.ui.results.compare.plot import Curve, Plot
from napari_mamba.ui.results.compare.profile import ProfileLine
from napari_mamba.ui.results.parts import number
from napari_mamba.ui.widgets.background import Latest
from napari_mamba.ui.widgets.theme import Notice

if TYPE_CHECKING:
    from napari.components import ViewerModel

OUTDATED = "One of the layers changed since: measure again."


class MeasureBox(QWidget):
    """Measures a pair of layers when asked to, and says when the numbers no longer hold.

    Parameters
    ----------
    viewer : napari viewer
    pair : Pair
    """

    def __init__(self, viewer: ViewerModel, pair: Pair):
        super().__init__()
        self.viewer, self.pair = viewer, pair
        self.button = QPushButton("Measure")
        self.tolerance = QDoubleSpinBox()
        self.table = QTableWidget(0, 0)
        self.save = QPushButton("CSV…")
        self.line_button = QPushButton("Profile along a line")
        self.plot = Plot("mm")
        self.notice = Notice(self.viewer)
        self.line = ProfileLine(viewer)
        self.worker = Latest(self._measure, self._on_measured, self._on_failed, wait_ms=0, parent=self)
        self._watched: list[Any] = []
        self._build()
        pair.events.first.connect(self._on_pair)
        pair.events.second.connect(self._on_pair)
        pair.events.outdated.connect(self._on_outdated)
        self.line.moved.connect(self._on_line)
        viewer.layers.events.removed.connect(self._on_removed)
        self._on_pair()

    def _build(self) -> None:
        self.tolerance.setRange(0, 50)
        self.tolerance.setDecimals(1)
        self.tolerance.setSingleStep(0.5)
        self.tolerance.setValue(self.pair.tolerance_mm)
        self.tolerance.setSuffix(" mm")
        self.tolerance.setToolTip("Tolerance of the surface Dice")
        self.tolerance.setAccessibleName("Tolerance of the surface Dice")
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QTableWidget.SelectionBehavior.SelectRows)
        self.table.setTabKeyNavigation(False)
        self.table.setShowGrid(False)
        self.table.setWordWrap(False)
        self.table.verticalHeader().hide()
        self.table.setAccessibleName("Agreement")
        self.table.setToolTip("How well A and B agree")
        self.save.setToolTip("Save these numbers as a table")
        self.table.setMinimumHeight(120)
        self.line_button.setToolTip("Draw a line in the picture: press where it begins, and drag to where it ends")
        row = QHBoxLayout()
        row.addWidget(self.button, 1)
        self.tolerance_label = QLabel("tolerance")
        row.addWidget(self.tolerance_label)
        row.addWidget(self.tolerance)
        row.addWidget(self.save)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self.notice)
        layout.addWidget(self.table, 10)
        layout.addWidget(self.line_button)
        layout.addWidget(self.plot, 10)
        layout.addStretch(1)
        self.button.clicked.connect(self.measure)
        self.save.clicked.connect(self._on_save)
        self.line_button.clicked.connect(self._on_draw)
        self.tolerance.valueChanged.connect(lambda value: setattr(self.pair, "tolerance_mm", value))

    # ---- numbers

    def _on_pair(self, *_: Any) -> None:
        self.worker.stop()
        self.pair.measured = None
        kind = self.pair.kind
        self.button.setEnabled(kind in ("labels", "images"))
        for widget in (self.tolerance_label, self.tolerance):
            widget.setVisible(kind == "labels")
        words = {"labels": "Dice, Hausdorff distance and volumes", "images": "PSNR and SSIM"}
        self.button.setToolTip(words.get(kind, "Choose two labels layers or two images"))
        self.table.hide()
        self.save.setEnabled(False)
        self.notice.say("")
        self._watch()
        images = self._images()
        self.line_button.setEnabled(bool(images))
        self.plot.setVisible(False)
        if self.line.points() is not None:
            self._on_line()

    def _watch(self) -> None:
        """Hear when either layer's data change."""
        for layer in self._watched:
            for name in ("paint", "data"):
                if hasattr(layer.events, name):
                    getattr(layer.events, name).disconnect(self._on_changed)
        self._watched = [layer for layer in {self.pair.first, self.pair.second} if layer is not None]
        for layer in self._watched:
            for name in ("paint", "data"):
                if hasattr(layer.events, name):
                    getattr(layer.events, name).connect(self._on_changed)
        self.pair.outdated = False

    def _on_changed(self, event: Any = None) -> None:
        if self.pair.measured is not None or self.worker.busy:
            self.pair.outdated = True

    def _on_outdated(self, *_: Any) -> None:
        note = self.pair.measured.note if self.pair.measured is not None else ""
        self.notice.say(OUTDATED if self.pair.outdated else note, "warning")

    def _on_removed(self, event: Any) -> None:
        if event.value is self.line.layer:
            self.plot.hide()

    def measure(self) -> None:
        """Measure in the background."""
        self.button.setEnabled(False)
        self.pair.outdated = False
        self.notice.say("measuring …")
        self.worker.ask()

    def _measure(self) -> Measured:
        return measure_layers(self.pair.first, self.pair.second, self.pair.tolerance_mm)

    def _on_measured(self, measured: Measured) -> None:
        self.button.setEnabled(True)
        self.pair.measured = measured
        self._show(measured)
        self.save.setEnabled(True)
        self._on_outdated()

    def _on_failed(self, error: Exception) -> None:
        self.button.setEnabled(True)
        known = isinstance(error, NapariMambaError)
        self.notice.fail(str(error) if known else f"could not be measured: {error}")

    def _show(self, measured: Measured) -> None:
        if measured.images is not None:
            facts = measured.images
            head = ["", ""]
            rows = [
                ["PSNR", f"{facts.psnr_db:.2f} dB" if facts.psnr_db != float("inf") else "equal"],
                ["SSIM", f"{facts.ssim:.4f}"],
                ["Mean absolute error", number(facts.mean_absolute_error)],
                ["Root mean square error", number(facts.root_mean_square_error)],
                ["Range of A", number(facts.data_range)],
            ]
            if facts.covered < 1:
                rows.append(["Share of A that B covers", f"{facts.covered:.3f}"])
            tips = ["", ""]
        else:
            mm = "mm" if measured.units == "mm" else "pixels"
            size = "ml" if measured.units == "mm" else "kvox"
            head = ["Class", "Dice", f"HD95 {mm}", "Surf. Dice", f"B−A {size}", "%"]
            tips = [
                "",
                "Twice what both share, over the sum of both",
                "95th percentile of the distance between the surfaces, the larger of both directions",
                f"Share of both surfaces that lies within {measured.tolerance_mm:g} {mm} of the other",
                "Volume of B minus volume of A",
                "The same in per cent of A",
            ]
            rows = [
                [
                    row.name,
                    *(f"{value:.3f}" if value == value else "–" for value in (row.dice,)),
                    number(row.hausdorff95_mm),
                    f"{row.surface_dice:.3f}" if row.surface_dice == row.surface_dice else "–",
                    number(row.difference_ml),
                    number(row.difference_percent),
                ]
                for row in measured.rows
            ]
        self._fill(head, tips, rows)

    def _fill(self, head: list[str], tips: list[str], rows: list[list[str]]) -> None:
        table = self.table
        table.setSortingEnabled(False)
        table.clear()
        table.setColumnCount(len(head))
        table.setRowCount(len(rows))
        for x, (title, tip) in enumerate(zip(head, tips, strict=True)):
            item = QTableWidgetItem(title)
            item.setToolTip(tip)
            table.setHorizontalHeaderItem(x, item)
            mode = QHeaderView.ResizeMode.ResizeToContents if x else QHeaderView.ResizeMode.Stretch
            table.horizontalHeader().setSectionResizeMode(x, mode)
        table.horizontalHeader().setVisible(any(head))
        for y, texts in enumerate(rows):
            for x, text in enumerate(texts):
                item = QTableWidgetItem(text)
                item.setToolTip(text if x == 0 else tips[x])
                side = Qt.AlignmentFlag.AlignRight if x else Qt.AlignmentFlag.AlignLeft
                item.setTextAlignment(side | Qt.AlignmentFlag.AlignVCenter)
                table.setItem(y, x, item)
        table.show()

    def _on_save(self) -> None:
        if self.pair.measured is not None:
            name = f"{self.pair.measured.first} - {self.pair.measured.second}.csv"
            path, _ = QFileDialog.getSaveFileName(self, "Save the numbers", name, "Tables (*.csv)")
            if path:
                self.write(Path(path))

    def write(self, path: Path) -> None:
        """Write the numbers as comma-separated text."""
        assert self.pair.measured is not None
        path = path if path.suffix else path.with_suffix(".csv")
        try:
            path.write_text(self.pair.measured.csv(), encoding="utf-8")
        except OSError as error:
            self.notice.fail(f"cannot be written ({error.strerror}): {path}")
        else:
            self.notice.say(f"saved as {path.name}")

    # ---- along a line

    def _images(self) -> list[Any]:
        layers = [self.pair.first, self.pair.second]
        return [layer for i, layer in enumerate(layers) if type(layer).__name__ == "Image" and layer not in layers[:i]]

    def _on_draw(self) -> None:
        self.line.draw(self._images()[0])
        self.notice.say("press where the line begins, and drag to where it ends; another line takes its place")

    def _on_line(self) -> None:
        images = self._images()
        try:
            profiles = self.line.profiles(images)
        except NapariMambaError as error:
            self.notice.fail(str(error))
            return
        self.plot.show_curves([Curve(profile.name, profile.distance_mm, profile.values) for profile in profiles])
        self.plot.setVisible(bool(profiles))
        if not self.worker.busy:
            self.notice.say("")

    def disconnect_from_viewer(self) -> None:
        """Stop listening to the viewer and its layers."""
        self.worker.stop()
        self.pair.first = self.pair.second = None
        self.viewer.layers.events.removed.disconnect(self._on_removed)
