"""What may go wrong while a run goes on, and where it is held.

| failure | tests |
| --- | --- |
| out of memory | test_ui_run_widget: an_error_is_one_sentence; test_ui_engine_process: a_process_that_the_system |
| cancel | test_ui_run_widget: progress_is_shown; test_ui_engine_process: cancelling; test_ui_run_queue: a_waiting_job |
| layer removed | test_ui_run_widget: the_source_may_be_removed |
| layer renamed, edited, moved | here |
| viewer closed | test_ui_run_widget: closing_the_viewer; test_ui_window: closing_the_window_during_a_run |
| two widgets, two viewers at once | here |
| model deleted | here, while it is chosen; test_ui_run_session: a_removed_bundle, before |
| GPU gone | here, in a run; test_ui_run_session: the_device_that_is_not_there, before |
| another computer gone | test_client: its own |
"""

from __future__ import annotations

import ast
import queue
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel

import napari_mamba
from napari_mamba import bundles, engine
from napari_mamba.engine import Progress, Result, RunOptions
from napari_mamba.ui.run.process.engine_process import EngineProcess
from napari_mamba.ui.run.process.outcome import GPU_GONE, Outcome
from napari_mamba.ui.run.widget import RunWidget
from napari_mamba.volume import Volume

TIMEOUT = 20_000


@pytest.fixture
def gate(monkeypatch):
    """Runs that wait in their first step until the gate is set; `seen` holds the volumes that they got."""
    gate = threading.Event()
    gate.seen = []

    def run(volume, bundle, options=None, cancel=None):
        gate.seen.append(np.array(volume.data))
        yield Progress("network", 0, 2)
        gate.wait(20)
        labels = np.zeros((1, *volume.shape), np.uint8)
        labels[0, 0] = 1
        return Result(labels=volume.with_data(labels))

    monkeypatch.setattr(engine, "run", run)
    yield gate
    gate.set()


def begin(qtbot, widget, gate):
    count = len(gate.seen)
    widget.run()
    qtbot.waitUntil(lambda: len(gate.seen) > count, timeout=TIMEOUT)


def end(qtbot, widget, gate):
    with qtbot.waitSignal(widget.host.added, timeout=TIMEOUT):
        gate.set()


def test_a_layer_renamed_while_it_runs_keeps_its_result(qtbot, widget, gate):
    begin(qtbot, widget, gate)
    source = widget.viewer.layers["scan"]
    source.name = "baseline"
    end(qtbot, widget, gate)
    result = widget.viewer.layers["tiny: scan"]
    assert result.data.max() == 1
    np.testing.assert_allclose(result.data_to_world((1, 2, 3)), source.data_to_world((1, 2, 3)))
    assert widget.run_button.isEnabled()
    assert widget.channels.layers == [source]


@pytest.mark.parametrize("edit", ["other values", "another shape", "moved"])
def test_a_layer_edited_while_it_runs_changes_nothing_of_the_run(qtbot, widget, gate, edit):
    source = widget.viewer.layers["scan"]
    before, at = source.data.copy(), source.data_to_world((1, 2, 3))
    begin(qtbot, widget, gate)
    if edit == "other values":
        source.data = np.zeros_like(before) + np.arange(before.shape[-1])
    elif edit == "another shape":
        source.data = before[:3]
    else:
        source.translate = np.array(source.translate) + 50
    end(qtbot, widget, gate)
    result = widget.viewer.layers["tiny: scan"]
    assert result.data.shape == before.shape
    np.testing.assert_allclose(result.data_to_world((1, 2, 3)), at)
    assert sorted(gate.seen[0].ravel()) == pytest.approx(sorted(before.ravel()))


def test_two_widgets_of_one_viewer_show_one_run(qtbot, widget, gate):
    other = RunWidget(widget.viewer)
    qtbot.addWidget(other)
    begin(qtbot, widget, gate)
    qtbot.waitUntil(lambda: other.run_button.text() == "Run after the present one", timeout=TIMEOUT)
    assert other.cancel_button.isEnabled()
    end(qtbot, widget, gate)
    qtbot.waitUntil(lambda: other.message.text().startswith("Done"), timeout=TIMEOUT)
    assert [layer.name for layer in widget.viewer.layers] == ["scan", "tiny: scan"], "added once"
    assert widget.message.text() == other.message.text()


