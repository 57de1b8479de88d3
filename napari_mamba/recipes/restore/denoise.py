"""`mr-denoise`: blind denoising of MR volumes on the scan's own grid, whatever the noise's strength and correlation."""

from __future__ import annotations

import itertools
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.recipes.restore import data
from napari_mamba.recipes.restore.acquisition.kspace import Sampling, random_sampling
from napari_mamba.recipes.restore.acquisition.noise import (
    acquire,
    add_noise,
    geometry_factor,
    resampled,
    smooth_field,
    spatial_noise_map,
)
from napari_mamba.recipes.restore.acquisition.slices import blurred
from napari_mamba.recipes.restore.patch_sampler import PatchSampler
from napari_mamba.recipes.restore.recipe import Restoration, middle, psnr
from napari_mamba.recipes.restore.task import NETWORK

SIZE = (32, 56, 56)
"""Voxels of a piece: the clinical scans have 36 to 48 slices."""

MOST = 0.2
"""Largest standard deviation of the noise, as a share of the 99.9th percentile."""

LEVELS = (0.03, 0.05, 0.09, 0.15)
"""Noise at which the result is measured."""


KEPT_SHARES = (1.0, 0.9, 0.8, 0.67)
"""Shares of each in-plane axis of k-space at which the result is measured, at `KSPACE_LEVEL`; the rest is zero."""

KSPACE_LEVEL = 0.05

CORRELATED, NOISE_ALONE, RESAMPLED = 0.6, 0.25, 0.3
"""Shares: of pieces whose k-space was sampled in part or filtered; of those, the ones in which that was done to the
noise alone; and the ones that were interpolated afterwards."""

MANY, COILS = 0.25, (1, 2, 4, 8, 16, 32)
"""Share of pieces that are the sum of squares of many coils, and how many: as many in each of a step's pieces."""

SHRUNK, MASKED, BARE = 0.45, 0.25, 0.5
"""Shares: of clinical pieces made half as fine in their plane, which halves the noise of the truth; of pieces whose air
is zero, as in skull-stripped scans; of those, the ones in which it has no noise either."""

SMOOTH, BLUR = 0.2, (0.4, 1.4)
"""Share of pieces whose truth is smooth, as in templates and interpolated scans, and by how many voxels it is blurred:
without them a network takes smooth tissue for what is left of a stronger noise."""

STRIPPED, LEFT = 0.25, (-0.4, 0.8)
"""Share of pieces of which only a smooth region is left and all else is zero, as skull-stripping cuts through tissue;
and the levels at which a random field of unit deviation is cut for it: from a third of the piece on, to four fifths."""

AIR = 0.08
"""What is darker than this share of white, all about it, is air."""

SCALED: dict[str, Any] = {**NETWORK, "noise_scaled": True}
"""The network's arguments: it finds the noise, and answers in its unit."""


