"""The dialog "Run on a folder": which folder, where to, and as what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QCheckBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.run.choice.folder import FORMATS, FolderRun, find_cases
from napari_mamba.ui.run.process.outcome import sentence
from napari_mamba.ui.widgets.forms import combo_box, row_label
from napari_mamba.ui.widgets.theme import Notice

if TYPE_CHECKING:
    from napari_mamba.ui.run.queue.jobs import Job
    from napari_mamba.ui.run.session import RunSession


class FolderDialog(QDialog):
    """Asks for two folders; `jobs` are the runs that were asked for."""

    def __init__(self, session: RunSession, parent: QWidget | None = None):
        super().__init__(parent)
        self.session = session
        self.jobs: list[Job] = []
        bundle = session.bundle
        assert bundle is not None
        self.setWindowTitle(f"Run {bundle.name} on a folder")
        self.source = _Folder("The folder that holds the images", self)
        self.target = _Folder("The folder that results are written to", self)
        self.suffix = combo_box("The format of the results")
        for suffix in FORMATS:
            self.suffix.addItem(suffix, suffix)
        self.overwrite = QCheckBox("Replace results that are there")
        self.overwrite.setToolTip("Otherwise images whose result is there are left out")
        self.notice = Notice(session.viewer)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        for title, widget in (("Images", self.source), ("Results", self.target), ("Format", self.suffix)):
            label = row_label(title)
            label.setBuddy(getattr(widget, "text", widget))
            getattr(widget, "text", widget).setAccessibleName(title)
            form.addRow(label, widget)
        form.addRow(self.overwrite)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        self.run_button = buttons.addButton("Run", QDialogButtonBox.ButtonRole.AcceptRole)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addWidget(self.notice)
        layout.addWidget(buttons)
        self.source.text.textChanged.connect(self._on_source)
        self.target.text.textChanged.connect(self._check)
        self.resize(520, 220)
        self._check()

    def _on_source(self, text: str) -> None:
        if text and not self.target.text.text() and Path(text).is_dir():
            assert self.session.bundle is not None
            self.target.text.setText(f"{text.rstrip('/')}_{self.session.bundle.name}")
        self._check()

    def _check(self) -> None:
        """Say what is there, or what is missing, before the click."""
        source, bundle = self.source.text.text(), self.session.bundle
        assert bundle is not None
        ready = False
        if not source:
            self.notice.say("Choose the folder that holds the images: files, or DICOM series.")
        elif not Path(source).is_dir():
            self.notice.say("There is no such folder.", "error")
        else:
            try:
                count = len(find_cases(Path(source), len(bundle.channels)))
                self.notice.say(f"{count} image{'s' if count != 1 else ''}, one after the other. A table goes along.")
                ready = count > 0 and bool(self.target.text.text())
            except NapariMambaError as error:
                self.notice.say(sentence(str(error)), "error")
        self.run_button.setEnabled(ready)

    def accept(self) -> None:
        """Make the jobs, or say why there are none."""
        assert self.session.bundle is not None
        try:
            self.jobs = FolderRun(
                Path(self.source.text.text()),
                Path(self.target.text.text()),
                self.session.bundle,
                self.session.options.run_options(self.session.bundle, name=None),
                self.suffix.currentData(),
                self.overwrite.isChecked(),
                self.session.options.table if self.session.bundle.columns else "",
            ).jobs()
            for job in self.jobs:
                job.server, job.cluster = self.session.server, self.session.options.cluster
        except (NapariMambaError, OSError) as error:
            self.notice.say(sentence(str(error)), "error")
            return
        super().accept()


class _Folder(QWidget):
    """A path, and a button that asks for it."""

    def __init__(self, tip: str, parent: QWidget):
        super().__init__(parent)
        self.text = QLineEdit()
        self.text.setToolTip(tip)
        self._tip = tip
        button = QPushButton("Choose…")
        button.setToolTip(tip)
        button.clicked.connect(self._ask)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.text, 1)
        row.addWidget(button)

    def _ask(self) -> None:
        if path := QFileDialog.getExistingDirectory(self, self._tip):
            self.text.setText(path)
