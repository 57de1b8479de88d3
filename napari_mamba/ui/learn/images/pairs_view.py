"""Draws `Pairs`: a row an image, with its labels, whose it is, and whether that person is held out."""

from __future__ import annotations

from functools import partial
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt, Slot
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QHBoxLayout,
    QHeaderView,
    QLineEdit,
    QPushButton,
    QTableWidget,
    QVBoxLayout,
    QWidget,
)

from napari_mamba.ui.learn.images.channels_view import ChannelsView, LayerCombo
from napari_mamba.ui.learn.images.pairs import Pair
from napari_mamba.ui.learn.session import IDLE, LearnSession

_ROW = 30  # pixels
HEADS = ("Image", "Labels", "Person", "Test")
TIPS = (
    "The image to learn from",
    "Its labels: a labels layer on the same grid",
    "Whose image it is. Images of one person are learnt from, or held out, together.",
    "Held out to test on: nothing is learnt from this person",
)


class PairsView(QWidget):
    """The table of pairs and its buttons."""

    def __init__(self, session: LearnSession, parent: QWidget | None = None):
        super().__init__(parent)
        self.session, self.pairs = session, session.pairs
        self._shown: list[tuple[Any, ...]] = []
        self.table = QTableWidget(0, len(HEADS))
        self.table.setHorizontalHeaderLabels(HEADS)
        for column, tip in enumerate(TIPS):
            self.table.horizontalHeaderItem(column).setToolTip(tip)
        self.table.verticalHeader().hide()
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setAccessibleName("Images and labels")
        self.table.setToolTip("A row an image; the model learns from all but those that it is scored on")
        self.table.verticalHeader().setDefaultSectionSize(_ROW)
        header = self.table.horizontalHeader()
        stretch, fitting = QHeaderView.ResizeMode.Stretch, QHeaderView.ResizeMode.ResizeToContents
        for column, mode in enumerate((stretch, stretch, QHeaderView.ResizeMode.Interactive, fitting)):
            header.setSectionResizeMode(column, mode)
        header.resizeSection(2, 76)
        self.channels = ChannelsView(self.pairs)
        self.add = QPushButton("Add")
        self.add.setToolTip("Add the next image that has labels on its grid")
        self.add_all = QPushButton("Add all")
        self.add_all.setToolTip("Add every image that has labels on its grid")
        self.remove = QPushButton("Remove")
        self.remove.setToolTip("Take the chosen row away; its layers stay")
        row = QHBoxLayout()
        for button in (self.add, self.add_all, self.remove):
            row.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.table)
        layout.addWidget(self.channels)
        layout.addLayout(row)
        self.add.clicked.connect(lambda: self.pairs.add())
        self.add_all.clicked.connect(lambda: self.pairs.add_all())
        self.remove.clicked.connect(self._on_remove)
        self.table.currentCellChanged.connect(self._on_current)
        self.draw()

    @property
    def current(self) -> Pair | None:
        """The chosen row."""
        row = self.table.currentRow()
        return self.pairs.rows[row] if 0 <= row < len(self.pairs.rows) else None

    @Slot()
    def draw(self) -> None:
        """Show the pairs as they are."""
        idle = self.session.state == IDLE
        names = tuple(layer.name for layer in (*self.pairs.images, *self.pairs.labels))
        now = [(id(p), id(p.image), id(p.labels), p.person, p.held_out) for p in self.pairs.rows] + [(names, idle)]
        if now != self._shown:
            self._shown = now
            self._fill(idle)
        first = self.pairs.channels[0]
        self.table.horizontalHeaderItem(0).setText(first if len(self.pairs.channels) > 1 else HEADS[0])
        self.channels.draw(self.current, idle)
        left = self.pairs.free
        self.add.setEnabled(idle and bool(left))
        self.add_all.setEnabled(idle and bool(left))
        self.remove.setEnabled(idle and bool(self.pairs.rows))

    def _fill(self, idle: bool) -> None:
        row = self.table.currentRow()
        with QSignalBlocker(self.table):
            self.table.setRowCount(len(self.pairs.rows))
            for number, pair in enumerate(self.pairs.rows):
                self.table.setCellWidget(number, 0, self._combo(pair, "image", self.pairs.images, idle))
                self.table.setCellWidget(number, 1, self._combo(pair, "labels", self.pairs.labels, idle))
                person = QLineEdit(pair.person)
                person.setEnabled(idle)
                person.setFrame(False)
                person.setCursorPosition(0)
                person.setToolTip(f"{pair.person}. {TIPS[2]}")
                person.setAccessibleName(f"Person of {pair.image.name}")
                person.editingFinished.connect(partial(self._on_person, pair, person))
                self.table.setCellWidget(number, 2, person)
                held_out = QCheckBox()
                held_out.setChecked(pair.held_out)
                held_out.setEnabled(idle)
                held_out.setToolTip(TIPS[3])
                held_out.setAccessibleName(f"{pair.image.name} is held out")
                held_out.toggled.connect(partial(self._on_held_out, pair))
                holder = QWidget()
                middle = QHBoxLayout(holder)
                middle.setContentsMargins(0, 0, 0, 0)
                middle.setAlignment(Qt.AlignmentFlag.AlignCenter)
                middle.addWidget(held_out)
                self.table.setCellWidget(number, 3, holder)
            rows = min(4, max(2, len(self.pairs.rows)))
            self.table.setFixedHeight(self.table.horizontalHeader().sizeHint().height() + rows * _ROW + 4)
            if self.pairs.rows:
                self.table.setCurrentCell(min(max(row, 0), len(self.pairs.rows) - 1), 0)

    def _combo(self, pair: Pair, what: str, layers: list[Any], idle: bool) -> QWidget:
        combo = LayerCombo()
        chosen = getattr(pair, what)
        if chosen is None:
            combo.addItem("choose…", None)
        for layer in layers:
            combo.addItem(layer.name, layer)
            if layer is chosen:
                combo.setCurrentIndex(combo.count() - 1)
        combo.setToolTip(f"{TIPS[what == 'labels']}: {chosen.name if chosen is not None else 'none yet'}")
        combo.setEnabled(idle)
        combo.activated.connect(partial(self._on_layer, pair, what, combo))
        return combo

    # ---- clicks; the model tells of the change later, when the cell's widget may go

    def _on_layer(self, pair: Pair, what: str, combo: Any, index: int) -> None:
        layer = combo.itemData(index)
        if layer is not None and pair in self.pairs.rows:
            self.pairs.change(pair, **{what: layer})

    def _on_person(self, pair: Pair, line: QLineEdit) -> None:
        text = line.text().strip()
        if pair in self.pairs.rows and text != pair.person:
            self.pairs.change(pair, person=text)

    def _on_held_out(self, pair: Pair, held_out: bool) -> None:
        if pair in self.pairs.rows:
            self.pairs.change(pair, held_out=held_out)

    def _on_remove(self) -> None:
        if self.current is not None:
            self.pairs.remove(self.current)

    def _on_current(self, *_: Any) -> None:
        self.session.shown = self.current
        self.channels.draw(self.current, self.session.state == IDLE)
