"""Noise of magnitude images: of one coil or the sum of squares of many, uneven, correlated, or white.

Gudbjartsson and Patz, The Rician distribution of noisy MRI data (Magn Reson Med 34:910, 1995); Constantinides, Atalar
and McVeigh, Signal-to-noise measurements in magnitude images from NMR phased arrays (Magn Reson Med 38:852, 1997), the
noncentral chi distribution of many coils; Pruessmann et al., SENSE (Magn Reson Med 42:952, 1999), the geometry factor
by which parallel imaging makes noise uneven.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_mamba.recipes.restore.acquisition.kspace import Sampling, filtered_noise, filtered_signal

PHASE = 0.8
"""Radians: standard deviation of the smooth phase that a signal has, which partial Fourier makes visible."""


def add_noise(clean: Tensor, sigma: Tensor, rician: Tensor, generator: torch.Generator) -> Tensor:
    """Add white thermal noise.

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
    noise = sigma * _white(tuple(clean.shape), generator, clean.device)
    real = clean + noise.real
    return torch.where(rician.view(-1, 1, 1, 1, 1), torch.hypot(real, noise.imag), real)


def acquire(
    clean: Tensor,
    sigma: Tensor,
    rician: Tensor,
    sampling: Sampling,
    generator: torch.Generator,
    *,
    noise_alone: Tensor,
    coils: int = 1,
    many: int = 0,
) -> tuple[Tensor, Tensor]:
    """A noisy image and the same without noise, both as a sampling of k-space leaves them.

    Parameters
    ----------
    clean : Tensor, shape (B, 1, Z, Y, X), float32
    sigma : Tensor, broadcastable to `clean`
        As in `add_noise`, of the noise in the image.
    rician : Tensor of bool, shape (B,)
        Magnitude noise, else Gaussian.
    sampling : Sampling
    generator : torch.Generator
    noise_alone : Tensor of bool, shape (B,)
        Where set, the noise is so sampled, and the signal stays what it is.
    coils, many : int
        The first `many` samples are the sum of squares of so many coils, whose sensitivities are normalised.

    Returns
    -------
    noisy, truth : Tensor, of the shape of `clean`
        The truth of many coils keeps the floor that their noise adds (`chi_mean`): how many there were cannot be told
        from tissue alone, and a network that is to take the floor away darkens whole images that have none.
    """
    transfer = sampling.transfer(tuple(clean.shape[2:]))
    phase = smooth_field(tuple(clean.shape), (3, 3, 3), generator, clean.device)
    signal = filtered_signal(torch.polar(clean, PHASE * phase), sampling).abs()
    whole = (transfer.flatten(1) >= 1).all(1) | noise_alone
    truth = torch.where(whole.view(-1, 1, 1, 1, 1), clean, signal)
    sigma = sigma.expand_as(clean)
    noise = sigma * filtered_noise(_white(tuple(clean.shape), generator, clean.device), transfer)
    real = truth + noise.real
    if many and coils > 1:
        power = real[:many].square() + noise.imag[:many].square()
        for _ in range(coils - 1):
            other = _white((many, *clean.shape[1:]), generator, clean.device)
            power = power + (sigma[:many] * filtered_noise(other, transfer[:many]).abs()).square()
        rest = _magnitude(real[many:], noise.imag[many:], rician[many:])
        return torch.cat([power.sqrt(), rest]), torch.cat([chi_mean(truth[:many], sigma[:many], coils), truth[many:]])
    return _magnitude(real, noise.imag, rician), truth


def chi_mean(signal: Tensor, sigma: Tensor, coils: int) -> Tensor:
    """Mean of the noncentral chi distribution of a signal's sum of squares over coils, within 1% from two coils on.

    The square root of its second moment less its variance, which rises from half of sigma's square to all of it.

    Examples
    --------
    >>> one = torch.ones(1)
    >>> round(float(chi_mean(0 * one, one, 4)), 2)  # sqrt(2) times gamma(4.5) / gamma(4) is 2.74
    2.74
    """
    moment = signal.square() + 2 * coils * sigma.square()
    share = signal.square() / moment.clamp(min=1e-12)
    return (moment - 0.5 * sigma.square() * (1 + share)).clamp(min=0).sqrt()


def _magnitude(real: Tensor, imaginary: Tensor, rician: Tensor) -> Tensor:
    return torch.where(rician.view(-1, 1, 1, 1, 1), torch.hypot(real, imaginary), real)


def _white(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Complex noise whose real and imaginary parts each have a standard deviation of 1."""
    return torch.view_as_complex(torch.randn((*shape, 2), generator=generator, device=device))


def smooth_field(
    shape: tuple[int, ...], nodes: tuple[int, int, int], generator: torch.Generator, device: torch.device
) -> Tensor:
    """A field (B, 1, Z, Y, X) between nodes of standard normal values."""
    coarse = torch.randn((shape[0], 1, *nodes), generator=generator, device=device)
    return F.interpolate(coarse, shape[2:], mode="trilinear", align_corners=True)


def spatial_noise_map(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """A smooth map (B, 1, Z, Y, X) of factors from 0.5 to 1.5: noise as receivers near and far leave it."""
    coarse = 0.5 + torch.rand((shape[0], 1, 3, 3, 3), generator=generator, device=device)
    return F.interpolate(coarse, shape[2:], mode="trilinear", align_corners=True)


def geometry_factor(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """A smooth map (B, 1, Z, Y, X) of factors from 1/3 to 3, of mean square 1: noise as parallel imaging leaves it."""
    field = smooth_field(shape, (2, 4, 4), generator, device)
    factors = torch.exp((0.6 * field).clamp(-math.log(3), math.log(3)))
    return factors / factors.square().mean(dim=(1, 2, 3, 4), keepdim=True).sqrt()


def resampled(images: Tensor, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, Z, Y, X) laid on a finer, slightly turned grid by linear interpolation, where `chosen` (B,).

    1 to 1.8 times as fine along each axis and turned by some 6 degrees, as registration and the scanner's own
    interpolation do it; ends repeat.
    """
    count, device = len(images), images.device
    zoom = 1 / (1 + 0.8 * torch.rand((count, 3, 1), generator=generator, device=device))
    turn = 0.1 * torch.randn((count, 3, 3), generator=generator, device=device)
    turn = turn * (torch.rand((count, 1, 1), generator=generator, device=device) < 0.5)
    matrix = torch.eye(3, device=device) + turn - turn.transpose(1, 2)
    shift = 0.05 * torch.randn((count, 3, 1), generator=generator, device=device)
    grid = F.affine_grid(torch.cat([zoom * matrix, shift], dim=2), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return torch.where(chosen.view(-1, 1, 1, 1, 1), moved, images)
