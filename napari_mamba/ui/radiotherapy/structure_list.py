"""The labels layers of a viewer, each to be ticked: whose structures count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QListWidget, QListWidgetItem

from napari_mamba.ui.radiotherapy.layers import is_structures
from napari_mamba.ui.widgets.tips import tip

if TYPE_CHECKING:
    from napari.components import ViewerModel

ROW = 14


class StructureLayers(QListWidget):
    """A list that follows the viewer's; new layers are ticked.

    Signals
    -------
    chosen
        Others are ticked than before.
    edited
        One that is ticked was painted.
    """

    chosen = Signal()
    edited = Signal()

    def __init__(self, viewer: ViewerModel):
        super().__init__()
        self._viewer = viewer
        self._shown: list[Any] = []
        self._left: set[int] = set()
        self._filling = False
        self.setAccessibleName("Layers with structures")
        self.setToolTip("The layers whose structures count: an RTSTRUCT may take several, where structures overlap")
        self.setSelectionMode(QListWidget.SelectionMode.NoSelection)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._events = (viewer.layers.events.inserted, viewer.layers.events.removed, viewer.layers.events.renamed)
        for event in self._events:
            event.connect(self.refresh)
        self.itemChanged.connect(self._on_changed)
        self.refresh()

    @property
    def layers(self) -> list[Any]:
        """Those that are ticked, the lowest in the viewer first."""
        return [layer for layer in reversed(self._shown) if id(layer) not in self._left]

    def refresh(self, event: Any = None) -> None:
        """Take up layers that came, went or got another name."""
        shown = [layer for layer in reversed(self._viewer.layers) if is_structures(layer)]
        before, self._filling = self.layers, True
        for layer in [one for one in self._shown if one not in shown]:
            layer.events.paint.disconnect(self._on_paint)
        for layer in [one for one in shown if one not in self._shown]:
            layer.events.paint.connect(self._on_paint)
        self._shown = shown
        self.clear()
        for layer in shown:
            item = QListWidgetItem(layer.name)
            item.setToolTip(tip(layer.name))
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            ticked = id(layer) not in self._left
            item.setCheckState(Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked)
            self.addItem(item)
        row = max(self.sizeHintForRow(0), ROW)
        self.setFixedHeight(row * min(max(len(shown), 1), 5) + 8)
        self._filling = False
        if self.layers != before:
            self.chosen.emit()

    def _on_changed(self, item: QListWidgetItem) -> None:
        if self._filling:
            return
        layer = self._shown[self.row(item)]
        ticked = item.checkState() == Qt.CheckState.Checked
        self._left = self._left - {id(layer)} if ticked else self._left | {id(layer)}
        self.chosen.emit()

    def _on_paint(self, event: Any = None) -> None:
        self.edited.emit()

    def disconnect_from_viewer(self) -> None:
        """Stop listening."""
        for event in self._events:
            event.disconnect(self.refresh)
        for layer in self._shown:
            layer.events.paint.disconnect(self._on_paint)
        self._shown = []
