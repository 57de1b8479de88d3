"""Docks that a menu opens, and brings to the front where they are open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from qtpy.QtWidgets import QDockWidget, QWidget

W = TypeVar("W", bound=QWidget)


def open_widget(viewer: Any, kind: Callable[[Any], W], name: str) -> W:
    """A widget of a kind in a dock of a viewer; there is one at most, and it is never hidden by this."""
    widget = next((one for one in viewer.window.dock_widgets.values() if type(one) is kind), None)
    if widget is None:
        widget = kind(viewer)
        viewer.window.add_dock_widget(widget, name=name, area="right", tabify=True)
        return widget
    dock = widget.parentWidget()
    while dock is not None and not isinstance(dock, QDockWidget):
        dock = dock.parentWidget()
    if dock is not None:
        dock.show()
        dock.raise_()
    found: W = widget
    return found
