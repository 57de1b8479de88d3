"""The extension without the application: real MRML from slicer-core where it is installed, the real command, no Qt.

The command is run by the Python in `NAPARI_MAMBA_PYTHON`, or by this one: slicer-core can live in an environment of its
own, as Slicer's Python does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MODULE = REPOSITORY / "slicer_extension" / "MambaImaging"
sys.path.insert(0, str(MODULE))

LOGICS = {
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Transforms": "vtkSlicerTransformLogic",
}


@pytest.fixture(scope="session")
def python() -> str:
    """A Python that has napari-mamba's dependencies."""
    chosen = os.environ.get("NAPARI_MAMBA_PYTHON", sys.executable)
    if subprocess.run([chosen, "-c", "import torch, typer"], capture_output=True).returncode:
        pytest.skip(f"{chosen} cannot run napari-mamba: name one that can in NAPARI_MAMBA_PYTHON")
    return chosen


@pytest.fixture(scope="session")
def environment(_own_user_folder: Path) -> dict[str, str]:
    """For processes: this checkout's package, one thread."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, python: str, environment: dict[str, str]) -> Path:
    """An untrained network that runs in a moment, made by the Python that runs it."""
    return _make_bundle(tmp_path_factory.mktemp("bundles") / "tiny", ["T1"], python, environment)


@pytest.fixture(scope="session")
def tiny_bundle_2(tmp_path_factory: pytest.TempPathFactory, python: str, environment: dict[str, str]) -> Path:
    """The same for two channels."""
    return _make_bundle(tmp_path_factory.mktemp("bundles") / "tiny-2", ["T1", "FLAIR"], python, environment)


def _make_bundle(folder: Path, channels: list[str], python: str, environment: dict[str, str]) -> Path:
    code = "import sys; from pathlib import Path; from tiny_bundle import make_tiny_bundle; "
    code += "make_tiny_bundle(Path(sys.argv[1]), tuple(sys.argv[2:]))"
    subprocess.run(
        [python, "-c", code, str(folder), *channels],
        cwd=REPOSITORY / "tests/bundles",
        env=environment,
        check=True,
        timeout=120,
    )
    return folder


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A scene with Slicer's own nodes and logics; skips without slicer-core."""
    pytest.importorskip("slicer_core", reason="needs slicer-core: pip install slicer-core")
    import slicer
    import slicer.util

    made = slicer.vtkMRMLScene()
    application = slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(made)
    application.GetColorLogic().SetMRMLScene(made)
    application.GetColorLogic().AddDefaultColorNodes()
    logics = {}
    for name, kind in LOGICS.items():
        logic = getattr(slicer, kind)()
        if hasattr(logic, "SetModuleShareDirectory"):  # before the scene, or eight errors
            logic.SetModuleShareDirectory(str(REPOSITORY / "tests" / "slicer"))
        logic.SetMRMLScene(made)
        application.SetModuleLogic(name, logic)
        logics[name] = logic
    spaces = {name.lower(): types.SimpleNamespace(logic=lambda one=logic: one) for name, logic in logics.items()}
    monkeypatch.setattr(slicer, "mrmlScene", made, raising=False)
    monkeypatch.setattr(slicer, "modules", types.SimpleNamespace(**spaces), raising=False)
    made.keep = (application, logics)
    yield made
    made.Clear(1)


@pytest.fixture
def add_volume(scene: Any):
    """Make a volume node of an array (K, J, I) and its matrix, as Slicer does when it loads one."""
    import slicer.util

    def add(array: np.ndarray, ijk_to_ras: np.ndarray, name: str = "T1", transform: Any = None) -> Any:
        node = slicer.util.addVolumeFromArray(np.ascontiguousarray(array), ijkToRAS=ijk_to_ras, name=name)
        node.CreateDefaultDisplayNodes()
        node.SetAndObserveTransformNodeID(transform.GetID() if transform is not None else None)
        return node

    return add


@pytest.fixture
def logic(scene: Any, python: str, environment: dict[str, str], tiny_bundle: Path, tmp_path: Path) -> Iterator[Any]:
    """The module's logic without the application; the tiny bundle is there."""
    from MambaImagingLib.compute import places
    from MambaImagingLib.scripting import Scripting

    made = Scripting(temporary=lambda: tmp_path)
    made.place = places.LocalPlace(python, {**environment, "NAPARI_MAMBA_BUNDLES": str(tiny_bundle.parent)})
    yield made
    made.stop()
    assert not list(tmp_path.glob("mamba-imaging-*")), "a folder of a run is left"
