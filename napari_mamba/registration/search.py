"""How well an affine brings two images together, over a sample of places: what a search for the affine climbs.

Two measures are summed: the mutual information of the values, and how well the edges lie on each other. Either alone
has false summits where two contrasts have little in common, seldom the same ones (Pluim, Maintz and Viergever, IEEE TMI
19:809, 2000). What lies outside the moving image counts as dark. Implementations that leave such places out (Mattes's
as ITK has it) reward a map that pushes all but a small matching piece out of sight.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from scipy.spatial.transform import Rotation
from scipy.special import huber
from torch.nn import functional as F

from napari_mamba.registration.information import BINS, Coarse, edges, information

DARK, MARGIN_MM = 0.12, 12.0
"""Share of the range below which a voxel shows nothing, and how far around the rest places are taken."""
STRAIN, SMALL_STRAIN = 1.0, 0.04
"""What a squared scale or shear costs in nats, three times as much up to the second. Heads differ by a few hundredths,
and some by a fifth; a stripped brain that is stretched to fill a skull is wrong by a tenth."""


@dataclass(eq=False)
class Search:
    """How well two images lie on each other under a motion, and the motions as numbers of one size.

    A motion is three turns and three shifts; then one scale, or, of an affine, three scales and three shears; all in
    millimetres at the distance `reach` from `centre`.

    Attributes
    ----------
    still, other : Coarse
    centre : ndarray, shape (3,)
        RAS mm.
    reach : float
        Millimetres.
    most : int
        Places that are looked at, a sample of those near what the fixed image shows; all if there are fewer.
    edges : float
        What edges that agree everywhere are worth in nats; 0: the information counts alone.
    seed : int
    """

    still: Coarse
    other: Coarse
    centre: np.ndarray
    reach: float
    most: int = 25_000
    edges: float = 0.0
    seed: int = 2410
    _points: np.ndarray = field(init=False, repr=False)
    _numbers: np.ndarray = field(init=False, repr=False)
    _edges: np.ndarray = field(init=False, repr=False)
    _seen: torch.Tensor = field(init=False, repr=False)

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
        channels = self.other.values[np.newaxis]
        if self.edges:
            self._edges = edges(self.still).reshape(3, -1)[:, near]
            channels = np.concatenate([channels, edges(self.other)])
        self._seen = torch.from_numpy(np.ascontiguousarray(channels))[None]

    def matrix(self, motion: np.ndarray) -> np.ndarray:
        """(4, 4): RAS+ mm of the fixed world to those of the moving one."""
        matrix = np.eye(4)
        strains = whole(motion)[6:]
        strain = np.diag(strains[:3])
        strain[[0, 0, 1, 1, 2, 2], [1, 2, 2, 0, 0, 1]] = strains[[3, 4, 5, 3, 4, 5]]
        linear = Rotation.from_rotvec(motion[:3] / self.reach).as_matrix() @ (np.eye(3) + strain / self.reach)
        matrix[:3, :3] = linear
        matrix[:3, 3] = self.centre + motion[3:6] - linear @ self.centre
        return matrix

    def gain(self, matrix: np.ndarray) -> float:
        """Mutual information in nats under a matrix, and what the edges add."""
        places = self._to_index @ matrix
        seen = sampled(self._seen, places[:3, :3] @ self._points + places[:3, 3:])
        told = information(self._numbers, seen[0])
        if not self.edges:
            return told
        return told + self.edges * agreement(self._edges, matrix[:3, :3].T @ seen[1:])

    def loss(self, motion: np.ndarray) -> float:
        """What a search lowers: the information lost, and the price of scales and shears."""
        strains = whole(motion)[6:] / self.reach
        price = np.square(strains) + 4 * huber(SMALL_STRAIN, strains)
        return STRAIN * float(price.sum()) - self.gain(self.matrix(motion))


def whole(motion: np.ndarray) -> np.ndarray:
    """A motion of six or seven numbers as one of twelve.

    Examples
    --------
    >>> whole(np.array([1.0, 2, 3, 4, 5, 6, 7])).tolist()
    [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 7.0, 7.0, 0.0, 0.0, 0.0]
    """
    if len(motion) > 7:
        return motion
    scale = motion[6] if len(motion) == 7 else 0.0
    return np.concatenate([motion[:6], [scale] * 3, [0.0] * 3])


def sampled(channels: torch.Tensor, index: np.ndarray) -> np.ndarray:
    """Values (C, N) float32 of channels (1, C, Z, Y, X) at places (3, N) in voxels (z, y, x); zero outside."""
    last = np.maximum(np.array(channels.shape[2:]) - 1, 1)[:, np.newaxis]
    scaled = np.ascontiguousarray((2 * index / last - 1)[::-1].T, np.float32)
    places = torch.from_numpy(scaled)[None, None, None]
    found: np.ndarray = F.grid_sample(channels, places, align_corners=True)[0, :, 0, 0].numpy()
    return found


def agreement(still: np.ndarray, seen: np.ndarray) -> float:
    """How well edges (3, N) of two images agree, whichever side of each is the bright one: 0 to about 1.

    Normalised gradient fields (Haber and Modersitzki, MICCAI 2006).

    Examples
    --------
    >>> lines = np.array([[1.0, 0], [0, 1], [0, 0]])
    >>> agreement(lines, -lines), agreement(lines, lines[:, ::-1])
    (1.0, 0.0)
    """
    along = np.square((still * seen).sum(0)).sum()
    most = np.square(np.square(still).sum(0)).sum()
    return float(along / max(most, 1e-12))
