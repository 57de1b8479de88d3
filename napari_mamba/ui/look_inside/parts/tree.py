"""The tree of a network's scanning layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal, Slot
from qtpy.QtWidgets import QHeaderView, QTreeWidget, QTreeWidgetItem, QWidget

from napari_mamba.ui.look_inside.model import tree_of

if TYPE_CHECKING:
    from napari_mamba.explain.recorded.recording import Layer


class LayerTree(QTreeWidget):
    """A network's scanning layers by the parts of their names.

    Signals
    -------
    chosen : str
    """

    chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None):
        super().__init__(parent)
        self.setHeaderLabels(["Layer", "Tokens"])
        self.setAccessibleName("Layers of the network")
        self.setToolTip("The layers of the network that scan. Grey ones scan channels, which are no places.")
        self.header().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.header().setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
        self.header().setStretchLastSection(False)
        self.setFixedHeight(112)
        self.itemSelectionChanged.connect(self._on_selection)

    def show_layers(self, layers: tuple[Layer, ...]) -> None:
        """Fill the tree; nothing is selected."""
        self.blockSignals(True)
        self.clear()
        known = {layer.name: layer for layer in layers}
        self._add(self.invisibleRootItem(), tree_of(known), known)
        self.expandAll()
        self.blockSignals(False)

    def _add(self, parent: QTreeWidgetItem, tree: dict, known: dict[str, Layer]) -> None:
        for key, value in tree.items():
            item = QTreeWidgetItem(parent, [key])
            if isinstance(value, dict):
                item.setFlags(Qt.ItemFlag.ItemIsEnabled)
                self._add(item, value, known)
                continue
            layer = known[value]
            item.setData(0, Qt.ItemDataRole.UserRole, layer.name)
            grid = "channels" if layer.grid is None else " × ".join(map(str, layer.grid))
            item.setText(1, grid)
            paths = "path" if layer.directions == 1 else "paths"
            item.setToolTip(
                0,
                f"{layer.name}: {layer.kind}, {layer.directions} {paths}, {layer.tokens:,} tokens, "
                f"{layer.channels} channels, {layer.states} states",
            )
            if layer.grid is None:
                item.setDisabled(True)

    def select(self, name: str) -> None:
        """Mark a layer as chosen."""
        for item in self.findItems("", Qt.MatchFlag.MatchContains | Qt.MatchFlag.MatchRecursive):
            if item.data(0, Qt.ItemDataRole.UserRole) == name and name:
                self.blockSignals(True)
                self.setCurrentItem(item)
                self.blockSignals(False)

    @Slot()
    def _on_selection(self) -> None:
        items = self.selectedItems()
        name = items[0].data(0, Qt.ItemDataRole.UserRole) if items else None
        if name:
            self.chosen.emit(name)
