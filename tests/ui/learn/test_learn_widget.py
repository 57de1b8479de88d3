"""The dock "Learn" by clicks: a script stands for the command, but for the last test, which is the whole journey."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Layer

from napari_mamba import bundles
from napari_mamba.ui.layers import volume_to_layers
from napari_mamba.ui.learn import host as hosts
from napari_mamba.ui.learn.child import Child
from napari_mamba.ui.learn.session import IDLE, RUNNING
from napari_mamba.ui.learn.widget import LearnWidget
from napari_mamba.volume import Volume

TIMEOUT = 300_000  # on two cores that others share
AFFINE = np.array([[0.0, 0, 1, 5], [0, 1, 0, -3], [1, 0, 0, 2], [0, 0, 0, 1]])


class Script:
    """What would be the command; `tell` is its events."""

    made: list[Script] = []  # noqa: RUF012

    def __init__(self, words, on_event):
        self.words, self.tell, self.said = list(words), on_event, []
        Script.made.append(self)

    def stop(self) -> None:
        self.said.append("stop")

    def kill(self) -> None:
        self.said.append("kill")


def add(viewer: ViewerModel, name: str, seed: int) -> None:
    """Noise with a bright cube, and the cube as labels."""
    rng = np.random.default_rng(seed)
    image, drawn = rng.normal(0, 0.3, (16, 18, 20)).astype(np.float32), np.zeros((16, 18, 20), np.uint8)
    z, y, x = rng.integers(1, 8, 3)
    drawn[z : z + 8, y : y + 8, x : x + 8] = 1
    (data, keywords, _), *_ = volume_to_layers(Volume((image + 2 * drawn)[None], AFFINE, name=name))
    viewer.add_layer(Layer.create(data, keywords, "image"))
    (labels, keywords, _), *_ = volume_to_layers(Volume(drawn[None], AFFINE, name=f"{name} drawn"))
    viewer.add_layer(Layer.create(labels, keywords, "labels"))


@pytest.fixture
def widget(qtbot, make_bundle, tmp_path: Path, monkeypatch, in_this_process):
    """The dock on a window's model with three people's images, in front of a script."""
    make_bundle(tmp_path / "mine")
    monkeypatch.setenv("NAPARI_MAMBA_BUNDLES", str(tmp_path / "mine"))
    monkeypatch.setattr(hosts, "make_child", Script)
    Script.made.clear()
    viewer = ViewerModel()
    for number in range(3):
        add(viewer, f"p{number}", number)
    widget = LearnWidget(viewer)
    qtbot.addWidget(widget)
    index = widget.start_from.findText("tiny")
    widget.start_from.setCurrentIndex(index)
    widget.start_from.activated.emit(index)
    yield widget
    widget.host.close()


def test_from_clicks_to_a_preview_and_back(qtbot, widget: LearnWidget) -> None:
    assert not widget.start_button.isEnabled()
    widget.pairs.add_all.click()
    qtbot.waitUntil(widget.start_button.isEnabled)
    assert widget.pairs.table.rowCount() == 3
    assert widget.name.text() == "tiny-mine"
    assert "The score stands on 1 image of 1 person" in widget.before.text()
    widget.start_button.click()
    qtbot.waitUntil(lambda: widget.session.state == RUNNING, timeout=TIMEOUT)
    qtbot.waitUntil(widget.stop_button.isEnabled)
    assert not widget.start_button.isEnabled()
    (script,) = Script.made
    event = {"event": "progress", "done": 1, "total": 2, "fraction": 0.5, "seconds_left": 60.0, "message": ""}
    script.tell({**event, "stage": "training", "loss": 0.5})
    qtbot.waitUntil(lambda: widget.bar.value() == 500)
    assert widget.where.text() == "Learning, about 1 min 0 s left."
    assert widget.curve.text() == "loss 0.500 at step 1"
    preview = Path(script.words[1]).parent / "p0-labels.nii.gz"
    script.tell({**event, "stage": "previewing", "preview": str(preview)})
    qtbot.waitUntil(lambda: "preview: p0" in widget.viewer.layers, timeout=TIMEOUT)
    np.testing.assert_array_equal(widget.viewer.layers["preview: p0"].data, widget.viewer.layers["p0 drawn"].data)
    script.tell({**event, "stage": "previewing", "preview": str(preview)})
    qtbot.wait(200)
    assert len([layer for layer in widget.viewer.layers if layer.name.startswith("preview")]) == 1
    widget.stop_button.click()
    assert script.said == ["stop"]
    script.tell({"event": "result", "cancelled": True, "outputs": {}, "adapted": {}})
    qtbot.waitUntil(lambda: widget.session.state == IDLE)
    qtbot.waitUntil(lambda: not widget.message.isHidden())
    assert "before there was anything to keep" in widget.message.text()
    assert not widget.correct_button.isHidden()
    widget.correct_button.click()
    assert widget.session.pairs.rows[0].labels is widget.viewer.layers["preview: p0"]


def test_choices_go_both_ways(qtbot, widget: LearnWidget) -> None:
    choices = widget.session.choices
    form = widget.choices
    assert form.background.isHidden()
    form.unpainted.setCurrentIndex(1)
    form.unpainted.activated.emit(1)
    assert choices.unpainted == "unknown"
    assert not form.background.isHidden()
    form.background.setValue(4)
    form.minutes.setValue(3)
    form.encoder_stays.setChecked(True)
    assert (choices.background, choices.minutes, choices.encoder_stays) == (4, 3.0, True)
    choices.scheme = "mean-teacher"
    assert form.scheme.currentData() == "mean-teacher"
    widget.source.setCurrentIndex(1)
    widget.source.activated.emit(1)
    assert widget.pairs.isHidden()
    assert not widget.place.isHidden()
    widget.place.line.setText("/nowhere")
    widget.place.line.editingFinished.emit()
    qtbot.waitUntil(lambda: "not there any more: /nowhere" in widget.before.text())
    assert not widget.start_button.isEnabled()


def test_a_table_row_is_a_pair(qtbot, widget: LearnWidget) -> None:
    widget.pairs.add.click()
    (pair,) = widget.session.pairs.rows
    qtbot.waitUntil(lambda: widget.pairs.table.rowCount() == 1)
    combo = widget.pairs.table.cellWidget(0, 1)
    index = combo.findText("p2 drawn")
    combo.activated.emit(index)
    assert pair.labels.name == "p2 drawn"
    qtbot.waitUntil(lambda: widget.pairs.table.cellWidget(0, 1).currentText() == "p2 drawn")
    line = widget.pairs.table.cellWidget(0, 2)
    line.setText("anna")
    line.editingFinished.emit()
    assert pair.person == "anna"
    widget.viewer.layers.remove(pair.image.name)
    qtbot.waitUntil(lambda: widget.pairs.table.rowCount() == 0)


def test_further_channels_are_chosen_below_the_list(qtbot, widget: LearnWidget, make_bundle) -> None:
    assert widget.pairs.channels.isHidden()
    make_bundle(bundles.user_folder(), ("T1", "FLAIR"))
    widget.session.library.refresh()
    widget.pairs.add.click()
    (pair,) = widget.session.pairs.rows
    widget.session.choose_bundle(widget.session.library.find("tiny-two"))
    qtbot.waitUntil(lambda: len(widget.pairs.channels.combos) == 1)
    assert not widget.pairs.channels.isHidden()
    assert not widget.start_button.isEnabled()
    (combo,) = widget.pairs.channels.combos
    assert combo.currentText() == "choose…"
    combo.activated.emit(combo.findText("p1"))
    assert [layer.name for layer in pair.layers] == ["p0", "p1"]
    qtbot.waitUntil(widget.start_button.isEnabled)


def test_a_closed_dock_loses_nothing(qtbot, widget: LearnWidget) -> None:
    widget.pairs.add_all.click()
    qtbot.waitUntil(widget.start_button.isEnabled)
    widget.start_button.click()
    qtbot.waitUntil(lambda: widget.session.state == RUNNING, timeout=TIMEOUT)
    session = widget.session
    widget.close()
    again = LearnWidget(session.viewer)
    qtbot.addWidget(again)
    assert again.session is session
    assert again.stop_button.isEnabled()
    assert again.pairs.table.rowCount() == 3


def test_the_whole_way_with_the_real_command(qtbot, widget: LearnWidget, monkeypatch) -> None:
    """Learn, stop, look at the preview, correct it, and go on from what was made."""
    monkeypatch.setattr(hosts, "make_child", Child)
    widget.pairs.add_all.click()
    widget.session.choices.minutes = 60.0
    qtbot.waitUntil(widget.start_button.isEnabled)
    widget.start_button.click()
    session = widget.session
    qtbot.waitUntil(lambda: "preview: p0" in widget.viewer.layers or session.last is not None, timeout=TIMEOUT)
    session.stop()
    qtbot.waitUntil(lambda: session.state == IDLE, timeout=TIMEOUT)
    kind, text = session.last
    assert kind == "good", text
    assert "held-out person" in text or "stopped before it was scored" in text  # as far as it came
    assert session.made in session.library.bundles
    assert (bundles.user_folder() / "tiny-mine" / "bundle.json").is_file()
    assert [one.output.name for one in session.unfinished] == ["tiny-mine"]  # it was stopped: it can be resumed
    session.discard(session.unfinished[0])
    qtbot.waitUntil(lambda: not widget.correct_button.isHidden())
    widget.correct_button.click()
    session.choices.minutes = 0.05
    widget.go_on_button.click()
    qtbot.waitUntil(lambda: session.state == RUNNING or session.last is not None, timeout=TIMEOUT)
    qtbot.waitUntil(lambda: session.state == IDLE, timeout=TIMEOUT)
    assert session.last[0] == "good", session.last
    assert session.made.name == "tiny-mine-2"
    assert session.made.metrics["adapted"]["from"] == "tiny-mine"
