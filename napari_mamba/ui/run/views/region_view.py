"""The list "Region": the whole image, the box around what a layer marks, or one that is drawn now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QHBoxLayout, QWidget

from napari_mamba.ui.run.choice.region import draw_region, regions, same_units
from napari_mamba.ui.widgets.forms import combo_box

if TYPE_CHECKING:
    from napari_mamba.ui.run.session import RunSession

DRAW = "draw"
"""The entry that makes a layer to draw the box in."""

_FLAGS = Qt.ItemDataRole.UserRole - 1  # where QStandardItem keeps whether it can be chosen


class RegionView(QWidget):
    """Shows `Options.region` and the layers of a viewer that can be one."""

    def __init__(self, session: RunSession, parent: QWidget | None = None):
        super().__init__(parent)
        self.session = session
        self.combo = combo_box("Run on the box around the shapes or labels of a layer: quicker, and less memory.")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.combo)
        self.setFocusProxy(self.combo)
        self.combo.activated.connect(self._on_chosen)
        events = session.viewer.layers.events
        self._listened = (events.inserted, events.removed, events.renamed)
        for event in self._listened:
            event.connect(self.draw)
        session.inputs.changed.connect(self.draw)
        self.draw()

    def disconnect_from_model(self) -> None:
        """The dock is closed; the session stays."""
        for event in self._listened:
            event.disconnect(self.draw)
        self.session.inputs.changed.disconnect(self.draw, missing_ok=True)

    def draw(self, _: Any = None) -> None:
        """Show the layers there are, and the one that is chosen."""
        options = self.session.options
        blocker = QSignalBlocker(self.combo)
        self.combo.clear()
        self.combo.addItem("The whole image", "")
        for layer in regions(self.session.viewer):
            self.combo.addItem(f"Around '{layer.name}'", layer.name)
        self.combo.insertSeparator(self.combo.count())
        self.combo.addItem("Draw a box…", DRAW)
        if not self.session.inputs.runs:  # as data: before 6.11 an item asked for outlives its entry
            self.combo.setItemData(self.combo.count() - 1, 0, _FLAGS)
        del blocker
        if self.combo.findData(options.region) < 0:
            options.region = ""  # its layer is gone
        self._show_chosen()

    def _show_chosen(self) -> None:
        blocker = QSignalBlocker(self.combo)
        self.combo.setCurrentIndex(max(self.combo.findData(self.session.options.region), 0))
        del blocker

    def _on_chosen(self, index: int) -> None:
        session, chosen = self.session, self.combo.itemData(index)
        if chosen == DRAW:
            chosen = self._draw_box()
        elif chosen and session.inputs.runs:
            same_units(session.viewer, session.viewer.layers[chosen], session.inputs.runs[0][0])
        session.options.region = chosen or ""
        self._show_chosen()

    def _draw_box(self) -> str:
        inputs = self.session.inputs
        if not inputs.runs:
            return ""
        layers = inputs.runs[0]
        for channel, layer in enumerate(layers):
            if isinstance(inputs.chosen[channel], str):  # the new layer is the selected one from now on
                inputs.choose(channel, layer)
        return draw_region(self.session.viewer, layers[0]).name
