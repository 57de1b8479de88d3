"""A layer that stays lazy is run into a store, and shown while it is written."""

from __future__ import annotations

import dask.array
import numpy as np
import pytest
import zarr
from napari.components import ViewerModel

from napari_mamba import engine, io
from napari_mamba.engine.progress.events import Progress
from napari_mamba.ui.layers import layers_to_volume
from napari_mamba.ui.run.process.engine_process import EngineThread
from napari_mamba.ui.run.process.outcome import Outcome
from napari_mamba.ui.run.session import RunSession
from napari_mamba.ui.run.store import runner as store_runner
from napari_mamba.ui.run.store.live import LiveStore
from napari_mamba.ui.run.store.menu import StoreEntry
from napari_mamba.ui.run.store.runner import STOPPING, StoreRun, StoreRunner
from napari_mamba.ui.run.widget import RunWidget

VALUES = np.random.default_rng(1).random((20, 24, 300)).astype(np.float32)


V2 = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}


def test_slices_show_what_is_there_before_the_coarser_levels_are(tmp_path):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    values = np.random.default_rng(0).integers(0, 9, (1, 10, 13, 16)).astype(np.uint8)
    fine = group.create_array("0", data=values)
    coarse = group.create_array("1", shape=(1, 10, 7, 8), chunks=(1, 5, 5, 5), dtype="u1", **V2)
    order = (2, 0, 1)
    store = LiveStore([fine, coarse], order)
    finest, coarser = store.data()
    turned = values[0].transpose(order)
    assert (finest.shape, coarser.shape) == ((16, 10, 13), (8, 10, 7))
    np.testing.assert_array_equal(finest[3], turned[3])
    np.testing.assert_array_equal(finest[:, 2:5, 4], turned[:, 2:5, 4])
    np.testing.assert_array_equal(coarser[3], turned[6, :, ::2])
    np.testing.assert_array_equal(coarser[1:4, 2, :6], turned[2:8:2, 2, :12:2])
    assert not np.asarray(coarser).any()
    coarse[:, :5, :5] = 9  # as far as it is written it is what is shown
    assert (coarser[3][:5, :5] == 9).all()
    np.testing.assert_array_equal(coarser[3][:, 5:], turned[6, :, ::2][:, 5:])
    np.testing.assert_array_equal(coarser[3][5:], turned[6, :, ::2][5:])
    coarse[...] = values[:, :, ::2, ::2]
    store.whole = True
    np.testing.assert_array_equal(coarser, turned[::2, :, ::2])
    flat = LiveStore([group.create_array("2", data=values[:, :1])], (0, 1, 2), flat=True).data()[0]
    np.testing.assert_array_equal(flat[2:4], values[0, 0, 2:4])


@pytest.fixture
def session(tiny) -> RunSession:
    viewer = ViewerModel()
    lazy = dask.array.from_array(VALUES, chunks=(10, 12, 100))
    viewer.add_image(lazy, name="scan", scale=(2, 1, 1), units=("mm",) * 3)
    session = RunSession(viewer)
    session.choose_bundle(session.library.find("tiny"))
    return session


def test_a_lazy_layer_becomes_a_store_and_a_layer(qtbot, session, tmp_path):
    job, volume = session.job_of(session.inputs.runs[0])
    # in a process of its own, as in the window
    run = StoreRun(volume, session.place_of(job), job.bundle, job.options, tmp_path / "labels.ome.zarr")
    runner, lines = StoreRunner(session.viewer, run), []
    runner.said.connect(lambda text, kind: lines.append((text, kind, len(session.viewer.layers))))
    with qtbot.waitSignal(runner.ended, timeout=300_000):
        runner.start()
    assert lines[-1][:2] == (f"{tmp_path / 'labels.ome.zarr'} is written.", "good")
    assert any("running" in text and count == 2 for text, _, count in lines), "no layer while it is written"
    layer = session.viewer.layers[-1]
    assert layer.multiscale
    assert tuple(layer.scale) == (2, 1, 1)
    wanted = engine.run_to_end(layers_to_volume([session.viewer.layers[0]])[0], job.bundle, job.options)
    stored = np.asarray(io.read(tmp_path / "labels.ome.zarr").data)
    np.testing.assert_array_equal(stored, wanted.labels.data)
    np.testing.assert_array_equal(np.asarray(layer.data[0]), run.place.to_layer_axes(stored[0]))


