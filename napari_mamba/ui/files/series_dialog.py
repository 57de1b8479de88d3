"""The dialog that asks which images of a folder, a CD or a file of several are opened, with a preview."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Slot
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import (
    QApplication,
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_mamba.ui.files.layer_data import LayerData
from napari_mamba.ui.files.series_choice import COLOUR, SLIDER, SeriesChoice, describe, structure_sets
from napari_mamba.ui.widgets.forms import combo_box, row_label

if TYPE_CHECKING:
    from napari_mamba.io import SeriesInfo

PREVIEW = 240


class SeriesDialog(QDialog):
    """A list of the images in a place; what is selected in it is opened."""

    def __init__(self, choice: SeriesChoice, parent: QWidget | None = None):
        super().__init__(parent)
        self.choice = choice
        self.setWindowTitle("Which images should be opened?")
        self.list = self._list()
        self.picture = QLabel()
        self.picture.setFixedSize(PREVIEW, PREVIEW)
        self.picture.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.picture.setStyleSheet("background: black; color: white")
        self.picture.setAccessibleName("Preview")
        self.image = combo_box("Which of the images in this file")
        self.frame = combo_box("A series of volumes as one layer with a slider, or one of them")
        self.colour = combo_box("How the colours are taken. Models take grey values or channels.")
        self._lay_out()
        for index in choice.chosen:
            self.list.item(index).setSelected(True)
        if choice.chosen:
            self.list.setCurrentRow(choice.chosen[0])
        self.list.itemSelectionChanged.connect(self._on_selected)
        self.list.itemDoubleClicked.connect(lambda _: self.accept())
        self.image.currentIndexChanged.connect(lambda _: self._set(self.choice.images, self.image))
        self.frame.currentIndexChanged.connect(lambda _: self._set(self.choice.frames, self.frame))
        self.colour.currentIndexChanged.connect(lambda _: self._set(self.choice.colours, self.colour))
        self.draw()

    def _list(self) -> QListWidget:
        """The images, those with a problem not to be chosen."""
        shown = QListWidget()
        shown.setAccessibleName("Images")
        shown.setSelectionMode(QListWidget.SelectionMode.ExtendedSelection)
        shown.setToolTip("Several can be selected with Ctrl or Shift; Ctrl+A takes all")
        shown.setWordWrap(True)
        shown.setSpacing(3)
        for entry in self.choice.entries:
            item = QListWidgetItem(f"{entry.title}\n{describe(entry)}")
            if entry.problem:
                item.setFlags(Qt.ItemFlag.NoItemFlags)
            shown.addItem(item)
        return shown

    def _lay_out(self) -> None:
        form = QFormLayout()
        self._rows: list[tuple[QLabel, Any]] = []
        for title, combo in (("Image", self.image), ("Volumes", self.frame), ("Colours", self.colour)):
            label = row_label(title)
            label.setBuddy(combo)
            combo.setAccessibleName(title)
            form.addRow(label, combo)
            self._rows.append((label, combo))
        side = QVBoxLayout()
        side.addWidget(self.picture)
        side.addLayout(form)
        side.addStretch(1)
        row = QHBoxLayout()
        row.addWidget(self.list, 1)
        row.addLayout(side)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Open | QDialogButtonBox.StandardButton.Cancel)
        self.open_button = buttons.button(QDialogButtonBox.StandardButton.Open)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addLayout(row)
        layout.addWidget(buttons)
        self.resize(760, 420)

    @property
    def current(self) -> int | None:
        """The image that is shown beside the list: the one selected last."""
        row = self.list.currentRow()
        return row if row in self.choice.chosen else next(iter(self.choice.chosen), None)

    @Slot()
    def _on_selected(self) -> None:
        self.choice.choose([self.list.row(item) for item in self.list.selectedItems()])
        self.draw()

    def draw(self) -> None:
        """Show what is selected."""
        count = len(self.choice.chosen)
        self.open_button.setEnabled(count > 0)
        self.open_button.setText(f"Open {count} images" if count > 1 else "Open")
        current = self.current
        self._fill(self.image, self.choice.image_choices, self.choice.images, current, None)
        self._fill(self.frame, self.choice.frame_choices, self.choice.frames, current, SLIDER)
        self._fill(self.colour, self.choice.colour_choices, self.choice.colours, current, COLOUR)
        self._show(None if current is None else self.choice.entries[current])

    def _fill(self, combo: Any, choices: Any, chosen: dict[int, Any], current: int | None, default: Any) -> None:
        offered = [] if current is None else choices(current)
        combo.blockSignals(True)
        combo.clear()
        for title, value in offered:
            combo.addItem(title, value)
        if offered:
            combo.setCurrentIndex(max(combo.findData(chosen.get(current, default)), 0))  # type: ignore[arg-type]
        combo.blockSignals(False)
        for label, widget in self._rows:
            if widget is combo:
                label.setVisible(bool(offered))
                widget.setVisible(bool(offered))

    def _set(self, chosen: dict[int, Any], combo: Any) -> None:
        if self.current is not None:
            chosen[self.current] = combo.currentData()

    def _show(self, entry: SeriesInfo | None) -> None:
        self.picture.setPixmap(QPixmap())
        self.picture.setText("")
        if entry is None:
            return
        try:
            plane = entry.preview(PREVIEW)
        except Exception:  # the list says what is wrong with it, or reading it will
            self.picture.setText("no preview")
            return
        rows, columns = plane.shape
        image = QImage(plane.tobytes(), columns, rows, columns, QImage.Format.Format_Grayscale8)
        spacing = entry.spacing or (1.0, 1.0, 1.0)
        tall = round(PREVIEW * min(1.0, (rows * spacing[1]) / max(columns * spacing[2], 1e-6)))
        wide = round(PREVIEW * min(1.0, (columns * spacing[2]) / max(rows * spacing[1], 1e-6)))
        smooth = Qt.TransformationMode.SmoothTransformation
        scaled = image.scaled(max(wide, 1), max(tall, 1), Qt.AspectRatioMode.IgnoreAspectRatio, smooth)
        self.picture.setPixmap(QPixmap.fromImage(scaled))


def ask_series(paths: Sequence[str]) -> list[LayerData] | None:
    """Ask which of the images in a place are opened, and read them; None where the user cancels.

    Raises
    ------
    InputError
        If there is no image, or a chosen one cannot be read.
    """
    from napari_mamba import io
    from napari_mamba.ui.radiotherapy.offers import whole_plan, with_sums

    place: Any = paths[0] if len(paths) == 1 else list(paths)
    entries = [*with_sums(io.list_series(place)), *(structure_sets(Path(place)) if len(paths) == 1 else ())]
    dialog = SeriesDialog(SeriesChoice(entries, whole_plan(entries)), QApplication.activeWindow())
    try:
        if dialog.exec() != QDialog.DialogCode.Accepted:
            return None
        return dialog.choice.read()
    finally:
        dialog.deleteLater()
