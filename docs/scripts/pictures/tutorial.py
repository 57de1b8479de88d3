"""The tutorial (docs/tutorial.md), followed as it is written in one window, with a picture of each step."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QFileDialog, QLineEdit

from benchmarks.ui import driving
from docs.scripts.pictures.person import NotThere, Person

SAMPLES = ("File", "Open Sample", "Mamba medical imaging")
PLUGIN = ("Plugins", "Mamba medical imaging")
MODEL = "hippocampus-mr"
SAMPLE = Path(__file__).resolve().parents[3] / "sample_data"
BATCH = (
    "mkdir scans",
    "cp sample_data/hippocampus_*.nii.gz scans",
    "napari-mamba batch hippocampus-mr scans/*.nii.gz -o results",
)
"""As the page has them."""


def follow(folder: Path) -> None:
    """All steps; the first three are filmed."""
    person = Person(folder)
    person.filming = True
    person.film(800)
    person.menu(*SAMPLES, "Left hippocampus, T1 (ICBM 2009a)", shown="1_sample")
    person.menu("Layers", "Segment", "Segment structures", shown="2_menu")
    dock = person.dock()
    if dock.model.combo.currentText() != MODEL:
        raise NotThere(f"the tutorial says that {MODEL} is chosen, not {dock.model.combo.currentText()}")
    driving.settle(2)
    person.film(1500)
    person.picture("2_dock")
    person.run()
    person.picture("3_result")
    here = person.viewer.dims.current_step[0]
    for step in range(1, 13):  # the slider below the picture, slice by slice towards the front end
        person.viewer.dims.set_current_step(0, here + step)
        driving.settle(0.1)
        person.film(150)
    person.filming = False
    person.save_film(folder.parent / "run.gif")
    _correct(person)
    _save(person)
    _sure(person)
    _look(person)
    _many(person)
    person.leave()


def _correct(person: Person) -> None:
    """Step 4."""
    person.click("Results…")
    panel = panel_of(person)
    driving.settle(1)
    person.click("Correct", panel)
    driving.settle(2)
    person.click("Smooth", panel)
    driving.settle(4)
    person.picture("4_correct")
    person.click("Undo", panel)
    driving.settle(2)


def _save(person: Person) -> None:
    """Step 5: the dialog is typed into, and the file is read again."""
    from napari_mamba import io

    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "hippocampus.nii.gz"

        def type_name() -> None:
            dialog = QApplication.activeModalWidget()
            if isinstance(dialog, QFileDialog):
                if not dialog.selectedNameFilter().startswith("Mamba medical imaging"):
                    raise NotThere(f"the dialog starts with {dialog.selectedNameFilter()}")
                name = dialog.findChild(QLineEdit, "fileNameEdit")
                name.setText(str(path))
                QTest.keyClick(name, Qt.Key.Key_Return)
            else:
                QTimer.singleShot(500, type_name)

        QTimer.singleShot(1500, type_name)
        person.menu("File", "Save Selected Layers")
        driving.wait(path.exists, 60)
        driving.settle(1)
        names = [entry.name for entry in io.read_labels(path).classes]
    if "anterior hippocampus" not in names:
        raise NotThere(f"the saved labels have no names of classes, but {names}")


def _sure(person: Person) -> None:
    """Step 6: the same model again, with a map."""
    person.menu("Layers", "Visualize", "How sure a model is")
    dock = person.dock()
    driving.settle(1)
    if dock.model.combo.currentText() != MODEL or not dock.session.options.uncertainty:
        raise NotThere("the tutorial says that the model stays, and that the uncertainty map is ticked")
    person.run()
    layer = next(one for one in person.viewer.layers if one.name.startswith("uncertainty"))
    if not layer.visible:
        raise NotThere("the tutorial says that the map is shown after the run")
    person.click("Results…")
    person.tab("Maps")
    person.click("Next uncertain place")
    driving.settle(2)
    person.picture("6_unsure")


def _look(person: Person) -> None:
    """Step 7; the scene "look" takes its pictures."""
    widget = open_look(person)
    person.click("State norm", widget.maps)
    driving.wait(lambda: not widget.model.busy)


def _many(person: Person) -> None:
    """Step 8: the copied command and the batch in a shell, and the folder in the window."""
    from napari_mamba import io

    person.tab("Run a model")
    dock = person.dock()
    _entry(dock, "Copy as command").trigger()
    command = QApplication.clipboard().text()
    with tempfile.TemporaryDirectory() as place:
        here = Path(place)
        shutil.copytree(SAMPLE, here / "sample_data")
        _shell(here, command)
        made = io.read(here / "hippocampus_left_hippocampus-mr.nii.gz")
        mine = io.read(SAMPLE / "hippocampus_left.nii.gz")
        if made.shape != mine.shape or not made.data.any():
            raise NotThere("the copied command has written no labels of the image")
        for line in BATCH:
            _shell(here, line)
        if not (here / "results" / "summary.html").is_file():
            raise NotThere("the batch has written no page to look through")
        QTimer.singleShot(500, lambda: _answer(here / "scans"))
        _entry(dock, "Run on a folder").trigger()
        person.wait(lambda: not (dock.session.queue.busy or dock.host.runner.running))
        written = sorted(one.name for one in (here / "scans_hippocampus-mr").iterdir())
        if "results.csv" not in written or sum(name.endswith(".nii.gz") for name in written) != 3:
            raise NotThere(f"the folder of results holds {written}")


def _entry(dock: Any, title: str) -> Any:
    """An entry of the button "More"."""
    menu = dock.more_button.menu()
    menu.aboutToShow.emit()
    entry = next((one for one in menu.actions() if one.text().startswith(title)), None)
    if entry is None or not entry.isEnabled():
        raise NotThere(f"{title!r} is not in the menu of More, or is greyed out")
    return entry


def _answer(folder: Path) -> None:
    """Fill in the dialog "Run on a folder"."""
    dialog: Any = QApplication.activeModalWidget()
    if dialog is None:
        QTimer.singleShot(200, lambda: _answer(folder))
        return
    dialog.source.text.setText(str(folder))
    if not dialog.run_button.isEnabled():
        raise NotThere(f"the dialog cannot be left with Run: {dialog.notice.text()}")
    dialog.run_button.click()


def _shell(folder: Path, line: str) -> None:
    """A line as it is typed into a terminal, in an environment where the program is installed."""
    program = f'napari-mamba() {{ {shlex.quote(sys.executable)} -m napari_mamba "$@"; }}; {line}'
    done = subprocess.run(["bash", "-c", program], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise NotThere(f"{line!r} ends with {done.returncode}: {done.stderr[-400:]}")


def open_look(person: Person) -> Any:
    """Open "Look inside" on the latest run, and wait for the path of a scan; returns its widget."""
    from napari_mamba.ui.look_inside.widget import LookInsideWidget

    person.menu(*PLUGIN, "Look inside")
    docks = person.viewer.window.dock_widgets
    person.wait(lambda: any(isinstance(one, LookInsideWidget) for one in docks.values()))
    widget: Any = next(one for one in docks.values() if isinstance(one, LookInsideWidget))
    driving.settle(1)
    person.choose(widget.opening.runs, widget.opening.runs.itemText(1))  # below "No run: choose below"
    driving.wait(lambda: widget.subject is not None and not widget.model.busy and widget.model.walk is not None)
    driving.settle(2)
    return widget


def panel_of(person: Person) -> Any:
    """The dock "Results"."""
    from napari_mamba.ui.results.panel import ResultsPanel

    return next(one for one in person.viewer.window.dock_widgets.values() if isinstance(one, ResultsPanel))
