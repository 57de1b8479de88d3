"""`heart-mr`: the left ventricle's cavity and wall in short-axis cine, slice by slice, by a small U-Mamba.

Data: `recipes.heart.task`. Network: U-Mamba Enc of generation v1 (Ma et al., arXiv:2401.04722); those that look along
the slices or along time have kernels and strides for thick slices, as nnU-Net plans them (Isensee et al., Nature
Methods 18:203, 2021).
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from napari_mamba import models
from napari_mamba.recipes.heart import data, samples, task
from napari_mamba.recipes.heart.losses import partial_loss
from napari_mamba.recipes.heart.validation import validate
from napari_mamba.training.recipe import Recipe, Schedule

CINE_SHARE = 0.2
"""Of the windows, those from the few people whose wall was drawn."""
REAL_SHARE = 0.3
"""Of the windows along time, those of real beats."""


class Heart(Recipe):
    """The recipe: labelled windows on the device, changed there, and a loss that knows what was drawn.

    Variants: a 2D U-Mamba ("plane"), a 3D one along the slices ("slices"), the same network along time ("beat"), and
    that along the slices without scans, a residual U-Net ("unet"); all of about as many parameters.
    """

    name = "heart-mr"
    schedule = Schedule(
        steps=20_000, batch_size=16, learning_rate=4e-3, warm_up=200, validate_every=500, optimiser="muon"
    )
    variants = ("plane", "slices", "unet", "beat")
    on_device = True
    use_cuda_graph = True

    def network(self) -> nn.Module:
        if self.variant == "plane":
            return models.create("umamba_enc", **task.PLANE, first_scan=task.FIRST_SCAN)
        if self.variant == "unet":
            from napari_mamba.models.segmentation.umamba import UMamba

            return UMamba(**task.ALONG | {"features_per_stage": task.UNET_FEATURES})
        return models.create("umamba_enc", **task.ALONG, first_scan=task.FIRST_SCAN)

    def prepare_data(self) -> dict[str, np.ndarray]:
        """See `recipes.heart.data.pack`."""
        return data.pack(self.data)

    @cached_property
    def _stores(self) -> dict[tuple[str, torch.device], samples.Store]:
        return {}

    def store(self, name: str, device: torch.device) -> samples.Store:
        """The packed arrays called `name` on a device, copied there once."""
        key = (name, device)
        if key not in self._stores:
            self._stores[key] = samples.Store.of(self.arrays, name, device)
        return self._stores[key]

    @cached_property
    def _weights(self) -> Tensor:
        """How often each labelled window is drawn: the cines together `CINE_SHARE`, all stacks alike."""
        cine = torch.from_numpy(np.char.startswith(self.arrays["training_phases"], "phase")).float()
        stacks = 1 - cine
        return CINE_SHARE * cine / cine.sum().clamp(min=1) + (1 - CINE_SHARE) * stacks / stacks.sum()

    def batch(self, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images (B, 1, *WINDOW) float32 and codes alike, on the device; a slice each of them for "plane"."""
        draw, stacks = self.generator(step, device), self.store("training", device)
        picks = torch.multinomial(self._weights.to(device), self.schedule.batch_size, True, generator=draw)
        if self.variant == "beat":
            beats = self.store("beats", device)
            real = round(REAL_SHARE * len(picks))
            slices = torch.randint(len(beats), (real,), generator=draw, device=device)
            parts = [samples.along_time(stacks, picks[real:], draw), samples.real_beats(beats, slices, draw)]
            image, codes = (torch.cat(both) for both in zip(*parts, strict=True))
        else:
            image, codes = samples.along_slices(stacks, picks, draw)
        return (_slices(image), _slices(codes)) if self.variant == "plane" else (image, codes)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return partial_loss(output, target)

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Cavity Dice of the validation people's stacks and the error of their ejection fraction."""
        return validate(network, self.arrays, device, along=self.variant)


def _slices(x: Tensor) -> Tensor:
    """(B, 1, D, Y, X) as (B * D, 1, Y, X)."""
    return x.movedim(2, 1).flatten(0, 1)
