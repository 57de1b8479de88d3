"""The point that is asked about: the crosshair, or a point of a markups node."""

from __future__ import annotations

from typing import Any

from .volumes import Unusable


def crosshair(scene: Any) -> tuple[float, float, float]:
    """Where the crosshair is, in RAS mm.

    Raises
    ------
    Unusable
        If the scene has none.
    """
    node = scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    if node is None:
        raise Unusable("there is no crosshair: place a point instead")
    return _three(node.GetCrosshairRAS())


def world_of(point: Any) -> tuple[float, float, float] | None:
    """A place in the world, of a markups node (its first control point), or of three numbers; None stays None.

    Raises
    ------
    Unusable
        If the node has no point yet.
    """
    if point is None:
        return None
    if not hasattr(point, "GetNumberOfControlPoints"):
        return _three(point)
    if point.GetNumberOfControlPoints() < 1:
        raise Unusable(f"{point.GetName()} has no point yet: place one in the views")
    place = [0.0, 0.0, 0.0]
    point.GetNthControlPointPositionWorld(0, place)
    return _three(place)


def _three(values: Any) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
