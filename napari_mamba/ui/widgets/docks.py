"""This plugin's docks lie behind each other as tabs, whichever menu opened them: below each other none has room."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, TypeVar

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QDockWidget, QMainWindow, QSizePolicy, QWidget

W = TypeVar("W", bound=QWidget)
DISPLAY_NAME = "Mamba medical imaging"
"""As in the manifest."""


def name_of_dock(title: str) -> str:
    """The name that napari gives the dock of a widget of the manifest: by it, its menu finds one that is open.

    Examples
    --------
    >>> name_of_dock("Results")
    'Results (Mamba medical imaging)'
    """
    return f"{title} ({DISPLAY_NAME})"


def dock_of(widget: QWidget) -> QDockWidget | None:
    """The dock that a widget lies in, None where it lies in none."""
    parent = widget.parentWidget()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parentWidget()
    return parent


def bring_to_front(widget: QWidget) -> None:
    """Show a widget's dock, and put it before those that it shares its place with."""
    dock = dock_of(widget)
    if dock is not None:
        dock.show()
        dock.raise_()


def open_widget(viewer: Any, kind: Callable[[Any], W], title: str) -> W:
    """A widget of a kind in a dock of a viewer; there is one at most, and it is never hidden by this."""
    widget: W | None = next((one for one in viewer.window.dock_widgets.values() if type(one) is kind), None)
    if widget is None:
        widget = kind(viewer)
        viewer.window.add_dock_widget(widget, name=name_of_dock(title), add_vertical_stretch=False)
    else:
        bring_to_front(widget)
    return widget


class DockPage(QWidget):
    """A widget in a dock of this plugin; `leave` is called once, when it is taken out of its window or closed."""

    _left = False

    def __init__(self, parent: QWidget | None = None):
        super().__init__(parent)
        OwnDock(self)

    def event(self, event: QEvent) -> bool:
        """A dock that is taken out of its window stops listening."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._leave_once()
        return super().event(event)

    def closeEvent(self, event: Any) -> None:
        """The same where it is a window of its own."""
        self._leave_once()
        super().closeEvent(event)

    def leave(self) -> None:
        """Stop listening to the viewer."""
        raise NotImplementedError

    def _leave_once(self) -> None:
        if not self._left:
            self._left = True
            self.leave()


class OwnDock(QObject):
    """Makes a widget take all the height of its dock, and puts the dock behind or before this plugin's others.

    That happens once, when the dock is first shown: where the user drags it afterwards, it stays.

    Parameters
    ----------
    widget : QWidget
        What napari will put into a dock; it becomes the parent.
    """

    _numbers = count()
    TRIES = 10
    AGAIN_MS = 100

    def __init__(self, widget: QWidget):
        super().__init__(widget)
        self._widget = widget
        self.number = next(self._numbers)
        self._tries = 0
        # below what does not take all the height, napari puts a stretch, which would leave half of it empty
        widget.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.timeout.connect(self._tabify)
        widget.installEventFilter(self)

    @property
    def dock(self) -> QDockWidget | None:
        """The dock, None before there is one."""
        return dock_of(self._widget)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Wait for the first time that the widget is shown."""
        if event.type() == QEvent.Type.Show and self.dock is not None:
            self._widget.removeEventFilter(self)
            self._later.start(0)  # napari lays the dock out after it has shown it
        return super().eventFilter(watched, event)

    def _tabify(self) -> None:
        dock = self.dock
        window = dock.parentWidget() if dock is not None else None
        if dock is None or not isinstance(window, QMainWindow) or dock.isFloating():
            return
        dock.setWindowTitle(dock.windowTitle().partition(" (")[0])  # three tabs with whole names do not fit
        area = window.dockWidgetArea(dock)
        others = [
            (one.number, other)
            for one in window.findChildren(OwnDock)
            if (other := one.dock) is not None and other.isVisible() and not other.isFloating()
            if window.dockWidgetArea(other) == area
        ]
        first = min(others, default=(0, dock), key=lambda one: one[0])[1]
        if first is dock or dock in window.tabifiedDockWidgets(first):
            return
        window.tabifyDockWidget(first, dock)
        dock.show()
        dock.raise_()
        self._tries += 1
        if self._tries < self.TRIES:  # Qt forgets it where another dock is still on its way to its place
            self._later.start(self.AGAIN_MS)
