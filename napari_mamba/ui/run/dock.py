"""What napari's menu opens: a dock that is there at once, and fills itself while the window stays alive.

The widget itself needs libraries that take tenths of a second to import. A thread imports them; what has to be built in
the window's own thread is built in steps between which it can draw.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_mamba.ui.run.widget import RunWidget


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
        self._imports = Thread(target=_import, name="imports", daemon=True)
        self._imports.start()
        self._steps = [self._make_host, self._make_widget]
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
        if self._imports.is_alive():
            return
        if self._steps:
            self._steps.pop(0)()
        else:
            self._poll.stop()

    def _make_host(self) -> None:
        from napari_mamba.ui.run.host import host_of

        host_of(self._viewer).prepare()

    def _make_widget(self) -> None:
        from napari_mamba.ui.run.widget import RunWidget

        self.inner = RunWidget(self._viewer)
        self._layout.replaceWidget(self._loading, self.inner)
        self._loading.hide()
        self._loading.deleteLater()
        for callback in self._waiting:
            callback(self.inner)
        self._waiting.clear()


def _import() -> None:
    """Import what the widget needs; one that fails is imported again, and fails loudly, in the window's thread."""
    try:
        import napari_mamba.ui.results.view
        import napari_mamba.ui.run.widget  # noqa: F401
    except Exception:
        return