class Denoise(Restoration):
    """Pieces of scans, turned so that thick slices may lie along any axis, with noise of up to 20%, white or not."""

    name = "mr-denoise"
    arguments = SCALED

    def batch(self, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Noisy and clean pieces (B, 1, Z, Y, X) float32, about 1 at the 99.9th percentile."""
        random, draw = self.random(step), self.generator(step, device)
        pieces = self.pieces(device)
        cut = [piece(pieces, random) for _ in range(self.schedule.batch_size)]
        turned = [2 + int(axis) for axis in random.permutation(3)]
        clean = torch.stack(cut)[:, None].permute(0, 1, *turned).contiguous()
        coils = COILS[random.randint(len(COILS))]
        return degrade(clean, draw, across=turned.index(2), coils=coils)

    @torch.inference_mode()
    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Mean PSNR in dB over the validation people's middles: at each level, and at each share of k-space kept.

        `psnr_9` is of white noise of 9%, Rician and Gaussian; `kept_80` of Rician noise of 5% with 0.8 of each in-plane
        axis of k-space kept; `tissue_5` of white Rician noise of 5% in a piece that has no air.
        """
        scores: dict[str, list[float]] = {}
        for key, noisy, truth in self._degraded:
            with torch.autocast(device.type, torch.bfloat16):
                output = network(noisy.to(device))
            scores.setdefault(key, []).append(psnr(output, truth.to(device)))
        means = {key: sum(values) / len(values) for key, values in scores.items()}
        return means | {"score": sum(means.values()) / len(means)}

    @cached_property
    def _degraded(self) -> list[tuple[str, Tensor, Tensor]]:
        """Noisy and true middles of the validation people's scans, the same at each validation, each with its key."""
        made = []
        for number, scan in enumerate(data.unpack(self.arrays, "validation")):
            clean = torch.from_numpy(middle(scan.data, (32, 160, 160)) / data.FULL).float()[None, None]
            for level, rician in itertools.product(LEVELS, (False, True)):
                draw = torch.Generator().manual_seed(1000 * number + 2 * round(100 * level) + rician)
                noisy = add_noise(clean, torch.tensor(level), torch.tensor([rician]), draw)
                made.append((f"psnr_{100 * level:.0f}", noisy, clean))
            inside = middle(scan.data, (32, 64, 64)) / data.FULL  # no air: nothing tells a floor of noise from tissue
            tissue = torch.from_numpy(inside).float()[None, None]
            draw = torch.Generator().manual_seed(number)
            made.append(("tissue_5", add_noise(tissue, torch.tensor(KSPACE_LEVEL), torch.tensor([True]), draw), tissue))
            for share in KEPT_SHARES:
                draw = torch.Generator().manual_seed(number)
                made.append((f"kept_{100 * share:.0f}", *partly_sampled(clean, share, KSPACE_LEVEL, draw)))
        return made


def partly_sampled(
    clean: Tensor, share: float, level: float, draw: torch.Generator, across: int = 0
) -> tuple[Tensor, Tensor]:
    """A scan (1, 1, Z, Y, X) with Rician noise and without, a share of each in-plane axis of k-space kept."""
    kept = torch.tensor([[1.0 if axis == across else share for axis in range(3)]])
    sampling = Sampling(kept, torch.zeros(1, 3, dtype=torch.int64), torch.zeros(1, 3), torch.ones(1, 3))
    rician, whole = torch.tensor([True]), torch.tensor([False])
    return acquire(clean, torch.tensor(level), rician, sampling, draw, noise_alone=whole)


def piece(pieces: PatchSampler, random: np.random.RandomState) -> Tensor:
    """A clean piece of `SIZE`, whose short side lies across the slices of a clinical scan."""
    number = pieces.random_scan(random)
    thick = pieces.slice_axis(number)
    order = random.permutation(3).tolist()
    if thick is None:
        return pieces.random_patch(number, order, SIZE, random)
    order = [thick, *(axis for axis in order if axis != thick)]
    if random.rand() >= SHRUNK:
        return pieces.random_patch(number, order, SIZE, random)
    fine = pieces.random_patch(number, order, (SIZE[0], 2 * SIZE[1], 2 * SIZE[2]), random)
    return F.avg_pool2d(fine[:, None], 2)[:, 0]


def degrade(clean: Tensor, draw: torch.Generator, across: int = 0, coils: int = 1) -> tuple[Tensor, Tensor]:
    """A noisy and a clean batch out of clean pieces (B, 1, Z, Y, X), whose slices lie across the spatial axis `across`.

    Contrast changes a little, some have masked air or are cut as by skull-stripping, half of the samples of one coil
    get Rician noise, the others Gaussian noise; a third noise of uneven strength. The noise of most was sampled in part
    of k-space, filtered, or interpolated; the rest is white. Last, both are scaled, since the bundle divides by the
    99.9th percentile of the *noisy* scan.
    """
    device, column = clean.device, (len(clean), 1, 1, 1, 1)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(column, generator=draw, device=device)

    def chance(share: float) -> Tensor:
        return uniform(0, 1).flatten() < share

    clean = blurred(clean, torch.where(chance(SMOOTH), uniform(*BLUR).flatten(), 0.0))
    clean = torch.where(uniform(0, 1) < 0.3, clean ** uniform(0.7, 1.4), clean)
    air = (F.avg_pool3d(clean, 5, stride=1, padding=2) < AIR) & (uniform(0, 1) < MASKED)
    clean = clean.masked_fill(air, 0.0)
    many = int(MANY * len(clean)) if coils > 1 else 0
    correlated = chance(CORRELATED)
    sampling = random_sampling(len(clean), correlated, across, draw, device)
    noisy, clean = acquire(
        clean,
        _strength(clean, coils, many, draw),
        chance(0.5),
        sampling,
        draw,
        noise_alone=chance(NOISE_ALONE),
        coils=coils,
        many=many,
    )
    moved = resampled(torch.cat([noisy, clean, air.float()], dim=1), correlated & chance(RESAMPLED), draw)
    noisy, clean, air = moved[:, :1], moved[:, 1:2], moved[:, 2:] > 0.5
    bare = air & (uniform(0, 1) < BARE)
    gone = _beyond(clean, draw, uniform(*LEFT)) & (uniform(0, 1) < STRIPPED)
    noisy, clean = noisy.masked_fill(gone | bare, 0.0), clean.masked_fill(gone | air, 0.0)
    scale = uniform(0.65, 1.2)
    return noisy * scale, clean * scale


def _strength(clean: Tensor, coils: int, many: int, draw: torch.Generator) -> Tensor:
    """Standard deviation of the noise in each voxel (B, 1, Z, Y, X): in a third of the samples uneven.

    The squares of many coils' noise add up: each has less, or nothing of the image would be left.
    """
    shape, device = tuple(clean.shape), clean.device
    level, uneven, kind = torch.rand((3, len(clean), 1, 1, 1, 1), generator=draw, device=device)
    coil = torch.arange(len(clean), device=device).view(-1, 1, 1, 1, 1) < many
    level = MOST * level * torch.where(coil, coils**-0.4, 1.0)
    factors = torch.where(kind < 0.5, spatial_noise_map(shape, draw, device), geometry_factor(shape, draw, device))
    return level * torch.where(uneven < 0.33, factors, 1.0)


def _beyond(clean: Tensor, draw: torch.Generator, level: Tensor) -> Tensor:
    """Where a smooth random field of each sample is above its level."""
    z, y, x = (max(2, n // 14) for n in clean.shape[2:])
    return smooth_field(tuple(clean.shape), (z, y, x), draw, clean.device) > level
