"""A dose-volume histogram that answers to the mouse: what is under it is read off, a click picks a structure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPalette, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_mamba.ui.radiotherapy.plan.review import LETTERS, Line
from napari_mamba.ui.results.compare.plot import ticks

PENS = (Qt.PenStyle.SolidLine, Qt.PenStyle.DashLine)
"""Of the first dose and of the second."""

REACH = 40
"""Pixels from a curve at which the mouse still takes it."""


class HistogramPlot(QWidget):
    """Cumulative histograms, in percent of volume over Gy.

    Signals
    -------
    picked : str
        The structure whose curve was clicked.
    """

    picked = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.lines: Sequence[Line] = ()
        self.prescription = 0.0
        self.under: tuple[Line, float, float] | None = None
        """The curve under the mouse, and the Gy and percent of its point."""
        self.setMouseTracking(True)
        self.setMinimumHeight(200)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.MinimumExpanding)
        self.setAccessibleName("Dose-volume histogram")
        self.setToolTip("Point at a curve to read it off; click it to choose its structure")

    def sizeHint(self) -> QSize:
        """Wider than high, as histograms are."""
        return QSize(380, 240)

    def show_lines(self, lines: Sequence[Line], prescription: float = 0.0) -> None:
        """Draw these instead, and a mark at the prescription in Gy."""
        self.lines, self.prescription, self.under = lines, prescription, None
        self.setAccessibleDescription(", ".join(dict.fromkeys(line.curve.name for line in lines)))
        self.update()

    # ---- places

    @property
    def highest(self) -> float:
        """Gy at the right end."""
        return max((float(line.curve.dose[-1]) for line in self.lines), default=1.0) or 1.0

    @property
    def box(self) -> QRectF:
        """Where the curves are."""
        metrics = self.fontMetrics()
        left, line = metrics.horizontalAdvance("100") + 12, metrics.height()
        return QRectF(left, line + 8, max(self.width() - left - 12, 10), max(self.height() - 3 * line - 16, 10))

    def place(self, dose: float, volume: float) -> QPointF:
        """The pixel of Gy and percent."""
        box = self.box
        return QPointF(box.left() + dose / self.highest * box.width(), box.bottom() - volume / 100 * box.height())

    def nearest(self, at: QPointF) -> tuple[Line, float, float] | None:
        """The curve nearest to a pixel along the vertical, with its point there; None where none is near."""
        box = self.box
        if not self.lines or not box.adjusted(-4, -REACH, 4, REACH).contains(at):
            return None
        dose = float(np.clip((at.x() - box.left()) / box.width(), 0, 1)) * self.highest
        found = [(line, float(np.interp(dose, line.curve.dose, line.curve.volume))) for line in self.lines]
        line, volume = min(found, key=lambda one: abs(self.place(dose, one[1]).y() - at.y()))
        return (line, dose, volume) if abs(self.place(dose, volume).y() - at.y()) <= REACH else None

    # ---- the mouse

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        self.under = self.nearest(event.position())
        self.update()

    def leaveEvent(self, event: object) -> None:
        self.under = None
        self.update()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        found = self.nearest(event.position())
        self.picked.emit(found[0].curve.name if found else "")

    def reading(self) -> str:
        """What is under the mouse, in words; empty where nothing is."""
        if self.under is None:
            return ""
        line, dose, volume = self.under
        several = len({one.number for one in self.lines}) > 1
        letter = f" ({LETTERS[line.number]})" if several else ""
        return f"{line.curve.name}{letter}: {volume:.1f}% get {dose:.1f} Gy or more"

    # ---- drawing

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().color(QPalette.ColorRole.WindowText)
        if not self.lines:
            painter.setPen(text)
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, "No histogram yet")
            return
        self._axes(painter, text)
        for line in sorted(self.lines, key=lambda one: one.strong):
            painter.setPen(QPen(QColor(line.color), 3.2 if line.strong else 1.7, PENS[line.number % len(PENS)]))
            points = [self.place(float(d), float(v)) for d, v in _thinned(line)]
            painter.drawPolyline(QPolygonF(points))
        if self.under is not None:
            self._reading(painter, text)

    def _axes(self, painter: QPainter, text: QColor) -> None:
        box, height = self.box, self.fontMetrics().height()
        faint = QColor(text)
        faint.setAlpha(50)
        for volume in (0, 25, 50, 75, 100):
            at = self.place(0, volume)
            painter.setPen(faint)
            painter.drawLine(at, QPointF(box.right(), at.y()))
            painter.setPen(text)
            where = QRectF(0, at.y() - height / 2, box.left() - 6, height)
            painter.drawText(where, Qt.AlignmentFlag.AlignRight, f"{volume}")
        for dose in ticks(0, self.highest, 6):
            at = self.place(dose, 0)
            painter.setPen(faint)
            painter.drawLine(at, QPointF(at.x(), box.top()))
            painter.setPen(text)
            painter.drawText(QRectF(at.x() - 30, at.y() + 3, 60, height), Qt.AlignmentFlag.AlignHCenter, f"{dose:g}")
        center = Qt.AlignmentFlag.AlignHCenter
        painter.drawText(QRectF(box.left(), self.height() - height - 2, box.width(), height), center, "dose (Gy)")
        if not self.under:
            painter.drawText(QRectF(2, 0, box.width(), height), Qt.AlignmentFlag.AlignLeft, "volume (%)")
        if 0 < self.prescription <= self.highest:
            painter.setPen(QPen(text, 1, Qt.PenStyle.DotLine))
            at = self.place(self.prescription, 0)
            painter.drawLine(at, QPointF(at.x(), box.top()))

    def _reading(self, painter: QPainter, text: QColor) -> None:
        assert self.under is not None
        line, dose, volume = self.under
        at, box = self.place(dose, volume), self.box
        painter.setPen(QPen(text, 1, Qt.PenStyle.DotLine))
        painter.drawLine(QPointF(box.left(), at.y()), at)
        painter.drawLine(QPointF(at.x(), box.bottom()), at)
        painter.setBrush(QColor(line.color))
        painter.setPen(text)
        painter.drawEllipse(at, 4, 4)
        metrics = self.fontMetrics()
        told = metrics.elidedText(self.reading(), Qt.TextElideMode.ElideRight, self.width() - 4)
        painter.drawText(QRectF(2, 0, self.width() - 4, metrics.height()), Qt.AlignmentFlag.AlignLeft, told)


def _thinned(line: Line, most: int = 400) -> np.ndarray:
    points = np.stack([line.curve.dose, line.curve.volume], axis=1)
    return points[:: max(1, len(points) // most)] if len(points) > most else points
