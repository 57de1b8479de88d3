"""Draws `Choices`: where the images come from, which classes, what unpainted means, and the rest folded away."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QSignalBlocker, Signal, Slot
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_mamba.ui.learn.choices import CLASSES, SCHEMES, UNPAINTED
from napari_mamba.ui.learn.session import LearnSession
from napari_mamba.ui.widgets.forms import combo_box, explain, row_label


class PlaceLine(QWidget):
    """A path, written or chosen.

    Signals
    -------
    changed : str
    """

    changed = Signal(str)

    def __init__(self, tip: str, empty: str, files: str = "", parent: QWidget | None = None):
        super().__init__(parent)
        self._files = files
        self.line = QLineEdit()
        self.line.setPlaceholderText(empty)
        explain(self.line, tip, tip)
        self.folder = QPushButton("Folder…")
        self.folder.setToolTip(tip)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.line, 1)
        row.addWidget(self.folder)
        if files:
            self.list = QPushButton("List…")
            self.list.setToolTip("A CSV with the columns image, label and perhaps person")
            self.list.clicked.connect(self._choose_list)
            row.addWidget(self.list)
        self.line.editingFinished.connect(lambda: self.changed.emit(self.line.text().strip()))
        self.folder.clicked.connect(self._choose_folder)

    def _choose_folder(self) -> None:
        self._take(QFileDialog.getExistingDirectory(self, "A folder of images", self.line.text()))

    def _choose_list(self) -> None:
        self._take(QFileDialog.getOpenFileName(self, "A list of images and labels", self.line.text(), self._files)[0])

    def _take(self, place: str) -> None:
        if place:
            self.line.setText(place)
            self.changed.emit(place)


class ChoicesView(QWidget):
    """The form below the images."""

    def __init__(self, session: LearnSession, parent: QWidget | None = None):
        super().__init__(parent)
        self.choices = session.choices
        self.classes = _list(CLASSES, "Which classes the new model has")
        self.unpainted = _list(UNPAINTED, "What voxels of the value 0 in your labels are")
        self.background = QSpinBox()
        self.background.setRange(1, 65535)
        self.background.setToolTip(
            "Paint some background with this value: else nothing says what is none of the classes"
        )
        self.minutes = QDoubleSpinBox()
        self.minutes.setRange(0.1, 100_000)
        self.minutes.setDecimals(1)
        self.minutes.setToolTip("Of learning and scoring. It can be stopped at any time, and gone on with.")
        self.scheme = combo_box("What is learnt where nothing is painted")
        for title, name, tip in SCHEMES:
            self.scheme.addItem(title, name)
            self.scheme.setItemData(self.scheme.count() - 1, tip, 3)  # Qt.ToolTipRole
        self.unlabelled = PlaceLine("Images without labels that may be learnt from", "none")
        self.pretrain = QDoubleSpinBox()
        self.pretrain.setRange(0, 100_000)
        self.pretrain.setDecimals(1)
        self.pretrain.setToolTip("Minutes before, in which the network fills in hidden parts of all images")
        self.encoder_stays = QCheckBox("Only the decoder learns")
        self.encoder_stays.setToolTip("A step takes about half the time on a CPU; it may learn less")
        self.previews = QCheckBox("Preview after each better round")
        self.previews.setToolTip("The answer on the image of the chosen row, as a layer")
        self.folded = QCollapsible("More options", expandedIcon="▾", collapsedIcon="▸")
        self.folded.toggleButton().setToolTip("Time before, unlabelled images, what stays as it is: rarely changed")
        self.background.setAccessibleName("Value of the painted background")
        self.minutes.setAccessibleName("Minutes")
        self.pretrain.setAccessibleName("Minutes before")
        self._background_label = row_label("Painted background")
        self._build()
        self._connect()
        self.draw()

    def _build(self) -> None:
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        form.addRow(row_label("Classes"), self.classes)
        form.addRow(row_label("Unpainted"), self.unpainted)
        form.addRow(self._background_label, self.background)
        form.addRow(row_label("Minutes"), self.minutes)
        inner = QWidget()
        more = QFormLayout(inner)
        more.setContentsMargins(0, 0, 0, 0)
        more.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        more.addRow(row_label("Learn from"), self.scheme)
        more.addRow(row_label("Without labels"), self.unlabelled)
        more.addRow(row_label("Look first"), self.pretrain)
        more.addRow(self.previews)
        more.addRow(self.encoder_stays)
        self.folded.addWidget(inner)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        layout.addWidget(self.folded)

    def _connect(self) -> None:
        for combo, name in ((self.classes, "classes"), (self.unpainted, "unpainted"), (self.scheme, "scheme")):
            combo.activated.connect(lambda index, combo=combo, name=name: self._set(name, combo.itemData(index)))
        for spin, name in (
            (self.background, "background"),
            (self.minutes, "minutes"),
            (self.pretrain, "pretrain_minutes"),
        ):
            spin.valueChanged.connect(lambda value, name=name: self._set(name, value))
        for tick, name in ((self.encoder_stays, "encoder_stays"), (self.previews, "previews")):
            tick.toggled.connect(lambda value, name=name: self._set(name, value))
        self.unlabelled.changed.connect(lambda text: self._set("unlabelled", text))
        self.choices.events.connect(self._on_choices)

    def _set(self, name: str, value: Any) -> None:
        setattr(self.choices, name, value)

    def _on_choices(self, *_: Any) -> None:
        self.draw()

    @Slot()
    def draw(self) -> None:
        """Show the choices as they are."""
        choices = self.choices
        lists = {self.classes: choices.classes, self.unpainted: choices.unpainted, self.scheme: choices.scheme}
        for combo, chosen in lists.items():
            combo.setCurrentIndex(max(0, combo.findData(chosen)))
        with QSignalBlocker(self.background):
            self.background.setValue(choices.background)
        for spin, minutes in ((self.minutes, choices.minutes), (self.pretrain, choices.pretrain_minutes)):
            with QSignalBlocker(spin):
                spin.setValue(minutes)
        for tick, ticked in ((self.encoder_stays, choices.encoder_stays), (self.previews, choices.previews)):
            with QSignalBlocker(tick):
                tick.setChecked(ticked)
        if not self.unlabelled.line.hasFocus():
            self.unlabelled.line.setText(choices.unlabelled)
        partly = choices.unpainted == "unknown"
        self.background.setVisible(partly)
        self._background_label.setVisible(partly)

    def disconnect_from_model(self) -> None:
        """Draw no more."""
        self.choices.events.disconnect(self._on_choices)


def _list(entries: Any, tip: str) -> QComboBox:
    combo = combo_box(tip)
    for title, value in entries:
        combo.addItem(title, value)
    return combo
