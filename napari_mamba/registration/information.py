"""Mutual information of two images under an affine, over a sample of places: what a search for the affine climbs.

What lies outside the moving image counts as dark. Implementations that leave such places out (Mattes's as ITK has it)
reward a map that pushes all but a small matching piece out of sight.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import binary_dilation, center_of_mass, map_coordinates, uniform_filter
from scipy.spatial.transform import Rotation

from napari_mamba.volume import Volume

BINS = 32
LEAST_SIDE = 6
"""Voxels along the shortest side of a coarse grid, where the image has as many."""
DARK, MARGIN_MM = 0.12, 12.0
"""Share of the range below which a voxel shows nothing, and how far around the rest places are taken."""
STRAIN = 1.0
"""What a squared scale or shear costs in nats: two people's heads differ by a tenth, which costs a hundredth."""


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
    >>> round(information(numbers, numbers.astype(np.float32)), 3) == round(np.log(BINS), 3)
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


@dataclass(eq=False)
class Search:
    """How much two images tell about each other under a motion, and the motions as numbers of one size.

    A motion is three turns, three shifts, and, of an affine, three scales and three shears, all in millimetres at the
    distance `reach` from `centre`.

    Attributes
    ----------
    still, other : Coarse
    centre : ndarray, shape (3,)
        RAS mm.
    reach : float
        Millimetres.
    most : int
        Places that are looked at, a sample of those near what the fixed image shows; all if there are fewer.
    seed : int
    """

    still: Coarse
    other: Coarse
    centre: np.ndarray
    reach: float
    most: int = 25_000
    seed: int = 2410
    _points: np.ndarray = field(init=False, repr=False)
    _numbers: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        values = self.still.values
        side = float(np.linalg.norm(self.still.affine[:3, :3], axis=0).max())
        shown = values > DARK * (BINS - 1)
        near = np.flatnonzero(binary_dilation(shown, iterations=max(1, round(MARGIN_MM / side))))
        if len(near) > self.most:
            near = np.sort(np.random.default_rng(self.seed).choice(near, self.most, replace=False))
        index = np.stack(np.unravel_index(near, values.shape)).astype(float)
        self._points = self.still.affine[:3, :3] @ index + self.still.affine[:3, 3:]
        self._numbers = np.rint(values.ravel()[near]).astype(np.intp)
        self._to_index = np.linalg.inv(self.other.affine)

    def matrix(self, motion: np.ndarray) -> np.ndarray:
        """(4, 4): RAS+ mm of the fixed world to those of the moving one."""
        matrix = np.eye(4)
        linear = Rotation.from_rotvec(motion[:3] / self.reach).as_matrix()
        if len(motion) > 6:
            strain = np.diag(motion[6:9])
            strain[[0, 0, 1, 1, 2, 2], [1, 2, 2, 0, 0, 1]] = motion[[9, 10, 11, 9, 10, 11]]
            linear = linear @ (np.eye(3) + strain / self.reach)
        matrix[:3, :3] = linear
        matrix[:3, 3] = self.centre + motion[3:6] - linear @ self.centre
        return matrix

    def gain(self, matrix: np.ndarray) -> float:
        """Mutual information in nats under a matrix."""
        places = self._to_index @ matrix
        at = places[:3, :3] @ self._points + places[:3, 3:]
        seen = map_coordinates(self.other.values, at, order=1, mode="constant", cval=0.0, output=np.float32)
        return information(self._numbers, seen)

    def loss(self, motion: np.ndarray) -> float:
        """What a search lowers: the information lost, and the price of scales and shears."""
        return STRAIN * float(np.square(motion[6:] / self.reach).sum()) - self.gain(self.matrix(motion))
