"""Opening bundles, and importing whatever `napari-mamba import` takes, from files and folders that the user names."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QFileDialog, QMenu, QWidget

from napari_mamba.ui.bundles.imports import Opened, Unsaid
from napari_mamba.ui.widgets.background import Background

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.ui.bundles.library import Library
    from napari_mamba.ui.bundles.unsaid_dialog import UnsaidDialog


class BundleOpener(QObject):
    """Opens what a user names, in the engine's process.

    Signals
    -------
    opened : Bundle
    failed : str
        One sentence.
    busy : bool
        Whether something is being opened.
    progress : str, float
        What an import is doing, and the share of it that is done.
    report : str
        What was imported, in a sentence.
    cancelling
        An import was told to end, and will.
    """

    opened = Signal(object)
    failed = Signal(str)
    busy = Signal(bool)
    progress = Signal(str, float)
    report = Signal(str)
    cancelling = Signal()

    def __init__(self, library: Library, engine: Any, parent: QWidget):
        super().__init__(parent)
        self._library = library
        self._engine = engine
        self._parent = parent
        self._background = Background(self)
        self._busy = False
        self._cancel = threading.Event()
        self._path, self._said = "", dict[str, Any]()
        self.asking: UnsaidDialog | None = None

    @property
    def is_busy(self) -> bool:
        """Whether something is being opened."""
        return self._busy

    def open(self, path: str, choices: dict[str, Any] | None = None) -> None:
        """Open or import what lies at `path`, with what weights alone do not say; a signal says how that ended."""
        if self._busy:
            return
        self._busy, self._cancel, self._path, self._said = True, threading.Event(), path, dict(choices or {})
        cancel, said = self._cancel, self._said
        self.busy.emit(True)
        self._background.ask(lambda: _ask(self._engine, path, self._tell, cancel, said), self._on_opened)

    def cancel(self) -> None:
        """End the import that goes on, with its next step; nothing of it stays."""
        if self._busy and not self._cancel.is_set():
            self._cancel.set()
            self.cancelling.emit()

    def _tell(self, what: str, share: float) -> None:
        with suppress(RuntimeError):  # the window is gone; called in the thread that waits
            self.progress.emit(what, share)

    def _on_opened(self, opened: Opened) -> None:
        from napari_mamba.bundles.bundle import read

        self._busy = False
        self.busy.emit(False)
        if opened.cancelled:
            self.report.emit("Cancelled: nothing was imported.")
            return
        if opened.unsaid is not None:
            self._ask_unsaid(opened.unsaid, opened.error)
            return
        if opened.path is None:
            self.failed.emit(opened.error)
            return
        bundle: Bundle = self._library.add(read(opened.path))
        if opened.imported:
            self.report.emit(report_of(bundle))
        self.opened.emit(bundle)

    def _ask_unsaid(self, unsaid: Unsaid, error: str) -> None:
        """Let the user say what the weights do not; where they do not want to, it failed for that."""
        from napari_mamba.ui.bundles.unsaid_dialog import UnsaidDialog

        dialog = self.asking = UnsaidDialog(Path(self._path).name, unsaid, error, self._parent)

        def answered(accepted: int) -> None:
            self.asking = None
            dialog.deleteLater()
            if accepted:
                self.open(self._path, {**self._said, **dialog.choices()})
            else:
                self.failed.emit(error)

        dialog.finished.connect(answered)
        dialog.open()

    def ask_folder(self) -> None:
        """Let the user name a folder."""
        if path := QFileDialog.getExistingDirectory(self._parent, "Open a bundle, or a model's results folder"):
            self.open(path)

    def ask_file(self) -> None:
        """Let the user name a file."""
        kinds = "Bundles and checkpoints (*.zip *.safetensors *.pt *.pth *.ckpt *.bin *.model);;All files (*)"
        path, _ = QFileDialog.getOpenFileName(self._parent, "Open a bundle, or a checkpoint", filter=kinds)
        if path:
            self.open(path)


def report_of(bundle: Bundle) -> str:
    """What was imported, in plain sentences."""
    members = len(bundle.weights)
    network = f"the network {bundle.network.name}" + (f", {members} of them averaged" if members > 1 else "")
    classes = [one.name for one in bundle.classes if one.index != 0 or bundle.task in ("classification", "slide")]
    lines = [f"Imported {bundle.name}: {network}.", f"It takes {', '.join(one.name for one in bundle.channels)}."]
    if classes:
        more = f" and {len(classes) - 8} more" if classes[8:] else ""
        lines.append(f"Classes: {', '.join(classes[:8])}{more}.")
    lines.append(f"It lies in {bundle.path}.")
    if not bundle.licence:
        lines.append("Nothing says under which licence it may be used: ask its author.")
    return "\n".join(lines)


def open_menu(opener: BundleOpener, parent: QWidget) -> QMenu:
    """The menu of the button "Open…"."""
    menu = QMenu(parent)
    menu.setToolTipsVisible(True)
    folder = menu.addAction("A folder…", opener.ask_folder)
    folder.setToolTip("A bundle, a results folder of nnU-Net (v1 or v2), a MONAI bundle, or GFE-Mamba's three files")
    file = menu.addAction("A file…", opener.ask_file)
    file.setToolTip("A bundle or an exported nnU-Net model as zip, or a file of weights")
    return menu


def _ask(
    engine: Any,
    path: str,
    on_progress: Callable[[str, float], object],
    cancel: threading.Event,
    choices: dict[str, Any],
) -> Opened:
    try:
        return engine.ask("open", path, choices, on_progress=on_progress, cancel=cancel)
    except Exception as error:
        return Opened(error=f"{path} could not be opened ({type(error).__name__}: {error}): please report this")