def test_a_store_of_one_level_is_a_layer_of_one(qtbot, session, tmp_path):
    session.viewer.layers[0].data = session.viewer.layers[0].data[..., :40]
    job, volume = session.job_of(session.inputs.runs[0])
    run = StoreRun(
        volume, session.place_of(job), job.bundle, job.options, tmp_path / "labels.zarr", engine=EngineThread()
    )
    runner = StoreRunner(session.viewer, run)
    with qtbot.waitSignal(runner.ended, timeout=300_000):
        runner.start()
    layer = session.viewer.layers[-1]
    assert not layer.multiscale
    stored = np.asarray(io.read(tmp_path / "labels.zarr").data)
    np.testing.assert_array_equal(np.asarray(layer.data), stored[0])


def test_what_cannot_be_is_said(qtbot, session, tmp_path):
    job, volume = session.job_of(session.inputs.runs[0])
    (tmp_path / "there.zarr").mkdir()
    run = StoreRun(
        volume, session.place_of(job), job.bundle, job.options, tmp_path / "there.zarr", engine=EngineThread()
    )
    runner = StoreRunner(session.viewer, run)
    with qtbot.waitSignal(runner.ended, timeout=300_000):
        runner.start()
    assert run.kind == "error"
    assert "already there" in run.said
    assert len(session.viewer.layers) == 1


class Endless:
    """Stands for an engine that computes until it is told to stop."""

    def work(self, kind, arguments, cancel):
        yield Progress("network", 1, 4, 60.0)
        assert cancel.wait(60)
        return Outcome(False)

    def end(self):
        pass


@pytest.fixture
def endless(monkeypatch):
    monkeypatch.setattr(store_runner, "EngineProcess", Endless)
    monkeypatch.setattr(StoreRunner, "_show", lambda self: None)  # nothing is written


def test_a_run_into_a_store_is_shown_and_cancelled_like_any_other_and_outlives_the_dock(
    qtbot, widget, endless, tmp_path
):
    stored = widget.host.stored
    assert not widget.stored.isVisibleTo(widget)
    stored.start(tmp_path / "a.zarr")
    line = "Into a.zarr: running, 25%, about 1 min 0 s left."
    qtbot.waitUntil(lambda: widget.stored.line.text() == line, timeout=20_000)
    assert widget.stored.bar.isVisibleTo(widget)
    assert widget.cancel_button.isEnabled()
    widget.session.changed.emit()
    widget.draw()
    assert widget.stored.line.text() == line, "drawing what is chosen says nothing of the store"
    widget.close()  # the dock
    again = RunWidget(widget.viewer)
    qtbot.addWidget(again)
    assert again.stored.line.text() == line
    assert again.cancel_button.isEnabled()
    with qtbot.waitSignal(stored.changed):
        again.cancel_button.click()
    assert again.stored.line.text() == STOPPING, "at once"
    qtbot.waitUntil(lambda: not stored.busy, timeout=20_000)
    assert again.stored.line.text() == "Stopped: the same run into a.zarr goes on where it was."
    assert not again.cancel_button.isEnabled()
    stored.forget()
    assert not again.stored.isVisibleTo(again)


def test_the_entry_of_the_menu_starts_and_stops(qtbot, widget, endless, tmp_path, monkeypatch):
    (entry,) = widget.findChildren(StoreEntry)
    asked = []

    def name(parent, title, suggested, *_, **__):
        asked.append(suggested)
        return str(tmp_path / "b"), ""

    monkeypatch.setattr("napari_mamba.ui.run.store.menu.QFileDialog.getSaveFileName", name)
    entry.triggered()
    assert asked == ["scan_tiny.ome.zarr"]
    assert widget.host.stored.run.target == tmp_path / "b.ome.zarr"
    widget.more_button.menu().aboutToShow.emit()
    assert entry.action.text() == "Stop the run into a store"
    entry.triggered()
    qtbot.waitUntil(lambda: not widget.host.stored.busy, timeout=20_000)
    widget.session.inputs.viewer.layers.clear()
    widget.more_button.menu().aboutToShow.emit()
    assert (entry.action.text(), entry.action.isEnabled()) == ("Run into a store…", False)
