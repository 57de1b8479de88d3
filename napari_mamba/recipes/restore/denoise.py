"""`mr-denoise`: blind denoising of MR volumes, Rician and Gaussian, on the scan's own grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.recipes.restore import data
from napari_mamba.recipes.restore.degrade import add_noise, spatial_noise_map
from napari_mamba.recipes.restore.patch_sampler import PatchSampler
from napari_mamba.recipes.restore.recipe import Restoration, middle, psnr
from napari_mamba.recipes.restore.task import NETWORK

SIZE = (32, 56, 56)
"""Voxels of a piece: the clinical scans have 36 to 48 slices."""

MOST = 0.2
"""Largest standard deviation of the noise, as a share of the 99.9th percentile."""

LEVELS = (0.03, 0.05, 0.09, 0.15)
"""Noise at which the result is measured."""


SHRUNK, MASKED, BARE = 0.3, 0.25, 0.5
"""Shares: of clinical pieces made half as fine in their plane, which halves the noise of the truth; of pieces whose air
is zero, as in skull-stripped scans; of those, the ones in which it has no noise either."""

STRIPPED, KEPT = 0.25, (-0.4, 0.8)
"""Share of pieces of which only a smooth region is left and all else is zero, as skull-stripping cuts through tissue;
and the levels at which a random field of unit deviation is cut for it: from a third of the piece on, to four fifths."""

AIR = 0.08
"""What is darker than this share of white, all about it, is air."""

SCALED: dict[str, Any] = {**NETWORK, "noise_scaled": True}
"""The network's arguments: it finds the noise, and answers in its unit."""


class Denoise(Restoration):
    """Pieces of scans, turned so that thick slices may lie along any axis, with noise of any level up to 20%."""

    name = "mr-denoise"
    arguments = SCALED

    def batch(self, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Noisy and clean pieces (B, 1, Z, Y, X) float32, about 1 at the 99.9th percentile."""
        random, draw = self.random(step), self.generator(step, device)
        pieces = self.pieces(device)
        cut = [piece(pieces, random) for _ in range(self.schedule.batch_size)]
        turned = [2 + int(axis) for axis in random.permutation(3)]
        clean = torch.stack(cut)[:, None].permute(0, 1, *turned).contiguous()
        return degrade(clean, draw)

    @torch.inference_mode()
    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Mean PSNR in dB of the validation people's middles, at each level, over both kinds of noise."""
        scores: dict[str, list[float]] = {}
        for number, scan in enumerate(data.unpack(self.arrays, "validation")):
            clean = torch.from_numpy(middle(scan.data, (32, 160, 160)) / data.FULL).float()[None, None]
            for level in LEVELS:
                for rician in (False, True):
                    draw = torch.Generator().manual_seed(1000 * number + 2 * round(100 * level) + rician)
                    noisy = add_noise(clean, torch.tensor(level), torch.tensor([rician]), draw).to(device)
                    with torch.autocast(device.type, torch.bfloat16):
                        output = network(noisy)
                    scores.setdefault(f"psnr_{100 * level:.0f}", []).append(psnr(output, clean.to(device)))
        means = {key: sum(values) / len(values) for key, values in scores.items()}
        return means | {"score": sum(means.values()) / len(means)}


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


def degrade(clean: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """A noisy and a clean batch out of clean pieces (B, 1, Z, Y, X).

    Contrast changes a little, some have masked air or are cut as by skull-stripping, half of the samples get Rician
    noise, a third noise of uneven strength. Last, both are scaled, since the bundle divides by the 99.9th percentile
    of the *noisy* scan.
    """
    device, column = clean.device, (len(clean), 1, 1, 1, 1)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(column, generator=draw, device=device)

    clean = torch.where(uniform(0, 1) < 0.3, clean ** uniform(0.7, 1.4), clean)
    air = (F.avg_pool3d(clean, 5, stride=1, padding=2) < AIR) & (uniform(0, 1) < MASKED)
    clean = clean.masked_fill(air, 0.0)
    sigma = uniform(0, MOST)
    sigma = torch.where(uniform(0, 1) < 0.33, sigma * spatial_noise_map(tuple(clean.shape), draw, device), sigma)
    noisy = add_noise(clean, sigma, uniform(0, 1).flatten() < 0.5, draw)
    noisy = noisy.masked_fill(air & (uniform(0, 1) < BARE), 0.0)
    gone = _beyond(clean, draw, uniform(*KEPT)) & (uniform(0, 1) < STRIPPED)
    noisy, clean = noisy.masked_fill(gone, 0.0), clean.masked_fill(gone, 0.0)
    scale = uniform(0.65, 1.2)
    return noisy * scale, clean * scale


def _beyond(clean: Tensor, draw: torch.Generator, level: Tensor) -> Tensor:
    """Where a smooth random field of each sample is above its level."""
    nodes = [max(2, n // 14) for n in clean.shape[2:]]
    field = torch.randn((len(clean), 1, *nodes), generator=draw, device=clean.device)
    return F.interpolate(field, clean.shape[2:], mode="trilinear", align_corners=True) > level
