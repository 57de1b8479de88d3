"""The row of buttons that write what is looked at: table and curves, picture, RTDOSE, RTSTRUCT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QWidget

from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.radiotherapy.files import save_dose, save_structures
from napari_mamba.ui.radiotherapy.plan.review import PlanReview
from napari_mamba.ui.results.parts import small_button

if TYPE_CHECKING:
    from napari.components import ViewerModel


class SavingRow(QWidget):
    """Buttons, each of which asks for a name.

    Parameters
    ----------
    viewer : napari viewer
        Among its layers is the CT that DICOM files are to name.
    model : PlanReview

    Signals
    -------
    saved, refused : str
        A sentence.
    """

    saved = Signal(str)
    refused = Signal(str)

    def __init__(self, viewer: ViewerModel, model: PlanReview):
        super().__init__()
        self.viewer, self.model = viewer, model
        self.csv = small_button("CSV…", "Write the table, and the curves beside it")
        self.png = small_button("PNG…", "Write the histograms as a picture")
        self.dose = small_button("RTDOSE…", "Write dose A as DICOM, for the patient and study of the CT")
        self.contours = small_button("RTSTRUCT…", "Write the structures that are ticked as DICOM contours")
        dicom = "DICOM (*.dcm)"
        for button, asked in (
            (self.csv, ("Save the table", "dvh.csv", "CSV (*.csv)", model.write_tables)),
            (self.png, ("Save the picture", "dvh.png", "PNG (*.png)", model.write_picture)),
            (self.dose, ("Save dose A", "dose.dcm", dicom, self._write_dose)),
            (self.contours, ("Save the structures", "structures.dcm", dicom, self._write_structures)),
        ):
            button.clicked.connect(lambda _=False, asked=asked: self.ask(*asked))
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addStretch(1)
        for button in (self.csv, self.png, self.dose, self.contours):
            layout.addWidget(button)
        self.refresh()

    def refresh(self) -> None:
        """What there is can be written."""
        for button in (self.csv, self.png):
            button.setEnabled(self.model.measured is not None)
        self.dose.setEnabled(self.model.dose is not None)
        self.contours.setEnabled(bool(self.model.layers))

    def ask(self, title: str, name: str, kinds: str, write: Callable[[Path], Any]) -> None:
        """Ask where to, and write it there."""
        path, _ = QFileDialog.getSaveFileName(self, title, name, kinds)
        if not path:
            return
        try:
            write(Path(path))
        except NapariMambaError as error:
            self.refused.emit(str(error))
        except OSError as error:
            self.refused.emit(f"cannot be written ({error.strerror}): {path}")
        else:
            self.saved.emit(f"saved as {Path(path).name}")

    def _write_dose(self, path: Path) -> None:
        save_dose(self.model.dose, path, list(self.viewer.layers))

    def _write_structures(self, path: Path) -> None:
        save_structures(self.model.layers, path, list(self.viewer.layers))
