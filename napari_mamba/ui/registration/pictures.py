"""Pictures of how two images lie on each other, as arrays: checkerboard, warped grid, vectors. No napari, no Qt.

Arrays are (Z, Y, X) on the fixed image's grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_mamba.registration.transforms import world_points
from napari_mamba.volume import Volume

MOST_VECTORS = 40_000
DARK = 0.08
"""Share of the brightest values of the fixed image below which no vector starts."""


def scaled(values: np.ndarray) -> np.ndarray:
    """Between 0 and 1, float32; a few extreme voxels do not set the scale."""
    sample = values.ravel()[:: max(1, values.size // 1_000_000)]
    low, high = (float(v) for v in np.percentile(sample, (0.5, 99.5)))
    return np.clip((values.astype(np.float32) - low) / max(high - low, 1e-12), 0, 1)


def checkerboard(fixed: np.ndarray, moved: np.ndarray, spacing: Sequence[float], side_mm: float = 30.0) -> np.ndarray:
    """Both images in turn, in cubes: edges run on across the borders where the two lie well on each other.

    Examples
    --------
    >>> checkerboard(np.zeros((4, 4, 4)), np.eye(4)[None].repeat(4, 0), (1, 1, 1), side_mm=2).shape
    (4, 4, 4)
    """
    which = np.zeros((1, 1, 1), int)
    for axis, (count, side) in enumerate(zip(fixed.shape, spacing, strict=True)):
        cells = np.arange(count) // max(round(side_mm / side), 1)
        which = which + cells.reshape([-1 if n == axis else 1 for n in range(3)])
    return np.where(which % 2 == 0, scaled(fixed), scaled(moved)).astype(np.float32)


def warped_grid(displacement: Volume, across: int, step_mm: float = 10.0, width_mm: float = 0.8) -> np.ndarray:
    """Lines of a grid drawn on the moving image, as they lie after it was moved: 1 on a line, 0 beside it.

    Parameters
    ----------
    displacement : Volume
        Three channels, RAS mm, on the fixed grid: `Registered.displacement`.
    across : int
        Axis of the volume that is looked along: lines of the other two are drawn.
    step_mm, width_mm : float
        Distance and half width of the lines.

    Returns
    -------
    ndarray, shape (Z, Y, X), float32
    """
    directions = displacement.affine[:3, :3] / np.linalg.norm(displacement.affine[:3, :3], axis=0)
    points = world_points(displacement.affine, displacement.shape).reshape(*displacement.shape, 3)
    there = points + np.moveaxis(np.asarray(displacement.data), 0, -1)
    middle = points.reshape(-1, 3).mean(axis=0)
    width = max(width_mm, 0.6 * float(max(displacement.spacing[axis] for axis in range(3) if axis != across)))
    lines = np.zeros(displacement.shape, np.float32)
    for axis in range(3):
        if axis != across:
            along = (there - middle) @ directions[:, axis]
            off = np.abs((along + step_mm / 2) % step_mm - step_mm / 2)
            lines = np.maximum(lines, np.clip(1 - off / width, 0, 1).astype(np.float32))
    return lines


def vectors(displacement: Volume, fixed: np.ndarray, across: int, step_mm: float = 8.0) -> np.ndarray:
    """Arrows from voxels of the fixed image to where they are seen in the moving one, thinned.

    Returns
    -------
    ndarray, shape (N, 2, 3), float32
        Start and way in voxels of the volume (z, y, x); every slice along the axis `across` has its own. None start
        in the dark.
    """
    lit = scaled(fixed) > DARK
    while True:
        steps = [
            1 if axis == across else max(round(step_mm / side), 1) for axis, side in enumerate(displacement.spacing)
        ]
        at = tuple(slice(step // 2, None, step) for step in steps)
        index = np.stack(
            np.meshgrid(*[np.arange(n)[s] for n, s in zip(fixed.shape, at, strict=True)], indexing="ij"), -1
        )
        kept = index[lit[at]]
        if len(kept) <= MOST_VECTORS:
            break
        step_mm *= 1.2 * max(1.0, (len(kept) / MOST_VECTORS) ** 0.5 / 1.2)
    way = (
        np.asarray(displacement.data)[:, kept[:, 0], kept[:, 1], kept[:, 2]].T
        @ np.linalg.inv(displacement.affine[:3, :3]).T
    )
    return np.stack([kept, way], axis=1).astype(np.float32)


def jacobian_reach(jacobian: np.ndarray) -> float:
    """How far the colours of a Jacobian reach to both sides of 1: most of it, and no less than 0.1."""
    sample = np.abs(jacobian.ravel()[:: max(1, jacobian.size // 1_000_000)] - 1)
    return float(np.clip(np.percentile(sample, 99), 0.1, 1.0))
