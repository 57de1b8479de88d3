"""The list "Level": the resolutions of the chosen image, with their sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QHBoxLayout, QWidget

from napari_mamba.ui.widgets.forms import combo_box

if TYPE_CHECKING:
    from napari_mamba.ui.run.session import RunSession


class LevelView(QWidget):
    """Shows `Options.level`; there is nothing to choose where no image has several resolutions."""

    def __init__(self, session: RunSession, parent: QWidget | None = None):
        super().__init__(parent)
        self.session = session
        self.combo = combo_box("The resolution that the model sees: 0 is the finest; a coarser one is quicker.")
        self.combo.setAccessibleName("Level")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.combo)
        self.setFocusProxy(self.combo)
        self.combo.currentIndexChanged.connect(self._on_chosen)

    @property
    def sizes(self) -> list[tuple[int, ...]]:
        """Voxels (z, y, x) of each level of the first chosen image that has several; empty where none has."""
        chosen = (layer for layers in self.session.inputs.runs for layer in layers)
        several = next((layer for layer in chosen if getattr(layer, "multiscale", False)), None)
        return [] if several is None else [tuple(level.shape) for level in several.data]

    def draw(self) -> None:
        """Show the levels there are, and the one that is chosen."""
        options, sizes = self.session.options, self.sizes
        blocker = QSignalBlocker(self.combo)
        self.combo.clear()
        for level, shape in enumerate(sizes):
            self.combo.addItem(f"{level}: {' x '.join(map(str, shape))} voxels", str(level) if level else "")
        self.combo.setCurrentIndex(max(self.combo.findData(options.level), 0))
        del blocker
        if self.combo.findData(options.level) < 0:
            options.level = ""  # of another image: nothing that is not shown may count

    def _on_chosen(self, index: int) -> None:
        self.session.options.level = self.combo.itemData(index) or ""
