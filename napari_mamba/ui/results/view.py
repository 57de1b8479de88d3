"""What a run found, below its controls: the door of this room, behind which the table and its actions stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Slot
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_mamba.engine.result import ClassRow
from napari_mamba.ui.results.classes.link import image_of, source_of, volume_of
from napari_mamba.ui.results.classes.watch import DataWatch
from napari_mamba.ui.results.maps.chart import ScoreChart
from napari_mamba.ui.results.maps.scores import scores_of
from napari_mamba.ui.results.table import ResultsTable
from napari_mamba.ui.widgets.background import Latest

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_mamba.bundles import Bundle
    from napari_mamba.engine import Result
    from napari_mamba.ui.layers import Placement


class ResultsView(QWidget):
    """The last result's table or chart; hidden while there is none.

    The table follows what is painted. All else that can be done with a result is in the panel that its button opens.

    Parameters
    ----------
    viewer : napari viewer
        Results are added to it.
    """

    def __init__(self, viewer: ViewerModel, parent: QWidget | None = None):
        super().__init__(parent)
        self._viewer = viewer
        self._layer: Layer | None = None
        self._shown: tuple[Result, Bundle, str] | None = None
        self._watch: DataWatch | None = None
        self._counter = Latest(self._count, self._on_counted, lambda error: None, wait_ms=200, parent=self)
        self.chart = ScoreChart()
        self.table = ResultsTable()
        self.copy_button = QPushButton("Copy table")
        self.more_button = QPushButton("Results…")
        self.beside_button = QPushButton("Side by side")
        self.copy_button.setToolTip("Copy the table to the clipboard, to paste into a spreadsheet (Ctrl+C)")
        self.more_button.setToolTip("Search, show, correct, compare and measure; 3D surfaces, figures")
        self.beside_button.setToolTip("Source on the left, result on the right, with one camera and one contrast")
        self.copy_button.clicked.connect(self.table.copy)
        self.beside_button.clicked.connect(self.show_beside)
        self.more_button.clicked.connect(self.open_panel)
        self.table.itemSelectionChanged.connect(self._on_row)
        buttons = QHBoxLayout()
        buttons.addWidget(self.copy_button)
        buttons.addWidget(self.beside_button)
        buttons.addWidget(self.more_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.chart)
        layout.addWidget(self.table)
        layout.addLayout(buttons)
        viewer.layers.events.removed.connect(self._on_removed)
        self.clear()

    def show_result(self, result: Result, bundle: Bundle, place: Placement, layer: Layer | None) -> None:
        """Show a finished run's table; `layer` is its main layer, which is in the viewer, or None if it has none."""
        self._follow(layer if result.labels is not None else None)
        self._layer, self._shown = layer, (result, bundle, place.units)
        if result.scores is not None:
            self.chart.show_scores(scores_of(result.scores, bundle.metrics))
            self.table.show_scores(result.scores)
        elif result.table:
            self.table.show_classes(result.table, place.units)
        self.chart.setVisible(result.scores is not None)
        self.table.setVisible(result.scores is None and bool(result.table))
        self.copy_button.setVisible(result.scores is not None or bool(result.table))
        self.beside_button.setVisible(layer is not None)
        self.setVisible(True)

    def clear(self) -> None:
        """Show nothing: another model is chosen, or the layer that was shown is gone."""
        self._follow(None)
        self._layer = self._shown = None
        self.hide()

    def open_panel(self) -> None:
        """Open the panel of results on this one."""
        from napari_mamba.ui.results.panel import open_panel

        if self._shown is not None:
            result, bundle, _ = self._shown
            open_panel(self._viewer).show_result(result, bundle, self._layer)  # type: ignore[arg-type]

    def show_beside(self) -> None:
        """Show source and result side by side."""
        from napari_mamba.ui.results.panel import open_panel

        source = None if self._layer is None else source_of(self._viewer, self._layer)
        if source is not None:
            open_panel(self._viewer).show_beside(source, self._layer)  # type: ignore[arg-type]

    # ---- the table follows the layer

    def _follow(self, layer: Any) -> None:
        self._counter.stop()
        if self._watch is not None:
            self._watch.disconnect()
        self._watch = None if layer is None else DataWatch(self._viewer, layer)
        if self._watch is not None:
            self._watch.changed.connect(self._counter.ask)

    def _count(self) -> Any:
        from napari_mamba.measure import class_statistics

        layer = self._layer
        image = image_of(self._viewer, layer)
        return layer, class_statistics(volume_of(layer), None if image is None else volume_of(image))

    def _on_counted(self, answer: Any) -> None:
        layer, found = answer
        if layer is not self._layer or self._shown is None:
            return
        result, _, units = self._shown
        rows = []
        for row in result.table:
            known = found.get(row.index)
            ml = row.ml / row.voxels if row.voxels else self._voxel_ml()
            voxels = known.voxels if known else 0
            rows.append(ClassRow(row.index, row.name, row.color, voxels, voxels * ml, known.mean if known else None))
        self.table.show_classes(rows, units)

    def _voxel_ml(self) -> float:
        rows = [row for row in self._shown[0].table if row.voxels] if self._shown is not None else []
        return rows[0].ml / rows[0].voxels if rows else 0.001

    def _on_removed(self, event: object) -> None:
        if self._layer is not None and self._layer not in self._viewer.layers:
            self.clear()

    @Slot()
    def _on_row(self) -> None:
        """A class chosen in the table becomes the selected label."""
        item = self.table.item(self.table.currentRow(), 0)
        index = item.data(Qt.ItemDataRole.UserRole) if item else None
        if index is not None and self._layer is not None and self._layer in self._viewer.layers:
            self._layer.selected_label = index  # type: ignore[attr-defined]

    def disconnect_from_viewer(self) -> None:
        """Stop listening to the viewer."""
        self._follow(None)
        self._viewer.layers.events.removed.disconnect(self._on_removed)
