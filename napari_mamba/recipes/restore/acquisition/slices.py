"""Thick slices of a volume, in batches, on any device, laid out on its own voxels again.

As Zhao et al. degrade for SMORE (IEEE TMI 40:805, 2021; arXiv:2012.02079), with slices of any profile.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from napari_mamba.engine.preparation.grids.slices import interpolator
from napari_mamba.recipes.restore.acquisition.profiles import profile_weights


def thick_slices(length: int, step: Tensor, width: Tensor, kind: Tensor, phase: Tensor, least: float = 1.5) -> Tensor:
    """Linear maps from fine voxels along an axis to what interpolation of thick slices makes of them.

    Slices of the profile are taken every `step` voxels and interpolated back to every voxel as the bundle's preparation
    does it (`engine.slices`), which takes them for Gaussian and as wide as they are apart; nothing waits for a GPU.

    Parameters
    ----------
    length : int
        Voxels along the axis, n.
    step : Tensor, shape (B,)
        Distance of slices, in voxels.
    width : Tensor, shape (B,)
        Thickness of a slice, in voxels: less than `step` leaves gaps, more overlaps.
    kind : Tensor of int64, shape (B,)
        The slices' profile, an index into `profiles.NAMES`.
    phase : Tensor, shape (B,)
        Centre of the first slice, in voxels, 0 to `step`.
    least : float
        The smallest `step` there is.

    Returns
    -------
    Tensor, shape (B, n, n), float32
        Row i: the weights of the fine voxels in interpolated voxel i.

    Examples
    --------
    >>> one = torch.ones(1)
    >>> m = thick_slices(40, 3 * one, 3 * one, one.long(), one)
    >>> bool(torch.allclose(m.sum(2), torch.ones(1, 40), atol=1e-5))  # a constant stays what it is
    True
    """
    step, phase = step.double(), phase.double()
    count = math.ceil(length / least) + 1  # those past the end repeat the last
    index = torch.arange(count, device=step.device, dtype=torch.float64)
    centres = (phase[:, None] + step[:, None] * index).clamp(max=length - 1)
    voxels = torch.arange(length, device=step.device, dtype=torch.float64)
    profile = profile_weights(voxels - centres[..., None], width, kind)
    return (interpolator(length, centres, step) @ profile).float()


def along(volumes: Tensor, maps: Tensor, axis: int = 0) -> Tensor:
    """Apply a map (B, n, n) along a spatial axis of each volume (B, C, Z, Y, X)."""
    moved = volumes.movedim(2 + axis, 2)
    return torch.einsum("bij,bcjyx->bciyx", maps, moved).movedim(2, 2 + axis)


def blurred(volumes: Tensor, sigma: Tensor) -> Tensor:
    """Volumes (B, C, Z, Y, X) blurred by a Gaussian of the standard deviation `sigma` (B,), in voxels.

    Where `sigma` is 0 they stay what they are.
    """
    for axis, length in enumerate(volumes.shape[2:]):
        places = torch.arange(length, device=volumes.device, dtype=torch.float32)
        distance = (places[:, None] - places) / sigma.clamp(min=1e-3).view(-1, 1, 1)
        volumes = along(volumes, torch.softmax(-0.5 * distance.square(), dim=2), axis)
    return volumes
