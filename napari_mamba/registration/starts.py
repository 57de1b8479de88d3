"""Where an affine begins: the best of many rigid starts, by mutual information on coarse grids.

A search by gradients finds the nearest optimum. So places (the headers', the boxes' middles, the centres of mass) and
turns are tried on a coarse grid first, where a trial takes about a millisecond, and the most promising are improved by
Powell's method (Jenkinson and Smith, Medical Image Analysis 5:143, 2001, search in the same manner).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.ndimage import center_of_mass, map_coordinates, uniform_filter
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from napari_mamba.volume import Volume

COARSE_MM, COARSE_VOXELS = 8.0, 28
"""Voxel side of the coarse grid, or as many voxels along the longest side where that is finer."""
BINS = 24
TURNS = (-25.0, 25.0)
"""Degrees, about each axis of the world."""
KEPT = 3
"""Starts that are improved."""
LEAST_SIDE = 6
"""Voxels along the shortest side of a coarse grid, where the image has as many."""


@dataclass(frozen=True, eq=False)
class Coarse:
    """An image on a coarse grid, its intensities in `BINS` steps from 0 to `BINS` - 1.

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


def extent(volume: Volume) -> float:
    """The longest side of a volume in mm."""
    return float((np.array(volume.shape) * volume.spacing).max())


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
    centre = first - 0.5 * even
    affine[:3, 3] = volume.affine[:3, :3] @ centre + volume.affine[:3, 3]
    affine[:3, :3] = volume.affine[:3, :3] * factors
    low, high = np.percentile(values, (0.5, 99.5))
    scaled = (values - low) / max(float(high - low), 1e-12)
    return Coarse((scaled.clip(0, 1) * (BINS - 1)).astype(np.float32), affine)


def information(still: Coarse, other: Coarse, matrix: np.ndarray) -> float:
    """Mutual information in nats of two images, the second seen through a matrix of RAS+ points; outside it is dark.

    Examples
    --------
    >>> noise = np.random.default_rng(0).random((12, 12, 12)).astype(np.float32) * 23
    >>> one = Coarse(noise, np.eye(4))
    >>> information(one, one, np.eye(4)) > 1
    True
    """
    places = np.linalg.inv(other.affine) @ matrix @ still.affine
    index = np.indices(still.values.shape, dtype=float).reshape(3, -1)
    at = places[:3, :3] @ index + places[:3, 3:]
    seen = map_coordinates(other.values, at, order=1, mode="constant", cval=0.0, output=np.float32)
    joint = np.bincount(
        np.rint(still.values).astype(int).ravel() * BINS + np.rint(seen).astype(int), minlength=BINS * BINS
    ).reshape(BINS, BINS)
    share = joint / joint.sum()
    alone = share.sum(1, keepdims=True) * share.sum(0, keepdims=True)
    filled = share > 0
    return float((share[filled] * np.log(share[filled] / alone[filled])).sum())


def rigid_starts(fixed: Volume, moving: Volume, places: tuple[str, ...]) -> list[np.ndarray]:
    """Rigid matrices (4, 4), RAS+ mm of the fixed world to the moving one, from which to search on; the best first.

    Parameters
    ----------
    fixed, moving : Volume
    places : tuple of {"headers", "middles", "masses"}
        Shifts to begin with: none, the boxes' middles together, the centres of mass together.
    """
    side = min(COARSE_MM, extent(fixed) / COARSE_VOXELS)
    still, other = coarse(fixed, side), coarse(moving, side)
    reach, centre = extent(fixed) / 3, still.mass
    shifts = {"headers": np.zeros(3), "middles": other.middle - still.middle, "masses": other.mass - still.mass}
    turns = [np.zeros(3), *(turn * axis for axis, turn in product(np.eye(3), np.deg2rad(TURNS)))]
    # A turn counts as far as it moves the body's rim: parameters of one size for the search.
    starts = [np.concatenate([turn * reach, shifts[place]]) for place in places for turn in turns]

    def gain(motion: np.ndarray) -> float:
        return information(still, other, _rigid(motion, centre, reach))

    gained = np.array([gain(start) for start in starts])
    promising = [starts[n] for n in np.argsort(-gained, kind="stable")[:KEPT]]
    search = {"xtol": 0.05, "ftol": 1e-4, "maxfev": 400, "direc": side * np.eye(6)}
    found = [minimize(lambda motion: -gain(motion), start, method="Powell", options=search) for start in promising]
    found.sort(key=lambda one: one.fun)
    return [_rigid(one.x, centre, reach) for one in found]


def _rigid(motion: np.ndarray, centre: np.ndarray, reach: float) -> np.ndarray:
    """A turn about `centre` (three numbers, radians times `reach`) and a shift in mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(motion[:3] / reach).as_matrix()
    matrix[:3, 3] = centre + motion[3:] - matrix[:3, :3] @ centre
    return matrix
