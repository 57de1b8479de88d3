"""Slices in between, from the shape of a class in the slices that were drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_mamba.errors import InputError


def interpolate_slices(mask: np.ndarray, axis: int = 0, spacing: Sequence[float] = (1, 1, 1)) -> np.ndarray:
    """A mask whose empty slices between drawn ones are filled in.

    Between two slices the signed distance to the outline changes linearly: shape-based interpolation [1]_. Outlines so
    far apart that nothing would lie between them are moved towards each other first. Slices that hold anything stay as
    they are.

    Parameters
    ----------
    mask : ndarray of bool, shape (Z, Y, X)
        Drawn in at least two slices.
    axis : int
        Across the slices.
    spacing : sequence of float
        Millimetres along (z, y, x).

    Raises
    ------
    InputError
        If fewer than two slices hold the class, or none between them is empty.

    References
    ----------
    .. [1] Raya and Udupa, "Shape-based interpolation of multidimensional objects", IEEE TMI 9(1), 1990.

    Examples
    --------
    >>> mask = np.zeros((3, 5, 9), bool)
    >>> mask[0, 2, 0:3] = mask[2, 2, 4:7] = True
    >>> mask[0, 1:4, 0:5] = mask[2, 1:4, 2:7] = True
    >>> np.flatnonzero(interpolate_slices(mask)[1, 2]).tolist()
    [1, 2, 3, 4, 5]
    """
    slices = np.moveaxis(mask, axis, 0)
    in_plane = [float(s) for a, s in enumerate(spacing) if a != axis]
    drawn = np.flatnonzero(slices.any(axis=(1, 2)))
    if len(drawn) < 2:
        raise InputError("the class is drawn in fewer than two slices across this axis: draw it in two or more first")
    if np.all(np.diff(drawn) == 1):
        raise InputError("no slice between the drawn ones is empty: erase the slices that are to be filled in first")
    out = slices.copy()
    distances = {int(z): _signed_distance(slices[z], in_plane) for z in drawn}
    for low, high in zip(drawn[:-1].tolist(), drawn[1:].tolist(), strict=True):
        for z in range(low + 1, high):
            share = (z - low) / (high - low)
            out[z] = (1 - share) * distances[low] + share * distances[high] > 0
            if not out[z].any():  # outlines far apart have no common inside: one moves into the other
                out[z] = _moved(slices[[low, high]], (distances[low], distances[high]), share)
    return np.moveaxis(out, 0, axis)


def _moved(ends: np.ndarray, distances: Sequence[np.ndarray], share: float) -> np.ndarray:
    """The same with both outlines shifted to a common centre on the line between theirs."""
    from scipy.ndimage import center_of_mass, shift

    first, second = (np.array(center_of_mass(end)) for end in ends)
    centre = (1 - share) * first + share * second
    low = shift(distances[0], centre - first, order=1, mode="nearest")
    high = shift(distances[1], centre - second, order=1, mode="nearest")
    return (1 - share) * low + share * high > 0


def _signed_distance(mask: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Distance to the outline, positive inside; outlines run half-way between voxel centres."""
    from scipy.ndimage import distance_transform_edt

    inside = distance_transform_edt(np.pad(mask, 1), sampling=spacing)[1:-1, 1:-1]
    if mask.all():
        return inside
    outside = distance_transform_edt(~mask, sampling=spacing)
    half = 0.5 * min(spacing)
    return np.where(mask, inside - half, half - outside)
