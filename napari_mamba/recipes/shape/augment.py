"""Signed distances of many masks at once, and their random placing, on any device."""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_mamba.engine.preparation.mask_steps import distance
from napari_mamba.nn.descriptors.granulometry import nearest

ROTATION, OUT_OF_PLANE_ROTATION = 0.35, 0.1  # radians: within slices, and of the slices themselves
SHIFT, SCALE = 0.06, 0.04  # share of the half window; natural logarithm
EXACT = 0.5
"""Share of the samples that are only mirrored: interpolation blunts the distances, which tell much."""
DEFORMATION, GROWTH = 0.04, 0.02  # smooth changes of place, in half windows, and of distance, in the distances' unit


def distances(masks: np.ndarray, limit: float, device: torch.device) -> Tensor:
    """Signed distances (N, 1, Z, Y, X) float16 of masks (N, Z, Y, X) of 1 mm voxels, cut off at ± `limit`, over it.

    The same as the preparation step `signed_distance`.
    """
    if device.type == "cpu":
        parts = [torch.from_numpy(np.clip(distance(mask > 0) / limit, -1, 1)).half() for mask in masks]
        return torch.stack(parts)[:, None]
    whole = []
    for some in torch.from_numpy(masks).split(16):
        inside = some.to(device) > 0
        # Voxels beyond the border are not drawn: pad for the way out of the mask.
        inner = nearest(F.pad(inside, (1,) * 6), reach=int(limit) + 1)[:, 1:-1, 1:-1, 1:-1]
        outer = nearest(~inside, reach=int(limit) + 1)
        signed = torch.where(inside, inner - 0.5, 0.5 - outer) / limit
        whole.append(signed.clamp(-1, 1).half())
    return torch.cat(whole)[:, None]


@lru_cache
def flip_combinations(device: torch.device) -> Tensor:
    """The eight ways to mirror a volume or not along x, y and z, (8, 3, 4); the first does not, the second along x.

    The axes stay where they are: glands are read in axial slices, in which their thickness tells most.
    """
    signs = torch.tensor(list(itertools.product((1.0, -1.0), repeat=3))).flip(1)
    return torch.cat([torch.diag_embed(signs), torch.zeros(8, 3, 1)], dim=2).to(device)


def place(count: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Random placings (count, 3, 4): any mirroring, a turn, mostly within slices, a shift, a mild scale.

    Also the scales (count,), and which of them (count,), bool, are no more than a mirroring: about `EXACT`.
    """

    def uniform(*shape: int, of: float) -> Tensor:
        return (2 * torch.rand(*shape, generator=generator, device=device) - 1) * of

    whole = flip_combinations(device)
    mirrored = whole[torch.randint(len(whole), (count,), generator=generator, device=device)]
    matrix = mirrored.clone()
    angles = torch.cat([uniform(count, 2, of=OUT_OF_PLANE_ROTATION), uniform(count, 1, of=ROTATION)], dim=1)
    skew = torch.zeros(count, 3, 3, device=device)
    for axis, (i, j) in enumerate(((1, 2), (0, 2), (0, 1))):
        skew[:, i, j], skew[:, j, i] = angles[:, axis], -angles[:, axis]
    scale = uniform(count, of=SCALE).exp()
    matrix[:, :, :3] = torch.linalg.matrix_exp(skew) @ matrix[:, :, :3] / scale[:, None, None]
    matrix[:, :, 3] = uniform(count, 3, of=SHIFT)
    exact = torch.rand(count, generator=generator, device=device) < EXACT
    matrix = torch.where(exact[:, None, None], mirrored, matrix)
    return matrix, torch.where(exact, 1.0, scale), exact


def warp(
    images: Tensor,
    picks: Tensor,
    matrix: Tensor,
    scale: Tensor,
    size: int,
    generator: torch.Generator | None = None,
    exact: Tensor | None = None,
) -> Tensor:
    """Sample the picked images (B, 1, size, size, size) float32 through affine placings; distances scale along.

    With a generator, place and distance change smoothly and a little besides: no two raters draw the same outline. They
    do not where `exact` (B,), bool, says so.
    """
    chosen = images[picks].float()
    grid = F.affine_grid(matrix, [len(picks), 1, size, size, size], align_corners=False)
    growth: Tensor | float = 0.0
    if generator is not None:
        noise = torch.randn(len(picks), 4, 5, 5, 5, generator=generator, device=images.device)
        if exact is not None:
            noise = noise * ~exact[:, None, None, None, None]
        noise = F.interpolate(noise, size=(size,) * 3, mode="trilinear", align_corners=True)
        grid = grid + DEFORMATION * noise[:, :3].movedim(1, -1)
        growth = GROWTH * noise[:, 3:]
    # Beyond the window all is far from the gland, as it is along the window's border.
    sampled = F.grid_sample(chosen, grid, padding_mode="border", align_corners=False)
    return (sampled * scale[:, None, None, None, None] + growth).clamp(-1, 1)
