"""Two layers side by side, in napari's grid of linked cameras, and back as it was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_mamba.ui.layers import KEY
from napari_mamba.ui.results.classes.link import image_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

VIEW_ONLY = "view_only"
"""Key in a layer's record: it only repeats another layer's data for a view, and goes with it."""


def is_view_only(layer: Any) -> bool:
    """Whether a layer is a copy for a view, not to be offered anywhere."""
    return bool(layer.metadata.get(KEY, {}).get(VIEW_ONLY))


@dataclass
class SideBySide:
    """A comparison that is on; `end` puts everything back.

    Labels stand on their image; where both do, or only one has labels, the image is shown twice. The copies share
    their data with the original and their contrast, and follow it.
    """

    viewer: ViewerModel
    first: Layer
    second: Layer
    _visible: dict[Layer, bool] = field(default_factory=dict)
    _order: list[Layer] = field(default_factory=list)
    _grid: dict[str, Any] = field(default_factory=dict)
    _camera: tuple[Any, float] = ((0.0, 0.0, 0.0), 1.0)
    _copies: list[Layer] = field(default_factory=list)
    _linked: list[Layer] = field(default_factory=list)

    def start(self) -> None:
        """Show the two side by side, the first on the left."""
        viewer, grid = self.viewer, self.viewer.canvas.grid
        self._order = list(viewer.layers)
        self._visible = {layer: layer.visible for layer in self._order}
        self._camera = viewer.scene.camera.center, viewer.scene.camera.zoom
        self._grid = {name: getattr(grid, name) for name in ("enabled", "stride", "shape", "spacing")}
        left, right = self._tile(self.first), self._tile(self.second)
        right = [self._copy(layer) if layer in left else layer for layer in right]
        stride = max(len(left), len(right))
        for tile in (left, right):
            while len(tile) < stride:  # napari counts hidden layers of a tile, too
                tile.append(self._copy(tile[0], shown=False))
        self._arrange([*left, *right])
        for layer in self._order:
            layer.visible = layer in left or layer in right
        grid.stride, grid.shape, grid.spacing, grid.enabled = stride, (1, 2), 0.01, True
        self._link([layer for layer in (*left, *right) if type(layer).__name__ == "Image"])
        viewer.layers.selection = {self.second}

    def end(self) -> None:
        """Back to one picture, with the layers' order and eyes as they were; those that came since stay."""
        layers = self.viewer.layers
        still = [layer for layer in self._linked if layer in layers]
        if len(still) > 1:
            layers.unlink_layers(still, ("contrast_limits", "gamma"))
        for copy in self._copies:
            if copy in layers:
                layers.remove(copy)
        self._arrange([layer for layer in self._order if layer in layers])
        for layer, visible in self._visible.items():
            if layer in layers:
                layer.visible = visible
        grid = self.viewer.canvas.grid
        for name, value in self._grid.items():
            setattr(grid, name, value)
        self.viewer.scene.camera.center, self.viewer.scene.camera.zoom = self._camera
        self._copies, self._linked = [], []

    def fit(self) -> None:
        """Show all of the two: the camera of one picture would cut them in half, other layers lie who knows where."""
        self.viewer.fit_to_view(layers=[self.first, self.second])

    def _tile(self, layer: Layer) -> list[Layer]:
        """A layer with what it lies on."""
        if type(layer).__name__ != "Labels":
            return [layer]
        image = image_of(self.viewer, layer)
        return [layer] if image is None else [image, layer]

    def _copy(self, layer: Layer, shown: bool = True) -> Layer:
        data, attributes, kind = layer.as_layer_data_tuple()
        attributes["metadata"] = {KEY: {**attributes["metadata"].get(KEY, {}), VIEW_ONLY: True, "role": "map"}}
        attributes["name"] = f"{layer.name} (beside)"
        copy = type(layer).create(data, attributes, kind)
        self.viewer.add_layer(copy)
        copy.visible = shown
        self._copies.append(copy)
        return copy

    def _arrange(self, first: list[Layer]) -> None:
        """Put these layers at the bottom of the list, in this order."""
        layers = self.viewer.layers
        for target, layer in enumerate(first):
            index = layers.index(layer)
            if index != target:
                layers.move(index, target)

    def _link(self, images: list[Layer]) -> None:
        """One window and level, where the intensities are of one scale."""
        if len(images) < 2:
            return
        reference = images[0]
        for other in images[1:]:
            other.contrast_limits = reference.contrast_limits  # type: ignore[attr-defined]
        self.viewer.layers.link_layers(images, ("contrast_limits", "gamma"))
        self._linked = images
