"""The dock widget through every way a run can end; the engine is replaced by scripts, the worker thread is real."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
from napari.layers import Image, Labels, Layer
from qtpy.QtCore import Qt

from napari_mamba import engine
from napari_mamba.bundles import Channel
from napari_mamba.engine import ClassRow, Progress, Result
from napari_mamba.errors import OutOfMemoryError
from napari_mamba.ui.layers import layers_to_volume, volume_to_layers
from napari_mamba.ui.run.choice.inputs import NO_IMAGE
from napari_mamba.ui.run.choice.texts import duration
from napari_mamba.ui.run.widget import RunWidget
from napari_mamba.volume import Volume

TIMEOUT = 20_000
AFFINE = np.array([[0.0, 0.2, 0.9, -30], [0.1, 1.0, 0.0, 12], [2.5, 0.0, -0.1, 5], [0, 0, 0, 1]])
SCAN = np.random.default_rng(3).random((1, 6, 8, 10))


def script(monkeypatch, run):
    """Put a generator function in the engine's place."""
    monkeypatch.setattr(engine, "run", run)


def segmented(volume, bundle, options=None, cancel=None):
    """A run that finds class 1 in the first half of the slices and class 2 in a voxel."""
    for done in range(4):
        yield Progress("network", done, 4, 3.0 - done)
    labels = np.zeros((1, *volume.shape), np.uint8)
    labels[0, : volume.shape[0] // 2] = 1
    labels[0, -1, 0, 0] = 2
    rows = [ClassRow(1, "Anterior", "#e4a63a", 240, 0.54, 101.5), ClassRow(2, "Posterior", "#3a8fd9", 1, 0.00225, None)]
    return Result(labels=volume.with_data(labels), table=rows, warnings=["the image is small."])


def finish(qtbot, widget):
    with qtbot.waitSignal(widget.host.runner.ended, timeout=TIMEOUT):
        qtbot.mouseClick(widget.run_button, Qt.MouseButton.LeftButton)


def usable(widget) -> bool:
    """The widget can run again and shows no trace of the last run's progress."""
    return widget.run_button.isEnabled() and not widget.cancel_button.isEnabled() and widget.progress.bar.isHidden()


def test_success_adds_named_coloured_labels_in_the_place_of_the_source(qtbot, widget, monkeypatch):
    script(monkeypatch, segmented)
    finish(qtbot, widget)
    source, labels = widget.viewer.layers["scan"], widget.viewer.layers["tiny: scan"]
    assert isinstance(labels, Labels)
    for index in [(0, 0, 0), (5, 7, 9), (2, 3, 1)]:
        np.testing.assert_allclose(labels.data_to_world(index), source.data_to_world(index), atol=1e-9)
    assert (labels.units, labels.axis_labels) == (source.units, source.axis_labels)
    np.testing.assert_array_equal(labels.scale, source.scale)
    assert labels.features.set_index("index")["name"].to_dict() == {0: "background", 1: "Anterior", 2: "Posterior"}
    np.testing.assert_allclose(labels.get_color(1)[:3], np.array([0xE4, 0xA6, 0x3A]) / 255, atol=1e-3)
    assert labels.colormap.map(0)[3] == 0
    assert labels.colormap.color_dict[None][3] == 0
    assert labels.data[:3].min() == 1
    assert usable(widget)


def test_success_fills_the_table_and_tells_the_warnings(qtbot, widget, monkeypatch):
    script(monkeypatch, segmented)
    finish(qtbot, widget)
    assert widget.results.table.text().splitlines() == [
        "Class\tVoxels\tml\tMean",
        "Anterior\t240\t0.54\t102",
        "Posterior\t1\t0.00225\t–",
    ]
    assert not widget.results.isHidden()
    assert widget.message.text().startswith("Done in ")
    assert "the image is small." in widget.message.text()
    widget.results.table.selectRow(1)
    assert widget.viewer.layers["tiny: scan"].selected_label == 2


def test_results_have_names_of_their_own_and_the_latest_is_shown(qtbot, widget, monkeypatch):
    script(monkeypatch, segmented)
    finish(qtbot, widget)
    finish(qtbot, widget)
    assert [layer.name for layer in widget.viewer.layers] == ["scan", "tiny: scan", "tiny: scan [1]"]
    assert [layer.visible for layer in widget.viewer.layers] == [True, False, True]
    assert widget.channels.layers == [widget.viewer.layers["scan"]]


def test_progress_is_shown_while_it_runs_and_escape_cancels(qtbot, widget, monkeypatch, errors):
    ended_in: list[str] = []

    def slow(volume, bundle, options=None, cancel=None):
        try:
            yield Progress("network", 3, 8, 75.0)
            while not cancel.wait(0.005):
                yield Progress("network", 3, 8, 75.0)
            return Result(cancelled=True)
        finally:
            ended_in.append(threading.current_thread().name)

    script(monkeypatch, slow)
    widget.show()
    qtbot.mouseClick(widget.run_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: widget.progress.stage.text().startswith("Running, step 4 of 8"), timeout=TIMEOUT)
    qtbot.waitUntil(lambda: widget.progress.bar.maximum() > 0, timeout=TIMEOUT)
    assert not widget.progress.bar.isHidden()
    assert widget.run_button.text() == "Run after the present one"
    with qtbot.waitSignal(widget.host.runner.ended, timeout=TIMEOUT):
        widget.cancel_button.click()
        assert widget.progress.stage.text() == "Stopping. Nothing will be added."
    assert widget.message.text() == "Cancelled. Nothing was added."
    assert len(widget.viewer.layers) == 1
    assert not errors
    assert ended_in
    assert ended_in[0] != threading.main_thread().name
    assert usable(widget)
    script(monkeypatch, segmented)
    finish(qtbot, widget)
    assert "tiny: scan" in widget.viewer.layers


def broken(error):
    def run(volume, bundle, options=None, cancel=None):
        yield Progress("network", 0, 4)
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OutOfMemoryError("memory ran out: crop the image"), "Memory ran out: crop the image."),
        (RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"), "Memory ran out"),
        (MemoryError(), "Memory ran out"),
        (RuntimeError("shapes differ"), "The run stopped (RuntimeError: shapes differ): please report this."),
        (KeyError("x"), "The run stopped (KeyError: 'x')"),
        (OSError(5, "Input/output error"), "The run stopped (OSError"),
        (RecursionError("too deep"), "The run stopped (RecursionError: too deep)"),
        (KeyboardInterrupt(), "The run stopped"),
        (SystemExit(3), "The run stopped"),
        (BaseException("odd"), "The run stopped"),
    ],
)
def test_an_error_is_one_sentence_and_the_widget_is_usable_again(qtbot, widget, monkeypatch, errors, error, sentence):
    script(monkeypatch, broken(error))
    finish(qtbot, widget)
    assert widget.message.text().startswith(sentence)
    assert "\n" not in widget.message.text()
    assert errors == [widget.message.text()]
    assert len(widget.viewer.layers) == 1
    assert usable(widget)
    script(monkeypatch, segmented)
    finish(qtbot, widget)
    assert "tiny: scan" in widget.viewer.layers


