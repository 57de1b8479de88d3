"""What napari's menu opens: a dock that is there at once, and fills itself while the window stays alive.

The widget itself needs libraries that take tenths of a second to import. A thread imports them; what has to be built in
the window's own thread is built part by part, a part in each turn of the event loop, so that it draws in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_mamba.ui.preferences import preferences
from napari_mamba.ui.widgets.docks import OwnDock
from napari_mamba.ui.widgets.pauses import NoFullCollections, short_turns

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_mamba.ui.run.widget import RunWidget

TURN_S = 0.03
"""How long a turn of the event loop may be kept from drawing."""


class RunDock(QWidget):
    """The dock "Run a model". `inner` is the widget in it, None until it is there.

    Parameters
    ----------
    napari_viewer : napari viewer
        The name is napari's: it fills it in.
    """

    POLL_MS = 15

    def __init__(self, napari_viewer: ViewerModel, parent: QWidget | None = None):
        super().__init__(parent)
        self._viewer = napari_viewer
        self.inner: RunWidget | None = None
        self._waiting: list[Callable[[RunWidget], Any]] = []
        self._loading = QLabel("Loading…")
        self._loading.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.addWidget(self._loading)
        self.setMinimumWidth(360)
        OwnDock(self)
        self._steady = steady = NoFullCollections()
        steady.switch(True)
        self.destroyed.connect(lambda *_: steady.switch(False))
        self._imports = Thread(
            target=_import, name="imports"
        )  # no daemon: an import that Python's end meets can crash it
        self._imports.start()
        self._steps = self._build()
        self._poll = QTimer(self)
        self._poll.setInterval(self.POLL_MS)
        self._poll.timeout.connect(self._next)
        self._poll.start()

    def when_ready(self, callback: Callable[[RunWidget], Any]) -> None:
        """Call back with the widget: now, or when it is there."""
        if self.inner is not None:
            callback(self.inner)
        else:
            self._waiting.append(callback)

    def _next(self) -> None:
        if not self._imports.is_alive() and next(self._steps, False) is False:
            self._poll.stop()
            self._steady.switch(False)

    def _build(self) -> Iterator[bool]:
        """Make in this thread what has to be made in it, in pieces."""
        from napari_mamba.ui.run.host import host_of
        from napari_mamba.ui.run.parts import Parts
        from napari_mamba.ui.run.widget import RunWidget

        host = host_of(self._viewer)
        yield True
        parts = Parts(host, self)
        for _ in parts.make():  # not shown, and not hidden either: they appear with the widget that takes them up
            yield True
        inner = RunWidget(self._viewer, self, parts)
        inner.hide()
        yield True
        yield from _polished(inner)
        self._layout.replaceWidget(self._loading, inner)
        self._loading.hide()
        self._loading.deleteLater()
        inner.show()
        self.inner = inner
        for callback in self._waiting:
            callback(inner)
        self._waiting.clear()


def _polished(widget: QWidget) -> Iterator[bool]:
    """Give a widget and those in it napari's style, a few in each turn: the first drawing would do it all at once."""
    until = monotonic() + TURN_S
    for child in (widget, *widget.findChildren(QWidget)):
        child.ensurePolished()
        if monotonic() > until:
            yield True
            until = monotonic() + TURN_S


def _import() -> None:
    """Import what the widget needs; one that fails is imported again, and fails loudly, in the window's thread."""
    try:
        with short_turns():
            import napari_mamba.ui.results.view
            import napari_mamba.ui.run.widget  # noqa: F401

            preferences()  # napari reads the manifests of all plugins at the first look
    except Exception:
        return
