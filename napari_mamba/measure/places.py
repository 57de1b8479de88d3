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
    from scipy.ndimage import gaussian_filter, label, maximum_position
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    data = np.nan_to_num(np.asarray(values, dtype=np.float32), nan=0.0)
    regions, _ = label(data >= threshold, np.ones((3, 3, 3)))
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    regions[sizes[regions] < least_voxels] = 0  # before the slow part: noise makes thousands of them
    if not regions.any():
        return []
    smooth = gaussian_filter(data, [1.0 if n > 2 else 0.0 for n in data.shape])
    distance = max(1, round(apart / float(np.min(spacing))))
    peaks = peak_local_max(smooth, min_distance=distance, labels=regions, exclude_border=False)
    markers = np.zeros(data.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    parts = watershed(-smooth, markers, mask=regions > 0)
    voxels, totals = np.bincount(parts.ravel()), np.bincount(parts.ravel(), weights=data.ravel())
    large = np.flatnonzero(voxels[1:] >= least_voxels) + 1
    places = [
        Place((int(z), int(y), int(x)), float(data[z, y, x]), int(voxels[part]), float(totals[part]))
        for part, (z, y, x) in zip(large, maximum_position(data, parts, large), strict=True)
    ]
    return sorted(places, key=lambda place: -place.total)
