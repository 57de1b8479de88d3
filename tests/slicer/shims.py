"""Stand-ins for qt, ctk and qMRML on PySide6, so that the widget can be driven without the application.

Not Slicer: whatever is shown by these is called "shimmed". They speak as PythonQt does: properties are attributes, and
signals are connected by their signature.
"""

from __future__ import annotations

import ctypes
import re
import sys
import types
from pathlib import Path
from typing import Any

from PySide6 import QtCore, QtWidgets
from PySide6.QtUiTools import QUiLoader


def _spare_references_to_none(count: int = 300_000) -> None:
    """PySide6 6.12 on Python 3.11 gives one reference to None too many back with each call of a setter.

    Without spare ones the interpreter would end with "deallocating None" after the tests.
    """
    for _ in range(count):
        ctypes.pythonapi.Py_IncRef(_NONE)


_NONE = ctypes.py_object(None)
if sys.version_info < (3, 12):  # from then on None is immortal
    _spare_references_to_none()


class Wrapped:
    """A QObject as PythonQt shows it."""

    def __init__(self, inner: QtCore.QObject):
        object.__setattr__(self, "inner", inner)

    def __getattr__(self, name: str) -> Any:
        inner = object.__getattribute__(self, "inner")
        if inner.metaObject().indexOfProperty(name) >= 0:
            return inner.property(name)
        found = getattr(inner, name)
        if not callable(found):
            raise AttributeError(f"{name} is no property of PythonQt's {type(inner).__name__}")
        return lambda *arguments: wrap(found(*map(unwrap, arguments)))

    def __setattr__(self, name: str, value: Any) -> None:
        inner = object.__getattribute__(self, "inner")
        if inner.metaObject().indexOfProperty(name) < 0:
            raise AttributeError(f"{type(inner).__name__} has no property {name}")
        inner.setProperty(name, value)

    def connect(self, signature: str, slot: Any) -> None:
        inner = object.__getattribute__(self, "inner")
        kinds = [
            bytes(inner.metaObject().method(i).methodSignature()).decode()
            for i in range(inner.metaObject().methodCount())
        ]
        known = getattr(inner, "MRML_SIGNALS", ())
        assert signature in kinds or signature in known, f"{type(inner).__name__} has no signal {signature}"
        getattr(inner, signature.split("(")[0]).connect(slot)


def wrap(value: Any) -> Any:
    return Wrapped(value) if isinstance(value, QtCore.QObject) else value


def unwrap(value: Any) -> Any:
    return object.__getattribute__(value, "inner") if isinstance(value, Wrapped) else value


class NodeComboBox(QtWidgets.QComboBox):
    """qMRMLNodeComboBox: the nodes of some classes in a scene."""

    MRML_SIGNALS = ("currentNodeChanged(vtkMRMLNode*)",)
    currentNodeChanged = QtCore.Signal()

    def __init__(self, parent: Any = None):
        super().__init__(unwrap(parent))
        self._scene, self._types, self._nodes, self._none, self._display = None, [], [], False, "None"
        self.currentIndexChanged.connect(lambda *_: self.currentNodeChanged.emit())

    nodeTypes = QtCore.Property(
        "QStringList", lambda self: self._types, lambda self, v: setattr(self, "_types", list(v))
    )
    noneEnabled = QtCore.Property(bool, lambda self: self._none, lambda self, v: setattr(self, "_none", v))
    noneDisplay = QtCore.Property(str, lambda self: self._display, lambda self, v: setattr(self, "_display", v))
    addEnabled = QtCore.Property(bool, lambda self: False, lambda self, v: None)
    removeEnabled = QtCore.Property(bool, lambda self: False, lambda self, v: None)

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        self.refresh()

    def refresh(self) -> None:
        now = self.currentNode()
        self.blockSignals(True)
        self._nodes = [None] if self._none else []
        for kind in self._types:
            for number in range(self._scene.GetNumberOfNodesByClass(kind)):
                self._nodes.append(self._scene.GetNthNodeByClass(number, kind))
        self.clear()
        self.addItems([node.GetName() if node else self._display for node in self._nodes])
        self.setCurrentIndex(self._nodes.index(now) if now in self._nodes else 0)
        self.blockSignals(False)

    def currentNode(self) -> Any:
        index = self.currentIndex()
        return self._nodes[index] if 0 <= index < len(self._nodes) else None

    def setCurrentNode(self, node: Any) -> None:
        if self._scene is not None:
            self.refresh()
        if node in self._nodes:
            self.setCurrentIndex(self._nodes.index(node))


class CheckableNodeComboBox(NodeComboBox):
    """qMRMLCheckableNodeComboBox."""

    MRML_SIGNALS = ("checkedNodesChanged()",)
    checkedNodesChanged = QtCore.Signal()

    def __init__(self, parent: Any = None):
        super().__init__(parent)
        self._checked: list[Any] = []

    def checkedNodes(self) -> list[Any]:
        return list(self._checked)

    def setCheckState(self, node: Any, state: Any) -> None:
        self._checked = [one for one in self._checked if one is not node] + ([node] if state else [])
        self.checkedNodesChanged.emit()


class CollapsibleButton(QtWidgets.QGroupBox):
    """ctkCollapsibleButton."""

    def _collapse(self, on: bool) -> None:
        self._collapsed = on

    text = QtCore.Property(str, lambda self: self.title(), lambda self, v: self.setTitle(v))
    collapsed = QtCore.Property(bool, lambda self: getattr(self, "_collapsed", False), _collapse)

    def showEvent(self, event: Any) -> None:
        if self.collapsed:
            for child in self.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindDirectChildrenOnly):
                child.hide()
            self.setFixedHeight(24)
        super().showEvent(event)


