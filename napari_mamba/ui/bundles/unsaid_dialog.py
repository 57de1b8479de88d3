"""The dialog that asks what weights alone do not say: how their images are prepared, what channels and classes are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QDialog, QDialogButtonBox, QFormLayout, QLabel, QLineEdit, QVBoxLayout, QWidget

from napari_mamba.ui.bundles.unsaid import Answers
from napari_mamba.ui.run.process.outcome import sentence
from napari_mamba.ui.widgets.forms import combo_box, row_label

if TYPE_CHECKING:
    from napari_mamba.ui.bundles.imports import Unsaid

FIELDS = (
    ("arguments", "Arguments", "heads=8; variant=MUCM_Net", "What of the network leaves no trace in its weights"),
    ("tile", "Tile", "256,256 or 128,128,128", "Voxels (z, y, x) or pixels (y, x) that the network was trained on"),
    ("channels", "Channels", "T1, FLAIR", "What the network takes, in its order"),
    ("classes", "Classes", "background, liver, spleen", "What it answers, in its order, the background first"),
    ("preparation", "Preparation", '[{"step": "normalise", "schemes": ["zscore"]}]',
     "How images are prepared, as docs/bundles.md lists the steps, or the file that says it; [] for as they are"),
    ("columns", "Table columns", '[{"name": "age", "mean": 73, "std": 7}]',
     "Columns of the table beside the image, or the file that lists them, where the network takes one"),
)  # fmt: skip


class UnsaidDialog(QDialog):
    """Asks for what is missing; `choices` is what was said.

    Parameters
    ----------
    name : str
        Of the file.
    unsaid : Unsaid
    why : str
        The importer's sentence.
    """

    def __init__(self, name: str, unsaid: Unsaid, why: str = "", parent: QWidget | None = None):
        super().__init__(parent)
        self.setWindowTitle("What these weights do not say")
        self.unsaid, self.answers = unsaid, Answers()
        self.notice = QLabel()
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        self.use_button = buttons.addButton("Import", QDialogButtonBox.ButtonRole.AcceptRole)
        about = QLabel(
            f"{name} holds weights of {unsaid.network}. Weights do not say how they are used, their authors' code "
            "does. A network answers something wrong to images that are prepared in another way."
        )
        about.setWordWrap(True)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        self.preset = combo_box("How its authors' published code prepares images; fields below go before it")
        self.preset.addItem("None: I say it below", "")
        for preset in unsaid.presets:
            self.preset.addItem(preset, preset)
        self.texts: dict[str, QLineEdit] = {}
        if unsaid.presets:
            self._row(form, "As published", self.preset)
        for key, title, example, tip in FIELDS:
            text = self.texts[key] = QLineEdit()
            text.setPlaceholderText(example)
            text.setToolTip(tip)
            text.textChanged.connect(lambda value, key=key: self._set(key, value))
            self._row(form, title, text)
        if unsaid.arguments:
            self.texts["arguments"].setText("; ".join(f"{argument}=" for argument in unsaid.arguments))
        self.notice.setWordWrap(True)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(about)
        if why:
            reason = QLabel(sentence(why.partition(": is ")[2] or why))
            reason.setWordWrap(True)
            layout.addWidget(reason)
        layout.addLayout(form)
        layout.addWidget(self.notice)
        layout.addWidget(buttons)
        self.setMinimumWidth(520)
        self.preset.currentIndexChanged.connect(lambda _: self._set("preset", self.preset.currentData()))
        if unsaid.presets:
            self.preset.setCurrentIndex(1)
        self._draw()

    def choices(self) -> dict[str, Any]:
        """What was said, as `import_checkpoint` takes it."""
        return self.answers.choices()

    def _row(self, form: QFormLayout, title: str, widget: QWidget) -> None:
        label = row_label(title)
        label.setBuddy(widget)
        widget.setAccessibleName(title)
        form.addRow(label, widget)

    def _set(self, key: str, value: str) -> None:
        setattr(self.answers, key, value)
        self._draw()

    def _draw(self) -> None:
        problem = self.answers.problem(self.unsaid)
        self.notice.setText(sentence(problem) if problem else "Ready.")
        self.use_button.setEnabled(not problem)
