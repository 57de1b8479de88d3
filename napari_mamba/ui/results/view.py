"""What a run found, below its controls: the door of this room, behind which the table and its actions stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Slot
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_mamba.ui.results.table import ResultsTable

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_mamba.bundles import Bundle
    from napari_mamba.engine import Result
    from napari_mamba.ui.layers import Placement


class ResultsView(QWidget):
    """The last result's table; hidden while there is none.

    Parameters
    ----------
    viewer : napari viewer
        Results are added to it.
    """

    def __init__(self, viewer: ViewerModel, parent: QWidget | None = None):
        super().__init__(parent)
        self._viewer = viewer
        self._layer: Layer | None = None
        self.table = ResultsTable()
        self.copy_button = QPushButton("Copy table")
        self.copy_button.setToolTip("Copy the table to the clipboard, to paste into a spreadsheet (Ctrl+C)")
        self.copy_button.clicked.connect(self.table.copy)
        self.table.itemSelectionChanged.connect(self._on_row)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.table)
        layout.addWidget(self.copy_button)
        viewer.layers.events.removed.connect(self._on_removed)
        self.clear()

    def show_result(self, result: Result, bundle: Bundle, place: Placement, layer: Layer | None) -> None:
        """Show a finished run's table; `layer` is its main layer, which is in the viewer, or None if it has none."""
        self._layer = layer
        if result.scores is not None:
            self.table.show_scores(result.scores)
        elif result.table:
            self.table.show_classes(result.table, place.units)
        self.setVisible(result.scores is not None or bool(result.table))

    def clear(self) -> None:
        """Show nothing: another model is chosen, or the layer that was shown is gone."""
        self._layer = None
        self.hide()

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
        self._viewer.layers.events.removed.disconnect(self._on_removed)
