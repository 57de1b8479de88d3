"""Two layers in one place: in turn, or one through the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer


@dataclass
class Blink:
    """Shows one of two layers, and at each step the other."""

    viewer: ViewerModel
    first: Layer
    second: Layer
    _visible: dict[Layer, bool] = field(default_factory=dict)

    def start(self) -> None:
        """Begin with the first."""
        self._visible = {layer: layer.visible for layer in (self.first, self.second)}
        self.first.visible, self.second.visible = True, False

    def step(self) -> str:
        """Show the other one; returns its name. Labels leave their image where it is."""
        second = not self.second.visible
        self.second.visible = second
        if type(self.second) is type(self.first):
            self.first.visible = not second
        return (self.second if second else self.first).name

    def end(self) -> None:
        """Both as they were."""
        for layer, visible in self._visible.items():
            if layer in self.viewer.layers:
                layer.visible = visible


@dataclass
class Fade:
    """Shows the second layer over the first, more or less opaque."""

    viewer: ViewerModel
    first: Layer
    second: Layer
    _before: dict[Layer, tuple[bool, float]] = field(default_factory=dict)
    _index: int = 0

    def start(self) -> None:
        """Show both, the second on top."""
        layers = self.viewer.layers
        self._before = {layer: (layer.visible, layer.opacity) for layer in (self.first, self.second)}
        self._index = layers.index(self.second)
        if layers.index(self.first) > self._index:
            layers.move(self._index, len(layers))
        self.first.visible = self.second.visible = True

    def move(self, share: float) -> None:
        """How opaque the second is, 0 to 1."""
        self.second.opacity = share

    def end(self) -> None:
        """Both as they were."""
        layers = self.viewer.layers
        for layer, (visible, opacity) in self._before.items():
            if layer in layers:
                layer.visible, layer.opacity = visible, opacity
        if self.second in layers and layers.index(self.second) != self._index and self._index < len(layers):
            layers.move(layers.index(self.second), self._index)
