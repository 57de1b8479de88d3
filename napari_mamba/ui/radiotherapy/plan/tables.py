"""Tables of a plan, and that of what each structure gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHeaderView, QTableWidget, QTableWidgetItem

from napari_mamba.radiotherapy.dvh.histogram import COLUMNS
from napari_mamba.ui.results.parts import swatch

if TYPE_CHECKING:
    from napari_mamba.ui.radiotherapy.plan.review import Row

_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter


class Table(QTableWidget):
    """Without a grid, rows as high as their text; the first column takes what is left."""

    def __init__(self, names: Sequence[str], tips: Sequence[str], title: str):
        super().__init__(0, len(names))
        self.setHorizontalHeaderLabels(list(names))
        for column, tip in enumerate(tips):
            self.horizontalHeaderItem(column).setToolTip(tip)
            mode = QHeaderView.ResizeMode.ResizeToContents if column else QHeaderView.ResizeMode.Stretch
            self.horizontalHeader().setSectionResizeMode(column, mode)
        self.horizontalHeader().setMinimumSectionSize(24)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(22)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTabKeyNavigation(False)
        self.setSelectionBehavior(QTableWidget.SelectionBehavior.SelectRows)
        self.setAccessibleName(title)
        self.setToolTip(f"{title}: the columns' names tell what each is")
        self.filling = False

    def put(self, row: int, column: int, text: str, *, right: bool = False, edit: bool = False) -> QTableWidgetItem:
        item = QTableWidgetItem(text)
        flags = item.flags()
        item.setFlags(flags if edit else flags & ~Qt.ItemFlag.ItemIsEditable)
        item.setToolTip(text)
        if right:
            item.setTextAlignment(_RIGHT)
        self.setItem(row, column, item)
        return item

    def fit(self, least: int, most: int) -> None:
        """As high as its rows, between so many of them."""
        rows = min(max(self.rowCount(), least), most)
        self.setMinimumHeight(rows * 22 + self.horizontalHeader().sizeHint().height() + 6)


class StructureTable(Table):
    """A line a structure and dose; a tick hides its curve.

    Signals
    -------
    hidden : str, bool
    picked : str
    """

    hidden = Signal(str, bool)
    picked = Signal(str)

    def __init__(self) -> None:
        tips = ["Untick to hide its curve", *(f"{name} in Gy" for name in COLUMNS), "Volume in cm³"]
        super().__init__(["Structure", *COLUMNS, "cm³"], tips, "Structures")
        self.itemChanged.connect(self._on_changed)
        self.itemSelectionChanged.connect(self._on_selected)

    def show_rows(self, rows: Sequence[Row], selected: str) -> None:
        """Draw these instead."""
        self.filling = True
        self.setRowCount(len(rows))
        for number, row in enumerate(rows):
            second = row.letter not in ("", "A")
            name = f"    {row.letter}" if second else f"{row.structure} {row.letter}".strip()
            item = self.put(number, 0, name)
            item.setData(Qt.ItemDataRole.UserRole, row.structure)
            item.setToolTip(row.structure)
            if not second:
                item.setIcon(swatch(row.color))
                item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
                item.setCheckState(Qt.CheckState.Checked if row.shown else Qt.CheckState.Unchecked)
            for column, value in enumerate(row.values, 1):
                self.put(number, column, "–" if value != value else f"{value:.1f}", right=True)
            if row.structure == selected and not second:
                self.selectRow(number)
        self.fit(3, 12)
        self.filling = False

    def _on_changed(self, item: QTableWidgetItem) -> None:
        if not self.filling and item.column() == 0:
            name = str(item.data(Qt.ItemDataRole.UserRole))
            self.hidden.emit(name, item.checkState() != Qt.CheckState.Checked)

    def _on_selected(self) -> None:
        row = self.currentRow()
        item = self.item(row, 0) if row >= 0 else None
        if not self.filling and item is not None and item.isSelected():
            self.picked.emit(str(item.data(Qt.ItemDataRole.UserRole)))
