"""`mr-superres`: thick slices of MR made thin, after the best linear interpolation, for any slice distance and profile.

As in SMORE (Zhao et al., IEEE TMI 40:805, 2021) the sharp in-plane detail of clinical scans teaches what is missing
across their slices; isotropic scans teach it in three dimensions. The network is told the slices' distance, which the
header knows: without it, it answered every image with the faint sharpening that suits the finest slices.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.engine.preparation.grids.upsampling import spline_matrix, upsampling_channel_value
from napari_mamba.recipes.restore import data
from napari_mamba.recipes.restore.acquisition.profiles import NAMES, profile_weights, random_profiles
from napari_mamba.recipes.restore.acquisition.slices import along, blurred, thick_slices
from napari_mamba.recipes.restore.patch_sampler import PatchSampler
from napari_mamba.recipes.restore.recipe import Restoration, middle, psnr
from napari_mamba.recipes.restore.task import NETWORK

LENGTH, WIDE, NARROW = 64, 48, 32
"""Voxels of a piece: along the degraded axis, and across it."""

MARGIN, SIDE = 16, 8
"""Voxels cut off at both ends of the degraded axis, and of the one that is degraded less, where the interpolation knows
nothing beyond the piece."""

CPU = torch.device("cpu")

FACTORS = (1.5, 8.0)
"""Slice distances, in fine voxels, that the network sees."""

NOISY, MOST = 0.2, 0.03
"""Share of pieces that get noise, and the largest standard deviation of it."""

EXACT, THICKNESS = 0.5, (0.65, 1.35)
"""Share of the slices that are as thick as they are apart; the others' thickness as a share of it: gaps, overlaps."""

ANISOTROPIC, IN_PLANE = 0.25, (1.25, 2.5)
"""Share of pieces that are coarser along a second axis too, and by how much, in fine voxels."""

SMOOTH, BLUR = 0.25, (0.4, 1.4)
"""Share of pieces whose truth is smooth, and by how many voxels it is blurred: the slices' profile is then to be told
from how they repeat, not from how soft they are, and what is smooth by itself is not sharpened."""

TESTED = (2, 3, 4)
TESTED_PROFILES = ("gaussian", "box", "sinc")

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
        column = (len(fine), 1, 1, 1, 1)
        scale = 0.65 + 0.55 * torch.rand(column, generator=draw, device=device)
        chance = self.generator(step, CPU)
        distance, maps = random_maps(fine.shape[2], len(fine), chance)
        second = second_maps(fine.shape[3], distance, chance)
        distance, maps, second = (_moved(t, device) for t in (distance, maps, second))
        soft, sigma = torch.rand((2, len(fine)), generator=draw, device=device)
        fine = blurred(fine, torch.where(soft < SMOOTH, BLUR[0] + (BLUR[1] - BLUR[0]) * sigma, 0.0))
        coarse = along(along(add_slice_noise(fine, draw), second, 1), maps)
        inside = (slice(None), slice(None), slice(MARGIN, MARGIN + LENGTH), slice(SIDE, fine.shape[3] - SIDE))
        told = (0.5 * torch.log2(distance)).view(column).expand_as(coarse)
        given, truth = torch.cat([coarse * scale, told], dim=1)[inside], fine[inside] * scale
        if random.rand() < 0.5:
            given, truth = given.transpose(3, 4), truth.transpose(3, 4)
        return given.contiguous(), truth.contiguous()

    @torch.inference_mode()
    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """PSNR in dB gained over the cubic spline for each tested profile and factor, on the validation people.

        `gain_smooth` is of 3 voxels thick boxes of a scan that is soft by itself.
        """
        gains: dict[str, list[float]] = {}

        def note(key: str, fine: Tensor, factor: int, profile: str) -> None:
            both = whole_factor(fine.shape[2], factor, profile)
            by_spline, coarse = (along(fine, m.to(device)) for m in both)
            told = torch.full_like(coarse, upsampling_channel_value(factor))
            with torch.autocast(device.type, torch.bfloat16):
                output = network(torch.cat([coarse, told], dim=1))
            gains.setdefault(key, []).append(psnr(output, fine) - psnr(by_spline, fine))

        for scan in data.unpack(self.arrays, "validation"):
            fine = torch.from_numpy(middle(scan.data.transpose(2, 1, 0), (160, 160, 32)) / data.FULL)
            fine = fine.float()[None, None].to(device)
            for profile, factor in itertools.product(TESTED_PROFILES, TESTED):
                note(f"gain_{profile}_{factor}", fine, factor, profile)
            note("gain_smooth", blurred(fine, torch.ones(1, device=device)), 3, "box")
        means = {key: sum(values) / len(values) for key, values in gains.items()}
        return means | {"score": sum(means.values()) / len(means)}


