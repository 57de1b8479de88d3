"""The rows of a class list, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QFontMetrics, QPalette
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QMenu, QTableWidget, QTableWidgetItem

from napari_mamba.ui.results.parts import eye, number, padlock, swatch

if TYPE_CHECKING:
    from qtpy.QtGui import QKeyEvent, QMouseEvent, QResizeEvent

    from napari_mamba.ui.results.classes.model import ClassList, ClassRow, SortKey

EYE, NAME, VOXELS, SIZE, MEAN, SPREAD, LOCK = range(7)
_SORTED_BY: dict[int, SortKey] = {NAME: "name", VOXELS: "voxels", SIZE: "size", MEAN: "mean", SPREAD: "spread"}
_GIVE_WAY = (VOXELS, SPREAD, MEAN)
"""Columns that a narrow dock has no room for, in this order; the tooltip and the CSV have them, too."""
_WIDEST_NAME = 240
_INDEX = Qt.ItemDataRole.UserRole
_NAMES = {"SCT": "SNOMED CT", "DCM": "DICOM", "FMA": "FMA", "UBERON": "Uberon"}


class ClassTable(QTableWidget):
    """Draws a class list and hands it clicks and keys.

    Keys: space shows or hides the row's class, S shows only it, L locks it, Enter goes to its middle.
    """

    jump_asked = Signal(int)
    rename_asked = Signal(int)

    def __init__(self, model: ClassList):
        super().__init__(0, 7)
        self.listed = model
        self._filling = False
        self.setAccessibleName("Classes")
        self.setToolTip("Click the eye to show or hide, the lock to protect; a double click goes there")
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setTabKeyNavigation(False)  # Tab leaves the table; arrows move in it
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(24)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.setStyleSheet("QTableWidget::item { padding: 0px 3px }")
        self._set_up_header()
        self.horizontalHeader().sectionClicked.connect(self._on_header)
        self.cellClicked.connect(self._on_cell)
        self.cellDoubleClicked.connect(self._on_double)
        self.itemSelectionChanged.connect(self._on_selection)
        self.customContextMenuRequested.connect(self._on_menu)
        self.fill()

    def set_list(self, model: ClassList) -> None:
        """Draw another list."""
        self.listed = model
        self.fill()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """In a narrow dock names matter more than numbers."""
        self._make_room()
        super().resizeEvent(event)

    def _make_room(self) -> None:
        """Hide as many columns of numbers as the longest name needs."""
        measure = QFontMetrics(self.horizontalHeader().font())  # a header tells no width of what is hidden
        needed = {
            column: max(self.sizeHintForColumn(column), measure.horizontalAdvance(item.text()) + 8)
            for column in (NAME, VOXELS, SIZE, MEAN, SPREAD)
            if (item := self.horizontalHeaderItem(column)) is not None
        }
        if not needed:
            return
        needed[NAME] = min(needed[NAME], _WIDEST_NAME)
        over = sum(needed.values()) + self.columnWidth(EYE) + self.columnWidth(LOCK) - self.viewport().width()
        for column in _GIVE_WAY:
            self.setColumnHidden(column, over > 0)
            over -= needed[column]

    # ---- drawing

    def _set_up_header(self) -> None:
        header = self.horizontalHeader()
        header.setMinimumSectionSize(20)
        header.setHighlightSections(False)
        for column in range(7):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        for column in (EYE, LOCK):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
            self.setColumnWidth(column, 26)

    def fill(self) -> None:
        """Draw the list as it is now."""
        self._filling = True
        rows = self.listed.rows()
        self._fill_header()
        if self.rowCount() != len(rows):
            self.setRowCount(len(rows))
        color = self.palette().color(QPalette.ColorRole.Text)
        for y, row in enumerate(rows):
            cells = ["", row.name, f"{row.voxels:,}", number(row.size), number(row.mean), number(row.spread), ""]
            tip = tip_of(row, self.listed.size_unit)
            for x, text in enumerate(cells):
                self._cell(y, x, text, row, tip)
            self.item(y, NAME).setIcon(swatch(row.color))
            self.item(y, EYE).setIcon(eye(color, row.shown))
            self.item(y, LOCK).setIcon(padlock(color, row.locked))
            self.item(y, EYE).setToolTip("Hide" if row.shown else "Show")
            self.item(y, LOCK).setToolTip("Locked: click to free it" if row.locked else "Lock: keep as it is")
        self._show_selected(rows)
        self._filling = False
        self._make_room()

    def _fill_header(self) -> None:
        titles = ["", "Class", "Voxels", self.listed.size_unit, "Mean", "SD", ""]
        volume = "millilitres" if self.listed.units == "mm" else "thousands of voxels"
        tips = ["Shown", "Name", "Number of voxels", f"Volume in {volume}", "Mean intensity"]
        tips += ["Standard deviation of the intensity", "Lock"]
        for column, (title, tip) in enumerate(zip(titles, tips, strict=True)):
            if _SORTED_BY.get(column) == self.listed.sort_by:
                title += " ▾" if self.listed.descending else " ▴"
            item = self.horizontalHeaderItem(column) or QTableWidgetItem()
            item.setText(title)
            item.setToolTip(f"{tip}. Click to sort" if column in _SORTED_BY else tip)
            item.setTextAlignment(_alignment(column))
            self.setHorizontalHeaderItem(column, item)

    def _cell(self, y: int, x: int, text: str, row: ClassRow, tip: str) -> None:
        item = self.item(y, x)
        if item is None:
            item = QTableWidgetItem()
            item.setTextAlignment(_alignment(x))
            self.setItem(y, x, item)
        item.setText(text)
        item.setToolTip(tip)
        item.setData(_INDEX, row.index)

    def _show_selected(self, rows: list[ClassRow]) -> None:
        y = next((y for y, row in enumerate(rows) if row.index == self.listed.selected), None)
        if y is None:
            self.clearSelection()
        elif self.currentRow() != y or not self.selectedItems():
            self.setCurrentCell(y, NAME)

    # ---- clicks and keys

    def index_at(self, row: int) -> int | None:
        """The class in a row."""
        item = self.item(row, NAME)
        return None if item is None else int(item.data(_INDEX))

    def _on_header(self, column: int) -> None:
        if column in _SORTED_BY:
            self.listed.sort(_SORTED_BY[column])
        elif column == EYE:
            self.listed.show_all(any(not row.shown for row in self.listed.rows()))

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Alt+click on an eye is solo; everything else as it comes."""
        item = self.itemAt(event.pos())
        if item is not None and item.column() == EYE and event.modifiers() & Qt.KeyboardModifier.AltModifier:
            self.listed.toggle_solo(int(item.data(_INDEX)))
            return
        super().mousePressEvent(event)

    def _on_cell(self, row: int, column: int) -> None:
        index = self.index_at(row)
        if index is not None and column == EYE:
            self.listed.toggle_shown(index)
        elif index is not None and column == LOCK:
            self.listed.toggle_lock(index)

    def _on_double(self, row: int, column: int) -> None:
        index = self.index_at(row)
        if index is not None and column not in (EYE, LOCK):
            self.jump_asked.emit(index)

    def _on_selection(self) -> None:
        index = self.index_at(self.currentRow())
        if not self._filling and self.selectedItems() and index is not None:
            self.listed.selected = index

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """The keys of the class's own docstring."""
        index = self.index_at(self.currentRow())
        actions: dict[int, Any] = {
            Qt.Key.Key_Space: self.listed.toggle_shown,
            Qt.Key.Key_S: self.listed.toggle_solo,
            Qt.Key.Key_L: self.listed.toggle_lock,
            Qt.Key.Key_Return: self.jump_asked.emit,
            Qt.Key.Key_Enter: self.jump_asked.emit,
            Qt.Key.Key_F2: self.rename_asked.emit,
        }
        if index is not None and event.key() in actions and not event.modifiers():
            actions[event.key()](index)
            event.accept()
            return
        super().keyPressEvent(event)

    def _on_menu(self, where: Any) -> None:
        item = self.itemAt(where)
        if item is not None:
            self.menu_for(int(item.data(_INDEX))).exec(self.viewport().mapToGlobal(where))

    def menu_for(self, index: int) -> QMenu:
        """What can be done with a class."""
        menu = QMenu(self)
        shown, locked = self.listed.is_shown(index), index in self.listed.locked
        menu.addAction("Go to its middle", lambda: self.jump_asked.emit(index))
        menu.addAction("Hide" if shown else "Show", lambda: self.listed.toggle_shown(index))
        menu.addAction(
            "Show all again" if self.listed.solo == index else "Show only this", lambda: self.listed.toggle_solo(index)
        )
        menu.addSeparator()
        menu.addAction("Unlock" if locked else "Lock", lambda: self.listed.toggle_lock(index))
        menu.addAction("Lock all others", lambda: self.listed.lock_others(index))
        menu.addSeparator()
        menu.addAction("Rename…", lambda: self.rename_asked.emit(index))
        return menu


def tip_of(row: ClassRow, size_unit: str) -> str:
    """What is shown over a row: the name in full, its value and its code in a terminology.

    Examples
    --------
    >>> from napari_mamba.ui.results.classes.model import ClassRow
    >>> print(tip_of(ClassRow(3, "liver", "#aa0000", "SCT:10200004", 8, 0.5, 1.0, 0.1, True, False), "ml"))
    liver, value 3
    SNOMED CT 10200004
    8 voxels, 0.5 ml
    intensity 1 ± 0.1
    """
    lines = [f"{row.name}, value {row.index}"]
    if row.code:
        scheme, _, code = row.code.partition(":")
        lines.append(f"{_NAMES.get(scheme, scheme)} {code}".strip())
    lines.append(f"{row.voxels:,} voxels, {number(row.size)} {size_unit}")
    if row.mean is not None:
        lines.append(f"intensity {number(row.mean)} ± {number(row.spread)}")
    return "\n".join(lines)


def _alignment(column: int) -> Qt.AlignmentFlag:
    side = Qt.AlignmentFlag.AlignRight if column in (VOXELS, SIZE, MEAN, SPREAD) else Qt.AlignmentFlag.AlignLeft
    return side | Qt.AlignmentFlag.AlignVCenter
