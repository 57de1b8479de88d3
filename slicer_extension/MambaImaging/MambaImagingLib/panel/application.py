"""What the panel and the logic ask of the application, done with Slicer and Qt."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

from ..compute import installing, places
from ..compute.processes import Process

PREFIX = "MambaImaging/"


class SlicerHost:
    """Dialogs, settings, timers and node selectors of 3D Slicer; see `widget.Host`."""

    def confirm(self, question: str) -> bool:
        import slicer

        return bool(slicer.util.confirmOkCancelDisplay(question, windowTitle="Mamba Imaging"))

    def tell(self, sentence: str) -> None:
        import slicer

        slicer.util.errorDisplay(sentence, windowTitle="Mamba Imaging")

    def choose_file(self, title: str) -> str:
        import qt
        import slicer

        return str(qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title) or "")

    def setting(self, name: str) -> str:
        import slicer

        return str(slicer.app.userSettings().value(PREFIX + name, "") or "")

    def keep_setting(self, name: str, value: str) -> None:
        import slicer

        slicer.app.userSettings().setValue(PREFIX + name, value)

    def node_selector(self, parent: Any, changed: Callable[[], None]) -> Any:
        import slicer

        selector = slicer.qMRMLNodeComboBox(parent)
        selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        selector.noneEnabled = True
        selector.addEnabled = False
        selector.removeEnabled = False
        selector.setMRMLScene(slicer.mrmlScene)
        selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda *_: changed())
        return selector

    def check_nodes(self, selector: Any, nodes: list[Any]) -> None:
        import qt

        checked = list(selector.checkedNodes())
        for node in nodes:
            if node not in checked:
                selector.setCheckState(node, qt.Qt.Checked)

    def start_timer(self, milliseconds: int, tick: Callable[[], None]) -> Callable[[], None]:
        import qt

        timer = qt.QTimer()
        timer.setInterval(milliseconds)
        timer.connect("timeout()", tick)
        timer.start()
        return timer.stop

    def install(self, panel: Any) -> Any:
        """Ask, then begin to install; None if the user does not agree."""
        question = (
            "PyTorch (by the extension PyTorch) and napari-mamba are installed into Slicer's own Python. Packages that "
            "Slicer has keep their versions. This takes minutes and some GB. Go on?"
        )
        if not self.confirm(question):
            return None
        folder = temporary_folder() or Path(tempfile.gettempdir())
        return installing.Installation(pip, torch_installer(), installing.installed, folder, wheels_folder())


def wheels_folder() -> Path | None:
    """The folder of wheels that `MAMBA_IMAGING_WHEELS` names, for computers without network."""
    chosen = os.environ.get("MAMBA_IMAGING_WHEELS", "")
    return Path(chosen) if chosen else None


def pip(words: list[str]) -> Process:
    """`python -m pip` in Slicer's own Python, as a process: the application goes on meanwhile."""
    return Process([places.slicer_python(), "-m", "pip", *words])


def torch_installer() -> Callable[[], None] | None:
    """PyTorch through the extension PyTorch; None where that is not installed."""
    try:
        import PyTorchUtils
    except ImportError:
        return None

    def install() -> None:
        if PyTorchUtils.PyTorchUtilsLogic().installTorch(torchVersionRequirement=installing.TORCH) is None:
            raise RuntimeError("the extension PyTorch did not install it")

    return install


class Remembered(MutableMapping):
    """Servers that may get volumes, in the application's settings."""

    def __init__(self, host: SlicerHost):
        self._host = host

    def __getitem__(self, address: str) -> bool:
        if self._host.setting("consent " + address) != "yes":
            raise KeyError(address)
        return True

    def __setitem__(self, address: str, agreed: bool) -> None:
        self._host.keep_setting("consent " + address, "yes" if agreed else "")

    def __delitem__(self, address: str) -> None:
        self._host.keep_setting("consent " + address, "")

    def __iter__(self):
        return iter(())

    def __len__(self) -> int:
        return 0


def foreign_environment() -> dict[str, str]:
    """The environment that the application was started in, without what Slicer added."""
    import slicer

    return places.foreign_environment(dict(slicer.util.startupEnvironment()), str(slicer.app.slicerHome))


def temporary_folder() -> Path | None:
    """The application's folder for temporary files."""
    import slicer

    path = Path(str(slicer.app.temporaryPath))
    return path if path.is_dir() else None
