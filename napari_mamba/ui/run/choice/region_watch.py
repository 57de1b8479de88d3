"""Tells when what a layer marks as a region changes. No Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psygnal import Signal

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

DONE = ("added", "removed", "changed")
"""How napari calls what was drawn, beside what is just being drawn."""


class RegionWatch:
    """Follows the layer of the region, so that what is said of a run holds after a box was drawn or moved.

    Parameters
    ----------
    viewer : napari viewer model

    Examples
    --------
    >>> from napari.components import ViewerModel
    >>> viewer = ViewerModel()
    >>> box, watch = viewer.add_shapes(name="region"), RegionWatch(viewer)
    >>> _ = watch.changed.connect(lambda: print("the region is another one"))
    >>> watch.follow("region")
    >>> box.add_rectangles([[0, 0], [3, 4]])
    the region is another one
    """

    changed = Signal()

    def __init__(self, viewer: ViewerModel):
        self.viewer = viewer
        self._layer: Layer | None = None

    def follow(self, name: str) -> None:
        """Watch the layer of that name, and no other; none for an empty name."""
        if self._layer is not None:
            for event in _events(self._layer):
                event.disconnect(self._on_event)
        self._layer = self.viewer.layers[name] if name and name in self.viewer.layers else None
        if self._layer is not None:
            for event in _events(self._layer):
                event.connect(self._on_event)

    def _on_event(self, event: Any) -> None:
        action = getattr(event, "action", None)  # of shapes alone
        if action is None or str(getattr(action, "value", action)) in DONE:
            self.changed.emit()


def _events(layer: Layer) -> list[Any]:
    """Data that are drawn, moved or set; of labels the end of a stroke, too."""
    return [layer.events.data, *([layer.events.paint] if "paint" in layer.events.emitters else [])]
