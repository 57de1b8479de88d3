"""`mr-superres`: thick slices of MR made thin, after the best linear interpolation, for any slice distance.

As in SMORE (Zhao et al., IEEE TMI 40:805, 2021) the sharp in-plane detail of clinical scans teaches what is missing
across their slices; isotropic scans teach it in three dimensions. The network is told the slices' distance, which the
header knows: without it, it answered every image with the faint sharpening that suits the finest slices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.engine.preparation.slices import gaussian_profile
from napari_mamba.engine.preparation.upsampling import spline_matrix, upsampling_channel_value
from napari_mamba.recipes.restore import data
from napari_mamba.recipes.restore.degrade import along_first, thick_slices
from napari_mamba.recipes.restore.patch_sampler import PatchSampler
from napari_mamba.recipes.restore.recipe import Restoration, middle, psnr
from napari_mamba.recipes.restore.task import NETWORK

LENGTH, WIDE, NARROW = 64, 48, 32
"""Voxels of a piece: along the degraded axis, and across it."""

MARGIN = 16
"""Voxels cut off at both ends of the degraded axis, where the interpolation knows nothing beyond the piece."""

CPU = torch.device("cpu")

FACTORS = (1.5, 8.0)
"""Slice distances, in fine voxels, that the network sees."""

NOISY, MOST = 0.2, 0.03
"""Share of pieces that get noise, and the largest standard deviation of it."""

TESTED = (2, 3, 4)

UPSAMPLING_RANGE: dict[str, Any] = {**NETWORK, "in_channels": 2, "out_channels": 1}
"""The network's arguments: the image and the slices' distance in, the image out."""


class SuperResolution(Restoration):
    """Pieces degraded along their first axis: in-plane axes of clinical scans, any axis of isotropic ones."""

    name = "mr-superres"
    arguments = UPSAMPLING_RANGE
    floor = 1e-4  # near-empty pieces, whose error is small, had gradients ten times as large as the others'

    def batch(self, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Interpolated thick slices with the channel that tells their distance, and the truth.

        (B, 2, 64, Y, X) and (B, 1, 64, Y, X), float32, about 1 at the 99.9th percentile.
        """
        random, draw = self.random(step), self.generator(step, device)
        pieces = self.pieces(device)
        fine = torch.stack([piece(pieces, random) for _ in range(self.schedule.batch_size)])[:, None]
        if random.rand() < 0.5:
            fine = fine.transpose(3, 4)
        column = (len(fine), 1, 1, 1, 1)
        scale = 0.65 + 0.55 * torch.rand(column, generator=draw, device=device)
        distance, maps = (_moved(t, device) for t in random_maps(fine.shape[2], len(fine), self.generator(step, CPU)))
        coarse = along_first(add_slice_noise(fine, draw), maps)
        inside = (slice(None), slice(None), slice(MARGIN, MARGIN + LENGTH))
        told = (0.5 * torch.log2(distance)).view(column).expand_as(coarse)
        return torch.cat([coarse * scale, told], dim=1)[inside], fine[inside] * scale

    @torch.inference_mode()
    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """PSNR in dB gained over the cubic spline, for each tested factor, in the validation people's slices."""
        gains: dict[str, list[float]] = {}
        for scan in data.unpack(self.arrays, "validation"):
            fine = torch.from_numpy(middle(scan.data.transpose(2, 1, 0), (160, 160, 32)) / data.FULL)
            fine = fine.float()[None, None].to(device)
            for factor in TESTED:
                by_spline, coarse = (along_first(fine, m.to(device)) for m in whole_factor(fine.shape[2], factor))
                told = torch.full_like(coarse, upsampling_channel_value(factor))
                with torch.autocast(device.type, torch.bfloat16):
                    output = network(torch.cat([coarse, told], dim=1))
                gains.setdefault(f"gain_{factor}", []).append(psnr(output, fine) - psnr(by_spline, fine))
        means = {key: sum(values) / len(values) for key, values in gains.items()}
        return means | {"score": sum(means.values()) / len(means)}


