"""A line drawn in the picture, and images along it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_mamba.measure import Profile, line_profile
from napari_mamba.ui.layers import KEY, layers_to_volume
from napari_mamba.ui.results.compare.beside import VIEW_ONLY
from napari_mamba.ui.results.space.position import ras_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Shapes

NAME = "line profile"


class ProfileLine:
    """A shapes layer with one line; tells when it is drawn or moved.

    Parameters
    ----------
    viewer : napari viewer
    """

    moved = Signal()

    def __init__(self, viewer: ViewerModel):
        self.viewer = viewer
        self.layer: Shapes | None = None

    def draw(self, like: Image) -> None:
        """Let the user draw a line over an image; a second one takes the place of the first."""
        from napari.layers import Shapes

        if self.layer is None or self.layer not in self.viewer.layers:
            ndim = max(self.viewer.dims.ndim, 2)
            # of one with all axes of the viewer: a single layer in pixels takes the units from all
            axes = next((one for one in self.viewer.layers if one.ndim == ndim), like)
            self.layer = Shapes(
                ndim=ndim,
                name=NAME,
                edge_color="#ffd23f",
                edge_width=1,
                face_color="transparent",
                units=axes.units if axes.ndim == ndim else None,
                axis_labels=axes.axis_labels if axes.ndim == ndim else None,
                metadata={KEY: {VIEW_ONLY: True}},
            )
            self.layer.events.data.connect(self._on_data)
            self.viewer.add_layer(self.layer)
        self.viewer.layers.selection = {self.layer}
        self.layer.mode = "add_line"

    def set_line(self, like: Image, world: Any) -> None:
        """Put a line through points of the world."""
        self.draw(like)
        assert self.layer is not None
        self.layer.data = []
        self.layer.add_lines(np.asarray(world, float))
        self.layer.mode = "pan_zoom"

    def _on_data(self, event: Any) -> None:
        if self.layer is not None and self.layer.nshapes:
            self.moved.emit()

    def points(self) -> np.ndarray | None:
        """Points of the newest line in the viewer's world, None where there is none."""
        if self.layer is None or self.layer not in self.viewer.layers or not self.layer.nshapes:
            return None
        return np.array([self.layer.data_to_world(point) for point in self.layer.data[-1]])

    def profiles(self, images: Sequence[Image]) -> list[Profile]:
        """The images along the line.

        Raises
        ------
        InputError
            If an image is no volume, or the line has no length.
        """
        points = self.points()
        return [] if points is None else [profile_of(image, points) for image in images]


def profile_of(image: Image, world: np.ndarray) -> Profile:
    """An image along a line through points of the viewer's world."""
    volume, _ = layers_to_volume([image])
    return line_profile(volume, ras_of(image, world))
