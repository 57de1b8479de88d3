"""Images on coarse grids, what they tell about each other, and their edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import center_of_mass, uniform_filter

from napari_mamba.volume import Volume

BINS = 32
LEAST_SIDE = 6
"""Voxels along the shortest side of a coarse grid, where the image has as many."""


@dataclass(frozen=True, eq=False)
class Coarse:
    """An image on a coarse grid, its values from 0 to `BINS` - 1.

    Attributes
    ----------
    values : ndarray, shape (Z, Y, X), float32
    affine : ndarray, shape (4, 4)
        As `Volume.affine`.
    """

    values: np.ndarray
    affine: np.ndarray

    @property
    def middle(self) -> np.ndarray:
        """Of the box, in RAS mm."""
        return self._place((np.array(self.values.shape) - 1) / 2)

    @property
    def mass(self) -> np.ndarray:
        """The centre of mass, in RAS mm."""
        return self._place(np.array(center_of_mass(self.values + 1e-6)))

    def _place(self, index: np.ndarray) -> np.ndarray:
        return self.affine[:3, :3] @ index + self.affine[:3, 3]


def coarse(volume: Volume, millimetres: float) -> Coarse:
    """A volume's first channel in voxels of about `millimetres`, each the mean of those in it."""
    values = np.asarray(volume.data[0], np.float32)
    wanted = np.maximum(np.round(millimetres / np.asarray(volume.spacing)), 1).astype(int)
    factors = np.minimum(wanted, np.maximum(np.array(values.shape) // LEAST_SIDE, 1))
    even = factors % 2 == 0
    first = (factors - 1) // 2 + even  # the middle of an even window lies half a voxel before its place
    smooth = uniform_filter(values, size=factors.tolist(), mode="nearest")
    values = smooth[tuple(slice(start, None, step) for start, step in zip(first, factors, strict=True))]
    affine = np.array(volume.affine, float)
    affine[:3, 3] = volume.affine[:3, :3] @ (first - 0.5 * even) + volume.affine[:3, 3]
    affine[:3, :3] = volume.affine[:3, :3] * factors
    low, high = (float(one) for one in np.percentile(values, (0.5, 99.5)))
    scaled = ((values - low) / max(high - low, 1e-12)).clip(0, 1) * (BINS - 1)
    return Coarse(scaled.astype(np.float32), affine)


def information(still: np.ndarray, seen: np.ndarray) -> float:
    """Mutual information in nats of whole numbers below `BINS` (N,) and values from 0 to `BINS` - 1 (N,).

    Values between two numbers count for both, so that small motions change it smoothly.

    Examples
    --------
    >>> numbers = np.arange(BINS)
    >>> bool(np.isclose(information(numbers, numbers.astype(np.float32)), np.log(BINS)))
    True
    """
    lower = np.minimum(seen.astype(np.intp), BINS - 2)
    upper_share = seen - lower
    place = still * BINS + lower
    size = BINS * BINS
    joint = np.bincount(place, 1 - upper_share, size) + np.bincount(place + 1, upper_share, size)
    share = joint.reshape(BINS, BINS) / len(seen)
    alone = share.sum(1, keepdims=True) * share.sum(0, keepdims=True)
    filled = share > 0
    return float((share[filled] * np.log(share[filled] / alone[filled])).sum())


def edges(image: Coarse) -> np.ndarray:
    """The gradient of each voxel's surroundings in RAS+ directions, (3, Z, Y, X) float32, of length below 1.

    Strong edges count alike: a length is 0.7 where the gradient is the mean one. What is flat has next to none (Haber
    and Modersitzki, MICCAI 2006).
    """
    steps = np.stack(np.gradient(image.values))
    world = np.einsum("vw,vzyx->wzyx", np.linalg.inv(image.affine[:3, :3]), steps)
    squared = np.square(world).sum(0)
    usual = float(np.sqrt(squared).mean())
    found: np.ndarray = (world / np.sqrt(squared + max(usual, 1e-12) ** 2)).astype(np.float32)
    return found