def test_what_cannot_be_run_says_why_before_the_click_and_no_longer_than_it_is_so(qtbot, widget, errors):
    widget.viewer.layers.clear()
    qtbot.waitUntil(lambda: widget.before.text() == NO_IMAGE, timeout=TIMEOUT)
    assert not widget.run_button.isEnabled()
    photo = widget.viewer.add_image(np.zeros((4, 5, 3), np.uint8), rgb=True, name="photo")
    qtbot.waitUntil(lambda: "'photo' is a colour" in widget.before.text(), timeout=TIMEOUT)
    assert not widget.run_button.isEnabled()
    widget.viewer.layers.remove(photo)
    widget.viewer.add_labels(np.zeros((4, 5, 3), np.uint8))
    qtbot.waitUntil(lambda: widget.before.text() == NO_IMAGE, timeout=TIMEOUT)
    widget.viewer.add_image(np.random.default_rng(0).random((40, 40, 40)), name="fine")
    qtbot.waitUntil(widget.run_button.isEnabled, timeout=TIMEOUT)
    assert "photo" not in widget.before.text()
    assert not errors


def test_the_source_may_be_removed_while_the_run_goes_on(qtbot, widget, monkeypatch):
    gate = threading.Event()

    def waiting(volume, bundle, options=None, cancel=None):
        yield Progress("network", 0, 4)
        gate.wait(10)
        return (yield from segmented(volume, bundle))

    script(monkeypatch, waiting)
    qtbot.mouseClick(widget.run_button, Qt.MouseButton.LeftButton)
    at = widget.viewer.layers["scan"].data_to_world((5, 7, 9))
    widget.viewer.layers.clear()
    with qtbot.waitSignal(widget.host.runner.ended, timeout=TIMEOUT):
        gate.set()
    np.testing.assert_allclose(widget.viewer.layers["tiny: scan"].data_to_world((5, 7, 9)), at)
    assert not widget.run_button.isEnabled(), "there is no image left to run on"


