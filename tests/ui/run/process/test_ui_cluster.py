"""A Dask cluster as a device of the dock: named in the preferences, run by the engine's process."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mamba import engine
from napari_mamba.ui.preferences import Preferences
from napari_mamba.ui.run import session as session_module
from napari_mamba.ui.run.process.engine_process import EngineThread
from napari_mamba.ui.run.process.outcome import Outcome

ADDRESS = "tcp://head:8786"


@pytest.fixture
def asked(monkeypatch):
    """What the engine's process was asked to have a cluster compute; computed here instead."""
    sent = []

    def work(self, kind, arguments, cancel):
        volume, bundle, options, address = arguments
        sent.append((kind, bundle, options, address))
        from napari_mamba import bundles

        events = engine.run(volume, bundles.load(bundle), engine.RunOptions(device="cpu"), cancel)
        return Outcome((yield from events))

    monkeypatch.setattr(EngineThread, "work", work)
    return sent


def test_the_preference_is_a_device_and_runs_go_there(widget, qtbot, asked, monkeypatch):
    monkeypatch.setattr(session_module, "preferences", lambda: Preferences(scheduler=ADDRESS))
    widget.session.take_preferences()
    widget.draw()
    assert widget.options.device.currentText() == "Cluster: head:8786"
    assert widget.session.server is None
    with qtbot.waitSignal(widget.host.added, timeout=60_000):
        widget.run()
    ((kind, bundle, options, address),) = asked
    assert (kind, address) == ("on_cluster", ADDRESS)
    assert bundle == str(widget.session.bundle.path)
    assert options.device == "auto", "each worker chooses among its own"
    layer = widget.viewer.layers[-1]
    assert layer.name == "tiny: scan"
    assert layer.data.shape == np.shape(widget.viewer.layers[0].data)


def test_another_device_can_be_chosen_all_the_same(widget, monkeypatch):
    monkeypatch.setattr(session_module, "preferences", lambda: Preferences(scheduler=ADDRESS))
    widget.session.take_preferences()
    widget.session.options.device = "cpu"
    widget.draw()
    assert widget.options.device.currentData() == "cpu"
    assert widget.options.device.findData(ADDRESS) >= 0
    job, _ = widget.session.job_of(widget.session.inputs.runs[0])
    assert job.cluster == ""


def test_an_address_may_be_given_without_its_protocol(monkeypatch):
    from types import SimpleNamespace

    from napari_mamba.ui import preferences as module

    monkeypatch.setattr(module, "_settings", lambda: SimpleNamespace(scheduler=" head:8786 "))
    assert module.preferences().scheduler == ADDRESS
    monkeypatch.setattr(module, "_settings", lambda: SimpleNamespace())
    assert module.preferences().scheduler == ""
