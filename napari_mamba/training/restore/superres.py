"""`mr-superres`: thick slices of MR made thin, after cubic interpolation, for any slice distance.

As in SMORE (Zhao et al., IEEE TMI 40:805, 2021) the sharp in-plane detail of clinical scans teaches what is missing
across their slices; isotropic scans teach it in three dimensions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.training.restore import data
from napari_mamba.training.restore.degrade import along_first, thick_slices
from napari_mamba.training.restore.recipe import Restoration, middle, psnr
from napari_mamba.training.restore.samples import Pieces

LENGTH, WIDE, NARROW = 96, 64, 32
"""Voxels of a piece: along the degraded axis, and across it."""

MARGIN = 16
"""Voxels cut off at both ends of the degraded axis, where the interpolation knows nothing beyond the piece."""

FACTORS = (1.5, 8.0)
"""Slice distances, in fine voxels, that the network sees."""

TESTED = (2, 3, 4)


class SuperResolution(Restoration):
    """Pieces degraded along their first axis: in-plane axes of clinical scans, any axis of isotropic ones."""

    name = "mr-superres"

    def batch(self, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Interpolated thick slices, and the truth: (B, 1, 96, Y, X) float32, about 1 at the 99.9th percentile."""
        random, draw = self.random(step), self.generator(step, device)
        pieces = self.pieces(device)
        fine = torch.stack([piece(pieces, random) for _ in range(self.schedule.batch_size)])[:, None]
        if random.rand() < 0.5:
            fine = fine.transpose(3, 4)
        column = (len(fine), 1, 1, 1, 1)
        scale = 0.65 + 0.55 * torch.rand(column, generator=draw, device=device)
        maps = random_maps(fine.shape[2], len(fine), random).to(device)
        coarse = along_first(fine, maps)
        inside = (slice(None), slice(None), slice(MARGIN, MARGIN + LENGTH))
        return coarse[inside] * scale, fine[inside] * scale

    @torch.inference_mode()
    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """PSNR in dB gained over cubic interpolation, for each tested factor, in the validation people's slices."""
        gains: dict[str, list[float]] = {}
        for scan in data.unpack(self.arrays, "validation"):
            fine = torch.from_numpy(middle(scan.data.transpose(2, 1, 0), (160, 160, 32)) / data.FULL)
            fine = fine.float()[None, None].to(device)
            for factor in TESTED:
                one = torch.ones(1)
                maps = thick_slices(fine.shape[2], factor * one, factor * one, one > 1, one * (factor - 1) / 2)
                coarse = along_first(fine, maps.to(device))
                with torch.autocast(device.type, torch.bfloat16):
                    output = network(coarse)
                gains.setdefault(f"gain_{factor}", []).append(psnr(output, fine) - psnr(coarse, fine))
        means = {key: sum(values) / len(values) for key, values in gains.items()}
        return means | {"score": sum(means.values()) / len(means)}

    def export(self, weights: dict[str, Tensor], destination: Path, history: dict[str, Any]) -> Path:
        from napari_mamba.training.restore.superres_bundle import export

        return export(weights, destination, history)

    def evaluate(self, bundle: Path | str, **options: Any) -> dict[str, Any]:
        from napari_mamba.training.restore.superres_bundle import evaluate

        return evaluate(self.data, bundle, **options)


def piece(pieces: Pieces, random: np.random.RandomState) -> Tensor:
    """A fine piece (LENGTH + 2 * MARGIN, WIDE, NARROW) whose first axis is sharp.

    The last axis of a clinical scan is that of its slices: as they are, or interpolated to the in-plane spacing, since
    at work the network sees volumes with neither and both.
    """
    number = pieces.pick(random)
    thick = pieces.thick_axis(number)
    order = random.permutation(3).tolist()
    size = (LENGTH + 2 * MARGIN, WIDE, NARROW)
    if thick is None:
        return pieces.cut(number, order, size, random)
    order = [*(axis for axis in order if axis != thick), thick]
    if random.rand() < 0.5:
        return pieces.cut(number, order, size, random)
    spacing = pieces.scans[number].spacing
    factor = spacing[thick] / min(spacing)
    slices = int(np.ceil(NARROW / factor)) + 2
    flat = pieces.cut(number, order, (*size[:2], slices), random)
    smooth = F.interpolate(flat[None], scale_factor=(1.0, factor), mode="bilinear", align_corners=False)[0]
    at = random.randint(smooth.shape[2] - NARROW + 1)
    return smooth[..., at : at + NARROW]


def random_maps(length: int, count: int, random: np.random.RandomState) -> Tensor:
    """Degradations (count, length, length): slice distance, profile and phase at random."""
    low, high = np.log(FACTORS)
    step = np.exp(random.uniform(low, high, count))
    # Most protocols leave a gap of up to a quarter, some slices overlap; a thickness other than the distance is a guess
    # that the network has to make from the image.
    width = step * np.where(random.rand(count) < 0.5, 1.0, random.uniform(0.8, 1.1, count))
    boxy = random.rand(count) < 0.35
    phase = random.uniform(0, 1, count) * step
    return thick_slices(length, *(torch.from_numpy(a) for a in (step, width, boxy, phase)))
