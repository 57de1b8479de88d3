"""Bars of a classification."""

from __future__ import annotations

from qtpy.QtCore import QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPalette, QPen
from qtpy.QtWidgets import QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_mamba.ui.results.maps.scores import Scores

BAR = {"dark": "#5c8fe0", "light": "#2f65c0"}


class Bars(QWidget):
    """A bar a class, from 0 to 1; a line in each says how often such answers were right on test data."""

    ROW = 26

    def __init__(self) -> None:
        super().__init__()
        self.scores = Scores()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName("Probabilities")

    def show_scores(self, scores: Scores) -> None:
        """Draw these."""
        self.scores = scores
        self.setAccessibleDescription(", ".join(f"{bar.name} {bar.probability:.0%}" for bar in scores.bars))
        self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        """A row a class."""
        return QSize(300, max(self.ROW * len(self.scores.bars), 1))

    minimumSizeHint = sizeHint

    def paintEvent(self, event: object) -> None:
        """Draw."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        palette, metrics = self.palette(), painter.fontMetrics()
        text = palette.color(QPalette.ColorRole.WindowText)
        dark = palette.color(QPalette.ColorRole.Window).lightness() < 128
        # a text is a little wider than the whole pixels of its advance, and would be cut by that little
        names = max((metrics.horizontalAdvance(bar.name) + 4 for bar in self.scores.bars), default=0)
        names = min(names + 8, self.width() // 2)
        numbers = metrics.horizontalAdvance("100.0%") + 8
        width = max(self.width() - names - numbers, 20)
        faint = QColor(text)
        faint.setAlpha(40)
        for row, bar in enumerate(self.scores.bars):
            top = row * self.ROW + 4
            height = self.ROW - 8
            name = metrics.elidedText(bar.name, Qt.TextElideMode.ElideRight, names - 8)
            painter.setPen(text)
            middle = Qt.AlignmentFlag.AlignVCenter
            painter.drawText(QRectF(0, top, names - 8, height), Qt.AlignmentFlag.AlignLeft | middle, name)
            painter.fillRect(QRectF(names, top, width, height), faint)
            painter.fillRect(
                QRectF(names, top, width * bar.probability, height), QColor(BAR["dark" if dark else "light"])
            )
            if bar.known is not None:
                painter.setPen(QPen(text, 2))
                x = names + width * bar.known.true
                painter.drawLine(int(x), top - 2, int(x), top + height + 2)
            painter.setPen(text)
            right = QRectF(self.width() - numbers, top, numbers, height)
            painter.drawText(right, Qt.AlignmentFlag.AlignRight | middle, f"{bar.probability:.1%}")


class ScoreChart(QWidget):
    """A classification's bars and what they are worth."""

    def __init__(self) -> None:
        super().__init__()
        self.title = QLabel()
        self.bars = Bars()
        self.worth = QLabel()
        for label in (self.title, self.worth):
            label.setWordWrap(True)
            label.setTextFormat(Qt.TextFormat.PlainText)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.title, self.bars, self.worth):
            layout.addWidget(widget)

    def show_scores(self, scores: Scores) -> None:
        """Draw a classification."""
        self.title.setText(scores.title)
        self.title.setVisible(bool(scores.title))
        self.bars.show_scores(scores)
        lines = [scores.words()]
        if any(bar.known is not None for bar in scores.bars):
            lines.append("The line in a bar: how often such an answer was right on test data.")
        if scores.calibration_error is not None:
            lines.append(f"Mean calibration error: {scores.calibration_error:.1%}.")
        self.worth.setText("\n".join(line for line in lines if line))
