"""The colour bar of a map, in the dock.

napari 0.9 has one in the picture (`layer.colorbar`). Where a layer that showed it is removed and another one added, the
program ends in OpenGL (seen with Mesa's software renderer), so that it is left to the user to switch it on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QRectF, QSize, Qt
from qtpy.QtGui import QColor, QImage, QPainter, QPalette
from qtpy.QtWidgets import QSizePolicy, QWidget

if TYPE_CHECKING:
    from napari.layers import Image

STEPS = 256
BEHIND = 128
"""The grey behind clear colours: a map lies over an image."""


def colors_of(layer: Image) -> np.ndarray:
    """The colours of a map from its lower to its upper limit, over grey; (STEPS, 3) uint8."""
    rgba = np.asarray(layer.colormap.map(np.linspace(0, 1, STEPS)), float)
    alpha = rgba[:, 3:] * layer.opacity
    return np.round(255 * rgba[:, :3] * alpha + BEHIND * (1 - alpha)).astype(np.uint8)


class ColorBar(QWidget):
    """A map's colours with the values at its ends and in the middle."""

    HEIGHT = 14

    def __init__(self) -> None:
        super().__init__()
        self.layer: Any = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName("Colour bar")

    def show_layer(self, layer: Image | None) -> None:
        """Draw the bar of a layer, as its colours and limits are now and become."""
        if self.layer is not None:
            for event in self._events():
                event.disconnect(self._on_look)
        self.layer = layer
        if layer is not None:
            for event in self._events():
                event.connect(self._on_look)
        self._on_look()

    @property
    def values(self) -> list[str]:
        """What is written below: the lower limit, the middle, the upper limit."""
        low, high = (float(limit) for limit in self.layer.contrast_limits)
        return [f"{value:.3g}" for value in (low, (low + high) / 2, high)]

    def sizeHint(self) -> QSize:
        """The bar and a line of numbers."""
        return QSize(200, self.HEIGHT + self.fontMetrics().height() + 4)

    minimumSizeHint = sizeHint

    def paintEvent(self, event: object) -> None:
        """Draw."""
        if self.layer is None:
            return
        row = np.ascontiguousarray(colors_of(self.layer)[None])
        picture = QImage(row.tobytes(), STEPS, 1, 3 * STEPS, QImage.Format.Format_RGB888)
        painter = QPainter(self)
        painter.drawImage(QRectF(0, 0, self.width(), self.HEIGHT), picture)
        text = self.palette().color(QPalette.ColorRole.WindowText)
        painter.setPen(QColor(text))
        below = QRectF(0, self.HEIGHT + 2, self.width(), self.fontMetrics().height())
        sides = Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignHCenter, Qt.AlignmentFlag.AlignRight
        for value, side in zip(self.values, sides, strict=True):
            painter.drawText(below, side, value)

    def _events(self) -> tuple[Any, ...]:
        events = self.layer.events
        return events.colormap, events.contrast_limits, events.opacity

    def _on_look(self, event: Any = None) -> None:
        if self.layer is not None:
            self.setAccessibleDescription(", ".join(self.values))
        self.update()
