"""Parts of the widget "Look inside": the tree of layers, the walk, and the maps' buttons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QTimer, Signal, Slot
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QSlider,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_mamba.ui.look_inside.curve import CurveView
from napari_mamba.ui.look_inside.model import SHOWN, LookModel, tree_of
from napari_mamba.ui.widgets.forms import combo_box

if TYPE_CHECKING:
    from napari_mamba.explain.recorded.recording import Layer

OF_LAYER = ("order", "neighbours", "state", "components", "step_size", "memory", "influence", "tokens")
OF_VOXEL = ("attention", "unified", "rollout", "field")
OF_CLASS = ("relevance", "class_attention", "gradient", "integrated", "occlusion")
FRAME_MS = 60


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


class WalkBox(QWidget):
    """Which path, which part of it is drawn, and where the marker stands; it changes the model and follows it."""

    def __init__(self, model: LookModel, parent: QWidget | None = None):
        super().__init__(parent)
        self.model = model
        self.direction: QComboBox = combo_box("The path of the scan that is followed")
        self.shown: QComboBox = combo_box("Which part of the path is drawn")
        self.shown.addItems(SHOWN)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setToolTip("Where on the path the marker stands")
        self.play = QPushButton("Play")
        self.play.setToolTip("Walk along the path")
        self.curve = CurveView()
        self.timer = QTimer(self)
        self.timer.setInterval(FRAME_MS)
        top = QHBoxLayout()
        top.addWidget(self.direction, 1)
        top.addWidget(self.shown, 1)
        row = QHBoxLayout()
        row.addWidget(self.play)
        row.addWidget(self.slider, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for one in (top, row):
            layout.addLayout(one)
        layout.addWidget(self.curve)
        self._connect()
        self.refresh()

    def _connect(self) -> None:
        model = self.model
        self.direction.currentIndexChanged.connect(lambda i: setattr(model, "direction", max(i, 0)))
        self.shown.currentTextChanged.connect(lambda text: setattr(model, "shown", text))
        self.slider.valueChanged.connect(lambda value: setattr(model, "step", value))
        self.curve.clicked.connect(lambda step: setattr(model, "step", step))
        self.play.clicked.connect(lambda: setattr(model, "playing", not model.playing))
        self.timer.timeout.connect(lambda: model.go_on())
        model.events.step.connect(self._on_step)
        model.events.playing.connect(self._on_playing)
        model.events.walk.connect(self.refresh)
        model.events.layer.connect(self.refresh)
        model.events.shown.connect(lambda text: self.shown.setCurrentText(text))

    def leave(self) -> None:
        """Stop following the model."""
        self.timer.stop()
        for event in (self.model.events.step, self.model.events.playing, self.model.events.walk):
            event.disconnect()

    def refresh(self) -> None:
        """Show what the model has."""
        model = self.model
        there = model.walk is not None
        self.direction.blockSignals(True)
        self.direction.clear()
        self.direction.addItems([f"Path {k + 1} of {model.directions}" for k in range(model.directions)])
        self.direction.setCurrentIndex(min(model.direction, model.directions - 1))
        self.direction.blockSignals(False)
        self.slider.blockSignals(True)
        self.slider.setRange(0, model.walk.length - 1 if model.walk else 0)
        self.slider.blockSignals(False)
        for widget in (self.slider, self.play, self.shown):
            widget.setEnabled(there)
        self.direction.setEnabled(model.directions > 1)
        self._on_step()

    def _on_step(self) -> None:
        model = self.model
        self.slider.blockSignals(True)
        self.slider.setValue(model.step)
        self.slider.blockSignals(False)
        if model.walk is None:
            self.curve.show_curve(self.curve.values[:0], 0, 0)
        else:
            part = model.window()
            self.curve.show_curve(model.walk.norms[part], part.start, model.step)

    def _on_playing(self, playing: bool) -> None:
        self.play.setText("Stop" if playing else "Play")
        self.timer.start() if playing else self.timer.stop()


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
        from napari_mamba.ui.look_inside.titles import SAYS, TITLES

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
        layout.addLayout(self._grid(OF_CLASS, TITLES, SAYS))
        self.pick.toggled.connect(lambda on: setattr(model, "picking", on))
        self.field.toggled.connect(lambda on: setattr(model, "with_field", on))
        self.target.currentIndexChanged.connect(lambda _: setattr(model, "target", self.target.currentData()))
        model.events.voxel.connect(self._on_voxel)

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

    def _on_voxel(self, voxel: tuple[int, int, int] | None) -> None:
        text = "The middle of the image" if voxel is None else "Voxel " + ", ".join(map(str, voxel)) + " (z, y, x)"
        self.where.setText(text)


def _small(text: str) -> QLabel:
    label = QLabel(text)
    label.setContentsMargins(0, 6, 0, 0)
    return label
