"""What a scanner does to a volume, in batches, on any device: noise of magnitude images, and thick slices.

Noise: Gudbjartsson and Patz, The Rician distribution of noisy MRI data (Magn Reson Med 34:910, 1995). Thick slices:
the through-plane profile of Zhao et al., SMORE (IEEE TMI 40:805, 2021; arXiv:2012.02079), a Gaussian whose full width
at half maximum is the slice's thickness, or a box with soft edges as a Shinnar-Le Roux pulse gives.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_mamba.engine.preparation.slices import gaussian_profile, interpolator


def add_noise(clean: Tensor, sigma: Tensor, rician: Tensor, generator: torch.Generator) -> Tensor:
    """Add thermal noise.

    Parameters
    ----------
    clean : Tensor, shape (B, 1, Z, Y, X), float32
        Magnitudes.
    sigma : Tensor, broadcastable to `clean`
        Standard deviation of the noise in each of the receiver's two channels, in the units of `clean`.
    rician : Tensor of bool, shape (B,)
        Where set, the magnitude of the complex sum, which is never negative and brightens the dark; elsewhere Gaussian.
    generator : torch.Generator
        On the device of `clean`.

    Returns
    -------
    Tensor of the shape of `clean`

    Examples
    --------
    >>> g = torch.Generator().manual_seed(0)
    >>> noisy = add_noise(torch.zeros(1, 1, 20, 20, 20), torch.tensor(0.1), torch.tensor([True]), g)
    >>> round(float(noisy.mean()), 2)  # sigma * sqrt(pi / 2), the mean of Rayleigh noise
    0.13
    """
    shape = {"size": clean.shape, "generator": generator, "device": clean.device}
    real = clean + sigma * torch.randn(**shape)  # type: ignore[call-overload]
    imaginary = sigma * torch.randn(**shape)  # type: ignore[call-overload]
    return torch.where(rician.view(-1, 1, 1, 1, 1), torch.hypot(real, imaginary), real)


def spatial_noise_map(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """A smooth map (B, 1, Z, Y, X) of factors from 0.5 to 1.5: noise as parallel imaging leaves it."""
    coarse = 0.5 + torch.rand((shape[0], 1, 3, 3, 3), generator=generator, device=device)
    return F.interpolate(coarse, shape[2:], mode="trilinear", align_corners=True)


def thick_slices(length: int, step: Tensor, width: Tensor, boxy: Tensor, phase: Tensor, least: float = 1.5) -> Tensor:
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
        Full width of a slice at half its maximum, in voxels.
    boxy : Tensor of bool, shape (B,)
        A box with soft edges instead of a Gaussian.
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
    >>> m = thick_slices(40, 3 * one, 3 * one, one > 1, one)
    >>> bool(torch.allclose(m.sum(2), torch.ones(1, 40), atol=1e-5))  # a constant stays what it is
    True
    """
    step, width, phase = (t.double() for t in (step, width, phase))
    count = math.ceil(length / least) + 1  # those past the end repeat the last
    index = torch.arange(count, device=step.device, dtype=torch.float64)
    centres = (phase[:, None] + step[:, None] * index).clamp(max=length - 1)
    voxels = torch.arange(length, device=step.device, dtype=torch.float64)
    profile = _profile(voxels - centres[..., None], width[:, None, None], boxy[:, None, None])
    return (interpolator(length, centres, step) @ profile).float()


def _profile(distance: Tensor, width: Tensor, boxy: Tensor) -> Tensor:
    """Weights (B, slices, n) of voxels at a distance from a slice's centre, of sum 1 even far outside."""
    box = F.logsigmoid((0.5 * width - distance.abs()) / (0.06 * width))
    return torch.where(boxy, torch.softmax(box, dim=-1), gaussian_profile(distance, width))


def along_first(volumes: Tensor, maps: Tensor) -> Tensor:
    """Apply a map (B, n, n) along the first spatial axis of each volume (B, C, n, Y, X)."""
    return torch.einsum("bij,bcjyx->bciyx", maps, volumes)
