"""The run into a store of one viewer. It belongs to the viewer's host: closing the dock neither ends nor loses it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal, Slot

if TYPE_CHECKING:
    from napari_mamba.ui.run.session import RunSession
    from napari_mamba.ui.run.store.runner import StoreRun, StoreRunner


class StoreRuns(QObject):
    """One run into a store at a time, and what is said of it.

    Parameters
    ----------
    session : RunSession
    parent : QObject
        The viewer's host.

    Attributes
    ----------
    run : StoreRun or None
        The one that goes on, or the last.

    Signals
    -------
    changed
        Something began, went on or ended.
    ended : StoreRun
    """

    changed = Signal()
    ended = Signal(object)

    def __init__(self, session: RunSession, parent: QObject):
        super().__init__(parent)
        self.session = session
        self.runner: StoreRunner | None = None
        self.run: StoreRun | None = None

    @property
    def busy(self) -> bool:
        """Whether a run goes on."""
        return self.runner is not None

    def start(self, target: Path) -> None:
        """Run what is chosen into a store; one that was stopped goes on.

        Raises
        ------
        NapariMambaError
            If what is chosen cannot be run.
        """
        from napari_mamba.ui.run.store.runner import StoreRun, StoreRunner

        session = self.session
        job, volume = session.job_of(session.inputs.runs[0])
        place = session.place_of(job).of_grid(volume.affine)  # of a region, its box
        self.run = StoreRun(volume, place, job.bundle, job.options, target, session.options.cluster)
        self.runner = StoreRunner(session.viewer, self.run, self)
        self.runner.said.connect(self.changed)
        self.runner.ended.connect(self._on_ended)
        self.runner.start()
        self.changed.emit()

    def stop(self) -> None:
        """Ask the run to stop; what is written stays."""
        if self.runner is not None:
            self.runner.stop()

    def forget(self) -> None:
        """Say nothing more of a run that is over."""
        if self.runner is None:
            self.run = None
            self.changed.emit()

    @Slot()
    def _on_ended(self) -> None:
        self.runner = None
        self.ended.emit(self.run)
        self.changed.emit()
