"""Draws the curve of a training: the loss on the left scale, the score of held-out people on the right one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_mamba.ui.widgets.theme import follow_theme, is_dark, theme_of

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_mamba.ui.learn.curve import Curve

LOSS = {True: "#ffb74d", False: "#8a4b00"}
SCORE = {True: "#64b5f6", False: "#0b57a4"}
"""By whether the theme is dark."""


class CurveView(QWidget):
    """A picture of a `Curve`; `sides` tells what is written at its edges."""

    def __init__(self, viewer: ViewerModel, curve: Curve, parent: QWidget | None = None):
        super().__init__(parent)
        self._viewer, self.curve = viewer, curve
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            "Loss: how far the answer is from the labels. Dice: agreement on held-out people, 1 is perfect."
        )
        self.setAccessibleName("Loss and score")
        curve.changed.connect(self._on_changed)
        follow_theme(viewer, self, self.update)

    def sizeHint(self) -> QSize:
        return QSize(320, 130)

    def _on_changed(self) -> None:
        self.update()
        self.setAccessibleDescription(self.text())

    def text(self) -> str:
        """The curve in words."""
        curve = self.curve
        if not curve.losses and not curve.scores:
            return "nothing is learnt yet"
        loss = f"loss {curve.losses[-1][1]:.3f} at step {curve.losses[-1][0]}" if curve.losses else ""
        best = f"best Dice {curve.best[1]:.3f} at step {curve.best[0]}" if curve.best else ""
        return ", ".join(part for part in (loss, best) if part)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().color(self.foregroundRole())
        faint = QColor(text)
        faint.setAlpha(70)
        painter.setPen(QPen(faint, 1))
        painter.drawRoundedRect(self.rect().adjusted(1, 1, -1, -1), 4, 4)
        font = painter.font()
        font.setPointSizeF(font.pointSizeF() * 0.85)
        painter.setFont(font)
        dark = is_dark(theme_of(self._viewer))
        curve = self.curve
        if not curve.losses and not curve.scores:
            painter.setPen(text)
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, "Loss and score appear here")
            return
        area = QRectF(self.rect()).adjusted(8, 20, -8, -18)
        last = max([step for step, _ in (*curve.losses, *curve.scores)] + [1])
        most = max([value for _, value in curve.losses] + [1e-6])
        self._line(painter, area, curve.losses, last, most, LOSS[dark])
        self._line(painter, area, curve.scores, last, 1.0, SCORE[dark], dots=True)
        edges = self.rect().adjusted(8, 3, -8, -3)
        top, bottom = Qt.AlignmentFlag.AlignTop, Qt.AlignmentFlag.AlignBottom
        left, right = Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignRight
        painter.setPen(QColor(LOSS[dark]))
        if curve.losses:
            painter.drawText(edges, top | left, f"loss {curve.losses[-1][1]:.3f} (highest {most:.2f})")
        painter.setPen(QColor(SCORE[dark]))
        if curve.best:
            painter.drawText(edges, top | right, f"best Dice {curve.best[1]:.3f}")
        painter.setPen(text)
        painter.drawText(edges, bottom | left, "step 0")
        painter.drawText(edges, bottom | right, f"{last}")

    @staticmethod
    def _line(
        painter: QPainter,
        area: QRectF,
        points: Sequence[tuple[int, float]],
        last: int,
        most: float,
        color: str,
        dots: bool = False,
    ) -> None:
        """Values from 0 to `most` at steps from 0 to `last`."""
        places = [
            QPointF(area.left() + step / last * area.width(), area.bottom() - min(1.0, value / most) * area.height())
            for step, value in points
        ]
        painter.setPen(QPen(QColor(color), 1.6))
        if len(places) > 1:
            painter.drawPolyline(QPolygonF(places))
        if dots:
            painter.setBrush(QColor(color))
            for place in places:
                painter.drawEllipse(place, 2.5, 2.5)
            painter.setBrush(Qt.BrushStyle.NoBrush)

    def disconnect_from_model(self) -> None:
        """Draw no more."""
        self.curve.changed.disconnect(self._on_changed)
