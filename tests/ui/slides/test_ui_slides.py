"""The dock Slides: the model without Qt, squares at their places, and the window with the engine's own work."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
from made_slides import made_bag, slide_bundle, write_hdf5
from napari.components import ViewerModel

from napari_mamba import bundles
from napari_mamba.engine import RunOptions
from napari_mamba.engine.slides.run import slide_to_end
from napari_mamba.ui.run.process.outcome import Outcome
from napari_mamba.ui.run.process.work import outcome_of_work
from napari_mamba.ui.slides import widget as module
from napari_mamba.ui.slides.layers import downsample_of
from napari_mamba.ui.slides.model import SlideModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    slide_bundle(folder / "mil", "mambamil", ("normal", "tumour"), in_dim=12)
    return folder


@pytest.fixture
def model(folder):
    viewer = ViewerModel()
    viewer.add_image(np.zeros((28, 30, 3), np.uint8), rgb=True, name="thumbnail", scale=(2, 2), translate=(5, 7))
    model = SlideModel(viewer, [bundles.load(folder / "mil")])
    yield model
    model.close()


def scored(model):
    model.take(made_bag())
    model.end(Outcome(slide_to_end(model.bag, model.bundle, RunOptions(device="cpu"))))


def test_squares_lie_over_the_thumbnail(model):
    scored(model)
    bag, layer = model.bag, model.layer
    assert model.downsample == 64  # 1792 pixels of the slide on 30 and 28
    corner = np.array(layer.data_to_world(layer.data[3] - layer.size[3] / 2)) + 0.5 * 2
    expected = bag.coordinates[3, ::-1] / 64 * 2 + np.array([5, 7])
    np.testing.assert_allclose(corner, expected + 0.0, atol=1e-6)
    assert layer.features["attention"].sum() == pytest.approx(1, abs=1e-5)
    top = int(np.argmax(model.result.attention))
    assert model.patches()[0][0] == str(top)
    assert dict(model.scores()).keys() == {"normal", "tumour"}
    np.testing.assert_array_equal(layer.face_color[top], layer.face_color[layer.features["percentile"].argmax()])
    model.look_at(top)
    assert layer.selected_data == {top}


def test_another_thumbnail_or_scale_moves_the_squares_and_no_second_layer_comes(model):
    scored(model)
    before = np.array(model.layer.data)
    model.downsample = 32
    model.show()
    np.testing.assert_allclose(model.layer.data + 0.5, 2 * (before + 0.5))
    assert sum(layer.name.startswith("attention") for layer in model.viewer.layers) == 1


def test_what_cannot_be_scored_is_said(model):
    assert "Open a slide's features" in model.problem
    model.take(made_bag(20, 5))
    assert "takes 12 features a patch" in model.problem
    model.take(replace(made_bag(), coordinates=None))
    assert model.problem == ""
    model.end(Outcome(slide_to_end(model.bag, model.bundle, RunOptions(device="cpu"))))
    assert model.layer is None
    assert "no coordinates" in model.message
    assert model.patches()[0][1] == ""
    assert downsample_of(model.bag, model.thumbnail) == 1
    assert SlideModel(ViewerModel()).problem.startswith("No model for slides")


class _Engine:
    def work(self, kind, arguments, cancel):
        return outcome_of_work(kind, arguments, cancel)


def test_the_window_scores_a_file(folder, tmp_path, monkeypatch, qtbot):
    monkeypatch.setenv("NAPARI_MAMBA_BUNDLES", str(folder))
    monkeypatch.setattr(module, "make_engine", _Engine)
    widget = module.SlidesWidget(ViewerModel())
    qtbot.addWidget(widget)
    widget.open_bag(tmp_path / "none.h5")
    qtbot.waitUntil(lambda: widget.model.kind == "error", timeout=20_000)
    widget.open_bag(write_hdf5(tmp_path / "bag.h5", made_bag()))
    qtbot.waitUntil(lambda: widget.model.bag is not None, timeout=20_000)
    assert "40 patches of 12 features" in widget.opened.text()
    widget.run()
    qtbot.waitUntil(lambda: widget.model.result is not None, timeout=60_000)
    assert widget.scores.rowCount() == 2
    assert widget.patches.rowCount() == 20
    assert widget.patches.item(0, 0).text() == str(int(np.argmax(widget.model.result.attention)))
    widget.model.save(tmp_path / "a.csv")
    assert len(list(csv.DictReader((tmp_path / "a.csv").open()))) == 40
    widget.model.save(tmp_path / "a.xyz")
    assert widget.model.kind == "error"
