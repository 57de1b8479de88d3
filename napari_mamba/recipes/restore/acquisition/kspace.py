"""What is kept of k-space, and how it is weighted, axis by axis: partial sampling, filters, partial Fourier.

A scanner that samples less of k-space than the image has room for fills up with zeros; one that filters it weights the
outer part down. Either leaves noise that is correlated between voxels (Gudbjartsson and Patz, Magn Reson Med 34:910,
1995, treat the uncorrelated kind). Filters: Harris, On the use of windows (Proc IEEE 66:51, 1978); the Fermi window of
Bernstein, King and Zhou, Handbook of MRI Pulse Sequences (2004), chapter 13. Partial Fourier: the same, chapter 13.4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

FILTERS = ("none", "hamming", "tukey", "fermi", "gaussian")
"""Weights within the part of k-space that is kept."""


@dataclass(frozen=True, eq=False)
class Sampling:
    """How the k-space of each sample of a batch was taken. One row a sample, one column a spatial axis.

    Attributes
    ----------
    kept : Tensor, shape (B, 3)
        Share of each axis that was sampled, about its middle, above 0 to 1; the rest is zero.
    filters : Tensor of int64, shape (B, 3)
        Index into `FILTERS`.
    shape : Tensor, shape (B, 3)
        0 to 1, the filter's shape: gentle to strong.
    partial : Tensor, shape (B, 3)
        Partial Fourier: the share of the negative half of what is kept that was sampled; 1 is all.
    """

    kept: Tensor
    filters: Tensor
    shape: Tensor
    partial: Tensor

    def transfer(self, size: tuple[int, ...]) -> Tensor:
        """The factors (B, 1, Z, Y, X), float32, by which k-space is multiplied, in the order of `torch.fft.fftn`.

        Examples
        --------
        >>> one = torch.ones(1, 3)
        >>> half = Sampling(0.5 * one, torch.zeros(1, 3).long(), one, one)
        >>> round(float(half.transfer((16, 16, 16)).mean()), 3)  # an eighth
        0.125
        """
        lines = [self._along(axis, length) for axis, length in enumerate(size)]
        return torch.einsum("bz,by,bx->bzyx", *lines)[:, None]

    def _along(self, axis: int, length: int) -> Tensor:
        place = 2 * torch.fft.fftfreq(length, device=self.kept.device)  # -1 to 1
        kept, shape, partial = (t[:, axis, None] for t in (self.kept, self.shape, self.partial))
        # A place at the border of what is kept counts by the part of it that lies within.
        inside = ((kept - place.abs()) * (length / 2) + 0.5).clamp(0, 1)
        inside = torch.where(kept >= 1, torch.ones_like(inside), inside)
        early = ((place + kept * partial) * (length / 2) + 0.5).clamp(0, 1)
        inside = torch.where(partial >= 1, inside, inside * early)
        u = (place.abs() / kept).clamp(max=1.0)
        windows = torch.stack([torch.ones_like(u), *_windows(u, shape)], dim=1)
        which = self.filters[:, axis].view(-1, 1, 1).expand(-1, 1, length)
        return inside * windows.gather(1, which)[:, 0]


def _windows(u: Tensor, shape: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hamming, Tukey, Fermi and Gaussian windows at a share `u` of the kept part's border."""
    floor = 0.54 + 0.3 * (1 - shape)  # from the Hamming window proper to a gentle one
    hamming = floor + (1 - floor) * torch.cos(math.pi * u)
    taper = 0.1 + 0.9 * shape
    tukey = 0.5 + 0.5 * torch.cos(math.pi * ((u - 1 + taper) / taper).clamp(0, 1))
    radius, width = 1.0 - 0.4 * shape, 0.03 + 0.09 * shape
    fermi = torch.sigmoid((radius - u) / width)
    gaussian = torch.exp(-0.5 * (u * (0.6 + 1.6 * shape)) ** 2)
    return hamming, tukey, fermi, gaussian


def filtered_noise(white: Tensor, transfer: Tensor) -> Tensor:
    """Complex white noise (B, 1, Z, Y, X) as the sampling leaves it, of the strength it had."""
    strength = transfer.square().mean(dim=(1, 2, 3, 4), keepdim=True).clamp(min=1e-6).sqrt()
    return torch.fft.ifftn(torch.fft.fftn(white, dim=(2, 3, 4)) * (transfer / strength), dim=(2, 3, 4))


def filtered_signal(signal: Tensor, sampling: Sampling) -> Tensor:
    """A complex signal (B, 1, Z, Y, X) as the sampling leaves it.

    Continued by its mirror image, since opposite ends of a piece of a scan have nothing to do with each other.
    """
    size = signal.shape[2:]
    whole = signal
    for axis in (2, 3, 4):
        whole = torch.cat([whole, whole.flip(axis)], dim=axis)
    transfer = sampling.transfer(tuple(whole.shape[2:]))
    left = torch.fft.ifftn(torch.fft.fftn(whole, dim=(2, 3, 4)) * transfer, dim=(2, 3, 4))
    return left[:, :, : size[0], : size[1], : size[2]]


def random_sampling(
    count: int, correlated: Tensor, across: int, draw: torch.Generator, device: torch.device
) -> Sampling:
    """Samplings of a batch: those that are not `correlated` (B,) keep all of k-space as it is.

    Three in four are of slices that lie across the axis `across`, sampled alike or not along the two others; the rest
    of any axes. Four fifths keep 0.55 to 1 of an axis, half are filtered, an eighth have partial Fourier along an axis.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand((count, *shape), generator=draw, device=device)

    axes = torch.arange(3, device=device)
    in_plane = (axes != across) & (uniform(1) < 2)  # the same in each sample
    touched = torch.where(uniform(1) < 0.75, in_plane, uniform(3) < 0.6) & correlated[:, None]
    alike = uniform(1) < 0.5

    def each(values: Tensor) -> Tensor:
        return torch.where(alike, values[:, :1], values)

    kept = torch.where(each(uniform(3)) < 0.8, 0.55 + 0.45 * each(uniform(3)), 1.0)
    kind = (1 + (4 * each(uniform(3))).long()).clamp(max=4)
    filters = torch.where(each(uniform(3)) < 0.5, kind, 0)
    lone = (uniform(1) * 3).long().clamp(max=2) == axes
    partial = torch.where(lone & (uniform(1) < 0.125), 0.2 + 0.7 * uniform(3), 1.0)
    one = torch.ones((count, 3), device=device)
    return Sampling(
        torch.where(touched, kept, one),
        torch.where(touched, filters, 0),
        each(uniform(3)),
        torch.where(touched, partial, one),
    )
