"""The module with stand-ins for qt, ctk and qMRML ("shimmed"): this is not Slicer. MRML and the runs are real."""

from __future__ import annotations

import os
import sys
import time

import numpy as np
import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("slicer_core", reason="needs Slicer's MRML: pip install slicer-core")
pytest.importorskip("PySide6")


class Known:
    """A question that is answered already."""

    def __init__(self, value):
        self.value = value

    def poll(self):
        from MambaImagingLib.compute.places import Answer

        return Answer(self.value)

    def stop(self):
        pass


@pytest.fixture
def shimmed(scene, monkeypatch, tmp_path, python, environment, tiny_bundle, request):
    import shims
    import slicer

    said = shims.install(monkeypatch, slicer, tmp_path)
    sys.modules.pop("MambaImaging", None)
    import MambaImaging
    from MambaImagingLib.compute import places

    monkeypatch.setattr(places, "slicer_python", lambda: python)
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    monkeypatch.setenv("NAPARI_MAMBA_BUNDLES", str(tiny_bundle.parent))
    monkeypatch.setattr(places, "_SLICERS_OWN", ("PYTHONHOME",))  # here PYTHONPATH is what finds this checkout
    said.module = MambaImaging
    if "opening" not in request.node.name:  # seconds: PyTorch is imported
        monkeypatch.setattr(places.LocalPlace, "ask_devices", lambda self: Known(["cpu"]))
    yield said
    sys.modules.pop("MambaImaging", None)


@pytest.fixture
def panel(shimmed):
    widget = shimmed.module.MambaImagingWidget(None)
    widget.setup()
    shimmed.widget = widget
    yield widget.panel
    widget.cleanup()


def wait(shimmed, until, seconds=90):
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "waited too long"
        shimmed.application.processEvents()
        time.sleep(0.01)


def block():
    made = np.random.default_rng(0).normal(100, 10, (14, 18, 20)).astype(np.float32)
    made[4:9, 5:12, 6:14] += 80
    return made


def test_from_opening_the_module_to_a_segmentation(shimmed, panel, scene, add_volume):
    ui = panel.ui
    assert not ui.runButton.enabled
    wait(shimmed, lambda: "tiny" in panel.names and ui.deviceCombo.count > 1)
    assert "is there" in ui.environmentLabel.text
    volume = add_volume(block(), np.diag([1.0, 1, -2, 1]))
    ui.bundleCombo.setCurrentIndex(panel.names.index("tiny"))
    assert "Choose a volume for: T1" in ui.statusLabel.text
    panel.selectors[0][1].setCurrentNode(volume)
    assert ui.statusLabel.text.startswith("Ready.")
    ui.plotCheck.setChecked(True)
    assert ui.runButton.enabled
    ui.runButton.click()
    assert not ui.runButton.enabled
    assert ui.cancelButton.enabled
    wait(shimmed, lambda: not panel.logic.core.busy)
    assert ui.statusLabel.text.startswith("Done.")
    node = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    assert node.GetName() == "T1 tiny"
    assert scene.GetNumberOfNodesByClass("vtkMRMLPlotChartNode") == 1
    assert ui.progressBar.value == 1000
    assert ui.runButton.enabled
    assert not shimmed.said


