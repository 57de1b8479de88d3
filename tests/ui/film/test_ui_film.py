"""The dock Film: layers with time as films, results over time beside them, and the window with the engine itself."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image

from napari_mamba import bundles
from napari_mamba.bundles import LabelClass
from napari_mamba.engine.frames.result import FilmResult
from napari_mamba.errors import InputError
from napari_mamba.ui.film import widget as module
from napari_mamba.ui.film.layers import film_of, is_film, result_layers
from napari_mamba.ui.film.model import FilmModel
from napari_mamba.ui.run.process.work import outcome_of_work


class _Bundle:
    name, version, title, task = "film", "1", "Film", "segmentation"
    classes = (LabelClass(0, "background"), LabelClass(1, "target", "#d94a3a"))


def test_layers_are_films_where_their_first_axis_is_time():
    pictures = np.random.default_rng(0).integers(0, 255, (5, 20, 24, 3), dtype=np.uint8)
    colour = Image(pictures, rgb=True, scale=(0.04, 1, 1), units=("s", "pixel", "pixel"))
    assert is_film(colour)
    film = film_of(colour)
    assert film.times.tolist() == [0, 40, 80, 120, 160]
    np.testing.assert_array_equal(film.frame(3).data[:, 0].transpose(1, 2, 0), pictures[3])
    assert film.frame(3).channel_names == ("red", "green", "blue")
    volumes = Image(
        np.random.default_rng(0).random((4, 3, 5, 6)), scale=(1, 2, 1, 1), units=("pixel", "mm", "mm", "mm")
    )
    assert film_of(volumes).frame(2).shape == (3, 5, 6)
    assert film_of(volumes).frame(2).spacing.tolist() == [2, 1, 1]
    assert film_of(volumes).times is None
    assert not is_film(Image(np.zeros((5, 6))))
    with pytest.raises(InputError, match="is no film"):
        film_of(Image(np.zeros((5, 6))))


@pytest.mark.parametrize("shape", [(5, 20, 24), (4, 3, 5, 6)])
def test_results_lie_on_their_film(shape):
    source = Image(np.random.default_rng(0).random(shape), scale=(0.04, *[2.0] * (len(shape) - 1)),
                   units=("s", *["mm"] * (len(shape) - 1)), translate=(1, *[3.0] * (len(shape) - 1)))  # fmt: skip
    film = film_of(source)
    labels = np.stack([np.asarray(film.frame(t).data[0] > 0.5, np.uint8) for t in range(film.count)])
    (layer,) = result_layers(FilmResult(labels=labels), source, _Bundle())
    np.testing.assert_array_equal(layer.data, np.asarray(source.data) > 0.5)
    assert layer.scale.tolist() == source.scale.tolist()
    assert layer.units == source.units
    assert layer.translate.tolist() == source.translate.tolist()
    colours = np.full((5, 3, 1, 20, 24), 99.6, np.float32)
    flat = Image(np.zeros((5, 20, 24, 3), np.uint8), rgb=True)
    (picture,) = result_layers(FilmResult(image=colours), flat, _Bundle())
    assert picture.rgb
    assert (picture.data == 100).all()


class _Engine:
    def work(self, kind, arguments, cancel):
        return outcome_of_work(kind, arguments, cancel)


def test_predicted_frames_follow_their_film_on_the_axis_of_time():
    source = Image(np.random.default_rng(0).random((4, 6, 8)), name="clip", scale=(0.5, 2, 2), translate=(3, 0, 0))
    bundle = _Bundle()
    bundle.task = "prediction"
    result = FilmResult(image=np.ones((2, 1, 1, 6, 8), np.float32), affine=np.eye(4))
    (made,) = result_layers(result, source, bundle)
    assert made.data.shape == (2, 6, 8)
    assert made.translate.tolist() == [5, 0, 0]
    assert made.scale.tolist() == [0.5, 2, 2]


def test_the_window_goes_to_the_first_predicted_frame():
    bundle = _Bundle()
    bundle.task = "prediction"
    viewer = ViewerModel()
    film = viewer.add_image(np.zeros((4, 6, 8)), scale=(0.5, 2, 2), translate=(3, 0, 0))
    viewer.dims.set_point(0, 3.5)
    model = FilmModel(viewer, [])
    result = FilmResult(image=np.ones((2, 1, 1, 6, 8), np.float32), warnings=["doubtful"])
    model.end(SimpleNamespace(error="", cancelled=False, result=result), film, bundle)
    assert viewer.dims.point[0] == 5
    assert model.message == "Done.\ndoubtful"
    model.close()


def test_the_window_goes_through_a_film(tiny, monkeypatch, qtbot):
    monkeypatch.setattr(module, "make_engine", _Engine)
    viewer = ViewerModel()
    widget = module.FilmWidget(viewer)
    qtbot.addWidget(widget)
    assert widget.model.problem.startswith("Open a film")
    data = np.random.default_rng(0).normal(100, 20, (2, 20, 22, 24)).astype(np.float32)
    viewer.add_image(data, name="series", scale=(2, 1, 1, 1), units=("s", "mm", "mm", "mm"))
    assert widget.film.currentText() == "series"
    widget.bundle.setCurrentIndex(widget.bundle.findText(tiny.title))
    assert widget.model.bundle.name == "tiny"
    widget.run()
    qtbot.waitUntil(lambda: len(viewer.layers) == 2 or widget.model.kind == "error", timeout=120_000)
    assert widget.model.kind != "error", widget.model.message
    assert viewer.layers[1].data.shape == data.shape
    assert viewer.layers[1].units == viewer.layers[0].units


def test_models_come_and_go_and_a_prediction_asks_how_far(tiny, monkeypatch, qtbot):
    monkeypatch.setattr(module, "make_engine", _Engine)
    widget = module.FilmWidget(ViewerModel())
    qtbot.addWidget(widget)
    before = widget.model.bundle
    assert widget.ahead.isHidden()
    facts = {"name": "next", "title": "Next frames", "task": "prediction", "path": tiny.path / "next"}
    predictor = SimpleNamespace(**{**vars(tiny), **facts})
    widget.library.bundles = (*widget.library.bundles, predictor)
    widget.library.changed.emit()
    assert widget.model.bundle is before, "the chosen one stays"
    widget.bundle.setCurrentIndex(widget.bundle.findText("Next frames"))
    assert not widget.ahead.isHidden()
    widget.ahead.setValue(12)
    assert widget.model.ahead == 12
    widget.library.bundles = widget.library.bundles[:-1]
    widget.library.changed.emit()
    assert not widget.model.predicts


def test_bundles_of_several_images_are_not_offered(tiny):
    two = bundles.load("tiny-two")
    model = FilmModel(ViewerModel(), [tiny, two])
    assert [one.name for one in model.bundles] == ["tiny"]
    model.close()
