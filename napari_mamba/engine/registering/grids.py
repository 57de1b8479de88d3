"""The grid on which a warp is fitted, and what is brought onto it."""

from __future__ import annotations

import numpy as np
import torch

from napari_mamba.registration.transforms import Transform, world_points
from napari_mamba.volume import Volume

WORKING_MM, MOST_WORKING = 1.0, 12_000_000
"""Voxel side of the grid on which a warp is fitted, and how many voxels it has at most."""


def working_grid(fixed: Volume) -> Volume:
    """The fixed image's box in cubes of 1 mm, or larger ones where these would be too many or finer than the image."""
    sides = np.asarray(fixed.spacing)
    lengths = sides * fixed.shape
    side = max(WORKING_MM, float(sides.min()), float(lengths.prod() / MOST_WORKING) ** (1 / 3))
    shape = np.maximum(np.round(lengths / side), 8).astype(int)
    steps = lengths / shape
    affine = np.array(fixed.affine, float)
    affine[:3, :3] = affine[:3, :3] / sides * steps
    corner = fixed.affine[:3, :3] @ np.full(3, -0.5) + fixed.affine[:3, 3]
    affine[:3, 3] = corner + affine[:3, :3] @ np.full(3, 0.5)
    return Volume(np.broadcast_to(np.float32(0), (1, *shape)), affine, units=fixed.units)


def on_grid(transform: Transform, grid: Volume) -> Transform:
    """The same transform with its displacement on another grid."""
    known = transform.displacement
    if known is not None and known.shape[:3] == grid.shape and np.allclose(transform.grid, grid.affine, atol=1e-6):
        return transform
    points = world_points(grid.affine, grid.shape)
    moved = transform.displacement_at(points).reshape(*grid.shape, 3)
    return Transform(transform.affine, moved.astype(np.float32), grid.affine)


def scaled_tensor(volume: Volume) -> torch.Tensor:
    """One channel as (1, 1, Z, Y, X) float32 between 0 and 1."""
    values = np.asarray(volume.data[:1], np.float32)
    low, high = (float(one) for one in np.percentile(values, (0.5, 99.5)))
    scaled = (values - low) / max(high - low, 1e-12)
    return torch.from_numpy(scaled.clip(0, 1)[np.newaxis].astype(np.float32, copy=False))


def first_channel(volume: Volume) -> Volume:
    return volume.with_data(volume.data[:1], volume.channel_names[:1])
