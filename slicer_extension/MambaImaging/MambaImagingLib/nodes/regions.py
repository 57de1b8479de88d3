"""From a region node to the box that the command takes: in the volume's own coordinates."""

from __future__ import annotations

from typing import Any

from . import geometry

_SAMPLES = 7


def box_of(roi: Any, volume: Any) -> tuple[float, ...]:
    """The region as seen from the volume.

    Parameters
    ----------
    roi : vtkMRMLMarkupsROINode
        May be turned, and under transforms.
    volume : vtkMRMLVolumeNode
        May be under transforms too, linear or not.

    Returns
    -------
    tuple of 6 float
        Lowest x, y, z, then highest x, y, z, in RAS mm before the volume's parent transform: the smallest such box
        that holds the region.

    Raises
    ------
    ValueError
        If the region has no size yet.
    """
    import numpy as np

    size = np.array(roi.GetSize())
    if not (size > 0).all():
        raise ValueError(f"{roi.GetName()} has no size yet: place it in the views, or leave the region out")
    steps = np.linspace(-0.5, 0.5, _SAMPLES)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    surface = grid[(np.abs(grid) == 0.5).any(axis=1)] * size  # what is inside is mapped inside
    to_world = geometry.array(roi.GetObjectToWorldMatrix())
    world = surface @ to_world[:3, :3].T + to_world[:3, 3]
    transform = geometry.between(None, volume)
    points = np.array([transform.TransformPoint(point) for point in world])
    return (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())