class PathLineEdit(QtWidgets.QLineEdit):
    """ctkPathLineEdit."""

    currentPathChanged = QtCore.Signal(str)
    MRML_SIGNALS = ("currentPathChanged(QString)",)
    currentPath = QtCore.Property(str, lambda self: QtWidgets.QLineEdit.text(self), lambda self, v: self.setText(v))

    def __init__(self, parent: Any = None):
        super().__init__(parent)
        self.editingFinished.connect(lambda: self.currentPathChanged.emit(QtWidgets.QLineEdit.text(self)))

    def setCurrentPath(self, path: str) -> None:
        self.setText(path)


class MRMLWidget(QtWidgets.QWidget):
    """qMRMLWidget: hands its scene to the selectors in it."""

    def setMRMLScene(self, scene: Any) -> None:
        for child in self.findChildren(NodeComboBox):
            child.setMRMLScene(scene)


CUSTOM = {
    "qMRMLWidget": MRMLWidget,
    "qMRMLNodeComboBox": NodeComboBox,
    "qMRMLCheckableNodeComboBox": CheckableNodeComboBox,
    "ctkCollapsibleButton": CollapsibleButton,
    "ctkPathLineEdit": PathLineEdit,
}


class Loader(QUiLoader):
    def createWidget(self, name: str, parent: Any = None, label: str = "") -> Any:
        if name not in CUSTOM:
            return super().createWidget(name, parent, label)
        made = CUSTOM[name](parent)
        made.setObjectName(label)
        return made


def load_ui(path: str) -> Wrapped:
    # The connections name slots that only the real widgets have.
    text = re.sub(r"(?s)<connections>.*</connections>", "", Path(path).read_text(encoding="utf-8"))
    buffer = QtCore.QBuffer()
    buffer.setData(text.encode())
    buffer.open(QtCore.QIODevice.ReadOnly)
    return Wrapped(Loader().load(buffer))


def child_variables(widget: Wrapped) -> types.SimpleNamespace:
    children = unwrap(widget).findChildren(QtWidgets.QWidget)
    return types.SimpleNamespace(**{c.objectName(): Wrapped(c) for c in children if c.objectName().isidentifier()})


class Settings:
    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def value(self, name: str, default: Any = None) -> Any:
        return self.kept.get(name, default)

    def setValue(self, name: str, value: Any) -> None:
        self.kept[name] = value


class Application:
    """slicer.app"""

    slicerHome = "/opt/no-slicer-here"

    def __init__(self, temporary: Path):
        self.temporaryPath, self.settings, self.slots = str(temporary), Settings(), {}

    def userSettings(self) -> Settings:
        return self.settings

    def connect(self, signature: str, slot: Any) -> None:
        self.slots[signature] = slot

    def processEvents(self) -> None:
        QtWidgets.QApplication.processEvents()

    def commandOptions(self) -> Any:
        return types.SimpleNamespace(noMainWindow=True)


def install(monkeypatch: Any, slicer: Any, temporary: Path) -> types.SimpleNamespace:
    """Put the stand-ins where the module looks for them; returns what a test looks at."""
    application = QtWidgets.QApplication.instance() or QtWidgets.QApplication([])
    said: list[str] = []
    asked: list[str] = []
    qt = types.ModuleType("qt")
    qt.QTimer = lambda *arguments: Wrapped(QtCore.QTimer(*arguments))
    qt.Qt = types.SimpleNamespace(Checked=2, Unchecked=0)
    qt.QFileDialog = types.SimpleNamespace(getOpenFileName=lambda *_: "")
    base = types.ModuleType("slicer.ScriptedLoadableModule")

    class Module:
        def __init__(self, parent: Any):
            self.parent = parent

    class Widget:
        def __init__(self, parent: Any = None):
            self.parent = parent
            self.frame = QtWidgets.QWidget()
            self.layout = Wrapped(QtWidgets.QVBoxLayout(self.frame))

        def setup(self) -> None:
            pass

        def resourcePath(self, name: str) -> str:
            return str(Path(sys.modules["MambaImaging"].__file__).parent / "Resources" / name)

    class Logic:
        def __init__(self, parent: Any = None):
            self.parent = parent

    class Test:
        def delayDisplay(self, message: str, *_: Any) -> None:
            said.append(message)

    base.ScriptedLoadableModule, base.ScriptedLoadableModuleWidget = Module, Widget
    base.ScriptedLoadableModuleLogic, base.ScriptedLoadableModuleTest = Logic, Test
    words = types.ModuleType("slicer.i18n")
    words.tr = lambda text: text
    words.translate = lambda context, text: text
    for name, module in {"qt": qt, "slicer.ScriptedLoadableModule": base, "slicer.i18n": words}.items():
        monkeypatch.setitem(sys.modules, name, module)
    app = Application(temporary)
    monkeypatch.setattr(slicer, "app", app, raising=False)
    monkeypatch.setattr(slicer, "qMRMLNodeComboBox", lambda parent: Wrapped(NodeComboBox(parent)), raising=False)
    import os

    utilities = {
        "loadUI": load_ui,
        "childWidgetVariables": child_variables,
        "confirmOkCancelDisplay": lambda text, **_: asked.append(text) or True,
        "errorDisplay": lambda text, **_: said.append(text),
        "mainWindow": lambda: None,
        "startupEnvironment": lambda: dict(os.environ),
    }
    for name, function in utilities.items():
        monkeypatch.setattr(slicer.util, name, function, raising=False)
    return types.SimpleNamespace(application=application, app=app, said=said, asked=asked)
