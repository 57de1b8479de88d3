"""Growing and shrinking by millimetres, equally in all directions whatever the voxel size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def grow(mask: np.ndarray, mm: float, spacing: Sequence[float]) -> np.ndarray:
    """The mask and all voxels whose centre is at most `mm` from the centre of one of its voxels.

    Examples
    --------
    >>> grow(np.array([[0, 0, 1, 0, 0]], bool), 1.0, (5, 1)).astype(int).tolist()
    [[0, 1, 1, 1, 0]]
    """
    from scipy.ndimage import distance_transform_edt

    if not mask.any():
        return mask.copy()
    return distance_transform_edt(~mask, sampling=spacing) <= mm + 1e-6


def shrink(mask: np.ndarray, mm: float, spacing: Sequence[float]) -> np.ndarray:
    """The voxels of the mask that are farther than `mm` from all voxels outside it.

    The rim of the array does not count as outside: a structure that runs out of the image stays open there.

    Examples
    --------
    >>> shrink(np.array([[0, 1, 1, 1, 0]], bool), 1.0, (5, 1)).astype(int).tolist()
    [[0, 0, 1, 0, 0]]
    """
    from scipy.ndimage import distance_transform_edt

    if mask.all():
        return mask.copy()
    return distance_transform_edt(mask, sampling=spacing) > mm + 1e-6


def margin_voxels(mm: float, spacing: Sequence[float]) -> tuple[int, ...]:
    """How many voxels along each axis a margin reaches, for the box that is edited."""
    return tuple(int(np.ceil(mm / float(s))) + 1 for s in spacing)
