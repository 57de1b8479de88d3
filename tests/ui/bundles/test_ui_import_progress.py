"""An import is watched: percents while it goes on, and afterwards a report that says what there is now."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from napari.components import ViewerModel

from napari_mamba import bundles
from napari_mamba.bundles import importers
from napari_mamba.ui.bundles.opening import report_of
from napari_mamba.ui.bundles.panel import BundlesPanel
from napari_mamba.ui.run.process.engine_process import EngineProcess


@pytest.fixture
def shown(qtbot, tiny, in_this_process):
    widget = BundlesPanel(ViewerModel())
    qtbot.addWidget(widget)
    widget.show()
    yield widget
    widget.host.close()


def test_a_bar_shows_the_percents_and_goes(qtbot, shown, tmp_path, make_bundle, monkeypatch):
    made, go_on = make_bundle(tmp_path / "made", ("T1", "FLAIR")), threading.Event()

    def convert(place, on_progress):
        on_progress("Reading the weights", 0.4)
        go_on.wait(20)
        on_progress("Writing the bundle", 1.0)
        return made

    monkeypatch.setattr(importers, "import_checkpoint", convert)
    folder = tmp_path / "foreign"
    folder.mkdir()
    assert shown.importing.isHidden()
    shown.opener.open(str(folder))
    qtbot.waitUntil(lambda: shown.bar.value() == 40, timeout=20_000)
    assert shown.bar.isVisible()
    assert "40%" in shown.bar.text()
    assert shown.notice.text() == "Reading the weights…"
    assert not shown.add.isEnabled()
    go_on.set()
    qtbot.waitUntil(lambda: shown.importing.isHidden(), timeout=20_000)
    assert shown.notice.text() == report_of(bundles.load(made))
    assert shown.notice.kind == "good"
    assert shown.add.isEnabled()


@pytest.fixture
def foreign(tmp_path):
    """A file of weights that an importer takes."""
    import torch

    from napari_mamba import models

    path = tmp_path / "foreign" / "weights.pt"
    path.parent.mkdir()
    torch.save(models.create("vm_unet_v2", depths=[1] * 4, num_classes=1).state_dict(), path)
    return path


def test_an_import_can_be_cancelled_and_leaves_nothing(qtbot, shown, tmp_path, monkeypatch):
    folder, target, go_on = tmp_path / "foreign", tmp_path / "made", threading.Event()
    folder.mkdir()
    monkeypatch.setenv("NAPARI_MAMBA_BUNDLES", str(target))

    def convert(place, on_progress):
        on_progress("Reading the weights", 0.4)
        go_on.wait(20)
        on_progress("Writing the bundle", 0.5)
        raise AssertionError("the import went on")

    monkeypatch.setattr(importers, "import_checkpoint", convert)
    shown.opener.open(str(folder))
    qtbot.waitUntil(lambda: shown.bar.value() == 40, timeout=20_000)
    shown.stop.click()
    assert shown.notice.text().startswith("Cancelling")
    assert not shown.stop.isEnabled()
    go_on.set()
    qtbot.waitUntil(lambda: shown.importing.isHidden(), timeout=20_000)
    assert shown.notice.text() == "Cancelled: nothing was imported."
    assert shown.add.isEnabled()


def test_an_import_in_the_engines_process_is_cancelled(foreign, tmp_path, monkeypatch):
    """By a real import, told to end at its first progress; the process goes on to answer."""
    monkeypatch.setenv("NAPARI_MAMBA_BUNDLES", str(tmp_path / "made"))
    engine, cancel = EngineProcess(), threading.Event()
    cancel.set()
    try:
        opened = engine.ask("open", str(foreign), cancel=cancel)
        again = engine.ask("open", str(foreign.parent / "none.pt"))
    finally:
        engine.end()
    assert opened.cancelled
    assert "no such bundle" in again.error
    assert not list((tmp_path / "made").glob("*"))


def test_an_import_that_fails_leaves_no_bar_and_says_why(qtbot, shown, tmp_path):
    bad = tmp_path / "weights.pth"
    bad.write_bytes(b"nothing")
    shown.opener.open(str(bad))
    qtbot.waitUntil(lambda: shown.notice.kind == "error", timeout=20_000)
    assert shown.importing.isHidden()
    assert shown.add.isEnabled()


def test_the_report_says_what_there_is_now(tiny):
    lines = report_of(tiny).splitlines()
    assert lines[0] == "Imported tiny: the network umamba_enc."
    assert lines[1:3] == ["It takes T1.", "Classes: Anterior, Posterior."]
    assert lines[-1].startswith("Nothing says under which licence")
    assert "licence" not in report_of(replace(tiny, licence="CC-BY-4.0"))


def test_percents_come_out_of_the_engines_process(tmp_path):
    bad = tmp_path / "weights.pth"
    bad.write_bytes(b"nothing")
    engine, told = EngineProcess(), []
    try:
        opened = engine.ask("open", str(bad), on_progress=lambda *one: told.append(one))
    finally:
        engine.end()
    assert "not a PyTorch checkpoint" in opened.error
    assert told == [("Reading the weights", 0)]
