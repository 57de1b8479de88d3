"""The entry "Run into a store…" of the menu "More", and what is shown of such a run in the dock."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Slot
from qtpy.QtWidgets import QFileDialog, QMenu, QProgressBar, QVBoxLayout, QWidget

from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.run.process.outcome import sentence
from napari_mamba.ui.widgets.theme import Notice

if TYPE_CHECKING:
    from napari_mamba.ui.run.host import RunHost

START, STOP = "Run into a store…", "Stop the run into a store"
STEPS = 1000


class StoreEntry(QObject):
    """Adds the entry to a menu; while a run goes on it stops it.

    Parameters
    ----------
    menu : QMenu
    parent : QWidget
    host : RunHost
    message : Notice
        Says why a run cannot begin.
    """

    def __init__(self, menu: QMenu, parent: QWidget, host: RunHost, message: Notice):
        super().__init__(menu)
        self.window, self.host, self.message = parent, host, message
        self.action = menu.addAction(START, self.triggered)
        self.action.setToolTip("For an image that does not fit into memory: written chunk by chunk, shown meanwhile")
        menu.aboutToShow.connect(self._name)

    def _name(self) -> None:
        busy = self.host.stored.busy
        self.action.setText(STOP if busy else START)
        self.action.setEnabled(busy or bool(self.host.session.inputs.runs))

    def triggered(self) -> None:
        """Ask for the store's name and begin, or stop."""
        if self.host.stored.busy:
            self.host.stored.stop()
            return
        name, _ = QFileDialog.getSaveFileName(
            self.window, "Store to write", f"{self._suggested()}.ome.zarr", "OME-Zarr (*.zarr)",
            options=QFileDialog.Option.DontConfirmOverwrite,
        )  # fmt: skip
        if name:
            self.start(Path(name if name.endswith(".zarr") else f"{name}.ome.zarr"))

    def start(self, target: Path) -> None:
        """Run what is chosen into a store; one that was stopped goes on."""
        try:
            self.host.stored.start(target)
        except NapariMambaError as error:
            self.message.say(sentence(str(error)), "error")

    def _suggested(self) -> str:
        """A name that says what will be in it."""
        session = self.host.session
        parts = [session.inputs.runs[0][0].name if session.inputs.runs else ""]
        parts += [session.bundle.name] if session.bundle else []
        words = "_".join(filter(None, parts)) or "labels"
        return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in words)


class StoreView(QWidget):
    """How far the run into a store is, and how the last one ended."""

    def __init__(self, host: RunHost, parent: QWidget | None = None):
        super().__init__(parent)
        self.stored = host.stored
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setRange(0, STEPS)
        self.bar.setAccessibleName("Progress of the run into a store")
        self.line = Notice(host.session.viewer)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.bar)
        layout.addWidget(self.line)
        self.stored.changed.connect(self.draw)
        self.draw()

    @Slot()
    def draw(self) -> None:
        """Show it as it is."""
        run, busy = self.stored.run, self.stored.busy
        self.setVisible(run is not None)
        self.bar.setVisible(busy)
        if run is not None:
            self.bar.setRange(0, STEPS if run.fraction is not None else 0)
            self.bar.setValue(round(STEPS * (run.fraction or 0.0)))
            self.line.say(run.said or f"Looking at what is in {run.target.name}.", run.kind)
