"""Goals and isodoses, as tables that are edited."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from qtpy.QtCore import QEvent, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QColorDialog,
    QFileDialog,
    QHBoxLayout,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_mamba.errors import InputError, NapariMambaError
from napari_mamba.radiotherapy.dvh.goals import Goal, Judged, goal_of, read_goals, write_goals
from napari_mamba.radiotherapy.isodose import level
from napari_mamba.ui.radiotherapy.plan.review import ISODOSES, PlanReview
from napari_mamba.ui.radiotherapy.plan.tables import Table
from napari_mamba.ui.results.parts import is_dark, swatch
from napari_mamba.ui.widgets.theme import DARK_TEXT, LIGHT_TEXT

_MET = Qt.ItemDataRole.UserRole
"""Of a result's cell: whether the goal is met."""


class GoalTable(Table):
    """A line a goal, all of it to be edited, and how each dose stands.

    Signals
    -------
    edited : list of Goal
    refused : str
        Why an edit is no goal.
    """

    edited = Signal(list)
    refused = Signal(str)

    def __init__(self) -> None:
        tips = ["Of the chosen structures", "D95, D0.1cc, V20, V95%, V20Gy[cc], mean, max or min",
                "At most or at least", "Gy; % or cm³ for V…", "What dose A has", "What dose B has"]  # fmt: skip
        super().__init__(["Goal for", "Measure", "", "Limit", "A", "B"], tips, "Goals")
        self.goals: list[Goal] = []
        self.itemChanged.connect(self._on_changed)

    def show_goals(self, goals: Sequence[Goal], judged: Sequence[Sequence[Judged]], two: bool) -> None:
        """Draw these instead."""
        self.filling = True
        self.goals = list(goals)
        self.setRowCount(len(goals))
        self.setColumnHidden(5, not two)
        for row, goal in enumerate(goals):
            parts = (goal.structure, goal.measure, {"<=": "≤", ">=": "≥"}[goal.relation], f"{goal.limit:g}")
            for column, text in enumerate(parts):
                self.put(row, column, text, right=column == 3, edit=True)
            for number in range(2):
                results = judged[row] if row < len(judged) else ()
                self._result(row, 4 + number, results[number] if number < len(results) else None)
        self.fit(2, 9)
        self.filling = False

    def _result(self, row: int, column: int, result: Judged | None) -> None:
        if result is None:
            self.put(row, column, "")
            return
        if result.value is None:
            self.put(row, column, "–", right=True).setToolTip("There is no such structure, or it is empty")
            return
        item = self.put(row, column, f"{result.value:.1f} {'✓' if result.met else '✗'}", right=True)
        item.setData(_MET, bool(result.met))
        self._colour(item)
        item.setToolTip(f"{'Met' if result.met else 'Not met'}: {result.value:.2f} {result.goal.unit}")

    def _colour(self, item: QTableWidgetItem) -> None:
        colors = DARK_TEXT if is_dark(self) else LIGHT_TEXT
        item.setForeground(QColor(colors["good" if item.data(_MET) else "error"]))

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() in (QEvent.Type.StyleChange, QEvent.Type.PaletteChange):  # another theme
            for row, column in product(range(self.rowCount()), (4, 5)):
                item = self.item(row, column)
                if item is not None and item.data(_MET) is not None:
                    self._colour(item)

    def _on_changed(self, item: QTableWidgetItem) -> None:
        if self.filling or item.column() > 3:
            return
        row = item.row()
        try:
            changed = self._goal(row)
        except InputError as error:
            self.refused.emit(str(error))
        else:
            self.edited.emit([*self.goals[:row], changed, *self.goals[row + 1 :]])

    def _goal(self, row: int) -> Goal:
        structure, measure, relation, limit = (self.item(row, column).text().strip() for column in range(4))
        return goal_of(structure, measure, relation, limit)


class IsodoseTable(Table):
    """Levels and their colours.

    Signals
    -------
    edited : tuple of (str, str)
    refused : str
    """

    edited = Signal(tuple)
    refused = Signal(str)

    def __init__(self) -> None:
        super().__init__(["Level", "Colour"], ["95% of the prescription, or 20 Gy", "Double-click for another"],
                         "Isodoses")  # fmt: skip
        self.isodoses: tuple[tuple[str, str], ...] = ()
        self.prescription: float | None = None
        self.itemChanged.connect(self._on_changed)
        self.cellDoubleClicked.connect(self._on_double)

    def show_isodoses(self, isodoses: Sequence[tuple[str, str]], prescription: float) -> None:
        """Draw these instead."""
        self.filling = True
        self.isodoses, self.prescription = tuple(isodoses), prescription or None
        self.setRowCount(len(isodoses))
        for row, (text, color) in enumerate(isodoses):
            self.put(row, 0, text, edit=True)
            self.put(row, 1, color).setIcon(swatch(color))
        self.fit(3, 9)
        self.filling = False

    def _on_changed(self, item: QTableWidgetItem) -> None:
        if self.filling or item.column():
            return
        text = item.text().strip()
        try:
            level(text, "", self.prescription or 1.0)
        except InputError as error:
            self.refused.emit(str(error))
        else:
            self._set(item.row(), (text, self.isodoses[item.row()][1]))

    def _on_double(self, row: int, column: int) -> None:
        if column == 1:
            chosen = QColorDialog.getColor(QColor(self.isodoses[row][1]), self, "Colour of the isodose")
            if chosen.isValid():
                self._set(row, (self.isodoses[row][0], chosen.name()))

    def _set(self, row: int, isodose: tuple[str, str]) -> None:
        self.edited.emit((*self.isodoses[:row], isodose, *self.isodoses[row + 1 :]))