def test_closing_the_dock_loses_nothing_and_its_run_goes_on(qtbot, widget, monkeypatch):
    from qtpy.QtWidgets import QDockWidget

    gate = threading.Event()

    def waiting(volume, bundle, options=None, cancel=None):
        yield Progress("network", 0, 4)
        gate.wait(10)
        return (yield from segmented(volume, bundle))

    script(monkeypatch, waiting)
    dock = QDockWidget()
    qtbot.addWidget(dock)
    dock.setWidget(widget)
    qtbot.mouseClick(widget.run_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: widget.progress.stage.text().startswith("Running"), timeout=TIMEOUT)
    host = widget.host
    widget.setParent(None)
    again = RunWidget(widget.viewer)
    qtbot.addWidget(again)
    assert again.session is widget.session
    assert again.model.bundle.name == "tiny"
    assert again.progress.stage.text().startswith("Running")
    with qtbot.waitSignal(host.runner.ended, timeout=TIMEOUT):
        gate.set()
    assert "tiny: scan" in widget.viewer.layers
    assert again.message.text().startswith("Done")
    assert not again.results.isHidden()


def test_closing_the_viewer_cancels_its_run(qtbot, widget, monkeypatch):
    cancelled = threading.Event()

    def endless(volume, bundle, options=None, cancel=None):
        while not cancel.wait(0.005):
            yield Progress("network", 0, 4)
        cancelled.set()
        return Result(cancelled=True)

    script(monkeypatch, endless)
    qtbot.mouseClick(widget.run_button, Qt.MouseButton.LeftButton)
    with qtbot.waitSignal(widget.host.runner.ended, timeout=TIMEOUT):
        widget.host.close()
    assert cancelled.is_set()
    widget.viewer.add_image(np.zeros((3, 3, 3)))  # nobody listens any more, and nothing breaks


def test_a_restored_image_looks_like_its_source(qtbot, widget, monkeypatch):
    def restored(volume, bundle, options=None, cancel=None):
        yield Progress("network", 1, 1)
        return Result(image=volume.with_data(np.asarray(volume.data) * 0.5))

    script(monkeypatch, restored)
    source = widget.viewer.layers["scan"]
    source.contrast_limits = (0.2, 0.7)
    finish(qtbot, widget)
    image = widget.viewer.layers["tiny: scan"]
    assert isinstance(image, Image)
    np.testing.assert_allclose(image.data, source.data * 0.5)
    assert list(image.contrast_limits) == [0.2, 0.7]
    assert widget.results.table.isHidden()
    assert not widget.results.beside_button.isHidden()


