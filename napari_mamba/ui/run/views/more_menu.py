"""What the button "More" offers: a folder, this run as text, and the options as they were at first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QApplication, QDialog, QMenu, QWidget

from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.preferences import preferences
from napari_mamba.ui.run.choice.scripts import as_command, as_script
from napari_mamba.ui.run.process.outcome import sentence
from napari_mamba.ui.run.store.menu import StoreEntry

if TYPE_CHECKING:
    from napari_mamba.ui.run.host import RunHost
    from napari_mamba.ui.run.session import RunSession
    from napari_mamba.ui.widgets.theme import Notice


def run_menu(parent: QWidget, host: RunHost, message: Notice) -> QMenu:
    """The menu; `message`, below the button, says what came of each entry."""
    session, menu = host.session, QMenu(parent)
    menu.setToolTipsVisible(True)
    folder = menu.addAction("Run on a folder…", lambda: run_on_folder(session, parent))
    folder.setToolTip("Every image of a folder, with results and one table in another folder")
    script = menu.addAction("Copy as script", lambda: copy(session, message, "script"))
    script.setToolTip("Exactly this run in Python, on the clipboard")
    command = menu.addAction("Copy as command", lambda: copy(session, message, "command"))
    command.setToolTip("Exactly this run for a terminal, on the clipboard")
    menu.addAction("Reset options", lambda: session.options.reset(preferences()))
    StoreEntry(menu, parent, host, message)
    menu.aboutToShow.connect(lambda: _enable(menu, session))
    return menu


def _enable(menu: QMenu, session: RunSession) -> None:
    folder, script, command, *_ = menu.actions()
    folder.setEnabled(session.bundle is not None)
    for action in (script, command):
        action.setEnabled(bool(session.inputs.runs))


def copy(session: RunSession, message: Notice, kind: str) -> None:
    """Put what is chosen on the clipboard as a script or a command."""
    if not session.inputs.runs:
        return
    layers = session.inputs.runs[0]
    try:
        job, _ = session.job_of(layers)
        text = as_script(job, [layer.name for layer in layers]) if kind == "script" else as_command(job)
    except NapariMambaError as error:
        message.say(sentence(str(error)), "error")
        return
    QApplication.clipboard().setText(text)
    message.say(f"The {kind} is on the clipboard.", "good")


def run_on_folder(session: RunSession, parent: QWidget) -> None:
    """Ask for the folders, and queue a run of each image."""
    from napari_mamba.ui.run.views.folder_dialog import FolderDialog

    dialog = FolderDialog(session, parent)
    if dialog.exec() == QDialog.DialogCode.Accepted:
        session.queue.add(*dialog.jobs)
    dialog.deleteLater()
