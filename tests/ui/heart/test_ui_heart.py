"""The heart beside its playing images: the cine as a layer, the curve, the marker, the numbers."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Layer

from napari_mamba.bundles import LabelClass
from napari_mamba.engine.frames.over_time import Followed, measured
from napari_mamba.heart.cine import Cine
from napari_mamba.ui.heart.layers import cine_layer, cine_of, labels_layer, slices_across, times_of
from napari_mamba.ui.heart.model import HeartModel
from napari_mamba.ui.layers import KEY

SHAPE = (5, 4, 24, 20)  # phases, slices, rows, columns
# coronal slices: the stack's axis is the patient's front
AFFINE = np.array([[0, 0, 1.5, -10], [8.0, 0, 0, 20], [0, -1.5, 0, 30], [0, 0, 0, 1]])
TIMES = np.array([3.0, 40, 81, 120, 165])
RADII = (8, 6, 4, 5, 7)


class _Bundle:
    name, version = "heart-mr", "1"
    classes = (LabelClass(0, "background"), LabelClass(1, "cavity", "#d94a3a"), LabelClass(2, "wall", "#e4a63a"))


def discs():
    y, x = np.meshgrid(np.arange(24) - 12, np.arange(20) - 10, indexing="ij")
    return np.stack([np.stack([np.hypot(y, x) <= radius for _ in range(4)]) for radius in RADII]).astype(np.uint8)


def cine():
    noise = np.random.default_rng(0).normal(0, 5, SHAPE)
    return Cine((300.0 * discs() + 50 + noise).astype(np.float32), AFFINE, TIMES, None, "sax")


@pytest.fixture
def viewer():
    viewer = ViewerModel()
    viewer.add_layer(Layer.create(*cine_layer(cine())))
    return viewer


@pytest.fixture
def model(viewer):
    model = HeartModel(viewer)
    yield model
    model.close()


def test_a_layer_gives_its_cine_back(viewer):
    layer = viewer.layers[0]
    again = cine_of(layer)
    np.testing.assert_array_equal(again.data, cine().data)
    np.testing.assert_allclose(again.affine, AFFINE)
    np.testing.assert_allclose(again.times, TIMES)
    assert slices_across(layer) == 1
    np.testing.assert_array_equal(layer.affine.affine_matrix, np.eye(5), "slices are shown as scanned, never sheared")


def test_a_series_that_the_plugin_read_gives_the_same_cine():
    """Its axes are permuted to the world's: here the stack's axis is not the first of space."""
    from napari_mamba.ui.files.layer_data import series_data
    from napari_mamba.volume import Volume

    layer = Layer.create(*series_data(Volume(cine().data, AFFINE, units="mm", name="sax"))[0])
    again = cine_of(layer)
    np.testing.assert_array_equal(again.data, cine().data)
    np.testing.assert_allclose(again.affine, AFFINE)
    assert again.times is None
    assert slices_across(layer) != 1
    labels = labels_layer(discs(), layer, _Bundle())
    np.testing.assert_array_equal(labels.data, np.asarray(layer.data) > 200)


def test_the_axis_of_time_is_in_milliseconds(viewer):
    layer = viewer.layers[0]
    assert str(layer.units[0]) == "millisecond"
    assert layer.scale[0] == pytest.approx(np.diff(TIMES).mean())
    layer.metadata[KEY]["times_ms"] = None
    np.testing.assert_allclose(times_of(layer), 3 + 40.5 * np.arange(5))


def test_any_layer_of_four_axes_is_a_cine_by_its_units():
    layer = Image(cine().data, scale=(0.04, 8, 1.5, 1.5), units=("s", "mm", "mm", "mm"))
    np.testing.assert_allclose(cine_of(layer).times, 40.0 * np.arange(5))
    np.testing.assert_allclose(cine_of(layer).spacing, (8, 1.5, 1.5))
    from napari_mamba.errors import InputError

    with pytest.raises(InputError, match="millimetres"):
        cine_of(Image(cine().data))
    with pytest.raises(InputError, match="it has 3 axes and not four"):
        cine_of(Image(cine().data[0]))


def test_labels_of_the_cine_are_measured_and_corrected(model, viewer):
    assert model.beat is None
    layer = viewer.add_layer(labels_layer(discs(), viewer.layers[0], _Bundle()))
    model.take(layer)
    expected = measured(discs(), cine())
    np.testing.assert_allclose(model.beat.cavity_ml, expected.cavity_ml)
    assert dict(model.rows())["Ejection fraction"] == f"{expected.ejection_fraction:.1f} %"
    assert dict(model.rows())["Mass of the wall"] == "not found"
    layer.data[2] = layer.data[0]
    model.measure()
    assert model.beat.systole == 3
    viewer.layers.remove(layer)
    assert model.beat is None


def test_labels_that_are_there_already_are_taken(viewer):
    layer = viewer.add_layer(labels_layer(discs(), viewer.layers[0], _Bundle()))
    model = HeartModel(viewer)
    assert model.labels is layer
    assert model.beat is not None
    model.close()


def test_the_phase_follows_the_viewer_and_leads_it(model, viewer):
    model.take(viewer.add_layer(labels_layer(discs(), viewer.layers[0], _Bundle())))
    viewer.dims.set_current_step(0, 3)
    assert model.phase == 3
    assert model.rows()[-1][0] == "Cavity at 120 ms"
    model.show_phase(1)
    assert viewer.dims.current_step[0] == 1


def test_the_curve_is_saved(model, viewer, tmp_path):
    model.take(viewer.add_layer(labels_layer(discs(), viewer.layers[0], _Bundle())))
    model.save(tmp_path / "beat.csv")
    assert (tmp_path / "beat.csv").read_text().splitlines()[1].startswith("0,3,")
    model.save(tmp_path / "beat.png")
    assert (tmp_path / "beat.png").stat().st_size > 1000
    model.save(tmp_path / "beat.doc")
    assert (model.kind, "endings" in model.message) == ("error", True)


@pytest.fixture
def widget(qtbot, viewer, monkeypatch):
    from napari_mamba.ui.heart import widget as module
    from napari_mamba.ui.run.process import work
    from napari_mamba.ui.run.process.engine_process import EngineThread

    def follow(cancel, given, bundle, options):
        from napari_mamba.engine.progress.events import Progress

        yield Progress("network", 0, 5)
        beat = measured(discs(), given)
        return Followed(discs(), beat, ["The first doubt."])

    monkeypatch.setitem(work.WORK, "follow", follow)
    monkeypatch.setattr(module, "make_engine", EngineThread)
    widget = module.HeartWidget(viewer)
    qtbot.addWidget(widget)
    yield widget
    widget.close()


def test_a_run_adds_labels_and_the_beat(widget, viewer, qtbot):
    with qtbot.waitSignal(widget.work.ended, timeout=20_000):
        widget.row.start_button.click()
    assert [layer.name for layer in viewer.layers] == ["sax", "heart-mr: sax"]
    np.testing.assert_array_equal(viewer.layers[1].affine.affine_matrix, viewer.layers[0].affine.affine_matrix)
    assert widget.notice.text() == "The first doubt."
    assert widget.table.rowCount() == 6
    assert viewer.dims.order[:2] == (0, slices_across(viewer.layers[0]))
    widget.resize(380, 600)
    widget.show()
    qtbot.waitUntil(lambda: widget.plot.place is not None)
    from qtpy.QtCore import Qt

    where = widget.plot.place(float(TIMES[2]), 1.0).toPoint()
    qtbot.mouseClick(widget.plot, Qt.MouseButton.LeftButton, pos=where)
    assert viewer.dims.current_step[0] == 2
    qtbot.waitUntil(lambda: widget.table.item(5, 0).text() == "Cavity at 81 ms")


def test_one_frame_is_told(widget, viewer, qtbot):
    one = Image(cine().data[:1], scale=(1, 8, 1.5, 1.5), units=("pixel", "mm", "mm", "mm"))
    viewer.layers.clear()
    viewer.add_layer(one)
    widget.run()
    assert "at least two phases" in widget.notice.text()


def test_a_folder_is_opened_in_the_background(widget, viewer, qtbot, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    widget.open_cine(tmp_path)
    qtbot.waitUntil(lambda: "holds no DICOM images" in widget.notice.text(), timeout=60_000)
