"""The recipe of `hippocampus-mr`: anterior and posterior hippocampus in a T1-weighted MR crop, by a small U-Mamba."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn

from napari_mamba.recipes.hippocampus import task
from napari_mamba.recipes.hippocampus.data import load, pairs, validation_tiles
from napari_mamba.recipes.hippocampus.task import CLASSES, TILE
from napari_mamba.training import augment
from napari_mamba.training.recipe import Recipe, Schedule
from napari_mamba.training.scoring.scores import dice

CHANGES: tuple[tuple[augment.Change, float], ...] = (
    (augment.bias_field, 0.15),
    (augment.contrast, 0.3),
    (augment.gamma, 0.3),
    (augment.blur, 0.15),
    (augment.random_low_resolution, 0.15),
    (augment.noise, 0.25),
)
"""Changes of contrast, sharpness and noise, with the share of the samples that they change."""


class Hippocampus(Recipe):
    """The recipe: volumes of all sizes in one padded array on the device, changed there in shape and contrast.

    Variants: a U-Mamba with a scan after each stage ("umamba"), the same with one scan at the bottom ("bottom"), a
    SegResNet (Myronenko, arXiv:1810.11654) of as many parameters ("segresnet"), and a smaller U-Mamba that two CPU
    cores train in an hour or two ("small").
    """

    name = "hippocampus-mr"
    schedule = Schedule(
        steps=4000, batch_size=12, learning_rate=6e-3, warm_up=200, validate_every=250, optimiser="muon"
    )
    variants = ("umamba", "bottom", "segresnet", "small")
    on_device = True
    use_cuda_graph = True

    def __init__(self, data: Path, seed: int = 2410, variant: str = "") -> None:
        super().__init__(data, seed, variant)
        if self.variant == "small":
            # After 700 steps 0.871 on the validation people, from 0.856 by AdamW at 1.5e-3
            # (benchmarks/bundles/optimisers.py).
            self.schedule = Schedule(steps=4500, batch_size=2, learning_rate=6e-3, optimiser="muon")

    def network(self) -> nn.Module:
        return task.network(self.variant)

    def prepare_data(self) -> dict[str, np.ndarray]:
        """Images (V, Z, Y, X) float16 and labels uint8, zero beyond each volume's own shape; and whose they are."""
        arrays: dict[str, np.ndarray] = {}
        for which in ("training", "validation"):
            loaded = [load(*pair) for pair in pairs(self.data, which)]
            shapes = np.array([image.shape for image, _ in loaded])
            size = (len(loaded), *shapes.max(axis=0))
            images, labels = np.zeros(size, np.float16), np.zeros(size, np.uint8)
            for row, (image, label) in enumerate(loaded):
                at: tuple[Any, ...] = (row, *(slice(n) for n in image.shape))
                images[at], labels[at] = image, label
            arrays |= {f"{which}_images": images, f"{which}_labels": labels, f"{which}_shapes": shapes}
        return arrays

    @cached_property
    def _stored(self) -> dict[torch.device, list[Tensor]]:
        return {}

    def _training(self, device: torch.device) -> list[Tensor]:
        """Images, labels and shapes on a device, copied there once."""
        if device not in self._stored:
            parts = [torch.from_numpy(self.arrays[f"training_{key}"]) for key in ("images", "labels", "shapes")]
            self._stored[device] = [part.float()[:, None].to(device) for part in parts]
        return self._stored[device]

    def batch(self, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images (B, 1, *TILE) float32 and labels (B, 1, *TILE), on the device."""
        images, labels, shapes = self._training(device)
        draw = self.generator(step, device)
        picks = torch.randint(len(images), (self.schedule.batch_size,), generator=draw, device=device)
        shift = augment.uniform((len(picks), 3), -6, 6, draw)
        # Only left and right look alike: front and back tell anterior from posterior.
        place = augment.places(TILE, (shapes[picks, 0] - 1) / 2 + shift, draw, elastic_strength=2.0, flip=(2,))
        image = augment.sample(images[picks], place)
        label = augment.sample_labels(labels[picks], place, len(CLASSES) + 1)
        for change, chance in CHANGES:
            image = augment.random_apply(image, change, chance, draw)
        return image, label

    @cached_property
    def _criterion(self) -> nn.Module:
        return DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return self._criterion(output, target)

    @torch.inference_mode()
    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Mean Dice of the validation people, from one centred tile each."""
        scores = []
        for tile, truth in validation_tiles(self.arrays, device):
            with torch.autocast(device.type, torch.bfloat16):
                predicted = network(tile).argmax(1)[0].cpu().numpy()
            scores.append(dice(predicted, truth, CLASSES))
        anterior, posterior = np.nanmean(scores, axis=0)
        score = float((anterior + posterior) / 2)
        return {"dice_anterior": float(anterior), "dice_posterior": float(posterior), "score": score}
