"""How a shape answers openings and closings by discs and balls: its granulometry, in plain PyTorch.

Serra, Image Analysis and Mathematical Morphology (1982). An opening takes away what is thinner than the disc, a closing
fills gaps and bays narrower than it; how much of a shape each size changes says how thick its parts are and how its
branches stand to each other. Radii are in voxels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.nn.blocks.tokens import Float32Module, without_autocast

SLICES, SPACE = (1, 2), (0, 1, 2)
"""Axes of (Z, Y, X) in which distances are measured."""
OPENINGS = (1.0, 1.42, 2.0, 2.24, 2.83, 3.17, 4.0, 5.0)
CLOSINGS = (1.0, 1.42, 2.0, 2.83, 3.61, 4.48, 6.0, 8.0)
DEPTHS = (1.2, 1.45, 2.1, 2.3, 2.7, 3.1, 3.5, 4.1, 4.6, 5.5, 6.5)
REACH = 9  # voxels: beyond the largest radius
THICKNESS = (0.5, 0.75, 0.9, 0.95, 0.99)
LEAST = 1e-3  # of the volume: what a closing adds is told by its logarithm


def nearest(mask: Tensor, axes: Sequence[int] = (0, 1, 2), reach: int = REACH) -> Tensor:
    """Distance of each voxel of `mask` to the nearest one outside of it, 0 there; more than `reach` if it is farther.

    Exact up to `reach`: squared distances are minimised along one axis after the other (Felzenszwalb and
    Huttenlocher, 2012), here over all offsets that matter at once. What lies beyond the border counts as far away.

    Parameters
    ----------
    mask : (N, Z, Y, X) tensor, bool
    axes : sequence of int
        Of (Z, Y, X): distances are measured within lines, planes or the space of these axes.
    reach : int
        Voxels.

    Returns
    -------
    (N, Z, Y, X) tensor, float32

    Examples
    --------
    >>> nearest(torch.tensor([0, 1, 1, 1, 1, 0]).bool().view(1, 1, 1, 6), (2,)).flatten().tolist()
    [0.0, 1.0, 2.0, 2.0, 1.0, 0.0]
    """
    far = float(3 * (reach + 1) ** 2)
    squared = torch.where(mask, far, 0.0)
    for axis in axes:
        size = squared.shape[axis + 1]
        found = squared.clone()
        for offset in range(1, min(reach, size - 1) + 1):
            later, sooner = found.narrow(axis + 1, offset, size - offset), found.narrow(axis + 1, 0, size - offset)
            torch.minimum(later, squared.narrow(axis + 1, 0, size - offset) + offset**2, out=later)
            torch.minimum(sooner, squared.narrow(axis + 1, offset, size - offset) + offset**2, out=sooner)
        squared = found
    return squared.sqrt()


def in_slices(x: Tensor) -> Tensor:
    """Signed distances (B, 1, Z, Y, X) again, measured within each slice alone: the way a reader measures on images.

    `x` is positive inside, and 1 at a depth of `REACH` - 1 voxels; so is what comes back, cut off at ± 1.
    """
    with torch.no_grad(), without_autocast(x):
        inside = x[:, 0] > 0
        inner, outer = nearest(inside, (1, 2)), nearest(~inside, (1, 2))
        signed = torch.where(inside, inner - 0.5, 0.5 - outer) / (REACH - 1)
        return signed.clamp(-1, 1)[:, None].to(x.dtype)


def describe(mask: Tensor) -> Tensor:
    """Shape descriptors (N, K) of masks (N, Z, Y, X), bool, that do not change where an axis is mirrored.

    In slices and in space: the share of the volume that openings leave, the logarithms of what closings add and of how
    much lies how deep. Of the slices also their areas and the depths of their thickest places, and the extent and
    thickness of the shape seen along z. And moments along the principal axes.
    """
    mask = _boxed(mask)
    depth = nearest(mask, SLICES)
    parts = [_moments(mask), _spectrum(mask, depth, SLICES), _slices(mask, depth)]
    return torch.cat([*parts, _spectrum(mask, nearest(mask, SPACE), SPACE)], dim=1)


def _boxed(mask: Tensor) -> Tensor:
    """The masks cut to the box of all of them, and as much room around it as the largest disc takes."""
    for axis in (1, 2, 3):
        filled = torch.nonzero(mask.movedim(axis, 0).flatten(1).any(1))
        first, last = (int(filled[0]), int(filled[-1])) if len(filled) else (0, 0)
        mask = mask.narrow(axis, first, last + 1 - first)
    return F.pad(mask, (REACH,) * 6)


def _volume(mask: Tensor) -> Tensor:
    return mask.flatten(1).sum(1).clamp(min=1).float()


def _spectrum(mask: Tensor, depth: Tensor, axes: Sequence[int]) -> Tensor:
    """Openings, closings and depths of masks (N, Z, Y, X) within `axes`."""
    volume, found = _volume(mask), []
    for radius in OPENINGS:
        core = depth > radius
        opened = mask & core.flatten(1).any(1)[:, None, None, None] & (nearest(~core, axes, int(radius) + 1) <= radius)
        found.append(opened.flatten(1).sum(1) / volume)
    outer = nearest(~mask, axes)
    for radius in CLOSINGS:
        added = (nearest(outer <= radius, axes, int(radius) + 1) > radius).flatten(1).sum(1) / volume
        found.append(added.clamp(min=LEAST).log())
    found += [(depth > limit).flatten(1).sum(1).float().log1p() for limit in DEPTHS]
    return torch.stack(found, dim=1)


def _slices(mask: Tensor, depth: Tensor) -> Tensor:
    """Areas and thickest places of the slices (N, Z, Y, X), and the shape seen along z."""
    areas = mask.sum((2, 3)).float()
    mean, deviation = _spread(areas)
    found = [areas.amax(1).clamp(min=1).log(), mean.clamp(min=1).log(), deviation / mean.clamp(min=1)]
    found.append((areas > 0).sum(1).clamp(min=1).log())
    for values in (depth.amax((2, 3)), depth.sum((2, 3)) / areas.clamp(min=1)):
        found += [values.amax(1), *_spread(values)]
    along = mask.sum(1).flatten(1).float()
    seen = (along > 0).sum(1).clamp(min=1).float()
    ordered = along.sort(dim=1, descending=True).values
    found.append(seen.log())
    for share in THICKNESS:
        place = ((1 - share) * (seen - 1)).round().long()
        found.append(ordered.gather(1, place[:, None])[:, 0].clamp(min=1).log())
    return torch.stack(found, dim=1)


def _spread(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (N,) of what is not 0 in each row of (N, K)."""
    there = values > 0
    count = there.sum(1).clamp(min=1).float()
    mean = values.sum(1) / count
    return mean, (((values - mean[:, None]).square() * there).sum(1) / count).sqrt()


