"""Slice profiles: how much each place along an axis counts in a slice.

Gaussian and box; the ideal low pass, a sinc cut off after some lobes, as sampling in k-space leaves it along an axis;
and what a truncated sinc pulse excites at a small flip angle, its Fourier transform: a box with rounded, rippled edges
(Bernstein, King and Zhou, Handbook of MRI Pulse Sequences, 2004, chapter 2).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

REACH, POINTS = 3.0, 1201
"""A profile is tabulated up to so many of its widths on either side, at so many points."""

FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))


def _soft_box(softness: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: 1 / (1 + np.exp(np.clip((np.abs(x) - 0.5) / softness, -60, 60)))


def _cut_sinc(lobes: int, hann: bool) -> Callable[[np.ndarray], np.ndarray]:
    def profile(x: np.ndarray) -> np.ndarray:
        window = 0.5 + 0.5 * np.cos(np.pi * np.clip(x / lobes, -1, 1)) if hann else 1.0
        return np.where(np.abs(x) <= lobes, np.sinc(x) * window, 0.0)

    return profile


def _sinc_pulse(lobes: int, hamming: bool) -> Callable[[np.ndarray], np.ndarray]:
    def profile(x: np.ndarray) -> np.ndarray:
        time = np.linspace(-lobes, lobes, 201)  # in zero crossings of the pulse
        window = 0.54 + 0.46 * np.cos(np.pi * time / lobes) if hamming else np.ones_like(time)
        excited = np.cos(2 * np.pi * np.outer(x, time)) @ (np.sinc(time) * window)
        return np.asarray(np.abs(excited) * (np.abs(x) < 1.5))

    return profile


PROFILES: dict[str, tuple[float, Callable[[np.ndarray], np.ndarray]]] = {
    "gaussian": (0.35, lambda x: np.exp(-0.5 * (x * FWHM_PER_SIGMA) ** 2)),
    "box": (0.2, _soft_box(1e-3)),
    "soft box": (0.1, _soft_box(0.06)),
    "sinc": (0.06, _cut_sinc(3, False)),
    "sinc of two lobes": (0.05, _cut_sinc(2, False)),
    "windowed sinc": (0.06, _cut_sinc(3, True)),
    "sinc pulse": (0.06, _sinc_pulse(2, False)),
    "longer sinc pulse": (0.06, _sinc_pulse(4, False)),
    "windowed sinc pulse": (0.06, _sinc_pulse(3, True)),
}
"""Each profile's share in training, and its value at a distance from the slice's centre, in slice thicknesses."""

NAMES = tuple(PROFILES)


@cache
def _tables() -> Tensor:
    places = np.linspace(-REACH, REACH, POINTS)
    return torch.from_numpy(np.stack([value(places) for _, value in PROFILES.values()]))


def random_profiles(count: int, draw: torch.Generator) -> Tensor:
    """Indices (count,) into `NAMES`, by their shares, on the generator's device."""
    shares = torch.tensor([share for share, _ in PROFILES.values()], device=draw.device)
    return torch.multinomial(shares, count, replacement=True, generator=draw)


def profile_weights(distance: Tensor, width: Tensor, kind: Tensor) -> Tensor:
    """Weights of voxels in slices.

    Parameters
    ----------
    distance : Tensor, shape (B, slices, n), float64
        From each slice's centre to each voxel's, in voxels.
    width : Tensor, shape (B,), float64
        Thickness of the slices, in voxels.
    kind : Tensor of int64, shape (B,)
        Index into `NAMES`. A voxel counts in a box by the part of it that lies within.

    Returns
    -------
    Tensor, shape (B, slices, n), float64
        Of sum 1 along the last axis.

    Examples
    --------
    >>> distance = torch.arange(6, dtype=torch.float64).view(1, 1, 6) - 2.5
    >>> kind = torch.tensor([NAMES.index("box")])
    >>> [round(float(w), 3) for w in profile_weights(distance, torch.tensor([4.0]), kind)[0, 0]]
    [0.0, 0.25, 0.25, 0.25, 0.25, 0.0]
    """
    width, kind = width.double()[:, None, None], kind[:, None, None]
    place = ((distance / width + REACH) * ((POINTS - 1) / (2 * REACH))).clamp(0, POINTS - 1.001)
    below = place.long()
    tables = _tables().to(distance.device)
    looked = torch.lerp(tables[kind, below], tables[kind, below + 1], place - below)
    box = (0.5 + 0.5 * width - distance.abs()).clamp(0, 1)
    values = torch.where(kind == NAMES.index("box"), box, looked)
    return values / values.sum(dim=-1, keepdim=True)
