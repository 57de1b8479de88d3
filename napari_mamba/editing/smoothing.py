"""Smoothing of a mask's surface."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def smooth(mask: np.ndarray, mm: float, spacing: Sequence[float]) -> np.ndarray:
    """A mask with a smoother surface and about the same volume.

    The mask is blurred with a Gaussian and cut at the value that keeps the number of voxels: cut at one half, convex
    structures would shrink with every use.

    Parameters
    ----------
    mask : ndarray of bool
    mm : float
        Standard deviation of the Gaussian in millimetres. Details much smaller than it vanish.
    spacing : sequence of float
        Voxel size in millimetres.

    Examples
    --------
    >>> square = np.zeros((1, 20, 20), bool)
    >>> square[0, 4:16, 4:16] = True
    >>> abs(int(smooth(square, 2.0, (1, 1, 1)).sum()) - 144) < 6
    True
    """
    from scipy.ndimage import gaussian_filter

    if not mask.any() or mm <= 0:
        return mask.copy()
    sigma = [mm / float(s) if n > 1 else 0.0 for s, n in zip(spacing, mask.shape, strict=True)]
    # a third of the deviation finer than the grid would do nothing; "nearest" keeps a structure that runs out whole
    blurred = gaussian_filter(mask.astype(np.float32), sigma, mode="nearest", truncate=3)
    wanted = int(mask.sum())
    threshold = np.partition(blurred.ravel(), -wanted)[-wanted]
    return blurred >= threshold
