"""The best linear interpolation of thick slices: it knows that each slice is a mean over its thickness.

A spline takes a slice for what lies at its centre, so what it gives is as blurred as the slices. Here the values are
estimated by Gaussian process regression (kriging; Rasmussen and Williams, Gaussian Processes for Machine Learning,
2006, chapter 2) from slices of a Gaussian profile, as wide at half its maximum as they are apart, under an exponential
covariance, whose spectrum falls with the square of the frequency as that of natural images does.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))
"""Standard deviations in a Gaussian's full width at half maximum."""

CORRELATION = 5.0
"""Fine voxels over which the image's covariance falls to 1/e; 4 to 20 do within 0.05 dB as well on MR of heads."""

NOISE = 1e-3
"""Variance of the slices' noise, as a share of the image's."""

LEVEL = 100.0
"""Variance of the image's mean, as a share of the image's: nothing is assumed of it, a constant stays what it is."""


def gaussian_profile(distance: Tensor, width: Tensor) -> Tensor:
    """Weights along the last axis, of sum 1, of voxels at a `distance` from a slice's centre; `width` broadcasts."""
    return torch.softmax(-0.5 * (distance / (width / FWHM_PER_SIGMA)) ** 2, dim=-1)


LOBES = 3
"""Of a sinc to either side of its middle."""

LEAST = 1e-3
"""Of the mean power of slices, what is taken for noise where an image is changed until it gives them."""


def slice_weights(length: int, centres: Tensor, width: float, profile: str) -> Tensor:
    """How much each fine voxel counts in slices.

    Parameters
    ----------
    length : int
        Fine voxels, n; their places are 0, 1, …, n - 1.
    centres : Tensor, shape (S,), float64
        Places of the slices' centres, in fine voxels.
    width : float
        Distance of the slices, in fine voxels.
    profile : str
        "gaussian", as wide at half its maximum as the slices are apart; "box", as wide; "sinc", of three lobes to
        either side, as sampling in k-space leaves it.

    Returns
    -------
    Tensor, shape (S, n), float64
        Of sum 1 along the last axis.

    Examples
    --------
    >>> centres = torch.tensor([1.5], dtype=torch.float64)
    >>> slice_weights(4, centres, 2.0, "box").tolist()
    [[0.0, 0.5, 0.5, 0.0]]
    """
    distance = torch.arange(length, dtype=centres.dtype) - centres[:, None]
    if profile == "gaussian":
        return gaussian_profile(distance, torch.tensor(width, dtype=centres.dtype))
    if profile == "box":  # a voxel counts by the part of it that lies within
        weights = (0.5 + 0.5 * width - distance.abs()).clamp(0, 1)
    else:
        weights = torch.where(distance.abs() < LOBES * width, torch.sinc(distance / width), 0.0)
    return weights / weights.sum(dim=1, keepdim=True)


def least_change(weights: Tensor) -> Tensor:
    """The map (n, S) from what slices of `weights` (S, n) lack to the smallest change of voxels that gives it."""
    among = weights @ weights.T
    noise = LEAST * among.diagonal().mean() * torch.eye(len(among), dtype=among.dtype)
    return torch.linalg.solve(among + noise, weights).T


def estimate(weights: Tensor) -> Tensor:
    """The best linear estimate (..., n, S) of fine voxels from slices that are `weights` (..., S, n) of them."""
    places = torch.arange(weights.shape[-1], dtype=weights.dtype, device=weights.device)
    covariance = torch.exp((places[:, None] - places).abs() / -CORRELATION) + LEVEL
    seen = weights @ covariance
    noise = NOISE * torch.eye(weights.shape[-2], dtype=weights.dtype, device=weights.device)
    factor, _ = torch.linalg.cholesky_ex(seen @ weights.mT + noise)  # does not wait for a GPU, as cholesky does
    found = torch.cholesky_solve(seen, factor).mT
    return found / found.sum(dim=-1, keepdim=True)


def interpolator(length: int, centres: Tensor, width: Tensor) -> Tensor:
    """Linear maps from thick slices to fine voxels.

    Parameters
    ----------
    length : int
        Fine voxels, n; their places are 0, 1, …, n - 1.
    centres : Tensor, shape (B, S), float64
        Places of the slices' centres, in fine voxels.
    width : Tensor, shape (B,), float64
        Full width of the slices at half their maximum, in fine voxels.

    Returns
    -------
    Tensor, shape (B, n, S), float64
        Row i: the weights of the slices in voxel i.

    Examples
    --------
    >>> centres = torch.tensor([[1.0, 4.0, 7.0]], dtype=torch.float64)
    >>> weights = interpolator(9, centres, torch.full((1,), 3.0, dtype=torch.float64))
    >>> [round(float(s), 2) for s in weights.sum(2)[0, ::4]]
    [1.0, 1.0, 1.0]
    """
    places = torch.arange(length, dtype=centres.dtype, device=centres.device)
    return estimate(gaussian_profile(places - centres[..., None], width[:, None, None]))
