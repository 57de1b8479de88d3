"""What a registration learns from: how well the structures of two label maps cover each other, and a smooth field."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_mamba.models.registration.velocity import displacement
from napari_mamba.nn import fields

SMOOTHNESS = 0.2
"""SynthMorph's lambda of 1 (arXiv:2004.10282) weighs the mean of the gradient's nine parts, doubled at half resolution;
here they are summed: 2 / 9."""


def registration_loss(velocity: Tensor, labels: Tensor, classes: int, smoothness: float = SMOOTHNESS) -> Tensor:
    """Soft Dice loss of the structures, both ways, plus the mean squared gradient of the displacements.

    Parameters
    ----------
    velocity : Tensor, shape (B, 3, z, y, x), float32
        In voxels of its own grid, which may be coarser than the labels'.
    labels : Tensor, shape (B, 2, Z, Y, X), integers below `classes`
        Of the moving and the fixed image; 0 is the background, and is not counted.
    classes : int
    smoothness : float
        Weight of the squared gradient, summed over its nine parts.
    """
    forth, back = displacement(velocity, labels.shape[2:])
    moving, fixed = (one_hot(labels[:, side], classes) for side in (0, 1))
    dice = soft_dice(fields.warp(moving, forth), fixed) + soft_dice(fields.warp(fixed, back), moving)
    rough = (fields.gradient(forth) ** 2).sum(dim=(1, 2)).mean() + (fields.gradient(back) ** 2).sum(dim=(1, 2)).mean()
    return 1 - dice / 2 + smoothness * rough / 2


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Labels (B, Z, Y, X) as (B, classes - 1, Z, Y, X) float32, without the background."""
    wanted = torch.arange(1, classes, device=labels.device).view(1, -1, 1, 1, 1)
    return (labels[:, None] == wanted).float()


def soft_dice(moved: Tensor, fixed: Tensor, smooth: float = 20.0) -> Tensor:
    """Mean soft Dice of the structures (B, K, Z, Y, X); `smooth` voxels let slivers fit_stacking little."""
    axes = (2, 3, 4)
    both = (moved * fixed).sum(axes)
    return ((2 * both + smooth) / (moved.sum(axes) + fixed.sum(axes) + smooth)).mean()
