"""Pictures of the 3D Slicer extension, without the application: a slice, surfaces, and its panel.

    NAPARI_MAMBA_PYTHON=env/bin/python python docs/scripts/make_slicer_screenshots.py

Needs an environment with slicer-core, PySide6, psutil and pytest, and in NAPARI_MAMBA_PYTHON one with napari-mamba.
Slice and surfaces are drawn by Slicer's own C++ code (slicer-core) of a real run; the panel is drawn by stand-ins for
Slicer's widgets, and its file is called "shimmed" for that.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "slicer_extension" / "Screenshots"
sys.path[:0] = [str(ROOT), str(ROOT / "slicer_extension" / "MambaImaging"), str(ROOT / "tests" / "slicer")]
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.pop("VTK_DEFAULT_OPENGL_WINDOW", None)
SLICE_MANAGERS = ("vtkMRMLModelSliceDisplayableManager", "vtkMRMLSegmentationsDisplayableManager2D")
VIEW_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
)


def make_scene():
    """A scene with the logics that loading and drawing need."""
    import slicer
    from conftest import LOGICS

    scene, application = slicer.vtkMRMLScene(), slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(scene)
    application.GetColorLogic().SetMRMLScene(scene)
    application.GetColorLogic().AddDefaultColorNodes()
    logics = {}
    for name, kind in LOGICS.items():
        logics[name] = getattr(slicer, kind)()
        logics[name].SetMRMLScene(scene)
        application.SetModuleLogic(name, logics[name])
    slicer.mrmlScene = scene
    slicer.modules = types.SimpleNamespace(
        **{name.lower(): types.SimpleNamespace(logic=lambda one=one: one) for name, one in logics.items()}
    )
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    return scene, application, logics


def load_sample(name: str):
    """One of the repository's own volumes as a node."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(ROOT / "sample_data" / f"{name}.nii.gz"))
    assert storage.ReadData(node)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().AutoWindowLevelOn()
    return node


def window(size):
    import vtk

    made = vtk.vtkRenderWindow()
    made.SetOffScreenRendering(1)
    made.SetMultiSamples(0)
    made.SetSize(*size)
    interactor = vtk.vtkRenderWindowInteractor()
    interactor.SetRenderWindow(made)
    renderer = vtk.vtkRenderer()
    made.AddRenderer(renderer)
    return made, interactor, renderer


def save(made, path: Path) -> None:
    import vtk

    made.Render()
    picture = vtk.vtkWindowToImageFilter()
    picture.SetInput(made)
    picture.ReadFrontBufferOff()
    writer = vtk.vtkPNGWriter()
    writer.SetFileName(str(path))
    writer.SetInputConnection(picture.GetOutputPort())
    writer.Write()
    print(path)


def managers(factory, application, names) -> None:
    factory.SetMRMLApplicationLogic(application)
    for name in names:
        if not factory.IsDisplayableManagerRegistered(name):
            factory.RegisterDisplayableManager(name)


def draw_slice(scene, application, volume, size=(560, 560)):
    """An axial slice through the middle of the volume, with the segments over it."""
    import numpy as np
    import slicer
    import vtk

    factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
    managers(factory, application, SLICE_MANAGERS)
    application.SetSliceLogics(vtk.vtkCollection())
    logic = slicer.vtkMRMLSliceLogic()
    logic.SetMRMLScene(scene)
    logic.SetMRMLApplicationLogic(application)
    node = logic.AddSliceNode("Red")
    node.SetOrientationToAxial()
    application.GetSliceLogics().AddItem(logic)
    made, interactor, renderer = window(size)
    mapper, actor = vtk.vtkImageMapper(), vtk.vtkActor2D()
    mapper.SetColorWindow(255)
    mapper.SetColorLevel(127.5)
    actor.SetMapper(mapper)
    actor.GetProperty().SetDisplayLocationToBackground()
    renderer.AddViewProp(actor)
    group = slicer.vtkMRMLDisplayableManagerGroup()
    group.Initialize(factory, renderer)
    group.SetMRMLDisplayableNode(node)
    logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
    logic.ResizeSliceNode(*size)
    logic.FitSliceToAll(*size)
    bounds = np.zeros(6)
    volume.GetRASBounds(bounds)
    logic.SetSliceOffset((bounds[4] + bounds[5]) / 2)
    mapper.SetInputConnection(logic.GetImageDataConnection())  # again: it changes with the background
    save(made, SHOTS / "slices.png")
    return logic, group, interactor


