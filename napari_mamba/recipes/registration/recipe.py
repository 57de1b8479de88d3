"""`brain-register-mr`: two brains of any MR contrast, each synthesised from a label map, registered onto each other.

Method: SynthMorph (Hoffmann et al., IEEE TMI 41:543, 2022, arXiv:2004.10282). Images and data: those of
`training.brain` (SynthSeg's 20 label maps, Apache-2.0; the last three are held out).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_mamba.models.registration.mambamorph import MambaMorph
from napari_mamba.models.registration.velocity import VelocityNetwork, displacement
from napari_mamba.nn import fields
from napari_mamba.recipes.brain.data import HELD_OUT, pack, unpack
from napari_mamba.recipes.brain.losses import confusion_dice
from napari_mamba.recipes.brain.structures import INDICES
from napari_mamba.recipes.brain.synthetic.synthesis import LabelMapBatch, Shape, synthesise
from napari_mamba.recipes.registration.alignment import align
from napari_mamba.recipes.registration.losses import registration_loss
from napari_mamba.training.recipe import Recipe, Schedule

WINDOW: Shape = (160, 192, 160)
"""A whole brain and a margin, at 1 mm."""
FEATURES = (24, 48, 96, 128, 160)
PAIRS = ((0, 1, "t1", "t2"), (1, 2, "flair", "t1"), (2, 0, "random", "random"))
"""Held-out maps, moving and fixed, and their contrasts."""


class MorphVelocity(nn.Module):
    """MambaMorph (arXiv:2401.13934) whose answer is taken for a velocity."""

    def __init__(self, window: Shape) -> None:
        super().__init__()
        self.network = MambaMorph(window, embed_dim=48)

    def forward(self, pair: Tensor) -> Tensor:
        velocity = self.network(pair[:, :1], pair[:, 1:])[1]
        return velocity if self.training else displacement(velocity, pair.shape[2:])[0]


class BrainRegistration(Recipe):
    """The recipe: pairs of different maps, deformed and imaged each in its own way, on the training device.

    A pair is brought together by an affine, and a small one is left: the command registers affinely first, so that the
    network's whole capacity is for what no affine can do.

    Variants: U-Mamba with scans from its third stage on ("umamba"), the same without ("unet"), and MambaMorph
    ("mambamorph").
    """

    name = "brain-register-mr"
    schedule = Schedule(
        steps=20_000, batch_size=1, learning_rate=2e-3, warm_up=200, validate_every=500, optimiser="muon"
    )
    variants = ("umamba", "unet", "mambamorph")
    on_device = True
    window: Shape = WINDOW

    def __init__(self, data: Path, seed: int = 2410, variant: str = "") -> None:
        super().__init__(data, seed, variant)
        self._heads: dict[tuple[str, bool], LabelMapBatch] = {}
        self._maps: list[np.ndarray] = []

    def network(self) -> nn.Module:
        if self.variant == "mambamorph":
            return MorphVelocity(self.window)
        return VelocityNetwork(FEATURES, first_scan=len(FEATURES) if self.variant == "unet" else 2)

    def prepare_data(self) -> dict[str, np.ndarray]:
        return {key: one for key, one in pack(self.data).items() if not key.startswith("icbm")}

    def heads(self, device: torch.device, held_out: bool = False) -> LabelMapBatch:
        """The maps to train on, or those held out, on a device; copied there once."""
        self._maps = self._maps or unpack(self.arrays)
        key = (str(device), held_out)
        if key not in self._heads:
            part = slice(-HELD_OUT, None) if held_out else slice(None, -HELD_OUT)
            maps = [torch.from_numpy(one.copy()).to(device) for one in self._maps[part]]
            self._heads[key] = LabelMapBatch(maps, self.arrays["brain"][part], self.arrays["raw"].astype(int))
        return self._heads[key]

    def batch(self, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images (B, 2, *window) float32, moving and fixed, and their classes (B, 2, *window) uint8, on the device."""
        heads, pairs = self.heads(device), []
        for number in range(self.schedule.batch_size):
            seed = (self.seed, step, number)
            moving, fixed = np.random.default_rng(seed).choice(len(heads.maps), 2, replace=False)
            pair = self.pair(heads, (int(moving), int(fixed)), seed)
            pairs.append(align(*pair, len(INDICES), np.random.default_rng((*seed, 2))))
        images, classes = zip(*pairs, strict=True)
        return torch.cat(images), torch.cat(classes)

    def pair(
        self, heads: LabelMapBatch, maps: tuple[int, int], seed: tuple[int, ...], kinds: tuple[str, ...] = ()
    ) -> tuple[Tensor, Tensor]:
        """Two maps, each deformed and imaged, not aligned: images and classes (1, 2, *window)."""
        two = LabelMapBatch([heads.maps[n] for n in maps], heads.boxes[list(maps)], heads.raw)
        with torch.no_grad():
            images, classes = synthesise(two, seed, 2, self.window, kinds=kinds, central=True)
        return images.transpose(0, 1), classes.transpose(0, 1)

    def loss(self, output: Any, target: Any) -> Tensor:
        return registration_loss(output, target, len(INDICES))

    @torch.inference_mode()
    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Mean Dice of the structures between held-out maps, after an affine and after the network, and what folds."""
        heads = self.heads(device, held_out=True)
        before, after, folded = [], [], []
        for moving, fixed, *kinds in PAIRS:
            images, classes = self.pair(heads, (moving, fixed), (20232, moving), tuple(kinds))
            images, classes = align(images, classes, len(INDICES))
            with torch.autocast(device.type, torch.bfloat16):
                forth = network(images).float()
            moved = fields.warp(classes[:, :1].float(), forth, "nearest").to(torch.uint8)
            before.append(confusion_dice(classes[:, 0], classes[:, 1], len(INDICES)).nanmean())
            after.append(confusion_dice(moved[:, 0], classes[:, 1], len(INDICES)).nanmean())
            folded.append(fields.folded_share(forth))
        score = float(torch.stack(after).mean())
        return {"dice_before": float(torch.stack(before).mean()), "folded": float(np.mean(folded)), "score": score}
