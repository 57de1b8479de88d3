"""What the button "More" offers: a folder, this run as text, and the options as they were at first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QApplication, QDialog, QMenu

from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.preferences import preferences
from napari_mamba.ui.run.outcome import sentence
from napari_mamba.ui.run.scripts import as_command, as_script

if TYPE_CHECKING:
    from napari_mamba.ui.run.widget import RunWidget


def run_menu(widget: RunWidget) -> QMenu:
    """The menu; each entry says below the button what came of it."""
    menu = QMenu(widget)
    menu.setToolTipsVisible(True)
    folder = menu.addAction("Run on a folder…", lambda: run_on_folder(widget))
    folder.setToolTip("Every image of a folder, with results and one table in another folder")
    script = menu.addAction("Copy as script", lambda: copy(widget, "script"))
    script.setToolTip("Exactly this run in Python, on the clipboard")
    command = menu.addAction("Copy as command", lambda: copy(widget, "command"))
    command.setToolTip("Exactly this run for a terminal, on the clipboard")
    menu.addAction("Reset options", lambda: widget.session.options.reset(preferences()))
    menu.aboutToShow.connect(lambda: _enable(menu, widget))
    return menu


def _enable(menu: QMenu, widget: RunWidget) -> None:
    folder, script, command, _ = menu.actions()
    folder.setEnabled(widget.session.bundle is not None)
    for action in (script, command):
        action.setEnabled(bool(widget.session.inputs.runs))


def copy(widget: RunWidget, kind: str) -> None:
    """Put what is chosen on the clipboard as a script or a command."""
    session = widget.session
    if not session.inputs.runs:
        return
    layers = session.inputs.runs[0]
    try:
        job, _ = session.job_of(layers)
        text = as_script(job, [layer.name for layer in layers]) if kind == "script" else as_command(job)
    except NapariMambaError as error:
        widget.message.say(sentence(str(error)), "error")
        return
    QApplication.clipboard().setText(text)
    widget.message.say(f"The {kind} is on the clipboard.", "good")


def run_on_folder(widget: RunWidget) -> None:
    """Ask for the folders, and queue a run of each image."""
    from napari_mamba.ui.run.folder_dialog import FolderDialog

    dialog = FolderDialog(widget.session, widget)
    if dialog.exec() == QDialog.DialogCode.Accepted:
        widget.session.queue.add(*dialog.jobs)
    dialog.deleteLater()
