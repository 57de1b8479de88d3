"""One layer on the left of a line and another on its right."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.measure import onto_grid
from napari_mamba.ui.layers import KEY, layers_to_volume
from napari_mamba.ui.results.compare.beside import VIEW_ONLY

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer


@dataclass
class Swipe:
    """A layer made of two; `move` shifts the line, `end` takes it away.

    Where only the second is labels, they are cut off left of the line, and the first shows below.
    """

    viewer: ViewerModel
    first: Layer
    second: Layer
    share: float = 0.5
    _layer: Layer | None = None
    _sides: tuple[np.ndarray, np.ndarray] | None = None
    _axis: int = 0
    _cut: int = 0
    _turned: bool = False
    _visible: dict[Layer, bool] = field(default_factory=dict)

    def start(self) -> None:
        """Show the two.

        Raises
        ------
        InputError
            If the layers lie in different places, or a lazy one is larger than can be copied.
        """
        second = np.asarray(self.second.data[0] if self.second.multiscale else self.second.data)
        same_kind = type(self.first) is type(self.second)
        first = self._on_the_others_grid() if same_kind else np.zeros((), second.dtype)
        self._sides = np.broadcast_to(first, second.shape), second
        data = second.copy()
        self._divide(data)
        _, attributes, kind = self.second.as_layer_data_tuple()
        attributes["metadata"] = {KEY: {**attributes["metadata"].get(KEY, {}), VIEW_ONLY: True, "role": "map"}}
        attributes |= {"name": f"{self.first.name} | {self.second.name}", "visible": True}
        attributes.pop("multiscale", None)
        self._visible = {layer: layer.visible for layer in (self.first, self.second)}
        self._layer = self.viewer.add_layer(type(self.second).create(data, attributes, kind))
        self.second.visible = False
        self.first.visible = not same_kind

    def _on_the_others_grid(self) -> np.ndarray:
        first, _ = layers_to_volume([self.first])
        second, place = layers_to_volume([self.second])
        order = 0 if type(self.first).__name__ == "Labels" else 1
        moved = onto_grid(first, second, order=order)
        return place.to_layer_axes(np.asarray(moved.data)[0])

    def move(self, share: float) -> None:
        """Put the line at a share of the width."""
        self.share = share
        if self._layer is None or self._sides is None or self._layer not in self.viewer.layers:
            return
        data = self._layer.data
        if self._axis != self._across():  # another plane is shown
            self._divide(data)
        cut = self._column()
        low, high = sorted((cut, self._cut))
        side = self._sides[int((cut > self._cut) == self._turned)]
        self._part(data, low, high)[...] = self._part(side, low, high)
        self._cut = cut
        self._layer.refresh()

    def _divide(self, data: np.ndarray) -> None:
        """Fill both sides of the line."""
        assert self._sides is not None
        self._axis = self._across()
        start, end = np.zeros(data.ndim), np.zeros(data.ndim)
        end[self._axis] = 1.0
        # a layer's index may run against the world's axis, which the picture follows
        along = self.viewer.dims.displayed[-1] - self.viewer.dims.ndim
        self._turned = self.second.data_to_world(end)[along] < self.second.data_to_world(start)[along]
        self._cut = self._column()
        low, high = self._sides[::-1] if self._turned else self._sides
        data[...] = high
        self._part(data, 0, self._cut)[...] = self._part(low, 0, self._cut)

    def end(self) -> None:
        """Take the layer away and show the two as they were."""
        if self._layer is not None and self._layer in self.viewer.layers:
            self.viewer.layers.remove(self._layer)
        for layer, visible in self._visible.items():
            if layer in self.viewer.layers:
                layer.visible = visible
        self._layer = self._sides = None

    def _across(self) -> int:
        """The layer's axis that runs from left to right."""
        return max(self.viewer.dims.displayed[-1] - (self.viewer.dims.ndim - self.second.ndim), 0)

    def _column(self) -> int:
        assert self._sides is not None
        share = 1 - self.share if self._turned else self.share
        return round(share * self._sides[1].shape[self._axis])

    def _part(self, data: Any, low: int, high: int) -> Any:
        return data[(slice(None),) * self._axis + (slice(low, high),)]


def check_swipe(first: Layer, second: Layer) -> None:
    """Say what cannot be swiped.

    Raises
    ------
    InputError
    """
    if type(second).__name__ == "Image" and type(first).__name__ == "Labels":
        raise InputError("an image would cover the labels: choose the labels as B")
