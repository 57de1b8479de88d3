"""A model and layers for windows with a choice of their own."""

from __future__ import annotations

import numpy as np
from napari.components import ViewerModel

from napari_mamba.ui.run.choice.inputs import SELECTED
from napari_mamba.ui.run.views.own_choice import ChannelsBox, ModelBox


def test_a_model_is_chosen_and_opened(qtbot, tiny, tmp_path, make_bundle):
    box = ModelBox()
    qtbot.addWidget(box)
    assert box.bundle.name == "brain-structures-mr"
    with qtbot.waitSignal(box.changed):
        box.combo.setCurrentIndex(box.combo.findText("tiny"))
    assert "Not for clinical use" in box.summary.text()
    path = make_bundle(tmp_path, ("T1", "FLAIR"))
    with qtbot.waitSignal(box.changed, timeout=60_000):
        box.open(str(path))
    assert box.bundle.path == path
    with qtbot.waitSignal(box.failed, timeout=60_000):
        box.open(str(tmp_path / "nothing"))
    assert box.bundle.path == path


def test_layers_are_chosen_as_in_the_run_widget(qtbot, tiny):
    viewer = ViewerModel()
    box = ChannelsBox(viewer)
    qtbot.addWidget(box)
    box.set_channels(tiny.channels)
    assert box.layers == [None]
    with qtbot.waitSignal(box.changed):
        image = viewer.add_image(np.zeros((3, 4, 5)), name="scan")
    assert box.layers == [image]
    other = viewer.add_image(np.zeros((3, 4, 5)), name="other")
    assert box.layers == [image], "what is chosen stays"
    box.inputs.choose(0, SELECTED)
    assert box.layers == [other]
    box.disconnect_from_viewer()
    viewer.layers.clear()


def test_the_window_that_looks_inside_can_be_made(qtbot, tiny):
    from napari_mamba.ui.look_inside.widget import LookInsideWidget

    viewer = ViewerModel()
    viewer.add_image(np.random.default_rng(0).random((20, 20, 20)), name="scan")
    widget = LookInsideWidget(viewer)
    qtbot.addWidget(widget)
    models = widget.opening.models
    models.combo.setCurrentIndex(models.combo.findText("tiny"))
    assert widget.opening.bundle.name == "tiny"
    assert widget.opening.button.isEnabled()