def _moved(made: Tensor, device: torch.device) -> Tensor:
    """A tensor made on the CPU, on its way to the device; nothing waits for it."""
    return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made.to(device)


def piece(pieces: PatchSampler, random: np.random.RandomState) -> Tensor:
    """A fine piece (LENGTH + 2 * MARGIN, WIDE, NARROW) whose first axis is sharp.

    The last axis of a clinical scan is that of its slices: as they are, or interpolated to the in-plane spacing, since
    at work the network sees volumes with neither and both.
    """
    number = pieces.random_scan(random)
    thick = pieces.slice_axis(number)
    order = random.permutation(3).tolist()
    size = (LENGTH + 2 * MARGIN, WIDE, NARROW)
    if thick is None:
        return pieces.random_patch(number, order, size, random)
    order = [*(axis for axis in order if axis != thick), thick]
    if random.rand() < 0.5:
        return pieces.random_patch(number, order, size, random)
    spacing = pieces.scans[number].spacing
    factor = spacing[thick] / min(spacing)
    slices = int(np.ceil(NARROW / factor)) + 2
    flat = pieces.random_patch(number, order, (*size[:2], slices), random)
    smooth = F.interpolate(flat[None], scale_factor=(1.0, factor), mode="bilinear", align_corners=False)[0]
    at = random.randint(smooth.shape[2] - NARROW + 1)
    return smooth[..., at : at + NARROW]


def add_slice_noise(fine: Tensor, draw: torch.Generator) -> Tensor:
    """A fifth of the samples with noise of up to 3% of white.

    Slices made of many voxels have less noise than those that a scanner takes, which the network will get.
    """
    column = (len(fine), 1, 1, 1, 1)
    chosen, sigma = torch.rand((2, *column), generator=draw, device=fine.device)
    noise = torch.randn(fine.shape, generator=draw, device=fine.device)
    return fine + torch.where(chosen < NOISY, MOST * sigma, 0.0) * noise


def random_maps(length: int, count: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Slices' distances (count,) and degradations (count, length, length): distance, profile and phase at random.

    On the generator's device. A CPU takes 6 ms for eight, beside a GPU that is busy; the GPU's factorisations of
    small matrices in float64 are as slow, and in the way of the training.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=draw, device=draw.device)

    # One distance out of each of `count` equal parts of the range: what a batch learns then varies less.
    share = (torch.randperm(count, generator=draw, device=draw.device) + uniform(0, 1)) / count
    step = FACTORS[0] * (FACTORS[1] / FACTORS[0]) ** share
    # Another thickness or a box needs another sharpening, which the network cannot tell from the image: too many of
    # them in training, and it sharpens every image too little. A few keep it from trusting the profile blindly.
    width = step * torch.where(uniform(0, 1) < 0.75, 1.0, uniform(0.9, 1.1))
    boxy = uniform(0, 1) < 0.05
    return step, thick_slices(length, step, width, boxy, uniform(0, 1) * step, FACTORS[0])


def whole_factor(length: int, factor: int) -> tuple[Tensor, Tensor]:
    """Gaussian slices of `factor` voxels: maps (1, length, length) to their cubic spline and to the network's input.

    As the evaluation takes them: slices side by side from the first voxel on.
    """
    centres = torch.arange(length // factor)[:, None] * factor + (factor - 1) / 2
    profile = gaussian_profile(torch.arange(length) - centres, torch.tensor(float(factor)))
    back = torch.from_numpy(spline_matrix(len(profile), length, 1 / factor, (1 - factor) / (2 * factor), 3))
    one = torch.ones(1)
    maps = thick_slices(length, factor * one, factor * one, one > 1, one * (factor - 1) / 2, factor)
    return (back @ profile)[None], maps
