"""Small widgets that the pages of the results share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QPointF, QRectF, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPainter, QPalette, QPen, QPixmap
from qtpy.QtWidgets import QComboBox, QPushButton, QSizePolicy, QWidget

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer


def is_dark(widget: QWidget) -> bool:
    """Whether the widget stands on a dark background."""
    return widget.palette().color(QPalette.ColorRole.Window).lightness() < 128


class LayerCombo(QComboBox):
    """The layers of some kind in a viewer, the uppermost first. What is chosen stays chosen while its layer is there.

    Parameters
    ----------
    viewer : napari viewer
    fits : callable
        Whether a layer is offered.
    name : str
        For screen readers.
    optional : str
        Text of a first entry that stands for no layer; none where it is empty.
    """

    chosen = Signal()

    def __init__(self, viewer: ViewerModel, fits: Callable[[Layer], bool], name: str, optional: str = ""):
        super().__init__()
        self._viewer, self._fits, self._optional = viewer, fits, optional
        self._shown: list[Layer | None] = []
        self._named: list[Layer] = []
        self.setAccessibleName(name)
        self.setToolTip(f"{name}: one of the layers that are open")
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(8)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed, viewer.layers.events.reordered):
            event.connect(self.refresh)
        self.currentIndexChanged.connect(self._on_index)
        self.refresh()

    @property
    def layer(self) -> Any:
        """The chosen layer, or None."""
        index = self.currentIndex()
        return self._shown[index] if 0 <= index < len(self._shown) else None

    @layer.setter
    def layer(self, layer: Layer | None) -> None:
        if layer in self._shown:
            self.setCurrentIndex(self._shown.index(layer))

    def refresh(self, event: Any = None) -> None:
        """Take up layers that came, went, moved or got another name."""
        before = self.layer
        shown: list[Layer | None] = [layer for layer in reversed(self._viewer.layers) if self._fits(layer)]
        if self._optional:
            shown.insert(0, None)
        for layer in self._named:
            layer.events.name.disconnect(self.refresh)
        self._named = list(self._viewer.layers)
        for layer in self._named:
            layer.events.name.connect(self.refresh)
        self._shown = shown
        self.blockSignals(True)
        self.clear()
        for entry in shown:
            self.addItem(entry.name if entry is not None else self._optional)
            self.setItemData(self.count() - 1, self.itemText(self.count() - 1), Qt.ItemDataRole.ToolTipRole)
        if before in shown:
            self.setCurrentIndex(shown.index(before))
        self.blockSignals(False)
        self.setEnabled(bool(shown))
        if self.layer is not before:
            self._on_index()

    def _on_index(self, index: int = 0) -> None:
        self.setToolTip(self.currentText())
        self.chosen.emit()

    def disconnect_from_viewer(self) -> None:
        """Stop listening to the viewer."""
        events = self._viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.disconnect(self.refresh)
        for layer in self._named:
            layer.events.name.disconnect(self.refresh)
        self._named = []


def number(value: float | None) -> str:
    """Three digits that matter, and no more than the number has before its point.

    Examples
    --------
    >>> number(1234.5), number(0.01234), number(None)
    ('1,234', '0.0123', '–')
    """
    if value is None or value != value:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def small_button(text: str, tip: str, checkable: bool = False) -> QPushButton:
    """A button no wider than its text."""
    button = QPushButton(text)
    button.setCheckable(checkable)
    button.setToolTip(tip)
    button.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
    return button


def swatch(color: str, size: int = 12) -> QIcon:
    """A square of a colour."""
    pixmap = QPixmap(size, size)
    pixmap.fill(QColor(color) if color else Qt.GlobalColor.transparent)
    return _untinted(pixmap)


def eye(color: QColor, shown: bool) -> QIcon:
    """An eye, struck out where the thing is hidden."""

    def paint(painter: QPainter) -> None:
        painter.drawArc(QRectF(2, 5, 16, 14), 30 * 16, 120 * 16)
        painter.drawArc(QRectF(2, 1, 16, 14), 210 * 16, 120 * 16)
        painter.setBrush(painter.pen().color())
        painter.drawEllipse(QPointF(10, 10), 2.2, 2.2)
        if not shown:
            painter.drawLine(QPointF(4, 16), QPointF(16, 4))

    return _icon(paint, color, 1.0 if shown else 0.55)


def padlock(color: QColor, locked: bool) -> QIcon:
    """A padlock, closed or open."""

    def paint(painter: QPainter) -> None:
        painter.drawArc(QRectF(6.5 if locked else 10, 2.5, 7, 11), 0, 180 * 16)
        painter.setBrush(painter.pen().color())
        painter.drawRoundedRect(QRectF(4.5, 8.5, 11, 8), 1.5, 1.5)

    return _icon(paint, color, 1.0 if locked else 0.3)


def _icon(paint: Callable[[QPainter], None], color: QColor, opacity: float) -> QIcon:
    pixmap = QPixmap(40, 40)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.scale(2, 2)
    painter.setOpacity(opacity)
    painter.setPen(QPen(color, 1.5))
    paint(painter)
    painter.end()
    return _untinted(pixmap)


def _untinted(pixmap: QPixmap) -> QIcon:
    """An icon that a chosen row leaves as it is: a class's colour must stay that colour."""
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)
    return icon