@pytest.mark.parametrize("how", ["scene closes", "reload", "quit"])
def test_a_run_ends_with_what_it_belongs_to_and_nothing_enters(shimmed, panel, scene, add_volume, how):
    import psutil

    wait(shimmed, lambda: "tiny" in panel.names)
    panel.parameters["bundle"] = "tiny"
    panel.draw()
    panel.selectors[0][1].setCurrentNode(add_volume(np.random.default_rng(0).random((120, 120, 120)), np.eye(4)))
    panel.ui.runButton.click()
    wait(shimmed, lambda: panel.logic.core.run.follower.stage == "network")
    process = psutil.Process(panel.logic.core.run.runner.pid)
    folder = panel.logic.core.run.folder
    began = time.monotonic()
    if how == "scene closes":
        scene.Clear(0)
        assert panel.parameters is not None, "the panel goes on with the new scene"
    else:
        {"reload": shimmed.widget.cleanup, "quit": shimmed.app.slots["aboutToQuit()"]}[how]()
    wait(shimmed, lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, 2)
    assert time.monotonic() - began < 2
    assert not folder.exists()
    assert not panel.logic.core.busy
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_a_scene_that_names_a_bundle_no_longer_there(shimmed, panel):
    wait(shimmed, lambda: "tiny" in panel.names)
    panel.parameters["bundle"] = "sold-out"
    panel.parameters["device"] = "cuda:7"
    panel.open_scene()
    wait(shimmed, lambda: "tiny" in panel.names)
    assert panel.names[panel.ui.bundleCombo.currentIndex] == "sold-out"
    assert panel.ui.deviceCombo.currentText == "cuda:7"
    assert "sold-out is not at this place" in panel.ui.statusLabel.text
    assert not panel.ui.runButton.enabled


def test_the_panel_never_waits(shimmed, panel, add_volume, monkeypatch):
    """No tick takes 100 ms but those that export and load nodes."""
    wait(shimmed, lambda: "tiny" in panel.names)
    panel.parameters["bundle"] = "tiny"
    panel.draw()
    panel.selectors[0][1].setCurrentNode(add_volume(block(), np.eye(4)))
    longest, report = [0.0], panel.logic.core.on_end
    real = panel.logic.core.poll

    def timed():
        began = time.perf_counter()
        answer = real()
        if answer:
            longest[0] = max(longest[0], time.perf_counter() - began)
        return answer

    monkeypatch.setattr(panel.logic.core, "poll", timed)
    panel.ui.runButton.click()
    wait(shimmed, lambda: not panel.logic.core.busy)
    assert longest[0] < 0.1
    assert report is not None


def test_a_place_without_napari_mamba_is_told(shimmed, panel, tmp_path):
    panel.ui.placeCombo.setCurrentIndex(1)
    assert panel.ui.environmentLabel.text.startswith("Name a Python")
    bare = tmp_path / "python"
    bare.write_text('#!/bin/sh\necho "/bin/python: No module named napari_mamba" >&2\nexit 1\n')
    bare.chmod(0o755)
    panel.ui.pythonPath.setCurrentPath(str(bare))
    panel.changed()
    panel.ui.checkButton.click()
    wait(shimmed, lambda: "not installed there" in panel.ui.environmentLabel.text)


def test_looking_inside_from_the_panel(shimmed, panel, scene, add_volume):
    """List the layers, choose one, ask about a point that a user placed: a map enters the scene."""
    ui = panel.ui
    wait(shimmed, lambda: "tiny" in panel.names)
    assert not ui.lookButton.enabled
    assert "Choose a volume" in ui.lookButton.toolTip
    volume = add_volume(block(), np.diag([1.0, 1, -2, 1]))
    panel.parameters["bundle"] = "tiny"
    panel.draw()
    panel.selectors[0][1].setCurrentNode(volume)
    ui.layersButton.click()
    assert not ui.lookButton.enabled
    assert not ui.runButton.enabled, "one at a time"
    wait(shimmed, lambda: not panel.logic.core.busy)
    assert "layers scan places" in ui.lookLabel.text
    assert ui.layerCombo.count > 1
    ui.layerCombo.setCurrentIndex(1)
    ui.mapCombo.setCurrentIndex([ui.mapCombo.itemText(i) for i in range(17)].index("Attention (of a voxel)"))
    assert not ui.classCombo.enabled
    ui.pointCombo.setCurrentIndex(2)
    ui.lookButton.click()
    assert ui.lookLabel.text.startswith("Choose the markups"), "no point was chosen"
    point = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "P")
    point.AddControlPointWorld(5, 6, -8)
    ui.pointSelector.setCurrentNode(point)
    shimmed.said.clear()
    ui.lookButton.click()
    wait(shimmed, lambda: not panel.logic.core.busy)
    assert ui.lookLabel.text.startswith("Done."), ui.lookLabel.text
    node = scene.GetFirstNodeByName("T1 tiny attention drawn")
    assert '"voxel": [4, 6, 5]' in node.GetAttribute("MambaImaging.Provenance")
    assert panel.parameters["layer"] in node.GetAttribute("MambaImaging.Options")
    assert not shimmed.said
    panel.open_scene()
    assert ui.pointCombo.currentIndex == 2, "the scene remembers"
    assert ui.layerCombo.currentIndex == 1


