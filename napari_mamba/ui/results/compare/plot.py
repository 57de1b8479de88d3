"""A plot of a few curves, drawn by Qt: no plotting library has to be loaded while the window waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPalette, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

COLORS = ("#3a8fd9", "#e4831a")


@dataclass(frozen=True)
class Curve:
    """Points with a name; NaN leaves a gap."""

    name: str
    x: np.ndarray
    y: np.ndarray


class Plot(QWidget):
    """Curves over one axis, with ticks at round numbers."""

    def __init__(self, x_name: str):
        super().__init__()
        self._x_name = x_name
        self.curves: Sequence[Curve] = ()
        self.colors: Sequence[str] = COLORS
        self.place: Callable[[float, float], QPointF] | None = None
        """From values to the widget's pixels, once it was drawn."""
        self.setMinimumHeight(170)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.MinimumExpanding)
        self.setAccessibleName("Line profile")

    def show_curves(self, curves: Sequence[Curve]) -> None:
        """Draw these instead."""
        self.curves = curves
        self.setAccessibleDescription(", ".join(curve.name for curve in curves))
        self.update()

    def paintEvent(self, event: object) -> None:
        """Draw."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().color(QPalette.ColorRole.WindowText)
        ranges = self._ranges()
        if ranges is None:
            return
        (x0, x1), (y0, y1) = ranges
        metrics = painter.fontMetrics()
        y_ticks = ticks(y0, y1, 4)
        left = max(metrics.horizontalAdvance(f"{tick:g}") for tick in y_ticks) + 10
        line = metrics.height()
        box = QRectF(left, line * len(self.curves) + 8, self.width() - left - 10, 0)
        box.setBottom(self.height() - 2 * line - 8)

        def place(x: float, y: float) -> QPointF:
            return QPointF(
                box.left() + (x - x0) / (x1 - x0) * box.width(), box.bottom() - (y - y0) / (y1 - y0) * box.height()
            )

        faint = QColor(text)
        faint.setAlpha(60)
        for tick in y_ticks:
            painter.setPen(faint)
            painter.drawLine(place(x0, tick), place(x1, tick))
            painter.setPen(text)
            painter.drawText(
                QRectF(0, place(x0, tick).y() - line / 2, left - 6, line), Qt.AlignmentFlag.AlignRight, f"{tick:g}"
            )
        for tick in ticks(x0, x1, 5):
            where = place(tick, y0)
            painter.drawLine(where, where + QPointF(0, 4))
            painter.drawText(
                QRectF(where.x() - 40, where.y() + 4, 80, line), Qt.AlignmentFlag.AlignHCenter, f"{tick:g}"
            )
        painter.drawText(
            QRectF(box.left(), self.height() - line, box.width(), line), Qt.AlignmentFlag.AlignHCenter, self._x_name
        )
        for number, curve in enumerate(self.curves):
            color = QColor(self.colors[number % len(self.colors)])
            painter.setPen(QPen(color, 2))
            for piece in _pieces(curve):
                painter.drawPolyline(QPolygonF([place(x, y) for x, y in piece]))
            y = 4 + number * line
            painter.drawLine(QPointF(left, y + line / 2), QPointF(left + 18, y + line / 2))
            painter.setPen(text)
            name = metrics.elidedText(curve.name, Qt.TextElideMode.ElideMiddle, int(box.width()) - 30)
            painter.drawText(QRectF(left + 24, y, box.width(), line), Qt.AlignmentFlag.AlignLeft, name)
        self.place = place
        self.paint_more(painter, place)

    def paint_more(self, painter: QPainter, place: Callable[[float, float], QPointF]) -> None:
        """What a kind of plot draws on top; `place` takes values to pixels."""

    def _ranges(self) -> tuple[tuple[float, float], tuple[float, float]] | None:
        ys = [curve.y[np.isfinite(curve.y)] for curve in self.curves]
        xs = [curve.x for curve in self.curves if len(curve.x)]
        if not xs or not any(len(y) for y in ys):
            return None
        low, high = min(y.min() for y in ys if len(y)), max(y.max() for y in ys if len(y))
        if low == high:
            low, high = low - 0.5, high + 0.5
        x0, x1 = min(x.min() for x in xs), max(x.max() for x in xs)
        return (float(x0), float(x1 if x1 > x0 else x0 + 1)), (float(low), float(high))


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers within a range.

    Examples
    --------
    >>> ticks(0, 97, 5)
    [0.0, 20.0, 40.0, 60.0, 80.0]
    """
    raw = (high - low) / about
    power = 10.0 ** np.floor(np.log10(raw))
    step = min((power * s for s in (1, 2, 5, 10)), key=lambda s: abs(s - raw))
    first = np.ceil(low / step) * step
    return [float(round(t, 12)) for t in np.arange(first, high + step * 1e-6, step)]


def _pieces(curve: Curve) -> list[list[tuple[float, float]]]:
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(curve.x.tolist(), curve.y.tolist(), strict=True):
        if np.isfinite(y):
            pieces[-1].append((x, y))
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if len(piece) > 1]