@pytest.mark.parametrize("flat", [False, True])
def test_a_restored_image_of_more_voxels_lies_where_its_source_does(qtbot, widget, monkeypatch, flat):
    def enlarged(volume, bundle, options=None, cancel=None):
        yield Progress("network", 1, 1)
        factors = (1, 2, 4) if flat else (3, 2, 4)
        fine = np.asarray(volume.data)
        for axis, factor in enumerate(factors, start=1):
            fine = fine.repeat(factor, axis)
        index = np.diag([*(1 / f for f in factors), 1.0])
        index[:3, 3] = [(1 / f - 1) / 2 for f in factors]
        yield Progress("restoring", 1, 1)
        return Result(image=Volume(fine, volume.affine @ index, volume.channel_names, volume.units))

    script(monkeypatch, enlarged)
    source = widget.viewer.layers["scan"]
    if flat:
        widget.viewer.layers.clear()
        source = widget.viewer.add_image(SCAN[0, 0], name="scan", scale=(2.0, 3.0), rotate=30, translate=(5, -4))
    finish(qtbot, widget)
    image = widget.viewer.layers["tiny: scan"]
    for layer_corner in (lambda n: -0.5, lambda n: n - 0.5):
        corners = [layer.data_to_world([layer_corner(n) for n in layer.data.shape]) for layer in (image, source)]
        np.testing.assert_allclose(*corners, atol=1e-6)
    # The same place in both is the same value.
    point = source.data_to_world(tuple(np.array(source.data.shape) // 2))
    index = np.round(image.world_to_data(point) + 0.25).astype(int)
    assert image.data[tuple(index)] == source.data[tuple(np.array(source.data.shape) // 2)]
    if not flat:
        volume, _ = layers_to_volume([image])
        again = layers_to_volume([source])[0].affine
        expected = again @ np.diag([1 / 3, 1 / 2, 1 / 4, 1])
        np.testing.assert_allclose(volume.affine[:3, :3], expected[:3, :3], atol=1e-9)


def test_a_model_of_slices_offers_their_axis(qtbot, widget, monkeypatch):
    seen = []

    def run(volume, bundle, options=None, cancel=None):
        seen.append(options.axis)
        yield from segmented(volume, bundle)
        return (yield from segmented(volume, bundle))

    assert widget.options.axis.isHidden()
    whole = widget.model.bundle
    bundle = replace(
        whole, tile=replace(whole.tile, size=(40, 40), divisor=()), network=replace(whole.network, arguments={})
    )
    widget.session.choose_bundle(bundle)
    assert not widget.options.axis.isHidden()
    choices = widget.session.options
    assert choices.run_options(bundle).axis is None
    choose = widget.options.axis
    for order, asked, axis in (
        ((0, 1, 2), "z", "z"),
        ((2, 0, 1), "z", "x"),
        ((2, 0, 1), "x", "y"),
        ((2, 0, 1), "all", "all"),
    ):
        choose.setCurrentIndex(choose.findData(asked))
        assert choices.run_options(bundle, order).axis == axis
    widget.session.choose_bundle(whole)
    assert choose.isHidden()
    choose.setCurrentIndex(choose.findData("y"))
    script(monkeypatch, run)
    finish(qtbot, widget)  # the 3D model that is chosen
    assert seen == [None]


def test_a_classification_is_a_ranked_table_and_no_layer(qtbot, widget, monkeypatch):
    def classified(volume, bundle, options=None, cancel=None):
        yield Progress("network", 1, 1)
        return Result(scores={"normal": 0.25, "hyperplasia": 0.75})

    script(monkeypatch, classified)
    finish(qtbot, widget)
    assert widget.results.table.text().splitlines()[1:] == ["hyperplasia\t0.750", "normal\t0.250"]
    assert len(widget.viewer.layers) == 1


def test_where_a_classifier_looked_is_a_layer_in_the_place_of_the_image(qtbot, widget, monkeypatch):
    def classified(volume, bundle, options=None, cancel=None):
        yield Progress("network", 1, 1)
        where = volume.with_data(np.ones((1, *volume.shape), np.float32), ("evidence for blur",))
        return Result(scores={"clean": 0.1, "blur": 0.9}, extra={"where": where})

    script(monkeypatch, classified)
    finish(qtbot, widget)
    source, shown = widget.viewer.layers
    assert shown.name == "evidence for blur: scan"
    np.testing.assert_allclose(shown.extent.world, source.extent.world)


def test_a_model_of_masks_offers_labels_first(widget):
    labels = widget.viewer.add_labels(np.ones(SCAN.shape[1:], np.uint8), name="gland")
    assert labels not in widget.channels.layers
    widget.session.inputs.set_channels((Channel("mask of one adrenal gland", "MASK"),))
    assert widget.channels.layers == [labels]
    assert [widget.channels.combos[0].itemText(i) for i in range(2)] == ["gland", "scan"]


def test_a_model_of_two_channels_takes_the_layers_of_their_names(qtbot, widget, monkeypatch):
    seen = []

    def watch(volume, bundle, options=None, cancel=None):
        seen.append(volume)
        return (yield from segmented(volume, bundle))

    script(monkeypatch, watch)
    flair = Layer.create(*volume_to_layers(Volume(SCAN, AFFINE, name="patient FLAIR"))[0])
    widget.viewer.add_layer(flair)
    widget.model.combo.setCurrentIndex(widget.model.combo.findText("tiny-two"))
    assert len(widget.channels.combos) == 2
    assert [layer.name for layer in widget.channels.layers][1] == "patient FLAIR"
    widget.channels.combos[0].setCurrentIndex(widget.channels.combos[0].findText("scan"))
    finish(qtbot, widget)
    assert seen[0].channel_names == ("scan", "patient FLAIR")
    np.testing.assert_array_equal(seen[0].data[1], flair.data)


def test_a_bundle_can_be_opened_and_a_wrong_folder_is_told_in_a_sentence(qtbot, widget, errors, tmp_path, make_bundle):
    count = widget.model.combo.count()
    with qtbot.waitSignal(widget.model.failed, timeout=TIMEOUT):
        widget.model.open(str(tmp_path))
    assert str(tmp_path) in widget.message.text()
    widget.host.estimated.emit(None)  # whatever is told meanwhile
    widget.draw()
    assert str(tmp_path) in widget.message.text(), "it stays until something is done about it"
    path = make_bundle(tmp_path)
    with qtbot.waitSignal(widget.model.opener.opened, timeout=TIMEOUT):
        widget.model.open(str(path))
    widget.draw()
    assert not widget.message.text()
    assert widget.model.bundle.path == path
    qtbot.waitUntil(lambda: widget.model.combo.count() > count, timeout=TIMEOUT)


def test_the_widget_says_what_it_is_for_and_that_it_runs_on_the_cpu(widget):
    assert "Not for clinical use" in widget.model.summary.text()
    assert "Anterior, Posterior" in widget.model.summary.text()
    assert not widget.options.notice.isHidden()


def test_enter_runs(qtbot, widget, monkeypatch):
    script(monkeypatch, segmented)
    widget.show()
    widget.activateWindow()
    widget.channels.combos[0].setFocus()
    qtbot.waitUntil(widget.channels.combos[0].hasFocus, timeout=TIMEOUT)
    with qtbot.waitSignal(widget.host.runner.ended, timeout=TIMEOUT):
        qtbot.keyClick(widget.channels.combos[0], Qt.Key.Key_Return)
    assert "tiny: scan" in widget.viewer.layers


def test_texts_of_time():
    assert [duration(s) for s in (0.42, 59.7, 200, 7500)] == ["0.4 s", "1 min 0 s", "3 min 20 s", "2 h 5 min"]


def test_the_default_model_is_chosen_at_first_where_it_is_installed(tiny, monkeypatch):
    from napari.components import ViewerModel

    from napari_mamba.ui.bundles import library
    from napari_mamba.ui.run.session import DEFAULT, RunSession

    (one,) = (bundle for bundle in library.bundles.available() if bundle.name == "tiny")
    monkeypatch.setattr(library.bundles, "available", lambda: [one, replace(one, name=DEFAULT)])
    assert RunSession(ViewerModel()).bundle.name == "brain-structures-mr"
    monkeypatch.setattr(library.bundles, "available", lambda: [one])
    assert RunSession(ViewerModel()).bundle.name == "tiny"


def test_a_result_that_is_removed_at_once_is_let_go(qtbot, widget):
    """Nothing may hold it: not the finished job's worker, and not its drawing tools, which come a moment later."""
    with qtbot.waitSignal(widget.host.added, timeout=TIMEOUT):
        qtbot.mouseClick(widget.run_button, Qt.MouseButton.LeftButton)
    layer = widget.viewer.layers["tiny: scan"]
    tools = [layer._overlays[name] for name in ("polygon", "brush_stroke")]
    assert not any(tool.visible for tool in tools)
    widget.viewer.layers.remove(layer)
    qtbot.wait(100)
    assert not any(tool.visible for tool in tools)
    with qtbot.waitSignal(widget.host.added, timeout=TIMEOUT):
        qtbot.mouseClick(widget.run_button, Qt.MouseButton.LeftButton)
    second = widget.viewer.layers["tiny: scan"]
    tools = [second._overlays[name] for name in ("polygon", "brush_stroke")]
    qtbot.waitUntil(lambda: all(tool.visible for tool in tools), timeout=TIMEOUT)
    gone = weakref.ref(layer)
    del layer
    gc.collect()
    assert gone() is None
