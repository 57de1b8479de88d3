"""A button a map, and what the maps of a voxel and of an answer are of."""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_mamba.ui.look_inside.model import LookModel
from napari_mamba.ui.look_inside.parts.curve import CurvesView
from napari_mamba.ui.look_inside.parts.titles import SAYS, TITLES
from napari_mamba.ui.widgets.forms import combo_box

OF_LAYER = ("order", "neighbours", "state", "components", "step_size", "memory", "influence", "tokens")
OF_VOXEL = ("attention", "unified", "rollout", "field")
OF_CLASS = (
    "relevance", "class_attention", "gradient", "integrated", "occlusion", "knockout", "faithfulness",
)  # fmt: skip


class MapsBox(QWidget):
    """A button a map, and what the maps of a voxel and of a class are of.

    Signals
    -------
    wanted : str
        A map's name.
    """

    wanted = Signal(str)

    def __init__(self, model: LookModel, parent: QWidget | None = None):
        super().__init__(parent)
        self.model = model
        self.buttons: dict[str, QPushButton] = {}
        self.pick = QPushButton("Click in the image")
        self.pick.setCheckable(True)
        self.pick.setToolTip("While this is on, a click in the image asks about that voxel: its attention appears.")
        self.where = QLabel("The middle of the image")
        self.field = QCheckBox("and its receptive field")
        self.field.setChecked(model.with_field)
        self.field.setToolTip("Takes a backward pass through the network: seconds on a CPU.")
        self.target: QComboBox = combo_box("The class whose answer is explained")
        self.whole = QCheckBox("of the whole image, not of one tile")
        self.whole.setToolTip(
            "Explain the answer blended from all tiles: each tile is passed through the model, so that it takes longer."
        )
        self.regions: QComboBox = combo_box(
            "Knockout: a labels layer on the image in which 1 is what passes nothing on and 2 what is cut off from it "
            "(without a 2: everything else)"
        )
        self.curves = CurvesView()
        self.curves.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(self._grid(OF_LAYER, TITLES, SAYS))
        row = QHBoxLayout()
        row.addWidget(self.pick)
        row.addWidget(self.where, 1)
        layout.addWidget(_small("Of a voxel"))
        layout.addLayout(row)
        layout.addWidget(self.field)
        layout.addLayout(self._grid(OF_VOXEL, TITLES, SAYS))
        layout.addWidget(_small("Of an answer"))
        layout.addWidget(self.target)
        layout.addWidget(self.whole)
        layout.addLayout(self._grid(OF_CLASS, TITLES, SAYS))
        cut = QHBoxLayout()
        cut.addWidget(QLabel("Knockout"))
        cut.addWidget(self.regions, 1)
        layout.addLayout(cut)
        layout.addWidget(self.curves)
        self.pick.toggled.connect(lambda on: setattr(model, "picking", on))
        self.field.toggled.connect(lambda on: setattr(model, "with_field", on))
        self.target.currentIndexChanged.connect(lambda _: setattr(model, "target", self.target.currentData()))
        self.whole.toggled.connect(lambda on: setattr(model, "whole", on))
        self.regions.currentIndexChanged.connect(lambda _: setattr(model, "regions", self.regions.currentData()))
        model.events.voxel.connect(self._on_voxel)
        self.show_regions([])

    def _grid(self, names: tuple[str, ...], titles: dict[str, str], says: dict[str, str]) -> QGridLayout:
        grid = QGridLayout()
        grid.setSpacing(4)
        for i, name in enumerate(names):
            button = QPushButton(titles[name])
            button.setToolTip(says[name])
            button.clicked.connect(lambda _=False, name=name: self.wanted.emit(name))
            self.buttons[name] = button
            grid.addWidget(button, i // 2, i % 2)
        return grid

    def set_classes(self, names: list[str], task: str) -> None:
        """The classes that can be explained."""
        self.target.blockSignals(True)
        self.target.clear()
        first = {"classification": "The likeliest class", "restoration": "The value at the voxel"}
        self.target.addItem(first.get(task, "The class at the voxel"), None)
        if task != "restoration":
            for name in names:
                self.target.addItem(name, name)
        self.target.setCurrentIndex(0)
        self.target.blockSignals(False)
        self.model.target = None

    def show_regions(self, names: list[str]) -> None:
        """The labels layers whose regions may be cut off from each other; what is chosen stays while it is there."""
        blocker = QSignalBlocker(self.regions)
        self.regions.clear()
        self.regions.addItem("Block by block", "")
        for name in names:
            self.regions.addItem(f"Regions of {name}", name)
        self.regions.setCurrentIndex(max(0, self.regions.findData(self.model.regions)))
        del blocker
        self.model.regions = self.regions.currentData()

    def set_tiles(self, count: int) -> None:
        """Of how many tiles the image is."""
        self.whole.setEnabled(count > 1)
        if count < 2:
            self.whole.setChecked(False)

    def _on_voxel(self, voxel: tuple[int, int, int] | None) -> None:
        text = "The middle of the image" if voxel is None else "Voxel " + ", ".join(map(str, voxel)) + " (z, y, x)"
        self.where.setText(text)


def _small(text: str) -> QLabel:
    label = QLabel(text)
    label.setContentsMargins(0, 6, 0, 0)
    return label
