"""Orientation letters and the pointer's position in RAS millimetres, written onto napari's canvas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_mamba.ui.results.space.position import has_orientation, in_words, letters, ras_of

if TYPE_CHECKING:
    from napari.components import ViewerModel

_PLACES = ("middle_left", "middle_right", "top_center", "bottom_center")
_NAMES = tuple(f"napari_mamba_{place}" for place in _PLACES)
_POSITION = "napari_mamba_position"


class Orientation:
    """Letters at the rims of every slice and the position under the pointer.

    Parameters
    ----------
    viewer : napari viewer
    """

    def __init__(self, viewer: ViewerModel):
        self.viewer = viewer
        self._shown = False

    @property
    def shown(self) -> bool:
        """Whether letters and position are on the canvas."""
        return self._shown

    @shown.setter
    def shown(self, shown: bool) -> None:
        if shown == self._shown:
            return
        self._shown = shown
        if shown:
            self._add()
        else:
            self._remove()

    def _events(self) -> list[Any]:
        viewer = self.viewer
        layers = viewer.layers.events
        return [viewer.dims.events.order, viewer.dims.events.ndisplay, layers.inserted, layers.removed]

    def _add(self) -> None:
        from napari.components.overlays import TextOverlay

        overlays = self.viewer.canvas.overlays
        for name, place in zip(_NAMES, _PLACES, strict=True):
            overlays[name] = TextOverlay(position=place, font_size=14, gridded=True, visible=False)
        overlays[_POSITION] = TextOverlay(position="bottom_left", font_size=10, visible=False)
        for event in self._events():
            event.connect(self.refresh)
        self.viewer.cursor.events.position.connect(self._on_cursor)
        self.refresh()

    def _remove(self) -> None:
        for event in self._events():
            event.disconnect(self.refresh)
        self.viewer.cursor.events.position.disconnect(self._on_cursor)
        for name in (*_NAMES, _POSITION):
            if name in self.viewer.canvas.overlays:
                del self.viewer.canvas.overlays[name]

    def refresh(self, event: Any = None) -> None:
        """Write the letters of the plane that is shown."""
        for name, letter in zip(_NAMES, letters(self.viewer), strict=True):
            overlay = self.viewer.canvas.overlays[name]
            overlay.text = letter
            overlay.visible = bool(letter)
        self._on_cursor()

    def _on_cursor(self, event: Any = None) -> None:
        overlay = self.viewer.canvas.overlays[_POSITION]
        known = has_orientation(self.viewer) and len(self.viewer.cursor.position) >= 3 and bool(self.viewer.layers)
        if known:
            overlay.text = in_words(ras_of(self.viewer.layers[0], [self.viewer.cursor.position])[0])
        overlay.visible = known