def _moments(mask: Tensor) -> Tensor:
    """Lengths, skewness and kurtosis along the principal axes, (N, 9)."""
    weight = mask.flatten(1).float()
    weight = weight / weight.sum(1, keepdim=True).clamp(min=1)
    steps = [torch.arange(n, device=mask.device).float() for n in mask.shape[1:]]
    places = torch.stack(torch.meshgrid(*steps, indexing="ij"), dim=-1).flatten(0, 2)
    means = weight @ places
    spread = torch.einsum("nv,vi,vj->nij", weight, places, places) - means[:, :, None] * means[:, None]
    axes = torch.linalg.eigh(spread.double()).eigenvectors.float()
    found = []
    for row, mean, turn in zip(weight, means, axes, strict=True):  # one by one: all at once would take much memory
        along = (places - mean) @ turn
        second = (row @ along.square()).clamp(min=1e-3)
        found.append(
            torch.cat(
                [
                    (row @ along.abs()).clamp(min=1e-3).log(),
                    (row @ along**3).abs() / second**1.5,
                    (row @ along**4) / second.square(),
                ]
            )
        )
    return torch.stack(found)


class Granulometry(Float32Module):
    """Logits (B, K) linear in the standardised descriptors of the shape where (B, 1, Z, Y, X) is above zero.

    `describe` is a step function of the shape: no gradient passes. The linear layer and the descriptors' mean and
    deviation are fitted by themselves (`napari_mamba.training.linear`), on shapes that nothing has moved.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, number_classes: int):
        super().__init__()
        size = count()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))
        self.linear = nn.Linear(size, number_classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad(), without_autocast(x):
            inside = x[:, 0] > 0
            found = (_known(inside) if x.device.type == "cpu" else describe(inside)).to(self.mean.dtype)
            return self.linear((found - self.mean) / self.deviation)


def _known(mask: Tensor) -> Tensor:
    """`describe` on the CPU, where it takes long and the members of an ensemble ask for the same shapes."""
    return torch.cat([_described(np.packbits(one.numpy()).tobytes(), tuple(one.shape)) for one in mask])


@lru_cache(maxsize=16)
def _described(bits: bytes, shape: tuple[int, ...]) -> Tensor:
    mask = np.unpackbits(np.frombuffer(bits, np.uint8), count=math.prod(shape)).reshape(shape)
    with torch.inference_mode(False):
        return describe(torch.from_numpy(mask.astype(bool))[None])


def count() -> int:
    """How many descriptors there are."""
    return 9 + 2 * (len(OPENINGS) + len(CLOSINGS) + len(DEPTHS)) + 4 + 6 + 1 + len(THICKNESS)
