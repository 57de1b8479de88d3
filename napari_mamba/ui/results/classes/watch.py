"""Telling when a layer's data change, whatever changed them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psygnal import Signal

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels


class DataWatch:
    """Emits `changed` when a labels layer is painted, filled, corrected, undone, redone or given other data.

    Parameters
    ----------
    viewer : napari viewer
    layer : Labels
    """

    changed = Signal()

    def __init__(self, viewer: ViewerModel, layer: Labels):
        self.viewer, self.layer = viewer, layer
        self._seen = self._view_state()
        layer.events.paint.connect(self._on_change)
        layer.events.data.connect(self._on_change)
        layer.events.set_data.connect(self._on_set_data, position="last")  # the record knows by then what was undone

    def disconnect(self) -> None:
        """Stop listening."""
        self.layer.events.paint.disconnect(self._on_change)
        self.layer.events.data.disconnect(self._on_change)
        self.layer.events.set_data.disconnect(self._on_set_data)

    def _on_change(self, event: Any = None) -> None:
        self.changed.emit()

    def _on_set_data(self, event: Any = None) -> None:
        """Undo and redo tell nothing but this, and so does every move through the slices, which changes no data."""
        state = self._view_state()
        if state == self._seen:
            self.changed.emit()
        self._seen = state

    def _view_state(self) -> tuple:
        dims = self.viewer.dims
        return tuple(dims.point), tuple(dims.order), dims.ndisplay, self.layer.visible, self.layer.contour
