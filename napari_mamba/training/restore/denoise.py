"""`mr-denoise`: blind denoising of MR volumes, Rician and Gaussian, on the scan's own grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_mamba.training.restore import data
from napari_mamba.training.restore.degrade import add_noise, uneven
from napari_mamba.training.restore.recipe import Restoration, middle, psnr

SIZE = (32, 80, 80)
"""Voxels of a piece: the clinical scans have 36 to 48 slices."""

MOST = 0.2
"""Largest standard deviation of the noise, as a share of the 99.9th percentile."""

LEVELS = (0.03, 0.05, 0.09, 0.15)
"""Noise at which the result is measured."""


class Denoise(Restoration):
    """Pieces of scans, turned so that thick slices may lie along any axis, with noise of any level up to 20%."""

    name = "mr-denoise"

    def batch(self, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Noisy and clean pieces (B, 1, Z, Y, X) float32, about 1 at the 99.9th percentile."""
        random, draw = self.random(step), self.generator(step, device)
        pieces, cut = self.pieces(device), []
        for _ in range(self.schedule.batch_size):
            number = pieces.pick(random)
            thick = pieces.thick_axis(number)
            order = random.permutation(3).tolist()
            if thick is not None:  # the short side of the piece lies across the slices
                order = [thick, *(axis for axis in order if axis != thick)]
            cut.append(pieces.cut(number, order, SIZE, random))
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

    def export(self, weights: dict[str, Tensor], destination: Path, history: dict[str, Any]) -> Path:
        from napari_mamba.training.restore.denoise_bundle import export

        return export(weights, destination, history)

    def evaluate(self, bundle: Path | str, **options: Any) -> dict[str, Any]:
        from napari_mamba.training.restore.denoise_bundle import evaluate

        return evaluate(self.data, bundle, **options)


def degrade(clean: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """A noisy and a clean batch out of clean pieces (B, 1, Z, Y, X).

    Contrast changes a little, half of the samples get Rician noise, a third noise of uneven strength. Last, both are
    scaled, since the bundle divides by the 99.9th percentile of the *noisy* scan.
    """
    device, column = clean.device, (len(clean), 1, 1, 1, 1)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(column, generator=draw, device=device)

    clean = torch.where(uniform(0, 1) < 0.3, clean ** uniform(0.7, 1.4), clean)
    sigma = uniform(0, MOST)
    sigma = torch.where(uniform(0, 1) < 0.33, sigma * uneven(tuple(clean.shape), draw, device), sigma)
    noisy = add_noise(clean, sigma, uniform(0, 1).flatten() < 0.5, draw)
    scale = uniform(0.65, 1.2)
    return noisy * scale, clean * scale
