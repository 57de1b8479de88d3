"""Follows docs/learn_in_napari.md click by click, prints what came of it, and makes its picture.

    xvfb-run -a -s "-screen 0 1280x800x24" python docs/scripts/make_learn.py [MINUTES]

The strokes are where the shipped model sees the hippocampus, as a person's would be.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["NAPARI_MAMBA_BUNDLES"] = tempfile.mkdtemp(prefix="learn-")  # not among the user's own

import napari
import numpy as np
from qtpy.QtWidgets import QApplication
from scipy import ndimage

from napari_mamba import bundles, engine
from napari_mamba.ui.layers import layers_to_volume
from napari_mamba.ui.learn import menu

IMAGES = ("hippocampus_left", "hippocampus_right")
PICTURE = Path(__file__).parents[1] / "images" / "learn.png"


def until(true: Callable[[], object], seconds: float = 3000) -> None:
    """Let the window live until something is so."""
    end = time.monotonic() + seconds
    while not true():
        QApplication.instance().processEvents()
        time.sleep(0.01)
        assert time.monotonic() < end, "waited in vain"


def answer(viewer: napari.Viewer, name: str, bundle: bundles.Bundle) -> np.ndarray:
    """A bundle's labels of a layer, along the layer's axes."""
    volume, place = layers_to_volume([viewer.layers[name]])
    return place.to_layer_axes(np.asarray(engine.run_to_end(volume, bundle).labels.data)[0])


def paint(viewer: napari.Viewer, name: str, inside: np.ndarray) -> None:
    """Strokes of 1 in a structure and of 9 about it, in three slices, in a new labels layer."""
    image = viewer.layers[name]
    place = {key: getattr(image, key) for key in ("scale", "translate", "rotate", "shear", "affine", "units")}
    labels = viewer.add_labels(np.zeros(image.data.shape, np.uint8), name=f"{name} labels", **place)
    labels.brush_size = 1
    slices = np.flatnonzero(inside.any((1, 2)))
    for z in slices[[len(slices) // 5, len(slices) // 2, 4 * len(slices) // 5]]:
        shape = inside[z]
        near = ndimage.binary_dilation(shape, iterations=3) & ~ndimage.binary_dilation(shape)
        far = ~ndimage.binary_dilation(shape, iterations=5)
        for where, value, step in ((ndimage.binary_erosion(shape), 1, 6), (near, 9, 4), (far, 9, 37)):
            for place in np.argwhere(where)[::step]:
                labels.paint((z, *place), value)
    print(f"{name}: {(labels.data == 1).sum()} voxels are 1, {(labels.data == 9).sum()} are 9")


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Overlap of two masks."""
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def main(minutes: float) -> None:
    """The tutorial's five steps."""
    viewer = napari.Viewer()
    viewer.window._qt_window.resize(1280, 800)
    for name in IMAGES:
        viewer.open_sample("napari-mamba", name)
    eye = {name: answer(viewer, name, bundles.load("hippocampus-mr")) > 0 for name in IMAGES}
    for name in IMAGES:
        paint(viewer, name, eye[name])
    dock = menu.learn(viewer)
    session = dock.session
    dock.pairs.add_all.click()
    until(lambda: "one person?" in dock.before.text())
    for pair in session.pairs.rows:
        session.pairs.change(pair, person="icbm")
    session.choices.unpainted, session.choices.minutes = "unknown", minutes
    until(dock.start_button.isEnabled)
    print(dock.before.text())
    dock.start_button.click()
    until(lambda: session.made is not None or (session.last is not None and session.last[0] != "good"))
    until(lambda: not dock.use_button.isHidden())
    print(f"after {session.curve.step} steps: {session.last[1]}")
    shown = time.monotonic() + 1
    until(lambda: time.monotonic() > shown)
    viewer.window._qt_window.grab().save(str(PICTURE))
    for name in IMAGES:
        print(
            f"{name}: Dice {dice(answer(viewer, name, session.made) == 1, eye[name]):.3f} to hippocampus-mr's outline"
        )
    dock.correct_button.click()
    first = session.made
    dock.go_on_button.click()
    until(lambda: session.made is not None and session.made is not first)
    print(f"gone on: {session.last[1]}")
    viewer.close()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 6.0)
