"""Every dock of the plugin: what can be used says what it does, has a name for a screen reader, and Tab goes there."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
from napari.components import ViewerModel
from npe2 import PluginManifest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QHeaderView,
    QLineEdit,
    QScrollBar,
    QTabBar,
    QWidget,
)

USED = (QAbstractButton, QComboBox, QLineEdit, QAbstractSpinBox, QAbstractSlider, QAbstractItemView)
OWN = (QComboBox, QAbstractSpinBox, QLineEdit, QTabBar, QHeaderView)
"""Parts of these are Qt's."""
MANIFEST = "napari_mamba/napari.yaml"


def docks() -> list[str]:
    """Widgets that the manifest names, but for the dock "Run a model", which is a frame that is filled later."""
    manifest = PluginManifest.from_distribution("napari-mamba")
    commands = {command.id: command.python_name for command in manifest.contributions.commands}
    found = [str(commands[widget.command]) for widget in manifest.contributions.widgets]
    return [name for name in found if "run.dock" not in name]


@pytest.fixture
def viewer() -> ViewerModel:
    viewer = ViewerModel()
    viewer.add_image(np.random.default_rng(0).random((6, 8, 10)), name="scan", units=("mm",) * 3)
    viewer.add_labels(np.ones((6, 8, 10), np.uint8), name="drawn", units=("mm",) * 3)
    return viewer


@pytest.mark.parametrize("name", docks(), ids=lambda name: name.partition(":")[2])
def test_every_control_is_named_explained_and_reached(qtbot, tiny, errors, in_this_process, viewer, name):
    module, _, kind = name.partition(":")
    dock = getattr(import_module(module), kind)(viewer)
    qtbot.addWidget(dock)
    wrong = [f"{about(one)}: {what}" for one in used(dock) for what in complaints(one)]
    assert not wrong, "\n".join(wrong)


def used(dock: QWidget) -> list[QWidget]:
    """What a person clicks, types into or chooses from."""
    return [
        one
        for one in dock.findChildren(QWidget)
        if isinstance(one, USED)
        and not isinstance(one, QScrollBar | QHeaderView)
        and not inside(one, OWN)
        and one.objectName() not in ("qt_tableview_cornerbutton", "ScrollLeftButton", "ScrollRightButton")
    ]


def inside(one: QWidget, kinds: tuple[type, ...]) -> bool:
    """Whether it is a part of one of these."""
    parent = one.parentWidget()
    return parent is not None and (isinstance(parent, kinds) or inside(parent, kinds))


def complaints(one: QWidget) -> list[str]:
    """What is missing."""
    text = one.text() if isinstance(one, QAbstractButton) else ""
    found = []
    if not one.toolTip():
        found.append("no tooltip")
    if not (one.accessibleName() or text):
        found.append("no name")
    if not one.focusPolicy() & Qt.FocusPolicy.TabFocus:
        found.append("Tab does not go there")
    return found


def about(one: QWidget) -> str:
    """The widget in words."""
    text = one.text() if isinstance(one, QAbstractButton | QLineEdit) else ""
    return f"{type(one).__name__} {(text or one.accessibleName())!r}"
