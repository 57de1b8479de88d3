"""Take the pictures of docs/images in a real napari window.

    xvfb-run -a -s "-screen 0 1600x1000x24" python docs/make_screenshots.py [BUNDLE | radiotherapy]

BUNDLE is a name or a path; without it, the shipped hippocampus-mr. "radiotherapy" takes those of that dock instead.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import napari
from qtpy.QtWidgets import QApplication

IMAGES = Path(__file__).parent / "images"
SIZE = (1360, 800)
LIMIT_S = 600


def wait(until: Callable[[], bool], seconds: float = LIMIT_S) -> None:
    """Let the window live until something is so."""
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            raise SystemExit("the window did not get there in time: run this on a machine that is less busy")
        QApplication.processEvents()
        time.sleep(0.005)


def settle(seconds: float = 1.0) -> None:
    """Let pending drawing happen."""
    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() > end)


def save(viewer: napari.Viewer, name: str) -> None:
    """The window, as it is on the screen."""
    path = IMAGES / name
    viewer.screenshot(str(path), canvas_only=False, flash=False)
    print(path, f"{path.stat().st_size / 1000:.0f} kB")


def plugin(bundle: str) -> None:
    """The dock widget after a run on the left hippocampus."""
    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)
    viewer.open_sample("napari-mamba", "hippocampus_left")
    _, dock = viewer.window.add_plugin_dock_widget("napari-mamba", "Run a model")
    wait(lambda: dock.inner is not None)
    widget = dock.inner
    wait(lambda: bool(widget.options.effective_device) and not widget.preloading)
    if Path(bundle).exists():
        widget.model.open(bundle)
        wait(lambda: widget.model.bundle is not None and widget.model.bundle.path == Path(bundle))
    index = widget.model.combo.findText(Path(bundle).name)
    if index < 0:
        raise SystemExit(f"there is no bundle {bundle}: name one of those that `napari-mamba models` lists")
    widget.model.combo.setCurrentIndex(index)
    viewer.layers[0].interpolation2d = "cubic"
    widget.run()
    wait(lambda: not widget.host.runner.running)
    settle()
    viewer.camera.zoom *= 1.05
    settle()
    save(viewer, "plugin.png")
    viewer.close()


def radiotherapy(theme: str = "dark") -> None:
    """The dock "Radiotherapy" on the phantom: a plan in two doses, and what a prediction is made from."""
    from napari_mamba.ui.radiotherapy.panel import PREDICT, open_panel

    viewer = napari.Viewer(show=True)
    viewer.theme = theme
    viewer.window.resize(*SIZE)
    viewer.open_sample("napari-mamba", "radiotherapy_phantom")
    for layer in viewer.layers:
        if type(layer).__name__ == "Labels":
            layer.contour = 1
    panel = open_panel(viewer)
    plan = panel.plan
    plan.choose(viewer.layers["phantom dose A"], viewer.layers["phantom dose B"])
    wait(lambda: len({line.number for line in plan.model.lines()}) == 2 and not plan.worker.busy)
    plan.model.hidden = frozenset({"Body"})
    plan.table.picked.emit("PTV70")
    viewer.reset_view()
    plan.plot.under = plan.plot.nearest(plan.plot.place(57, 50))
    settle()
    suffix = "" if theme == "dark" else f"_{theme}"
    save(viewer, f"radiotherapy_plan{suffix}.png")
    panel.tabs.setCurrentIndex(PREDICT)
    settle()
    wait(lambda: not panel.prediction.worker.busy)
    settle()
    save(viewer, f"radiotherapy_predict{suffix}.png")
    viewer.close()


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    if sys.argv[1:2] == ["radiotherapy"]:
        radiotherapy(*sys.argv[2:3])
    else:
        plugin(sys.argv[1] if len(sys.argv) > 1 else "hippocampus-mr")