def draw_surfaces(scene, application, name="surfaces.png", size=(560, 560)):
    """What is in 3D: closed surfaces, models."""
    import slicer
    import vtk

    factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
    managers(factory, application, VIEW_MANAGERS)
    application.SetViewLogics(vtk.vtkCollection())
    logic = slicer.vtkMRMLViewLogic()
    logic.SetMRMLScene(scene)
    logic.SetMRMLApplicationLogic(application)
    node = logic.AddViewNode("1")
    node.SetBoxVisible(False)
    node.SetAxisLabelsVisible(False)
    application.GetViewLogics().AddItem(logic)
    made, interactor, renderer = window(size)
    renderer.SetBackground(0.76, 0.77, 0.91)
    group = slicer.vtkMRMLDisplayableManagerGroup()
    group.Initialize(factory, renderer)
    group.SetMRMLDisplayableNode(node)
    made.Render()
    renderer.GetActiveCamera().SetPosition(-300, 120, 90)
    renderer.GetActiveCamera().SetFocalPoint(0, 0, 0)
    renderer.GetActiveCamera().SetViewUp(0, 0, 1)
    renderer.ResetCamera()
    save(made, SHOTS / name)
    return logic, group, interactor


def draw_panel(scene, volume, python: str) -> None:
    """The module's panel after a real run, by stand-ins for Slicer's widgets."""
    import pytest
    import shims
    import slicer
    from MambaImagingLib.compute import places
    from PySide6 import QtCore, QtWidgets

    patch = pytest.MonkeyPatch()
    with tempfile.TemporaryDirectory() as folder:
        shimmed = shims.install(patch, slicer, Path(folder))
        import MambaImaging

        patch.setattr(places, "slicer_python", lambda: python)
        widget = MambaImaging.MambaImagingWidget(None)
        widget.setup()
        panel = widget.panel

        def wait(until) -> None:
            while not until():
                shimmed.application.processEvents()
                time.sleep(0.01)

        wait(lambda: panel.ui.deviceCombo.count > 1 and panel.names)
        panel.parameters["bundle"] = "hippocampus-mr"
        panel.draw()
        panel.selectors[0][1].setCurrentNode(volume)
        panel.ui.runButton.click()
        wait(lambda: panel.logic.core.run is None or panel.logic.core.run.follower.stage == "network")
        frame = widget.frame
        frame.resize(430, 640)
        frame.show()
        wait(lambda: panel.logic.core.run is None or panel.logic.core.run.follower.fraction > 0.3)
        used = shims.unwrap(panel.ui.logSection)
        height = used.mapTo(frame, used.rect().bottomLeft()).y() + 12
        frame.grab(QtCore.QRect(0, 0, frame.width(), height)).save(str(SHOTS / "panel-shimmed.png"))
        print(SHOTS / "panel-shimmed.png")
        wait(lambda: panel.logic.core.run is None)
        draw_look(panel, frame, wait)
        QtWidgets.QApplication.processEvents()
        widget.cleanup()
    patch.undo()


def draw_look(panel, frame, wait) -> None:
    """The section Look inside, opened, with the layers of the bundle listed."""
    import shims
    from PySide6 import QtCore, QtWidgets

    panel.ui.layersButton.click()
    wait(lambda: panel.logic.core.run is None)
    panel.ui.mapCombo.setCurrentIndex(0)
    section = shims.unwrap(panel.ui.lookSection)
    section.collapsed = False
    section.setMaximumHeight(16777215)
    section.setMinimumHeight(0)
    for child in section.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindDirectChildrenOnly):
        child.show()
    panel.draw()
    panel.ui.pointCombo.setCurrentIndex(1)
    frame.resize(430, 900)
    QtWidgets.QApplication.processEvents()
    place = QtCore.QRect(section.mapTo(frame, QtCore.QPoint(0, 0)), section.size())
    frame.grab(place).save(str(SHOTS / "look-shimmed.png"))
    print(SHOTS / "look-shimmed.png")


def draw_path(scene, application, logic, volume) -> tuple:
    """The way of a scan through the volume, as the model that a look inside brings."""
    report = logic.look("hippocampus-mr", [volume], maps=("order",), path=1, device="cpu")
    print(report.sentence())
    return draw_surfaces(scene, application, "path.png")


def main() -> None:
    """All pictures."""
    from MambaImagingLib.compute import places
    from MambaImagingLib.scripting import Scripting

    SHOTS.mkdir(exist_ok=True)
    python = os.environ.get("NAPARI_MAMBA_PYTHON", sys.executable)
    os.environ["PYTHONPATH"] = str(ROOT)
    scene, application, keep = make_scene()
    volume = load_sample("hippocampus_left_oblique")
    logic = Scripting()
    logic.place = places.LocalPlace(python)
    report = logic.run("hippocampus-mr", [volume], device="cpu", surfaces=True)
    print(report.sentence())
    report.placed[0].main.GetDisplayNode().SetOpacity2DFill(0.35)
    parts = [draw_slice(scene, application, volume), draw_surfaces(scene, application)]
    draw_panel(scene, volume, python)
    parts.append(scene)  # the old one lives on: its views are there
    scene, application, again = make_scene()
    parts += [again, draw_path(scene, application, logic, load_sample("hippocampus_left_oblique"))]
    del parts, keep


if __name__ == "__main__":
    main()
