"""Draws which layers are the further channels of the image of the chosen row."""

from __future__ import annotations

from functools import partial
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QPaintEvent
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QLabel,
    QSizePolicy,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QWidget,
)

from napari_mamba.ui.learn.images.pairs import Pair, Pairs
from napari_mamba.ui.widgets.forms import row_label
from napari_mamba.ui.widgets.tips import tip


class LayerCombo(QComboBox):
    """A list of layers whose chosen name loses its middle where it is too long: names often differ at their ends."""

    def __init__(self, parent: QWidget | None = None):
        super().__init__(parent)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(4)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QStylePainter(self)
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        field = self.style().subControlRect(
            QStyle.ComplexControl.CC_ComboBox, option, QStyle.SubControl.SC_ComboBoxEditField, self
        )
        option.currentText = self.fontMetrics().elidedText(
            option.currentText, Qt.TextElideMode.ElideMiddle, field.width() - 6
        )
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)


class ChannelsView(QWidget):
    """A list of layers for each channel but the first; hidden where a model takes one."""

    def __init__(self, pairs: Pairs, parent: QWidget | None = None):
        super().__init__(parent)
        self.pairs = pairs
        self.combos: list[LayerCombo] = []
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        self._shown: tuple[Any, ...] = ()

    def draw(self, pair: Pair | None, idle: bool) -> None:
        """Show the channels of a row."""
        names, layers = self.pairs.channels[1:], self.pairs.images
        self.setVisible(bool(names) and pair is not None)
        now = (names, id(pair), tuple((id(layer), layer.name) for layer in layers), pair and pair.more, idle)
        if now == self._shown:
            return
        self._shown = now
        while self._form.rowCount():
            self._form.removeRow(0)
        self.combos = []
        if pair is None or not names:
            return
        self._form.addRow(QLabel(f"Further channels of '{pair.image.name}':"))
        for number, name in enumerate(names):
            combo = LayerCombo()
            chosen = pair.more[number] if number < len(pair.more) else None
            if chosen is None:
                combo.addItem("choose…", None)
            for layer in layers:
                combo.addItem(layer.name, layer)
                if layer is chosen:
                    combo.setCurrentIndex(combo.count() - 1)
            combo.setToolTip(tip(f"The layer that is {name} of '{pair.image.name}'"))
            combo.setAccessibleName(f"{name} of {pair.image.name}")
            combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            combo.setEnabled(idle)
            combo.activated.connect(partial(self._on_layer, pair, number, combo))
            self._form.addRow(row_label(name), combo)
            self.combos.append(combo)

    def _on_layer(self, pair: Pair, number: int, combo: QComboBox, index: int) -> None:
        layer = combo.itemData(index)
        if layer is not None and pair in self.pairs.rows:
            more = list(pair.more)
            more[number] = layer
            self.pairs.change(pair, more=tuple(more))
