"""Window and level: the contrast of an image by dragging, and the presets that CT is read with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

PRESETS = {
    "Brain": (80.0, 40.0),
    "Subdural": (200.0, 75.0),
    "Soft tissue": (400.0, 40.0),
    "Lung": (1500.0, -600.0),
    "Bone": (1800.0, 400.0),
}
"""Window and level in Hounsfield units."""


def window_level(limits: tuple[float, float]) -> tuple[float, float]:
    """Window (width) and level (middle) of contrast limits.

    Examples
    --------
    >>> window_level((-160, 240))
    (400.0, 40.0)
    """
    low, high = (float(v) for v in limits)
    return high - low, (low + high) / 2


def limits_of(window: float, level: float) -> tuple[float, float]:
    """Contrast limits of a window and level.

    Examples
    --------
    >>> limits_of(400, 40)
    (-160.0, 240.0)
    """
    half = max(float(window), 1e-6) / 2
    return level - half, level + half


def dragged(
    limits: tuple[float, float], span: float, right: float, down: float, size: tuple[float, float]
) -> tuple[float, float]:
    """Limits after a drag: to the right widens the window, downwards raises the level (the image gets darker).

    Parameters
    ----------
    limits : tuple of float
        When the drag began.
    span : float
        Range of the image's values: what a drag over the whole canvas changes.
    right, down : float
        Pixels.
    size : tuple of float
        Height and width of the canvas in pixels.

    Examples
    --------
    >>> dragged((0, 100), 200, right=50, down=0, size=(100, 100))
    (-50.0, 150.0)
    """
    window, level = window_level(limits)
    window = max(window + span * right / size[1], span / 1000)
    return limits_of(window, level + span * down / size[0])


def target(viewer: ViewerModel) -> Image | None:
    """The image whose contrast is set: the selected one, or else the uppermost that is seen and no map."""
    from napari_mamba.ui.results.maps.look import is_map

    def fits(layer: Any) -> bool:
        return type(layer).__name__ == "Image" and not layer.rgb

    active = viewer.layers.selection.active
    if active is not None and fits(active):
        return active
    seen = [layer for layer in reversed(viewer.layers) if layer.visible and fits(layer)]
    return next((layer for layer in seen if not is_map(layer)), seen[0] if seen else None)


class WindowLevel:
    """Sets contrast while the mouse is dragged over the canvas, as long as it is on.

    Parameters
    ----------
    viewer : napari viewer
    """

    def __init__(self, viewer: ViewerModel):
        self.viewer = viewer
        self._on = False
        self._pan = True

    @property
    def on(self) -> bool:
        """Whether dragging sets the contrast instead of moving the picture."""
        return self._on

    @on.setter
    def on(self, on: bool) -> None:
        if on == self._on:
            return
        self._on = on
        if on:
            self._pan = self.viewer.scene.camera.mouse_pan
            self.viewer.scene.camera.mouse_pan = False
            self.viewer.mouse_drag_callbacks.append(self._drag)
        else:
            self.viewer.scene.camera.mouse_pan = self._pan
            self.viewer.mouse_drag_callbacks.remove(self._drag)

    def _drag(self, viewer: Any, event: Any) -> Iterator[None]:
        layer, active = target(viewer), viewer.layers.selection.active
        drawing = active is not None and str(active.mode) != "pan_zoom"  # the brush and the line need their drags
        if layer is None or drawing or event.button != 1 or event.modifiers:
            return
        start, before = event.pos, tuple(layer.contrast_limits)
        low, high = layer.contrast_limits_range
        yield
        while event.type == "mouse_move":
            moved = event.pos - start
            layer.contrast_limits = dragged(before, float(high - low), moved[0], moved[1], viewer.canvas.size)
            event.handled = True
            yield
