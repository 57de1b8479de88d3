"""The panel in a real window: opened from the menu's command, clicked, and what can be compared in its pictures."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels
from qtpy.QtCore import Qt

from napari_mamba.bundles import LabelClass
from napari_mamba.ui.files.samples import sample_path
from napari_mamba.ui.layers import KEY, placement
from napari_mamba.ui.results.layers import class_colormap
from napari_mamba.ui.results.panel import COMPARE, VIEW, open_comparison, open_panel

pytestmark = [pytest.mark.window, pytest.mark.pictures]
RED = LabelClass(1, "right half", "#ff0000")


@pytest.fixture
def window(make_napari_viewer, qtbot):
    """The left hippocampus, its half on the patient's right red, and the panel."""
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1280, 800)
    viewer.open(str(sample_path("hippocampus_left.nii.gz")), plugin="napari-mamba")
    image = viewer.layers[0]
    place = placement(image)
    data = np.zeros(image.data.shape, np.uint8)
    columns = np.array([image.data_to_world((0, 0, i))[2] for i in range(data.shape[2])])
    data[..., columns < columns.mean()] = 1  # the world's x points to the patient's left
    record = {**image.metadata[KEY], "source": image.name, "classes": [RED.__dict__ | {}]}
    keywords = {"metadata": {KEY: record}, "colormap": class_colormap([RED]), "opacity": 1.0, **place.transforms}
    viewer.add_layer(Labels(data, name="half", **keywords))
    panel = open_panel(viewer)
    qtbot.waitUntil(lambda: bool(panel.classes.model.statistics), timeout=30_000)
    return viewer, panel


def picture(viewer, qtbot) -> np.ndarray:
    qtbot.wait(150)
    return viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)


def red(pixels: np.ndarray) -> np.ndarray:
    return (pixels[..., 0] > 200) & (pixels[..., 1] < 60) & (pixels[..., 2] < 60)


def test_hiding_and_the_pictures_left_is_the_patients_right(window, qtbot):
    viewer, panel = window
    shown = red(picture(viewer, qtbot))
    assert shown.sum() > 2000
    columns = np.flatnonzero(shown.any(axis=0))
    assert columns.mean() < shown.shape[1] / 2, "R is on the left"
    panel.classes.model.toggle_shown(1)
    assert not red(picture(viewer, qtbot)).any()
    panel.classes.model.toggle_shown(1)
    panel.classes.model.outlined = True
    assert 0 < red(picture(viewer, qtbot)).sum() < shown.sum() / 3


def test_side_by_side_in_the_canvas(window, qtbot):
    viewer, panel = window
    image, labels = viewer.layers
    open_comparison(viewer)
    assert panel.tabs.currentIndex() == COMPARE
    panel.compare.choose(image, labels)
    qtbot.mouseClick(panel.compare.ways["beside"], Qt.MouseButton.LeftButton)
    pixels = picture(viewer, qtbot)
    half = pixels.shape[1] // 2
    assert not red(pixels[:, :half]).any()
    assert red(pixels[:, half:]).sum() > 500
    grey = [(part.max(axis=-1) > 40).sum() for part in (pixels[:, :half], pixels[:, half:])]
    assert min(grey) > 2000, "both halves show the image, and neither is cut away"
    qtbot.mouseClick(panel.compare.ways["beside"], Qt.MouseButton.LeftButton)
    assert list(viewer.layers) == [image, labels]


def test_swiping_in_the_canvas(window, qtbot):
    viewer, panel = window
    image, labels = viewer.layers
    panel.compare.choose(image, labels)
    panel.compare.show_way("swipe")
    panel.compare.slider.setValue(0)
    whole = red(picture(viewer, qtbot)).sum()
    panel.compare.slider.setValue(250)
    pixels = red(picture(viewer, qtbot))
    assert 0.35 * whole < pixels.sum() < 0.65 * whole, "half of the red half is uncovered"


def test_letters_and_three_planes_are_drawn_and_the_panel_opens_once(window, qtbot, tmp_path):
    viewer, panel = window
    before = picture(viewer, qtbot)
    panel.tabs.setCurrentIndex(VIEW)
    panel.space.letters.setChecked(True)
    after = picture(viewer, qtbot)
    changed = np.argwhere(np.abs(before - after).sum(axis=-1) > 60)
    assert len(changed) > 100
    assert np.ptp(changed, axis=0).min() > 300, "at all four rims"
    panel.space.planes.setChecked(True)
    qtbot.waitUntil(lambda: all(pane.drawn is not None for pane in panel.space.orthogonal.panes), timeout=60_000)
    assert all(pane.drawn.rgb.max() > 100 for pane in panel.space.orthogonal.panes)
    assert open_panel(viewer) is panel
    viewer.screenshot(str(tmp_path / "window.png"), canvas_only=False, flash=False)


def test_nothing_is_cut_off_at_1280_by_800(window, qtbot):
    viewer, panel = window
    panel.classes.correct.expand(animate=False)
    for page in range(panel.tabs.count()):
        panel.tabs.setCurrentIndex(page)
        qtbot.wait(50)
        inner = panel.tabs.currentWidget().widget()
        assert inner.width() <= panel.tabs.currentWidget().viewport().width(), panel.tabs.tabText(page)
        assert inner.minimumSizeHint().width() <= 400
    assert viewer.window.geometry()[2] <= 1280
    assert panel.width() <= 460
