"""A warp fitted to one pair of images, from none or from what a network answered (instance optimisation).

As VoxelMorph's and ConvexAdam's last step (Siebert et al., 2021, arXiv:2109.00474) Adam moves a velocity on a coarse
grid until the self-similarities of the two images fit; scaling and squaring keeps it from folding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_mamba.nn import fields
from napari_mamba.registration.similarity import dissimilarity, self_similarity

MOST_FOLDED = 0.5
"""Percent of the voxels that may fold; a refinement with more is not kept."""


@dataclass(frozen=True)
class Level:
    """One stage of a refinement: images shrunk by `shrink`, a velocity `coarse` times coarser, so many steps."""

    shrink: int
    coarse: int
    steps: int
    rate: float
    smoothness: float


LEVELS = (Level(4, 2, 60, 0.10, 0.15), Level(2, 2, 20, 0.10, 0.15))
LEAST_SIDE = 20
"""Voxels that the shortest side of a shrunk image has; a coarser level is left out."""


@dataclass(frozen=True, eq=False)
class Refined:
    """What a refinement leaves.

    Attributes
    ----------
    displacement : Tensor, shape (1, 3, Z, Y, X)
        In voxels of the fixed image along (z, y, x), as `napari_mamba.nn.fields` has it.
    before, after : float
        How unlike the images were and are, at a half of the resolution; `after` is never above `before`.
    folded : float
        Percent of the voxels.
    """

    displacement: Tensor
    before: float
    after: float
    folded: float


def refine(
    moving: Tensor, fixed: Tensor, start: Tensor | None = None, levels: Sequence[Level] = LEVELS
) -> Iterator[Refined]:
    """Fit a warp, step by step; what is given last is the result, and never worse than the start.

    Parameters
    ----------
    moving, fixed : Tensor, shape (1, 1, Z, Y, X), float32
        On one grid, brought together by an affine.
    start : Tensor, shape (1, 3, Z, Y, X), optional
        A displacement to go on from.
    levels : sequence of Level
        Coarse to fine.

    Yields
    ------
    Refined
        After each step of each level the best so far.
    """
    size = fixed.shape[2:]
    start = torch.zeros(1, 3, *size, device=fixed.device) if start is None else start.float()
    seen = seen_in(moving, fixed)
    before = unlikeness(moving, fixed, start, seen)
    best = Refined(start, before, before, fields.folded_share(start))
    velocity: Tensor | None = None
    for level in fitting(levels, size):
        for step in _fitted(moving, fixed, start, seen, level, velocity):
            latest = step
            yield best
        velocity = latest
        total = fields.compose(_whole(velocity, size), start)
        after, folded = unlikeness(moving, fixed, total, seen), fields.folded_share(total)
        if after < best.after and folded <= max(MOST_FOLDED, best.folded):
            best = Refined(total, before, after, folded)
    yield best


def fitting(levels: Sequence[Level], size: Sequence[int]) -> list[Level]:
    """The levels that suit an image, finer ones where it is small: patches of a few voxels fit anything.

    >>> [level.shrink for level in fitting(LEVELS, (40, 44, 36))]
    [1, 1]
    """
    finer = 1
    while finer < max(level.shrink for level in levels) and min(size) // (levels[0].shrink // finer) < LEAST_SIDE:
        finer *= 2
    return [replace(level, shrink=max(level.shrink // finer, 1)) for level in levels]


@torch.no_grad()
def unlikeness(moving: Tensor, fixed: Tensor, displacement: Tensor, seen: Tensor, shrink: int = 2) -> float:
    """How unlike a fixed image and a warped moving one are, at `1 / shrink` of the resolution."""
    warped = fields.warp(moving, displacement, padding="border")
    small = [self_similarity(_shrunk(one, shrink)) for one in (warped, fixed)]
    return float(dissimilarity(small[0], small[1], _shrunk(seen, shrink)))


def _fitted(
    moving: Tensor, fixed: Tensor, start: Tensor, seen: Tensor, level: Level, velocity: Tensor | None
) -> Iterator[Tensor]:
    """Velocities (1, 3, z, y, x) in voxels of their own grid, one a step, at one level."""
    small_moving, small_fixed, weight = (_shrunk(one, level.shrink) for one in (moving, fixed, seen))
    size = small_fixed.shape[2:]
    grid = [max(-(-n // level.coarse), 2) for n in size]
    first = fields.resized(start, size)
    known = torch.zeros(1, 3, *grid, device=fixed.device) if velocity is None else fields.resized(velocity, grid)
    parameter = known.detach().clone().requires_grad_()
    target = self_similarity(small_fixed)
    optimiser = torch.optim.Adam([parameter], lr=level.rate)
    for _ in range(level.steps):
        with torch.enable_grad():
            forth = fields.resized(fields.integrate(parameter, 5), size)
            warped = fields.warp(small_moving, fields.compose(forth, first), padding="border")
            loss = dissimilarity(self_similarity(warped), target, weight)
            loss = loss + level.smoothness * fields.gradient(parameter).square().sum(dim=(1, 2)).mean()
        (parameter.grad,) = torch.autograd.grad(loss, [parameter])
        optimiser.step()
        yield parameter.detach()


def _whole(velocity: Tensor, size: Sequence[int]) -> Tensor:
    return fields.resized(fields.integrate(velocity), size)


def _shrunk(image: Tensor, factor: int) -> Tensor:
    size = [max(n // factor, 1) for n in image.shape[2:]]
    return F.interpolate(image, size, mode="area") if factor > 1 else image


def seen_in(moving: Tensor, fixed: Tensor) -> Tensor:
    """Where at least one of the images shows something, with a margin: (1, 1, Z, Y, X) of 0 and 1."""
    something = torch.zeros_like(fixed)
    for image in (moving, fixed):
        low = float(image.amin())
        something = torch.maximum(something, (image > low + 0.02 * (float(image.amax()) - low)).float())
    return F.max_pool3d(something, 5, stride=1, padding=2)
