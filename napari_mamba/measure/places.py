"""Where a map of uncertainty is high: places to look at, the worst first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Place:
    """A connected region of high values.

    Parameters
    ----------
    index : tuple of int
        (z, y, x) of its highest value.
    peak : float
        That value.
    voxels : int
        How large it is.
    total : float
        Sum of its values: what it is ranked by, since a large doubtful region is worth more than one odd voxel.
    """

    index: tuple[int, int, int]
    peak: float
    voxels: int
    total: float


def uncertain_places(
    values: Any,
    *,
    threshold: float = 0.5,
    least_voxels: int = 8,
    spacing: Sequence[float] = (1, 1, 1),
    apart: float = 10,
) -> list[Place]:
    """Regions of a map above a threshold, ranked by how much uncertainty they hold.

    Large regions, such as the rim of an organ, are divided: each voxel goes to the nearest local maximum, and maxima
    are at least `apart` millimetres from each other.

    Parameters
    ----------
    values : array-like, shape (Z, Y, X)
        0 to 1 for an entropy; NaN counts as 0.
    threshold : float
        Values at or above it are uncertain.
    least_voxels : int
        Smaller regions are left out.
    spacing : sequence of float
        Voxel size in millimetres.
    apart : float
        Millimetres.

    Returns
    -------
    list of Place

    Examples
    --------
    >>> doubt = np.zeros((1, 8, 20))
    >>> doubt[0, 2:4, 2:6], doubt[0, 3, 4], doubt[0, 5, 12] = 0.6, 0.7, 0.9
    >>> [p.index[2] for p in uncertain_places(doubt, least_voxels=1)]
    [4, 12]
    """
    from scipy.ndimage import label
    from skimage.segmentation import watershed

    data = np.nan_to_num(np.asarray(values, dtype=np.float32), nan=0.0)
    regions, count = label(data >= threshold, np.ones((3, 3, 3)))
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    regions[sizes[regions] < least_voxels] = 0  # before the slow part: noise makes thousands of them
    if not regions.any():
        return []
    box = _box(regions)
    corner = [part.start for part in box]
    data, regions = data[box], regions[box]
    smooth = _smoothed(data)
    parts = watershed(-smooth, _markers(smooth, regions, count, spacing, apart), mask=regions > 0)
    voxels, totals = np.bincount(parts.ravel()), np.bincount(parts.ravel(), weights=data.ravel())
    places = []
    for part, flat in _highest(data, parts).items():
        if voxels[part] >= least_voxels:
            index = np.unravel_index(flat, data.shape)
            z, y, x = (int(i + start) for i, start in zip(index, corner, strict=True))
            places.append(Place((z, y, x), float(data[index]), int(voxels[part]), float(totals[part])))
    return sorted(places, key=lambda place: -place.total)


def _smoothed(data: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(data, [1.0 if n > 2 else 0.0 for n in data.shape])


def _markers(smooth: np.ndarray, regions: np.ndarray, count: int, spacing: Sequence[float], apart: float) -> np.ndarray:
    """Local maxima, numbered: at least one in each region, at least `apart` millimetres from each other."""
    from scipy.ndimage import label, maximum_filter

    size = [2 * max(1, round(apart / float(s))) + 1 for s in spacing]
    peaks = smooth == maximum_filter(smooth, [min(n, 2 * m + 1) for n, m in zip(size, smooth.shape, strict=True)])
    peaks &= regions > 0
    have = np.zeros(count + 1, bool)
    have[regions[peaks]] = True
    for region, flat in _highest(smooth, regions).items():
        if not have[region]:  # a higher maximum of another region is near
            peaks[np.unravel_index(flat, peaks.shape)] = True
    return label(peaks, np.ones((3, 3, 3)))[0]  # equal neighbours are one maximum


def _highest(values: np.ndarray, parts: np.ndarray) -> dict[int, int]:
    """Flat index of the highest value of each part but 0; sorts the voxels of parts alone, which are few."""
    inside = np.flatnonzero(parts)
    numbers = parts.ravel()[inside]
    order = np.lexsort((values.ravel()[inside], numbers))
    last = np.flatnonzero(np.diff(numbers[order], append=0))
    return {int(numbers[order[i]]): int(inside[order[i]]) for i in last}


def _box(regions: np.ndarray) -> tuple[slice, ...]:
    """The bounding box of what is not 0."""
    box = []
    for axis in range(3):
        inside = np.flatnonzero(regions.any(axis=tuple({0, 1, 2} - {axis})))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)
