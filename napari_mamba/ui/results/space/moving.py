"""Moving the slices and the camera to a place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari.components import ViewerModel


def look_at(viewer: ViewerModel, world: Sequence[float]) -> None:
    """Go to a point: slices through it, and the camera over it where it would be out of sight.

    Parameters
    ----------
    viewer : napari viewer
    world : sequence of float
        Of the last axes of the viewer's world.
    """
    dims = viewer.dims
    first = dims.ndim - len(world)
    for axis, value in enumerate(world):
        dims.set_point(first + axis, float(value))
    point = dims.point
    centre = [point[axis] for axis in dims.displayed]
    viewer.scene.camera.center = (0.0,) * (3 - len(centre)) + tuple(float(c) for c in centre)
