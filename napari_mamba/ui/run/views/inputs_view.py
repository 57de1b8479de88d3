"""Draws `Inputs`: one list of layers a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QComboBox, QFormLayout, QWidget

from napari_mamba.ui.run.choice.inputs import EACH_SELECTED, SELECTED, Inputs
from napari_mamba.ui.widgets.forms import combo_box, row_label

if TYPE_CHECKING:
    from napari_mamba.bundles import Channel


class InputsView(QWidget):
    """The lists of layers, and with a model of one channel the entries "Selected layer" and "Each selected layer"."""

    def __init__(self, inputs: Inputs, parent: QWidget | None = None):
        super().__init__(parent)
        self.inputs = inputs
        self.combos: list[QComboBox] = []
        self._channels: tuple[Channel, ...] | None = None
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        inputs.changed.connect(self.draw)
        self.draw()

    @property
    def layers(self) -> list:
        """The chosen layer of each channel, as the lists show it."""
        return [combo.currentData() for combo in self.combos]

    def draw(self) -> None:
        """Show the model as it is."""
        if self.inputs.channels != self._channels:
            self._make_rows()
        alone = len(self.combos) == 1
        for combo, choice in zip(self.combos, self.inputs.chosen, strict=True):
            blocker = QSignalBlocker(combo)
            combo.clear()
            for layer in self.inputs.layers:
                combo.addItem(layer.name, layer)
            if alone and self.inputs.layers:
                combo.insertSeparator(combo.count())
                combo.addItem("The selected layer", SELECTED)
                combo.addItem("Each selected layer", EACH_SELECTED)
            combo.setCurrentIndex(_index_of(combo, choice))
            combo.setEnabled(bool(self.inputs.layers))
            del blocker

    def disconnect_from_model(self) -> None:
        """The dock is closed; the model stays."""
        self.inputs.changed.disconnect(self.draw, missing_ok=True)

    def _make_rows(self) -> None:
        while self._form.rowCount():
            self._form.removeRow(0)
        self._channels = self.inputs.channels
        self.combos = []
        kind = "labels or image" if self.inputs.masks else "image"
        for index, channel in enumerate(self._channels):
            told = channel.modality not in ("", channel.name)
            name = f"{channel.name} ({channel.modality})" if told else channel.name
            combo = combo_box(f"The {kind} layer that shows {name}")
            combo.currentIndexChanged.connect(lambda _, i=index: self._on_chosen(i))
            alone = "Mask" if self.inputs.masks else "Image"
            title = alone if len(self._channels) == 1 else name
            combo.setAccessibleName(title)
            label = row_label(title)
            label.setBuddy(combo)
            self._form.addRow(label, combo)
            self.combos.append(combo)

    def _on_chosen(self, index: int) -> None:
        self.inputs.choose(index, self.combos[index].currentData())


def _index_of(combo: QComboBox, choice: object) -> int:
    """Where a choice stands; by identity, since Qt compares layers in its own way."""
    return next((i for i in range(combo.count()) if choice is not None and combo.itemData(i) is choice), -1) if (
        not isinstance(choice, str)
    ) else combo.findData(choice)  # fmt: skip
