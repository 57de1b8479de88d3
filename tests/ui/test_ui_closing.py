"""A window that is closed in the middle of anything ends its program: in a process of its own, as a person's is."""

import os
import subprocess
import sys

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image

from napari_mamba.ui.layers import layers_to_volume
from napari_mamba.ui.look_inside.model import LookModel, Walk
from napari_mamba.ui.look_inside.scene import Scene

LOOK = """
import napari, numpy
from qtpy.QtCore import QTimer
from qtpy.QtTest import QTest
from napari_mamba.ui.results.maps.look import UNCERTAINTY, map_look, note_measure

viewer = napari.Viewer(show=True)
viewer.add_image(numpy.random.default_rng(0).normal(100, 10, (20, 24, 18)).astype("float32"), name="head")
for _ in range(2):
    layer = viewer.add_image(numpy.random.default_rng(0).random((20, 24, 18), "float32"), **map_look())
    note_measure(layer, UNCERTAINTY)
    QTest.qWait(300)
    viewer.layers.remove(layer)
    QTest.qWait(300)
print("maps", flush=True)
_, widget = viewer.window.add_plugin_dock_widget("napari-mamba", "Look inside")
combo = widget.opening.models.combo
combo.setCurrentIndex(combo.findText("tiny"))
asked = []

def look():
    if widget.model.wrong:
        raise SystemExit(widget.model.message)
    if asked and widget.model.busy == "maps":
        timer.stop()
        print("closing", flush=True)
        viewer.close()
    elif widget.model.walk is not None and not widget.model.busy and not asked:
        asked.append(True)
        widget.model.whole = True
        widget.model.target = "Anterior"
        widget.make("occlusion")

timer = QTimer()
timer.timeout.connect(look)
timer.start(5)
widget.opening.button.click()
napari.run()
"""


@pytest.mark.skipif(sys.platform.startswith("linux") and not os.environ.get("DISPLAY"), reason="needs a display")
def test_maps_go_and_a_window_closed_while_it_looks_inside_ends_its_program(bundle_folder):
    """Two defects in one program, as each takes seconds to start.

    With napari's own colour bar shown, the drawing after a map was removed and another added ended the program in
    OpenGL (Mesa's software renderer). And the path and the marker were drawn anew while napari removed its layers, and
    the window never went.
    """
    environment = os.environ | {"NAPARI_MAMBA_BUNDLES": str(bundle_folder)}
    child = subprocess.Popen(
        [sys.executable, "-c", LOOK], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        told = []
        for line in child.stdout:
            told.append(line.strip())
            if told[-1] == "closing":
                break
        said, _ = child.communicate(timeout=180)  # seconds where nobody else works
        said = "\n".join([*told, said])
    finally:
        child.kill()
    assert "maps" in told, said
    assert child.returncode == 0, said
    assert "Traceback" not in said
    assert "Signal source has been deleted" not in said
    assert "inconsistent changes" not in said


def test_layers_that_are_removed_are_not_drawn_anew():
    """Without a window: a slice that changes because layers go adds none."""
    viewer, model = ViewerModel(), LookModel()
    layer = viewer.add_layer(Image(np.zeros((10, 12, 14), np.float32), name="head"))
    scene = Scene(viewer, model)
    scene.place = layers_to_volume([layer])[1]
    voxels = 1.3 * np.argwhere(np.ones((10, 12, 14))) - 1.5  # reach beyond the image, as tokens of a tile do
    model.set_walk(Walk(voxels, np.zeros(len(voxels)), np.ones(3)))
    assert len(viewer.layers) == 3
    added = []

    def see(event):
        added.append(event.value)
        if len(added) > 9:
            scene.leave()  # else the test would not end

    viewer.layers.events.inserted.connect(see)
    viewer.layers.clear()
    assert not added
    assert not viewer.layers