def _moved(made: Tensor, device: torch.device) -> Tensor:
    """A tensor made on the CPU, on its way to the device; nothing waits for it."""
    return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made.to(device)


def piece(pieces: PatchSampler, random: np.random.RandomState) -> Tensor:
    """A fine piece (LENGTH + 2 * MARGIN, WIDE + 2 * SIDE, NARROW) whose first axis is sharp.

    The last axis of a clinical scan is that of its slices: as they are, or interpolated to the in-plane spacing, since
    at work the network sees volumes with neither and both.
    """
    number = pieces.random_scan(random)
    thick = pieces.slice_axis(number)
    order = random.permutation(3).tolist()
    size = (LENGTH + 2 * MARGIN, WIDE + 2 * SIDE, NARROW)
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
    return step, thick_slices(length, step, step * _thickness(count, draw), *_kind_and_phase(step, draw), FACTORS[0])


def second_maps(length: int, distance: Tensor, draw: torch.Generator) -> Tensor:
    """Degradations (B, n, n) of the second axis, never coarser than the slices' `distance`; for most samples none."""
    count = len(distance)
    chosen, share = torch.rand((2, count), generator=draw, device=draw.device)
    step = torch.minimum(IN_PLANE[0] + (IN_PLANE[1] - IN_PLANE[0]) * share, distance)
    maps = torch.eye(length, device=draw.device).repeat(count, 1, 1)
    rows = (chosen < ANISOTROPIC).nonzero()[:, 0]
    if len(rows):
        coarse = step[rows]
        width = coarse * _thickness(len(rows), draw)
        maps[rows] = thick_slices(length, coarse, width, *_kind_and_phase(coarse, draw), IN_PLANE[0])
    return maps


def _thickness(count: int, draw: torch.Generator) -> Tensor:
    """Slices' thickness as a share of their distance."""
    exact, share = torch.rand((2, count), generator=draw, device=draw.device)
    low, high = THICKNESS
    return torch.where(exact < EXACT, 1.0, low + (high - low) * share)


def _kind_and_phase(step: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    kind = random_profiles(len(step), draw)
    return kind, step * torch.rand(len(step), generator=draw, device=draw.device)


@cache
def whole_factor(length: int, factor: int, profile: str = "gaussian") -> tuple[Tensor, Tensor]:
    """Slices of `factor` voxels: maps (1, length, length) to their cubic spline and to the network's input.

    As the evaluation takes them: slices side by side from the first voxel on.
    """
    centres = torch.arange(length // factor, dtype=torch.float64)[:, None] * factor + (factor - 1) / 2
    one, kind = torch.ones(1), torch.tensor([NAMES.index(profile)])
    weights = profile_weights((torch.arange(length) - centres)[None], factor * one, kind)[0].float()
    back = torch.from_numpy(spline_matrix(len(weights), length, 1 / factor, (1 - factor) / (2 * factor), 3))
    maps = thick_slices(length, factor * one, factor * one, kind, one * (factor - 1) / 2, factor)
    return (back @ weights)[None], maps
