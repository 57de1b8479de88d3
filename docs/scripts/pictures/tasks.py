"""A picture a task, for the README and the pages of tasks: each clicked as its page says."""

from __future__ import annotations

from pathlib import Path

from benchmarks.ui import driving
from docs.scripts.pictures.person import Person
from docs.scripts.pictures.tutorial import SAMPLES, open_look


def denoise(folder: Path) -> None:
    """docs/tasks/denoise.md"""
    person = _run(folder, "Head with noise", ("Filter", "Denoise or sharpen"), "mr-denoise")
    person.click("Side by side")
    driving.settle(2)
    person.picture("denoise")
    person.leave()


def sharpen(folder: Path) -> None:
    """docs/tasks/sharpen.md: cut across the thick slices, where the difference is."""
    person = _run(folder, "Head in slices of 5 mm", ("Filter", "Denoise or sharpen"), "mr-superres")
    person.viewer.dims.order = (1, 0, 2)
    person.viewer.reset_view()
    driving.settle(1)
    person.click("Side by side")
    driving.settle(2)
    person.picture("sharpen")
    person.leave()


def judge(folder: Path) -> None:
    """docs/tasks/classify.md"""
    person = _run(folder, "Head, brighter on one side", ("Classify", "Classify an image"), "mr-quality")
    person.reveal(person.dock().results)
    driving.settle(1)
    person.picture("classify")
    person.leave()


def brain(folder: Path) -> None:
    """docs/tasks/segment.md: the whole head, which takes minutes."""
    person = _run(folder, "Head, T1", ("Segment", "Segment structures"), "brain-structures-mr")
    person.click("Results…")
    driving.settle(2)
    person.picture("segment")
    person.leave()


def surfaces(folder: Path) -> None:
    """docs/results.md: surfaces of the two parts of a hippocampus."""
    person = _run(folder, "Left hippocampus", ("Segment", "Segment structures"), "hippocampus-mr")
    person.menu("Layers", "Visualize", "Planes, surfaces and figures")
    driving.settle(1)
    person.click("Show in 3D")
    driving.settle(3)
    person.picture("surfaces")
    person.leave()


def look(folder: Path) -> None:
    """docs/tasks/look-inside.md"""
    person = _run(folder, "Left hippocampus", ("Segment", "Segment structures"), "hippocampus-mr")
    widget = open_look(person)
    person.picture("look_path")
    person.click("State norm", widget.maps)
    driving.settle(1)
    driving.wait(lambda: not widget.model.busy)
    driving.settle(1)
    person.picture("look_map")
    person.leave()


def _run(folder: Path, sample: str, menu: tuple[str, str], model: str) -> Person:
    """A window in which a sample is open and a model was run on it."""
    person = Person(folder)
    person.menu(*SAMPLES, sample)
    person.menu("Layers", *menu)
    dock = person.dock()
    if dock.model.combo.currentText() != model:
        person.choose(dock.model.combo, model)
    driving.settle(2)
    person.run()
    return person
