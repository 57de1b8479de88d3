"""A restoration tried on one slice: where it lies, what a strength shows, and what the window does with it."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image

from napari_mamba import bundles, engine
from napari_mamba.engine import Progress, Result
from napari_mamba.errors import InputError
from napari_mamba.ui.layers import KEY, layers_to_volume
from napari_mamba.ui.run.choice.trial import Trial, percent_of, placed, slab, suits

TIMEOUT = 60_000
AFFINE = np.array([[0.0, 0.2, 0.9, -30], [0.1, 1.0, 0.0, 12], [2.5, 0.0, -0.1, 5], [0, 0, 0, 1]])


def half(volume, bundle, options=None, cancel=None):
    """A restoration that halves every value."""
    assert options.strength == 1
    yield Progress("network", 0, 1, 1.0)
    return Result(image=volume.with_data(np.asarray(volume.data, np.float32) / 2))


@pytest.fixture
def viewer():
    viewer = ViewerModel()
    viewer.add_image(np.random.default_rng(0).random((30, 8, 10)).astype(np.float32), name="scan", affine=AFFINE)
    return viewer


def test_a_strength_mixes_what_was_given_with_the_answer():
    trial = Trial(np.array([[4.0]]), np.array([[2.0]]))
    assert [float(Trial(trial.given, trial.restored, p).shown()[0, 0]) for p in (0, 50, 100, 150)] == [4, 3, 2, 1]
    with pytest.raises(InputError, match="press the button"):
        Trial().shown()
    assert [percent_of(text) for text in ("", "70", "70 %", "-3", "many")] == [100, 70, 70, 0, 100]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("index", [0, 3, 7])
def test_the_slab_has_the_slice_that_is_shown(viewer, axis, index):
    layer = viewer.layers["scan"]
    viewer.dims.order = (axis, *(a for a in range(3) if a != axis))
    place = [4.0, 4.0, 4.0]
    place[axis] = index
    viewer.dims.set_point(range(3), layer.data_to_world(place))
    volume, placement = layers_to_volume([layer])
    found = slab(viewer, layer, volume, placement.order)
    assert found.layer_index == index
    part = found.region.of(volume)
    assert part.shape[found.axis] <= 17
    np.testing.assert_array_equal(found.slice_of(part), np.take(layer.data, index, axis))
    one = Image(np.expand_dims(np.take(layer.data, index, axis), axis), affine=placed(layer, axis, index))
    here, there = [2, 3, 5], [2, 3, 5]
    here[axis], there[axis] = 0, index
    np.testing.assert_allclose(one.data_to_world(here), layer.data_to_world(there), atol=1e-6)


def test_no_slice_is_a_sentence(viewer):
    layer = viewer.layers["scan"]
    volume, placement = layers_to_volume([layer])
    viewer.dims.ndisplay = 3
    with pytest.raises(InputError, match="in 3D"):
        slab(viewer, layer, volume, placement.order)


def test_it_suits_what_restores_on_the_images_own_grid():
    known = {one.name: one for one in bundles.available()}
    assert suits(known["mr-denoise"])
    assert not suits(known["mr-superres"])
    assert not suits(known["brain-structures-mr"])
    assert not suits(None)


def test_the_slider_shows_one_slice_live_and_sets_the_strength(qtbot, widget, monkeypatch):
    monkeypatch.setattr(engine, "run", half)
    session, viewer = widget.session, widget.viewer
    view = widget.options.trial
    assert view.isHidden()
    session.choose_bundle(next(one for one in bundles.available() if one.name == "mr-denoise"))
    assert not view.isHidden()
    layer = session.inputs.runs[0][0]
    viewer.dims.set_point(range(3), layer.data_to_world((2.0, 3.0, 4.0)))
    with qtbot.waitSignal(view.work.ended, timeout=TIMEOUT):
        view.row.start_button.click()
        assert not view.notice.text()
    tried = view.layer
    index = view._slab.layer_index
    given = np.expand_dims(np.take(layer.data, index, view._slab.layer_axis), view._slab.layer_axis)
    np.testing.assert_allclose(tried.data, given / 2, rtol=1e-5)
    assert tried.metadata[KEY]["role"] == "map"
    assert session.inputs.runs[0][0] is layer
    view.slider.setValue(50)
    assert session.options.strength == "50"
    np.testing.assert_allclose(tried.data, 0.75 * given, rtol=1e-5)
    session.options.strength = "150"
    assert view.slider.value() == 150
    np.testing.assert_allclose(tried.data, 0.25 * given, rtol=1e-5)
    session.choose_bundle(next(one for one in bundles.available() if one.name == "mr-superres"))
    assert view.isHidden()
    assert tried not in viewer.layers


def test_what_goes_wrong_is_a_sentence(qtbot, widget, monkeypatch):
    def fails(volume, bundle, options=None, cancel=None):
        raise InputError("the image is empty: give another")
        yield

    monkeypatch.setattr(engine, "run", fails)
    widget.session.choose_bundle(next(one for one in bundles.available() if one.name == "mr-denoise"))
    view = widget.options.trial
    with qtbot.waitSignal(view.work.ended, timeout=TIMEOUT):
        view.row.start_button.click()
    assert "The image is empty" in view.notice.text()
    assert view.layer is None
