"""Runs on a computer elsewhere, as the dock offers them: consent first, its queue, and the same layers."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_mamba import engine
from napari_mamba.engine.progress.events import Progress
from napari_mamba.server.client import remote
from napari_mamba.server.client.known import KnownServers, Server
from napari_mamba.ui.run.choice.texts import stage_text
from napari_mamba.ui.run.process.outcome import remote_outcome
from napari_mamba.ui.run.views.elsewhere_dialog import ElsewhereDialog
from napari_mamba.ui.run.views.options_view import ELSEWHERE

FAR = "https://gpu.example.org:8471"


@pytest.fixture
def asked(monkeypatch, widget, tmp_path):
    """What was sent elsewhere: each run is made here instead, after a wait in a queue that is not there."""
    widget.session.servers = KnownServers(tmp_path / "servers.json")
    sent = []

    def run(volume, bundle, options, cancel, address, token=""):
        sent.append((volume, options, address, token))
        yield Progress("sending", 0, 1)
        yield Progress("waiting", 0, 2, message="2 runs before this one")
        return (yield from engine.run(volume, bundle, engine.RunOptions(device="cpu"), cancel))

    monkeypatch.setattr(remote, "run", run)
    return sent


def test_a_run_there_is_a_run_like_any_other(widget, qtbot, asked):
    widget.options.use(Server(FAR, consent=True))
    assert widget.options.device.currentData() == FAR
    assert widget.options.device.currentText() == "Elsewhere: gpu.example.org:8471"
    stages = []
    widget.session.queue.progressed.connect(lambda job: stages.append(stage_text(job, 0.0)))
    with qtbot.waitSignal(widget.host.added, timeout=60_000):
        widget.run()
    ((volume, options, address, _),) = asked
    assert address == FAR
    assert options.device == "auto", "the other computer chooses among its own"
    layer = widget.viewer.layers[-1]
    assert layer.name == "tiny: scan"
    np.testing.assert_array_equal(layer.data.shape, volume.shape[::1])
    assert any(text.startswith("Waiting for its turn, 2 runs before this one") for text in stages)
    assert widget.message.text().startswith("Done in")


def test_without_consent_nothing_is_sent(widget, asked):
    widget.session.servers.add(Server(FAR))
    widget.session.options.device = FAR
    widget.draw()
    assert not widget.run_button.isEnabled()
    assert "Nothing may be sent to https://gpu.example.org:8471 yet" in widget.before.text()
    events = remote_outcome(None, widget.session.bundle, None, threading.Event(), Server(FAR))
    with pytest.raises(StopIteration) as end:
        next(events)
    assert end.value.value.error.startswith("Nothing was sent")
    assert not asked


def test_another_computer_is_chosen_in_the_list_of_devices(widget, monkeypatch, asked):
    answers = [False, True]

    def answer(dialog):
        dialog.address.setText(FAR)
        dialog.consent.setChecked(True)
        return answers.pop(0)

    monkeypatch.setattr(ElsewhereDialog, "exec", answer)
    combo = widget.options.device
    index = combo.findData(ELSEWHERE)
    assert combo.itemText(index) == "A computer elsewhere…"
    for chosen in ("auto", FAR):
        combo.setCurrentIndex(index)
        combo.activated.emit(index)
        assert widget.session.options.device == chosen, "the first time the dialog is left without an answer"
        assert combo.currentData() == chosen
        index = combo.findData(ELSEWHERE)
    assert widget.session.servers.find(FAR).consent


def test_the_dialog_says_what_is_sent_and_asks_for_consent(widget, qtbot):
    dialog = ElsewhereDialog(widget.viewer)
    qtbot.addWidget(dialog)
    dialog.show()
    assert not dialog.use_button.isEnabled()
    dialog.address.setText("http://gpu:8471")
    assert "sent to http://gpu:8471" in dialog.about.text()
    assert "not encrypted" in dialog.about.text()
    assert not dialog.use_button.isEnabled()
    dialog.consent.setChecked(True)
    assert dialog.use_button.isEnabled()
    dialog.address.setText("https://gpu:8471")
    assert "not encrypted" not in dialog.about.text()
    dialog.address.setText("http://127.0.0.1:8471")
    assert not dialog.consent.isVisible()
    assert dialog.use_button.isEnabled()
    dialog.address.setText("http://127.0.0.1:9")
    dialog.test()
    qtbot.waitUntil(lambda: "cannot be reached" in dialog.notice.text(), timeout=30_000)
    assert dialog.notice.kind == "error"
