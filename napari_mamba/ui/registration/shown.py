"""Which views of a registration are shown: their layers come and go, and follow the axis that is looked along."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_mamba.ui.registration import scene
from napari_mamba.ui.widgets.background import Background

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_mamba.ui.registration.model import Finished

HIDING = ("checkerboard", "overlay")
"""Views that stand alone: the images below them are hidden meanwhile."""


class ShownViews(QObject):
    """Makes the views' layers in a thread, and adds and removes them.

    Signals
    -------
    left : str
        A view is gone, because the user removed its layer or chose one that stands alone.
    """

    left = Signal(str)

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None):
        super().__init__(parent)
        self.viewer = viewer
        self.finished: Finished | None = None
        self.wanted: set[str] = set()
        self._mix = 0.5
        self._hidden: list[Any] = []
        self._background = Background(self)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.dims.events.order.connect(self._on_order)

    def close(self) -> None:
        """Stop listening to the viewer; the layers stay."""
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self.viewer.dims.events.order.disconnect(self._on_order)

    def show(self, view: str, on: bool) -> None:
        """Show a view, or take it away."""
        if not on:
            self.wanted.discard(view)
            self._remove(view)
            self._unhide()
        elif self.finished is not None:
            for other in HIDING:
                if view in HIDING and other != view and other in self.wanted:
                    self.left.emit(other)
            self.wanted.add(view)
            self._make(view)

    def clear(self) -> None:
        """Take every view away: there is another result."""
        for view in list(self.wanted):
            self.left.emit(view)

    def mix(self, share: float) -> None:
        """The overlay: 0 shows the fixed image alone, 1 the moved one."""
        self._mix = share
        layers = scene.of_view(self.viewer.layers, "overlay")
        for layer, opacity in zip(layers, (2 - 2 * share, 2 * share), strict=False):
            layer.opacity = min(opacity, 1.0)

    # ---- making and taking away

    def _make(self, view: str) -> None:
        finished, axis = self.finished, scene.looked_along(self.viewer)
        assert finished is not None

        def work() -> list[Any]:
            made = [scene.view_layer(finished, view, axis)]
            return [scene.fixed_tint(finished), *made] if view == "overlay" else made

        self._background.ask(work, lambda made: self._add(view, finished, made), computes=True)

    def _add(self, view: str, finished: Finished, made: list[Any] | None) -> None:
        if made is None or view not in self.wanted or finished is not self.finished:
            return
        self._remove(view)
        if view in HIDING:
            self._hide(finished)
        for layer in made:
            self.viewer.add_layer(layer)
        if view == "overlay":
            self.mix(self._mix)

    def _remove(self, view: str) -> None:
        was = self.wanted
        self.wanted = set()  # what is removed here was not removed by the user
        for layer in scene.of_view(self.viewer.layers, view):
            self.viewer.layers.remove(layer)
        self.wanted = was

    def _hide(self, finished: Finished) -> None:
        """Hide the images that a view stands for."""
        names = (finished.pair.place.name, finished.pair.moving_name)
        for layer in self.viewer.layers:
            pictures = layer.name in names or layer in scene.of_view(self.viewer.layers, "moved")
            if pictures and layer.visible and type(layer).__name__ == "Image":
                layer.visible = False
                self._hidden.append(layer)

    def _unhide(self) -> None:
        if not self.wanted & set(HIDING):
            for layer in self._hidden:
                layer.visible = True
            self._hidden = []

    # ---- the viewer

    def _on_order(self, event: Any = None) -> None:
        for view in self.wanted:
            if scene.depends_on_axis(view):
                self._make(view)

    def _on_removed(self, event: Any = None) -> None:
        for view in list(self.wanted):
            layer = getattr(event, "value", None)
            if layer is not None and scene.of_view([layer], view) and not scene.of_view(self.viewer.layers, view):
                self.left.emit(view)
