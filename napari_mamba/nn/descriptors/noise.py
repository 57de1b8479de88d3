"""How strong the noise of an image is, from the image alone."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 8
"""Voxels of the blocks over which noise is averaged; three of them along each axis make the estimate of one."""

LEAST = 1e-3
"""The weakest noise that is told apart from none, in the image's units (white is about 1)."""


def estimate_noise_std(image: Tensor) -> Tensor:
    """Standard deviation of white noise around each voxel of (B, 1, Z, Y, X), float32 of the same shape.

    Second differences along all three axes leave noise and hardly any anatomy (Immerkaer, Comput Vis Image Underst
    64:300, 1996, in three dimensions); the mean of their magnitude over some 24 voxels along each axis is the measure.
    Voxels where they are zero do not count, since masked background has no noise. Fine texture counts as noise, and
    Rician noise in air shows two thirds of its strength: an estimate for a network to start from.

    Examples
    --------
    >>> noise = 0.2 * torch.randn(1, 1, 40, 40, 40, generator=torch.Generator().manual_seed(0))
    >>> round(float(estimate_noise_std(noise).mean()), 2)
    0.2
    """
    detail, size = image.float(), image.shape[2:]
    for axis, length in enumerate(size, 2):
        if length > 2:
            before, middle, after = (detail.narrow(axis, start, detail.shape[axis] - 2) for start in range(3))
            detail = (before - 2 * middle + after) / math.sqrt(6)
    detail = detail.abs()
    found = torch.cat([detail, (detail > 0).float()], dim=1)
    block = [min(BLOCK, n) for n in found.shape[2:]]
    blocks = F.avg_pool3d(found, block, ceil_mode=True)
    total, share = F.avg_pool3d(F.pad(blocks, (1,) * 6), 3, stride=1).chunk(2, dim=1)
    strength = (math.sqrt(math.pi / 2) * total / share.clamp(min=1e-6)).clamp(min=LEAST)
    return F.interpolate(strength, size, mode="trilinear", align_corners=False)


def log_noise_channel(noise: Tensor) -> Tensor:
    """Noise as a network is told it: its base-2 logarithm, -1.2 for 0.1% of white and 0.5 for 25%."""
    return 0.2 * torch.log2(noise) + 0.8
