"""The tools that correct a class, as buttons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.results.classes.corrections import TOOLS, Corrections, Tool, correct, corrected_copy

if TYPE_CHECKING:
    from napari_mamba.ui.results.classes.link import ClassLink


class CorrectBox(QCollapsible):
    """Undo, islands, holes, smoothing, margins and slices between, for the class that is chosen in the list."""

    said = Signal(str)
    failed = Signal(str)

    def __init__(self) -> None:
        super().__init__("Correct", expandedIcon="▾", collapsedIcon="▸")
        self.toggleButton().setToolTip("Tools that correct the chosen class: islands, holes, smoothing, margins")
        self.settings = Corrections()
        self.link: ClassLink | None = None
        self.about = QLabel()
        self.buttons: dict[Tool, QPushButton] = {}
        self.island = _spin(0.001, 1000, self.settings.island_ml, 3, "Smallest piece that stays")
        self.smooth = _spin(0.1, 20, self.settings.smooth_mm, 1, "How much is smoothed")
        self.margin = _spin(0.1, 50, self.settings.margin_mm, 1, "Margin")
        self.in_slices = QCheckBox("in each slice")
        self.over_others = QCheckBox("May take voxels of other classes")
        self.undo, self.redo, self.duplicate = QPushButton("Undo"), QPushButton("Redo"), QPushButton("Correct a copy")
        self._build()
        self.set_link(None)

    def _build(self) -> None:
        inner = QWidget()
        layout = QVBoxLayout(inner)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.about)
        grid = QGridLayout()
        beside = {
            "remove_islands": self.island,
            "fill_holes": self.in_slices,
            "smooth": self.smooth,
            "grow": self.margin,
        }
        for row, (tool, (name, tip, _)) in enumerate(TOOLS.items()):
            button = QPushButton(name)
            button.setToolTip(tip)
            button.clicked.connect(lambda _=False, tool=tool: self.apply(tool))
            self.buttons[tool] = button
            grid.addWidget(button, row, 0)
            if tool in beside:
                grid.addWidget(beside[tool], row, 1)
        layout.addLayout(grid)
        layout.addWidget(self.over_others)
        row_of = QHBoxLayout()
        for button in (self.undo, self.redo, self.duplicate):
            row_of.addWidget(button)
        layout.addLayout(row_of)
        self.undo.setToolTip("Take back the last stroke or correction (Ctrl+Z in the picture)")
        self.redo.setToolTip("Do it again (Ctrl+Shift+Z in the picture)")
        self.duplicate.setToolTip("Copy the layer, so that the model's answer stays as it is")
        self.in_slices.setToolTip("Fills what is closed within one slice, too, not only in 3D")
        self.over_others.setToolTip("Without the tick a class grows into the background alone")
        self.undo.clicked.connect(lambda: self.link and self.link.layer.undo())
        self.redo.clicked.connect(lambda: self.link and self.link.layer.redo())
        self.duplicate.clicked.connect(self._duplicate)
        self.island.valueChanged.connect(lambda value: setattr(self.settings, "island_ml", value))
        self.smooth.valueChanged.connect(lambda value: setattr(self.settings, "smooth_mm", value))
        self.margin.valueChanged.connect(lambda value: setattr(self.settings, "margin_mm", value))
        self.in_slices.toggled.connect(lambda on: setattr(self.settings, "in_slices", on))
        self.over_others.toggled.connect(lambda on: setattr(self.settings, "over_others", on))
        self.setContent(inner)
        self.collapse(animate=False)

    def set_link(self, link: ClassLink | None) -> None:
        """Correct another layer."""
        self.link = link
        length = "mm" if link is None or link.model.units == "mm" else "pixels"
        self.island.setSuffix(f" {link.model.size_unit if link else 'ml'}")
        for spin in (self.smooth, self.margin):
            spin.setSuffix(f" {length}")
        self.show_class()

    def show_class(self) -> None:
        """Say which class is corrected."""
        model = self.link.model if self.link is not None else None
        entry = next((c for c in model.classes if c.index == model.selected), None) if model is not None else None
        locked = model is not None and entry is not None and entry.index in model.locked
        name = "Choose a class in the list." if entry is None else entry.name
        self.about.setText(f"{name} (locked)" if locked else name)
        for button in self.buttons.values():
            button.setEnabled(entry is not None and not locked)

    def apply(self, tool: Tool) -> None:
        """Apply a tool to the chosen class and say what it did."""
        if self.link is None:
            return
        try:
            voxels = correct(self.link, tool, self.settings)
        except NapariMambaError as error:
            self.failed.emit(str(error))
        else:
            name = TOOLS[tool][0]
            self.said.emit(f"{name}: {voxels:,} voxels changed" if voxels else f"{name}: there was nothing to change")

    def _duplicate(self) -> None:
        if self.link is not None:
            layer, viewer = self.link.layer, self.link.viewer
            copy = corrected_copy(layer)
            layer.visible = False
            viewer.add_layer(copy)
            self.said.emit(f"'{copy.name}' is a copy; choose it above to correct it")


def _spin(low: float, high: float, value: float, decimals: int, name: str) -> QDoubleSpinBox:
    spin = QDoubleSpinBox()
    spin.setRange(low, high)
    spin.setDecimals(decimals)
    spin.setSingleStep(0.5 if decimals < 3 else 0.05)
    spin.setValue(value)
    spin.setAccessibleName(name)
    spin.setToolTip(name)
    return spin
