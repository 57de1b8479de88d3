"""The entry "Run into a store…" of the menu "More"."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject
from qtpy.QtWidgets import QFileDialog, QMenu, QWidget

from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.run.process.outcome import sentence

if TYPE_CHECKING:
    from napari_mamba.ui.run.session import RunSession
    from napari_mamba.ui.run.store.runner import StoreRunner
    from napari_mamba.ui.widgets.theme import Notice

START, STOP = "Run into a store…", "Stop the run into a store"


class StoreEntry(QObject):
    """Adds the entry to a menu; while a run goes on it stops it.

    Parameters
    ----------
    menu : QMenu
    parent : QWidget
    session : RunSession
    message : Notice
        Says how far it is, and how it ended.
    """

    def __init__(self, menu: QMenu, parent: QWidget, session: RunSession, message: Notice):
        super().__init__(menu)
        self.window, self.session, self.message = parent, session, message
        self.runner: StoreRunner | None = None
        self.action = menu.addAction(START, self.triggered)
        self.action.setToolTip("For an image that does not fit into memory: written chunk by chunk, shown meanwhile")
        menu.aboutToShow.connect(self._name)

    def _name(self) -> None:
        self.action.setText(START if self.runner is None else STOP)
        self.action.setEnabled(self.runner is not None or bool(self.session.inputs.runs))

    def triggered(self) -> None:
        """Ask for the store's name and begin, or stop."""
        if self.runner is not None:
            self.runner.stop()
            return
        name, _ = QFileDialog.getSaveFileName(
            self.window, "Store to write", "labels.ome.zarr", "OME-Zarr (*.zarr)",
            options=QFileDialog.Option.DontConfirmOverwrite,
        )  # fmt: skip
        if name:
            self.start(Path(name if name.endswith(".zarr") else f"{name}.ome.zarr"))

    def start(self, target: Path) -> None:
        """Run what is chosen into a store; one that was stopped goes on."""
        from napari_mamba.ui.run.store.runner import StoreRun, StoreRunner

        try:
            job, volume = self.session.job_of(self.session.inputs.runs[0])
        except NapariMambaError as error:
            self.message.say(sentence(str(error)), "error")
            return
        place = self.session.place_of(job).of_grid(volume.affine)  # of a region, its box
        run = StoreRun(volume, place, job.bundle, job.options, target, self.session.options.cluster)
        self.runner = StoreRunner(self.session.viewer, run, self)
        self.runner.said.connect(self.message.say)
        self.runner.ended.connect(self._ended)
        self.runner.start()

    def _ended(self) -> None:
        self.runner = None
