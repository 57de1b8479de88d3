"""Curves: the state's norm along the path, with the marker, and what is left of an answer as voxels are taken away."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

MARGIN = 6


class CurveView(QWidget):
    """Draws numbers along steps.

    Signals
    -------
    clicked : int
        The step under the pointer.
    """

    clicked = Signal(int)

    def __init__(self, parent: QWidget | None = None):
        super().__init__(parent)
        self.values = np.zeros(0)
        self.first = 0
        self.step = 0
        self.title = "Norm of the hidden state"
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip("The norm of the hidden state along the path. Click to move the marker there.")

    def sizeHint(self) -> QSize:
        return QSize(320, 110)

    def show_curve(self, values: np.ndarray, first: int, step: int) -> None:
        """Draw values at the steps from `first` on, the marker at `step`."""
        self.values, self.first, self.step = values, first, step
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().color(self.foregroundRole())
        faint = QColor(text)
        faint.setAlpha(70)
        painter.setPen(QPen(faint, 1))
        painter.drawRoundedRect(self.rect().adjusted(1, 1, -1, -1), 4, 4)
        painter.setPen(text)
        small = painter.font()
        small.setPointSizeF(small.pointSizeF() * 0.85)
        painter.setFont(small)
        if len(self.values) < 2:
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, "No path is followed yet")
            return
        points = self._points()
        painter.setPen(QPen(QColor("#4aa3ff"), 1.4))
        painter.drawPolyline(QPolygonF([QPointF(x, y) for x, y in points]))
        if self.first <= self.step < self.first + len(self.values):
            x = self._x(self.step)
            painter.setPen(QPen(QColor("#2fbf3f"), 1.6))
            painter.drawLine(QPointF(x, 18), QPointF(x, self.height() - 18))
        painter.setPen(text)
        area = self.rect().adjusted(MARGIN, 3, -MARGIN, -3)
        painter.drawText(area, Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft, self.title)
        top = f"{self.values.max():.3g}"
        painter.drawText(area, Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignRight, f"highest {top}")
        painter.drawText(area, Qt.AlignmentFlag.AlignBottom | Qt.AlignmentFlag.AlignLeft, f"step {self.first:,}")
        last = f"{self.first + len(self.values) - 1:,}"
        painter.drawText(area, Qt.AlignmentFlag.AlignBottom | Qt.AlignmentFlag.AlignRight, last)

    def _x(self, step: float) -> float:
        span = max(len(self.values) - 1, 1)
        return MARGIN + (step - self.first) / span * (self.width() - 2 * MARGIN)

    def _points(self) -> np.ndarray:
        high = max(float(self.values.max()), 1e-12)
        bins = max(2, min(len(self.values), self.width()))
        edges = np.linspace(0, len(self.values), bins + 1).astype(int)
        tops = np.maximum.reduceat(self.values, edges[:-1])
        middles = self.first + (edges[:-1] + edges[1:] - 1) / 2
        height = self.height() - 40
        return np.stack([[self._x(m) for m in middles], 20 + (1 - tops / high) * height], axis=1)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self._move(event)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        self._move(event)

    def _move(self, event: QMouseEvent) -> None:
        if len(self.values) < 2:
            return
        share = (event.position().x() - MARGIN) / max(self.width() - 2 * MARGIN, 1)
        step = self.first + round(share * (len(self.values) - 1))
        self.clicked.emit(int(np.clip(step, self.first, self.first + len(self.values) - 1)))


COLOURS = {"relevance": "#4aa3ff", "gradient": "#ff9f1c", "integrated": "#2fbf71"}
NAMES = {"relevance": "Relevance", "gradient": "Gradient × input", "integrated": "Integrated gradients"}


class CurvesView(QWidget):
    """What is left of an answer as the voxels that each map calls important go (left) or come back (right)."""

    def __init__(self, parent: QWidget | None = None):
        super().__init__(parent)
        self.curves: dict[str, dict[str, np.ndarray]] = {}
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            "Left: the most important voxels are blurred away, and a good map lets the answer fall fast. Right: they "
            "are put back into a blurred image, and a good map lets it rise fast. In brackets the area under the curve."
        )

    def sizeHint(self) -> QSize:
        return QSize(320, 190)

    def show_curves(self, curves: dict[str, dict[str, np.ndarray]]) -> None:
        """Draw "deletion" and "insertion": each has "share" and a curve a method."""
        self.curves = {side: curves[side] for side in ("deletion", "insertion") if side in curves}
        self.setVisible(bool(self.curves))
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        small = painter.font()
        small.setPointSizeF(small.pointSizeF() * 0.85)
        painter.setFont(small)
        row = painter.fontMetrics().height() + 1
        height = self.height() - row * (len(NAMES) + 1) - 4
        for i, (side, curve) in enumerate(self.curves.items()):
            self._draw_side(painter, side, curve, QRectF(i * self.width() / 2 + 4, row, self.width() / 2 - 8, height))
        for r, (method, name) in enumerate(NAMES.items()):
            y = self.height() - row * (len(NAMES) - r) + row * 0.7
            painter.setPen(QPen(QColor(COLOURS[method]), 2))
            painter.drawLine(QPointF(6, y - row * 0.25), QPointF(22, y - row * 0.25))
            painter.setPen(self.palette().color(self.foregroundRole()))
            areas = [f"{side} {np.trapezoid(c[method], c['share']):.2f}" for side, c in self.curves.items()]
            painter.drawText(QPointF(28, y), f"{name} ({', '.join(areas)})")

    def _draw_side(self, painter: QPainter, side: str, curve: dict[str, np.ndarray], box: QRectF) -> None:
        text = self.palette().color(self.foregroundRole())
        painter.setPen(text)
        painter.drawText(QPointF(box.left(), box.top() - 4), side.capitalize())
        faint = QColor(text)
        faint.setAlpha(70)
        painter.setPen(QPen(faint, 1))
        painter.drawRect(box)
        values = np.concatenate([curve[method] for method in NAMES if method in curve])
        low, high = min(0.0, float(values.min())), max(1.0, float(values.max()))
        for method in (one for one in NAMES if one in curve):
            painter.setPen(QPen(QColor(COLOURS[method]), 1.6))
            points = [
                QPointF(box.left() + s * box.width(), box.bottom() - (v - low) / (high - low) * box.height())
                for s, v in zip(curve["share"], curve[method], strict=True)
            ]
            painter.drawPolyline(QPolygonF(points))
