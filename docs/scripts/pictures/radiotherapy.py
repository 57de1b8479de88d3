"""The dock "Radiotherapy" on the phantom: a plan in two doses, and what a prediction is made from."""

from __future__ import annotations

from pathlib import Path

from benchmarks.ui import driving
from docs.scripts.pictures.person import Person


def plan(folder: Path) -> None:
    """docs/radiotherapy.md"""
    from napari_mamba.ui.radiotherapy.panel import PREDICT, open_panel

    person = Person(folder.parent)
    viewer = person.viewer
    viewer.open_sample("napari-mamba", "radiotherapy_phantom")
    for layer in viewer.layers:
        if type(layer).__name__ == "Labels":
            layer.contour = 1
    panel = open_panel(viewer)
    shown = panel.plan
    shown.choose(viewer.layers["phantom dose A"], viewer.layers["phantom dose B"])
    driving.wait(lambda: len({line.number for line in shown.model.lines()}) == 2 and not shown.worker.busy)
    shown.model.hidden = frozenset({"Body"})
    shown.table.picked.emit("PTV70")
    viewer.reset_view()
    shown.plot.under = shown.plot.nearest(shown.plot.place(57, 50))
    driving.settle(1)
    person.picture("radiotherapy_plan")
    panel.tabs.setCurrentIndex(PREDICT)
    driving.settle(1)
    driving.wait(lambda: not panel.prediction.worker.busy)
    driving.settle(1)
    person.picture("radiotherapy_predict")
    person.leave()
