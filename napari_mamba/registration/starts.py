"""Where an affine begins: the best of many rigid starts, by mutual information on coarse grids.

A search climbs to the nearest optimum. So places (the headers', the boxes' middles, the centres of mass) and turns are
tried on a coarse grid first, where a trial takes about a millisecond, and the most promising are improved (as Jenkinson
and Smith, Medical Image Analysis 5:143, 2001, search).
"""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy.optimize import minimize

from napari_mamba.registration.information import Search, coarse
from napari_mamba.volume import Volume

COARSE_MM, COARSE_VOXELS = 8.0, 28
"""Voxel side of the coarse grid, or as many voxels along the longest side where that is finer."""
TURNS = (-25.0, 25.0)
"""Degrees, about each axis of the world."""
KEPT = 3
"""Starts that are improved."""


def extent(volume: Volume) -> float:
    """The longest side of a volume in mm."""
    return float((np.array(volume.shape) * volume.spacing).max())


def rigid_start(fixed: Volume, moving: Volume, places: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The best rigid motion of six numbers, as `Search` has it, and the centre (3,) about which it turns.

    Parameters
    ----------
    fixed, moving : Volume
    places : tuple of {"headers", "middles", "masses"}
        Shifts to begin with: none, the boxes' middles together, the centres of mass together.
    """
    side = min(COARSE_MM, extent(fixed) / COARSE_VOXELS)
    still, other = coarse(fixed, side), coarse(moving, side)
    search = Search(still, other, still.mass, extent(fixed) / 3)
    shifts = {"headers": np.zeros(3), "middles": other.middle - still.middle, "masses": other.mass - still.mass}
    turns = [np.zeros(3), *(turn * axis for axis, turn in product(np.eye(3), np.deg2rad(TURNS)))]
    starts = [np.concatenate([turn * search.reach, shifts[place]]) for place in places for turn in turns]
    losses = np.array([search.loss(start) for start in starts])
    promising = [starts[n] for n in np.argsort(losses, kind="stable")[:KEPT]]
    options = {"xtol": 0.05, "ftol": 1e-4, "maxfev": 400, "direc": side * np.eye(6)}
    found = [minimize(search.loss, start, method="Powell", options=options) for start in promising]
    return min(found, key=lambda one: one.fun).x, search.centre