def chosen_rows(table: QTableWidget) -> set[int]:
    """The rows that are selected."""
    return {index.row() for index in table.selectionModel().selectedRows()}


BUTTONS = {
    "Add": "One more row, to be edited",
    "Remove": "Take the chosen rows away",
    "Usual": "Those that are usual, in place of these",
    "Open…": "Read them from a file",
    "Save…": "Write them to a file, for the next plan",
}


class _Box(QWidget):
    """A table and its buttons."""

    refused = Signal(str)

    def __init__(self, model: PlanReview, table: Table, buttons: dict[str, Callable[[], None]]):
        super().__init__()
        self.model, self.table = model, table
        layout, row = QVBoxLayout(self), QHBoxLayout()
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(table)
        self.buttons: dict[str, QPushButton] = {}
        for text, action in buttons.items():
            button = QPushButton(text)
            button.setToolTip(BUTTONS[text])
            button.clicked.connect(action)
            row.addWidget(button)
            self.buttons[text] = button
        layout.addLayout(row)


class IsodoseBox(_Box):
    """The isodoses of a plan, to be edited.

    Parameters
    ----------
    model : PlanReview
    """

    def __init__(self, model: PlanReview):
        self.levels = IsodoseTable()
        super().__init__(model, self.levels, {"Add": self.add, "Remove": self.remove, "Usual": self.usual})
        self.levels.edited.connect(lambda found: setattr(model, "isodoses", found))
        self.levels.refused.connect(self.refused)

    def draw(self) -> None:
        """Show the model's."""
        self.levels.show_isodoses(self.model.isodoses, self.model.prescription)

    def add(self) -> None:
        """One more, to be edited."""
        self.model.isodoses = (*self.model.isodoses, ("20 Gy", "#ffffff"))

    def remove(self) -> None:
        """Those that are selected."""
        gone = chosen_rows(self.levels)
        self.model.isodoses = tuple(one for row, one in enumerate(self.model.isodoses) if row not in gone)

    def usual(self) -> None:
        """Those from the beginning."""
        self.model.isodoses = ISODOSES


class GoalBox(_Box):
    """The goals of a plan, to be edited, read and written.

    Parameters
    ----------
    model : PlanReview
    """

    def __init__(self, model: PlanReview):
        self.goals = GoalTable()
        actions = {"Add": self.add, "Remove": self.remove, "Usual": self.usual, "Open…": self.open, "Save…": self.save}
        super().__init__(model, self.goals, actions)
        self.goals.edited.connect(lambda found: setattr(model, "goals", tuple(found)))
        self.goals.refused.connect(self.refused)
        self.buttons["Usual"].setToolTip("Those of the OpenKBP plans, for the structures that are there")

    def draw(self) -> None:
        """Show the model's, and how each dose stands."""
        self.goals.show_goals(self.model.goals, self.model.judged(), self.model.other is not None)

    def add(self) -> None:
        """One more, to be edited: of the selected structure."""
        names = list(self.model.colors) or ["spinal cord"]
        self.model.goals = (*self.model.goals, Goal(self.model.selected or names[0], "D0.1cc", "<=", 45.0))

    def remove(self) -> None:
        """Those that are selected."""
        gone = chosen_rows(self.goals)
        self.model.goals = tuple(goal for row, goal in enumerate(self.model.goals) if row not in gone)

    def usual(self) -> None:
        """Those of the plans that the field compares."""
        self._try(lambda: setattr(self.model, "goals", self.model.suggest_goals()))

    def open(self) -> None:
        """From a CSV."""
        path, _ = QFileDialog.getOpenFileName(self, "Open goals", "", "CSV (*.csv)")
        if path:
            self._try(lambda: setattr(self.model, "goals", tuple(read_goals(path))))

    def save(self) -> None:
        """As a CSV."""
        path, _ = QFileDialog.getSaveFileName(self, "Save goals", "goals.csv", "CSV (*.csv)")
        if path:
            self._try(lambda: write_goals(self.model.goals, Path(path)))

    def _try(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except NapariMambaError as error:
            self.refused.emit(str(error))
        except OSError as error:
            self.refused.emit(f"the file cannot be written ({error.strerror})")