def test_two_viewers_at_once_get_each_its_own_result(qtbot, widget, gate):
    second = ViewerModel()
    second.add_image(np.random.default_rng(1).random((7, 9, 11)), name="second")
    other = RunWidget(second)
    qtbot.addWidget(other)
    try:
        other.model.combo.setCurrentIndex(other.model.combo.findText("tiny"))
        qtbot.waitUntil(lambda: other.run_button.isEnabled(), timeout=TIMEOUT)
        begin(qtbot, widget, gate)
        begin(qtbot, other, gate)
        end(qtbot, other, gate)
        qtbot.waitUntil(lambda: "tiny: scan" in widget.viewer.layers, timeout=TIMEOUT)
        assert second.layers["tiny: second"].data.shape == (7, 9, 11)
        assert len(widget.viewer.layers) == len(second.layers) == 2
    finally:
        other.host.close()


def test_a_model_deleted_from_the_disk_is_a_sentence(qtbot, widget, errors, tmp_path, make_bundle):
    path = make_bundle(tmp_path / "mine")
    widget.session.choose_bundle(widget.session.library.add(bundles.load(path)))
    shutil.rmtree(path)
    with qtbot.waitSignal(widget.host.runner.ended, timeout=TIMEOUT):
        widget.run()
    assert str(path) in widget.message.text()
    assert "please report" not in widget.message.text()
    assert errors == [widget.message.text()]


@pytest.mark.parametrize("words", ["CUDA error: unspecified launch failure", "CUDA error: device not ready\nCompile…"])
def test_a_gpu_that_goes_is_a_sentence_and_the_next_run_may_go_on(qtbot, widget, monkeypatch, errors, words):
    def run(volume, bundle, options=None, cancel=None):
        yield Progress("network", 0, 2)
        raise RuntimeError(words)

    monkeypatch.setattr(engine, "run", run)
    with qtbot.waitSignal(widget.host.runner.ended, timeout=TIMEOUT):
        widget.run()
    assert widget.message.text() == GPU_GONE
    assert widget.run_button.isEnabled()


def test_a_process_whose_gpu_is_lost_is_replaced(tiny, monkeypatch):
    process, ended = EngineProcess(), []
    answers: queue.Queue = queue.Queue()
    answers.put(("ended", Outcome(error=GPU_GONE, lost=True)))
    monkeypatch.setattr(process, "_send", lambda *_: (0, answers))
    monkeypatch.setattr(process, "end", lambda: ended.append(True))
    events = process.run(Volume(np.zeros((1, 2, 2, 2))), tiny, RunOptions(), threading.Event())
    with pytest.raises(StopIteration) as stopped:
        next(events)
    assert stopped.value.value.error == GPU_GONE
    assert ended == [True]


def test_no_sentence_speaks_of_options_of_the_command():
    """What the engine tells those who type commands names what this window has in its place."""
    from napari_mamba.ui.run.process.outcome import IN_THE_WINDOW, sentence

    root = Path(napari_mamba.__file__).parent
    rooms = ("engine", "io", "bundles", "registration", "heart", "slides")
    files = [path for room in rooms for path in (root / room).rglob("*.py")]
    calls = [node for path in files for node in ast.walk(ast.parse(path.read_text("utf-8"))) if _is_error(node)]
    said = [text for text in map(_text, calls) if "--" in text]
    assert len(said) > 8
    for text in said:
        assert "--" not in sentence(text), text
    for option, _ in IN_THE_WINDOW:
        assert any(option in text for text in said), f"nobody says {option!r} any more"


def _is_error(node: ast.AST) -> bool:
    function = getattr(node, "func", None)
    name = getattr(function, "id", getattr(function, "attr", ""))
    return name.endswith("Error") or name == "NeedsMemory"


def _text(node: ast.AST) -> str:
    """The words of an error, with those that are computed left away."""
    constants = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
    return "".join(value for value in constants if isinstance(value, str))
