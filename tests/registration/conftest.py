"""Grids that are oblique, and left-handed ones, and fields on them."""

import numpy as np
import pytest


def turned(seed: int, spacing: tuple[float, float, float], left_handed: bool) -> np.ndarray:
    """An affine (z, y, x) to RAS+ mm of a grid at a random angle."""
    random = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(random.normal(size=(3, 3)))
    if (np.linalg.det(rotation) < 0) != left_handed:
        rotation[:, 0] *= -1
    grid = np.eye(4)
    grid[:3, :3] = rotation * spacing
    grid[:3, 3] = random.uniform(-40, 40, 3)
    return grid


@pytest.fixture(params=[False, True], ids=["right-handed", "left-handed"])
def grid(request):
    return turned(3, (2.5, 1.2, 0.9), request.param)


@pytest.fixture
def smooth_mm():
    """A displacement (14, 16, 18, 3) in mm, RAS+, without folds."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(5).normal(size=(14, 16, 18, 3))
    return gaussian_filter(noise, (3, 3, 3, 0)).astype(np.float32) * 25
