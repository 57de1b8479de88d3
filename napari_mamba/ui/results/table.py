"""The table of a result's classes: what was found, how large, how bright."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QIcon, QKeySequence, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QApplication, QHeaderView, QShortcut, QTableWidget, QTableWidgetItem

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from napari_mamba.engine import ClassRow


class ResultsTable(QTableWidget):
    """Rows of text, the first column with a swatch of the class's colour; Ctrl+C copies the whole as tab-separated."""

    def __init__(self, parent: QWidget | None = None):
        super().__init__(parent)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.verticalHeader().hide()
        self.setAccessibleName("Results")
        self.setToolTip("What the run found; a click on a class makes it the brush's")
        self.setStyleSheet("QTableWidget::item { padding: 2px 6px }")
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        copy = QShortcut(QKeySequence(QKeySequence.StandardKey.Copy), self)
        copy.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        copy.activated.connect(self.copy)

    def show_classes(self, rows: Sequence[ClassRow], units: str) -> None:
        """Classes of a segmentation; `units` is the volume's, "mm" or "pixel"."""
        size = "ml" if units == "mm" else "kilovoxels"
        self._fill(
            ["Class", "Voxels", size, "Mean"],
            [[r.name, f"{r.voxels:,}", _number(r.ml), _number(r.mean_intensity)] for r in rows],
            [r.color for r in rows],
            ["", "", f"Volume in {'millilitres' if units == 'mm' else 'thousands of voxels'}", "Mean image intensity"],
        )
        for row, entry in enumerate(rows):
            self.item(row, 0).setData(Qt.ItemDataRole.UserRole, entry.index)

    def show_scores(self, scores: dict[str, float]) -> None:
        """Probabilities of a classification, the likeliest first."""
        ranked = sorted(scores.items(), key=lambda item: -item[1])
        self._fill(["Class", "Probability"], [[name, f"{p:.3f}"] for name, p in ranked], [""] * len(ranked), ["", ""])

    def text(self) -> str:
        """The table as tab-separated lines, for a spreadsheet."""
        lines = [[self.horizontalHeaderItem(c).text() for c in range(self.columnCount())]]
        for row in range(self.rowCount()):
            name, *numbers = (self.item(row, c).text() for c in range(self.columnCount()))
            lines.append([name, *(number.replace(",", "") for number in numbers)])
        return "\n".join("\t".join(line) for line in lines)

    def copy(self) -> None:
        """Put the table on the clipboard."""
        QApplication.clipboard().setText(self.text())

    def _fill(self, headers: list[str], cells: list[list[str]], colors: list[str], tips: list[str]) -> None:
        self.clear()
        self.setColumnCount(len(headers))
        self.setRowCount(len(cells))
        for column, header in enumerate(headers):
            item = QTableWidgetItem(header)
            item.setToolTip(tips[column])
            item.setTextAlignment(_alignment(column))
            self.setHorizontalHeaderItem(column, item)
        for row, texts in enumerate(cells):
            for column, text in enumerate(texts):
                item = QTableWidgetItem(text)
                item.setTextAlignment(_alignment(column))
                item.setToolTip(text)
                self.setItem(row, column, item)
            if colors[row]:
                self.item(row, 0).setIcon(_swatch(colors[row]))
        modes = QHeaderView.ResizeMode
        for column in range(len(headers)):
            self.horizontalHeader().setSectionResizeMode(column, modes.ResizeToContents if column else modes.Stretch)
        self._fit()

    def _fit(self) -> None:
        """As tall as the rows, up to eight; more scroll."""
        rows = min(self.rowCount(), 8)
        height = self.horizontalHeader().sizeHint().height() + sum(self.rowHeight(r) for r in range(rows))
        self.setFixedHeight(height + 2 * self.frameWidth() + 2)


def _number(value: float | None) -> str:
    """Three digits that matter, and no more than the number has before its point."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _alignment(column: int) -> Qt.AlignmentFlag:
    side = Qt.AlignmentFlag.AlignRight if column else Qt.AlignmentFlag.AlignLeft
    return side | Qt.AlignmentFlag.AlignVCenter


def _swatch(color: str) -> QIcon:
    pixmap = QPixmap(12, 12)
    pixmap.fill(QColor(color))
    return QIcon(pixmap)
