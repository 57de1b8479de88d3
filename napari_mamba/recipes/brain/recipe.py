"""`brain-structures-mr`: 32 brain structures in an MR of any contrast and resolution, learnt mostly from label maps.

Method: SynthSeg (Billot et al., Medical Image Analysis 86:102789, 2023; arXiv:2107.09559). Data: its 20 label maps,
Apache-2.0; the last three are held out. Where `native_mr` lies beside them, its scans are mixed in, with labels that
the shipped bundle finds in all scans of a person together (`pseudo_labels`). Network: U-Mamba Enc (Ma et al.,
arXiv:2401.04722), scans in the lower stages.
"""

from __future__ import annotations

import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_mamba.recipes.brain.data import HELD_OUT, pack, unpack
from napari_mamba.recipes.brain.losses import confusion_dice, dice_and_cross_entropy
from napari_mamba.recipes.brain.scans import unpack as unpack_scans
from napari_mamba.recipes.brain.structures import INDICES
from napari_mamba.recipes.brain.synthetic.synthesis import LabelMapBatch, Shape, synthesise
from napari_mamba.recipes.brain.task import GREY, WHITE, WINDOW, network
from napari_mamba.training.recipe import Recipe, Schedule

VALIDATED = (("t1", "t1", "t1"), ("t2", "flair", "random"), ("random", "random", "t1"))
"""Contrasts of the validation's synthetic images, one batch of the held-out maps after another."""


class BrainStructures(Recipe):
    """The recipe. Images are made on the training device from label maps that stay there.

    Variants: U-Mamba with scans in its two lowest stages ("umamba"), the same with one scan at the bottom ("bottom"),
    and a SegResNet (Myronenko, arXiv:1810.11654) of as many parameters ("segresnet").
    """

    name = "brain-structures-mr"
    schedule = Schedule(
        steps=20000, batch_size=2, learning_rate=4e-3, warm_up=150, validate_every=1000, optimiser="muon"
    )
    variants = ("umamba", "bottom", "segresnet")
    on_device = True
    window: Shape = WINDOW

    def __init__(self, data: Path, seed: int = 2410, variant: str = "") -> None:
        super().__init__(data, seed, variant)
        self._heads: dict[tuple[str, bool], LabelMapBatch] = {}

    def network(self) -> nn.Module:
        return network(self.variant)

    def prepare_data(self) -> dict[str, np.ndarray]:
        return pack(self.data)

    @cached_property
    def scans(self) -> dict[str, np.ndarray]:
        """Labelled scans as `pseudo_label` packs them; nothing where no `native_mr` is in or beside the folder.

        Of a prepared file they are read. Of a folder they are labelled now, on two CPU cores in two and a half minutes
        a scan.
        """
        if self.data.suffix == ".npz":
            return {key: one for key, one in self.arrays.items() if key.startswith("scan_")}
        folders = [root / "native_mr" for root in (self.data, self.data.parent) if (root / "native_mr").is_dir()]
        if not folders:
            return {}
        from napari_mamba import bundles
        from napari_mamba.engine import RunOptions
        from napari_mamba.recipes.brain.pseudo_labels import pseudo_label

        def report(scan: str) -> None:
            print(f"labelled {scan}", file=sys.stderr, flush=True)

        return pseudo_label(folders[0], bundles.load(self.name), RunOptions(), report)

    def save_arrays(self, destination: Path) -> Path:
        self.arrays |= self.scans
        return super().save_arrays(destination)

    @cached_property
    def _maps(self) -> list[np.ndarray]:
        return unpack(self.arrays)

    def heads(self, device: torch.device, held_out: bool = False) -> LabelMapBatch:
        """The maps to train on, or those held out, on a device; copied there once."""
        key = (str(device), held_out)
        if key not in self._heads:
            part = slice(-HELD_OUT, None) if held_out else slice(None, -HELD_OUT)
            maps = [torch.from_numpy(one.copy()).to(device) for one in self._maps[part]]
            scans = None if held_out else unpack_scans(self.scans, device)
            self._heads[key] = LabelMapBatch(maps, self.arrays["brain"][part], self.arrays["raw"].astype(int), scans)
        return self._heads[key]

    def batch(self, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images (B, 1, *window) float32 and classes (B, 1, *window) uint8, on the device."""
        with torch.no_grad():
            return synthesise(self.heads(device), (self.seed, step), self.schedule.batch_size, self.window)

    def loss(self, output: Any, target: Any) -> Tensor:
        return dice_and_cross_entropy(output.float(), target)

    @torch.inference_mode()
    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Dice on synthetic images of the held-out maps, and of grey and white matter on the ICBM T1."""
        heads, rows = self.heads(device, held_out=True), []
        scores: dict[str, float] = {}
        for number, kinds in enumerate(VALIDATED):
            images, targets = synthesise(heads, (20231, number), len(kinds), self.window, kinds=kinds, central=True)
            for image, target in zip(images, targets, strict=True):
                answer = self._answer(network, image[None], device)
                rows.append(confusion_dice(answer, target, len(INDICES)).cpu().numpy())
        kinds_of_rows = np.concatenate(VALIDATED)
        table = np.array(rows)
        scores["dice_t1"] = float(np.nanmean(table[kinds_of_rows == "t1"]))
        scores["dice_other"] = float(np.nanmean(table[kinds_of_rows != "t1"]))
        seen = ~np.isnan(table).all(axis=0)
        scores["dice_worst_structure"] = float(np.nanmean(table[:, seen], axis=0).min())
        scores["score"] = (scores["dice_t1"] + scores["dice_other"]) / 2
        if "icbm_t1" in self.arrays:
            scores |= self._icbm(network, device)
            scores["score"] = 0.7 * scores["score"] + 0.15 * (scores["icbm_grey"] + scores["icbm_white"])
        return scores

    @staticmethod
    def _answer(network: nn.Module, image: Tensor, device: torch.device) -> Tensor:
        image = image.to(device)
        with torch.autocast(device.type, torch.bfloat16):
            return network(image).argmax(1)[0]

    def _icbm(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """The template in one window, its rim cut to the multiple of 16 that the network takes."""
        t1, tissue = self.arrays["icbm_t1"], self.arrays["icbm_tissue"]
        box = tuple(slice((n % 16) // 2, (n % 16) // 2 + n // 16 * 16) for n in t1.shape)
        image = torch.from_numpy(t1[box].astype(np.float32) / 255)[None, None]
        found = self._answer(network, image, device).cpu().numpy()
        labels = np.array(INDICES)[found]
        scores = {}
        for name, members, value in (("icbm_grey", GREY, 1), ("icbm_white", WHITE, 2)):
            mine, theirs = np.isin(labels, members), tissue[box] == value
            scores[name] = float(2 * (mine & theirs).sum() / max(mine.sum() + theirs.sum(), 1))
        return scores
