"""An image's values along a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.volume import Volume


@dataclass(frozen=True)
class Profile:
    """Values along a line; NaN outside of the image.

    Parameters
    ----------
    name : str
        Of the image.
    distance_mm : ndarray, shape (N,)
        From the line's first point.
    values : ndarray, shape (N,)
    """

    name: str
    distance_mm: np.ndarray
    values: np.ndarray


def line_profile(volume: Volume, points_mm: Sequence[Sequence[float]] | np.ndarray, samples: int = 0) -> Profile:
    """Values of an image along a line through points in space.

    Parameters
    ----------
    volume : Volume
        One channel.
    points_mm : array-like, shape (P, 3)
        Points of the line in RAS millimetres, at least two.
    samples : int
        How many; 0 takes two for the smallest voxel side along the line.

    Returns
    -------
    Profile
        Interpolated linearly between voxels.

    Raises
    ------
    InputError
        If the line has no length.

    Examples
    --------
    >>> ramp = Volume(np.arange(5.0).reshape(1, 1, 1, 5), affine=np.eye(4)[[2, 1, 0, 3]])
    >>> line_profile(ramp, [[0, 0, 0], [4, 0, 0]], samples=5).values.tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    from scipy.ndimage import map_coordinates

    points = np.asarray(points_mm, dtype=np.float64)
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1) if len(points) > 1 else np.zeros(1)
    if lengths.sum() <= 0:
        raise InputError("the line has no length: draw it from one place to another")
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    count = samples or int(np.ceil(2 * along[-1] / volume.spacing.min())) + 1
    distance = np.linspace(0, along[-1], count)
    world = np.stack([np.interp(distance, along, points[:, axis]) for axis in range(3)] + [np.ones(count)])
    index = (np.linalg.inv(volume.affine) @ world)[:3]
    # the outer half of the rim's voxels belongs to the image too; rounding errors must not push a sample out of it
    size = np.array(volume.shape)[:, None]
    outside = ((index < -0.5 - 1e-9) | (index > size - 0.5 + 1e-9)).any(axis=0)
    data = np.asarray(volume.data[0], dtype=np.float64)
    values = map_coordinates(data, np.clip(index, 0, size - 1), order=1)
    return Profile(volume.name, distance, np.where(outside, np.nan, values))