def test_a_bundle_that_the_module_cannot_run_is_not_offered(shimmed, panel, add_volume):
    from MambaImagingLib.compute.bundles import BundleInfo
    from MambaImagingLib.nodes.volumes import Unusable

    wait(shimmed, lambda: "tiny" in panel.names)
    panel.logic.bundles["dose-x"] = BundleInfo("dose-x", "A dose", "dose", ("CT", "structures"))
    panel.draw()
    assert "dose-x" not in panel.names
    with pytest.raises(Unusable, match="for dose, which this module cannot run"):
        panel.logic.run("dose-x", [add_volume(block(), np.eye(4))])
    panel.parameters["bundle"] = "dose-x"  # of an old scene
    panel.draw()
    assert "cannot run" in panel.ui.statusLabel.text
    assert not panel.ui.runButton.enabled
    assert not panel.ui.lookButton.enabled


def test_the_self_test_of_the_module(shimmed, scene, monkeypatch):
    from MambaImagingLib import self_test

    monkeypatch.setattr(self_test, "BUNDLE", "tiny")
    test = shimmed.module.MambaImagingTest()
    test.runTest()
    assert shimmed.said[0].startswith("Nodes")
    assert shimmed.said[-1].startswith("Done."), shimmed.said


def test_the_ten_lines_of_the_readme(shimmed, scene, repository, python, monkeypatch):
    """The README's script, as it stands, but for the paths."""
    import re

    import slicer

    def load(path):
        node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "hippocampus_left")
        storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
        storage.SetFileName(str(path))
        assert storage.ReadData(node)
        return node

    monkeypatch.setattr(slicer.util, "loadVolume", load, raising=False)
    text = (repository / "slicer_extension" / "README.md").read_text(encoding="utf-8")
    script = re.search(r"```python\n(from MambaImaging .*?)```", text, re.DOTALL).group(1)
    assert len([line for line in script.splitlines() if line.strip()]) == 10
    script = script.replace("hippocampus-mr", "tiny")  # which takes a moment
    script = script.replace("/path/to/env/bin/python", python)
    script = script.replace("hippocampus_left.nii.gz", str(repository / "sample_data" / "hippocampus_left.nii.gz"))
    shown = []
    exec(script, {"slicer": slicer, "print": lambda *words: shown.append(" ".join(map(str, words)))})
    assert shown[0].startswith("Done.")
    assert "anterior" in shown[1]
    assert shown[2].startswith("Done.")
    assert scene.GetFirstNodeByClass("vtkMRMLSegmentationNode") is not None


def test_a_cluster_is_the_user_s_own_setting_and_not_the_scene_s(shimmed, panel):
    wait(shimmed, lambda: "tiny" in panel.names)
    ui = panel.ui
    assert not ui.schedulerLine.isHidden()
    ui.schedulerLine.setText(" tcp://head:8786 ")
    panel.changed()
    assert panel.host.setting("scheduler") == "tcp://head:8786"
    assert panel.logic._runner().environment["NAPARI_MAMBA_SCHEDULER"] == "tcp://head:8786"
    scene = [panel.parameters.node.GetParameter(name) for name in panel.parameters.node.GetParameterNames()]
    assert not any("tcp://" in value for value in scene)
    panel.parameters["place"] = "server"
    panel.draw()
    assert ui.schedulerLine.isHidden()
