"""Choosing a model, and what it says about itself."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker
from qtpy.QtCore import Signal, Slot
from qtpy.QtWidgets import (
    QDialog,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPushButton,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from napari_mamba import bundles
from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.widgets.forms import combo_box

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle

DEFAULT = "brain-structures-mr"
"""The bundle that is chosen at first, where it is installed."""
DISCLAIMER = "For research only. Not for clinical use."


class ModelBox(QWidget):
    """A list of the bundles at hand, a button that opens others, and a summary of the chosen one.

    Signals
    -------
    changed
        Another bundle is chosen.
    failed : str
        A bundle could not be opened: one sentence.
    """

    changed = Signal()
    failed = Signal(str)

    def __init__(self, parent: QWidget | None = None):
        super().__init__(parent)
        self.combo = combo_box("The model to run. Models are bundles: a network with its weights, classes and card.")
        self.more = QPushButton("Open…")
        self.more.setToolTip("Open a bundle from a folder or a zip file")
        self.more.setStyleSheet("QPushButton::menu-indicator { image: none; width: 0 }")
        menu = QMenu(self.more)
        menu.addAction("Open a bundle folder…", self._ask_folder)
        menu.addAction("Open a bundle file (zip)…", self._ask_file)
        self.more.setMenu(menu)
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        self.summary.linkActivated.connect(self._show_card)

        row = QHBoxLayout()
        row.addWidget(self.combo, 1)
        row.addWidget(self.more)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self.summary)

        self._worker: Any = None
        for bundle in bundles.available():
            self.combo.addItem(bundle.name, bundle)
        self.combo.setCurrentIndex(max(0, self.combo.findText(DEFAULT)))
        self.combo.currentIndexChanged.connect(self._on_chosen)
        self._on_chosen()

    @property
    def bundle(self) -> Bundle | None:
        """The chosen bundle."""
        return self.combo.currentData()

    def open(self, path: str) -> None:
        """Check a bundle in a worker thread (that imports torch), then add and choose it; or say what is wrong."""
        self.more.setEnabled(False)
        self._worker = create_worker(_load, path, _start_thread=False, _ignore_errors=True)
        self._worker.returned.connect(self._on_loaded)
        self._worker.start()

    @Slot(object)
    def _on_loaded(self, loaded: tuple[Bundle | None, str]) -> None:
        self._worker = None
        self.more.setEnabled(True)
        bundle, error = loaded
        if bundle is None:
            self.failed.emit(error)
            return
        for index in range(self.combo.count()):
            if self.combo.itemData(index).path == bundle.path:
                self.combo.setItemData(index, bundle)
                self.combo.setCurrentIndex(index)
                return
        self.combo.addItem(bundle.name, bundle)
        self.combo.setCurrentIndex(self.combo.count() - 1)

    def _ask_folder(self) -> None:
        if path := QFileDialog.getExistingDirectory(self, "Open a bundle folder"):
            self.open(path)

    def _ask_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a bundle file", filter="Bundles (*.zip)")
        if path:
            self.open(path)

    @Slot()
    def _on_chosen(self) -> None:
        self.summary.setText(summary(self.bundle))
        self.changed.emit()

    @Slot(str)
    def _show_card(self, _: str = "") -> None:
        dialog = QDialog(self)
        dialog.setWindowTitle(f"{self.bundle.name}: model card")
        text = QTextBrowser(dialog)
        text.setOpenExternalLinks(True)
        text.setMarkdown(self.bundle.card or f"# {self.bundle.title}\n\n{self.bundle.description}")
        layout = QVBoxLayout(dialog)
        layout.addWidget(text)
        dialog.resize(720, 640)
        dialog.show()


def summary(bundle: Bundle | None) -> str:
    """A few lines of rich text: what the bundle does, on what, and what it is not for."""
    if bundle is None:
        return "No model is installed. Open a bundle with the button above"
    lines = [f"<b>{escape(bundle.title or bundle.name)}</b>"]
    names = [c.name for c in bundle.classes if c.index != 0 or bundle.task == "classification"]
    if names:
        shown = ", ".join(escape(name) for name in names[:6]) + (f" and {len(names) - 6} more" if names[6:] else "")
        lines.append(f"{'Tells apart' if bundle.task == 'classification' else 'Outlines'}: {shown}")
    use = bundle.intended_use.replace("Not for clinical use.", "").replace("  ", " ").strip()  # said below, in bold
    if use:
        lines.append(escape(use))
    lines.append(f'<b>{DISCLAIMER}</b><br><a href="card" style="color: #5aa9ff">Model card</a>')
    return "<br>".join(lines)


def _load(path: str) -> tuple[Bundle | None, str]:
    try:
        return bundles.load(Path(path)), ""
    except (NapariMambaError, OSError) as error:
        return None, str(error)
