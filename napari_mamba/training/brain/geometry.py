"""Random windows of a label map, deformed: an affine map and a smooth field, labels taken from the nearest voxel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ROTATION, SCALE, SHEAR = 0.30, 0.15, 0.03
"""Largest rotation (radians), change of size along an axis, and shear."""
WAVES = ((4, 5.0), (8, 2.5), (20, 0.9))
"""Grids of random displacements, and their largest standard deviation in mm: the head's shape, lobes, and gyri."""


def draw_affine(random: np.random.Generator, amount: float = 1.0) -> np.ndarray:
    """(3, 3): rotation, scaling and shear of (z, y, x) about the window's centre."""
    matrix = np.diag(1 + amount * random.uniform(-SCALE, SCALE, 3)) * (1 + amount * random.uniform(-0.08, 0.08))
    matrix = matrix + amount * random.uniform(-SHEAR, SHEAR, (3, 3)) * (1 - np.eye(3))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        angle = amount * random.normal(0, ROTATION / 2)
        turn = np.eye(3)
        turn[[first, first, second, second], [first, second, first, second]] = (
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        )
        matrix = matrix @ turn
    return matrix


def smooth_field(
    generator: torch.Generator, count: int, channels: int, grid: int, shape: tuple[int, int, int]
) -> Tensor:
    """White noise on a coarse grid, enlarged to (count, channels, *shape); its deviation is 1 at the grid's nodes."""
    noise = torch.randn((count, channels, grid, grid, grid), generator=generator, device=generator.device)
    return F.interpolate(noise, size=shape, mode="trilinear", align_corners=True)


def displacements(
    random: np.random.Generator,
    generator: torch.Generator,
    count: int,
    shape: tuple[int, int, int],
    amount: float = 1.0,
) -> Tensor:
    """Smooth random displacements (count, 3, *shape) in mm."""
    whole = torch.zeros((count, 3, *shape), device=generator.device)
    for grid, deviation in WAVES:
        amounts = torch.from_numpy(amount * random.uniform(0, deviation, count).astype(np.float32))
        field = smooth_field(generator, count, 3, grid, shape)
        whole.addcmul_(field, amounts.to(whole.device).view(-1, 1, 1, 1, 1))
    return whole


def sample_labels(labels: Tensor, centre: np.ndarray, affine: np.ndarray, shift: Tensor) -> Tensor:
    """Labels (Z, Y, X) at the nearest voxel of a deformed window.

    Parameters
    ----------
    labels : Tensor, shape (Z', Y', X')
        The whole map; outside of it is 0.
    centre : ndarray, shape (3,)
        Where the window's centre is in the map, in voxels.
    affine : ndarray, shape (3, 3)
        From a step in the window to a step in the map; a negative column mirrors.
    shift : Tensor, shape (3, Z, Y, X)
        Added to the window's places before the affine map.
    """
    shape = shift.shape[1:]
    device = shift.device
    matrix = torch.from_numpy(affine.astype(np.float32)).to(device)
    steps = [torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2 for n in shape]
    place = torch.stack(torch.meshgrid(*steps, indexing="ij")) + shift
    place = (matrix @ place.flatten(1)).view(3, *shape)
    index = torch.zeros(shape, dtype=torch.int64, device=device)
    inside = torch.ones(shape, dtype=torch.bool, device=device)
    for axis, size in enumerate(labels.shape):
        at = (place[axis] + float(centre[axis])).round_().long()
        inside &= (at >= 0) & (at < size)
        index = index * size + at.clamp_(0, size - 1)
    return torch.where(inside, labels.reshape(-1)[index], torch.zeros((), dtype=labels.dtype, device=device))
