"""Grids of a planning CT, and a ball with a hole in it, known by a formula."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

SPACING = (2.5, 1.1, 1.1)


def affine(angles=(0.0, 0.0, 0.0), spacing=SPACING, origin=(-30.0, -25.0, 40.0)) -> np.ndarray:
    """(z, y, x) → RAS; x runs to the left and y to the back, as in a CT lying straight, then turned."""
    matrix = np.eye(4)
    straight = np.array([[0, 0, -1], [0, -1, 0], [1, 0, 0]], float)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ straight * spacing
    matrix[:3, 3] = origin
    return matrix


def shape_mask(matrix: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """A ball of 16 mm with a hole through it and an island in the hole, about (0, 0, 0) mm of the straight grid."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    place = index @ matrix[:3, :3].T + matrix[:3, 3] - CENTRE
    radius = np.linalg.norm(place, axis=-1)
    hole = np.linalg.norm(place[..., :2], axis=-1)
    return (radius < 16) & ((hole > 7) | (hole < 3))


CENTRE = np.array([-58.0, -52.0, 70.0])
SHAPE = (24, 48, 52)
