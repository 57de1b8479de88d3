"""Where an affine begins: the best of many rigid starts, on coarse grids.

A search climbs to the nearest optimum. So places (the headers', the boxes' middles, the centres of mass) and turns are
tried on a coarse grid first, where a trial takes about a millisecond, and the most promising are improved (as Jenkinson
and Smith, Medical Image Analysis 5:143, 2001, search): by the information that the images have about each other, and by
that and their edges.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy.optimize import minimize

from napari_mamba.registration.information import coarse
from napari_mamba.registration.search import Search
from napari_mamba.volume import Volume

COARSE_MM, COARSE_VOXELS = 8.0, 28
"""Voxel side of the coarse grid, or as many voxels along the longest side where that is finer."""
TURNS = (-50.0, -25.0, 25.0, 50.0)
"""Degrees, about each axis of the world."""
MEASURES = (0.0, 1.0)
"""What agreeing edges are worth in nats (`Search.edges`)."""
KEPT = 3
"""Starts that are improved, of each measure."""
SCALES = (0.87, 1.0, 1.15)
"""Of the fixed image's lengths in the moving one: a head that fills its image never fits a stripped brain unscaled."""
SAME_MM = 12.0
"""Length of a difference of motions (`Search`) below which two starts lead to the same place."""


def extent(volume: Volume) -> float:
    """The longest side of a volume in mm."""
    return float((np.array(volume.shape) * volume.spacing).max())


def starts_of(
    fixed: Volume, moving: Volume, places: tuple[str, ...], scaled: bool = True
) -> tuple[list[np.ndarray], np.ndarray]:
    """Motions of six numbers, of seven if `scaled` (`Search`), that differ, and the centre (3,) about which they turn.

    Parameters
    ----------
    fixed, moving : Volume
    places : tuple of {"headers", "middles", "masses"}
        Shifts to begin with: none, the boxes' middles together, the centres of mass together.
    scaled : bool
        Whether one scale is searched for, too.
    """
    side = min(COARSE_MM, extent(fixed) / COARSE_VOXELS)
    still, other = coarse(fixed, side), coarse(moving, side)
    centre, reach = still.mass, extent(fixed) / 3
    shifts = {"headers": np.zeros(3), "middles": other.middle - still.middle, "masses": other.mass - still.mass}
    turns = [np.zeros(3), *(turn * axis for axis, turn in product(np.eye(3), np.deg2rad(TURNS)))]
    starts = [np.concatenate([turn * reach, shifts[place]]) for place in places for turn in turns]
    if scaled:
        starts = [np.append(start, (scale - 1) * reach) for scale in SCALES for start in starts]
    options = {"xtol": 0.05, "ftol": 1e-4, "maxfev": 400, "direc": side * np.eye(len(starts[0]))}
    kept: list[np.ndarray] = []
    for edges in MEASURES:
        search = Search(still, other, centre, reach, edges=edges)
        losses = np.array([search.loss(start) for start in starts])
        promising = [starts[n] for n in np.argsort(losses, kind="stable")[:KEPT]]
        found = [minimize(search.loss, start, method="Powell", options=options) for start in promising]
        for one in sorted(found, key=lambda one: one.fun):
            if all(np.linalg.norm(one.x - known) > SAME_MM for known in kept):
                kept.append(one.x)
    return kept, centre
