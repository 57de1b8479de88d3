"""`adrenal-shape`: normal or hyperplastic adrenal gland from its mask, by nnMamba's classifier and shape descriptors.

Data: AdrenalMNIST3D at 64³ of MedMNIST+ (Yang et al., Scientific Data 10:41, 2023), CC BY 4.0: masks in windows of
64 mm. Network: nnMamba for classification (Gong et al., arXiv:2402.03526), beside a logistic regression over the
gland's granulometry (`nn.descriptors.granulometry`). The network's input is the signed distance to the gland's surface,
which keeps the thickness of its limbs at a coarser grid and moves smoothly under deformation, in space and within axial
slices: the labels are readers' judgements, and limbs are measured in axial slices.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.recipes.shape import task
from napari_mamba.recipes.shape.augment import distances, flip_combinations, place, warp
from napari_mamba.recipes.shape.data import glands, load
from napari_mamba.recipes.shape.stacking import DECAY, descriptors, weighed
from napari_mamba.recipes.shape.task import BATCH, FOLDS, GRID, LIMIT, WINDOW
from napari_mamba.training.linear import fit
from napari_mamba.training.recipe import Recipe, Schedule
from napari_mamba.training.scoring.classification import accuracy, auc

SMOOTHING = 0.05


class AdrenalShape(Recipe):
    """Glands of an AdrenalMNIST3D file at 64³, as signed distances, through `FOLDS` networks."""

    name = "adrenal-shape"
    variants = ("nnmamba", "nnmamba-axis", "resnet")
    on_device = True
    schedule = Schedule(
        steps=4000,
        batch_size=BATCH,
        learning_rate=1.5e-3,
        weight_decay=2e-2,
        warm_up=150,
        ema=0.998,
        validate_every=250,
    )

    def prepare_data(self) -> dict[str, np.ndarray]:
        """The glands for training, then those for validation: "mask" (N, 32768) uint8, 64³ bits each, "label" (N,)."""
        parts = [glands(load(self.data), part) for part in ("train", "val")]
        masks, labels = (np.concatenate(both) for both in zip(*parts, strict=True))
        return {"mask": np.packbits(masks.reshape(len(masks), -1), axis=1), "label": labels}

    @cached_property
    def masks(self) -> np.ndarray:
        """The glands (N, Z, Y, X), uint8."""
        bits = self.arrays["mask"]
        return np.unpackbits(bits, axis=1).reshape(len(bits), WINDOW, WINDOW, WINDOW)

    @cached_property
    def fold(self) -> np.ndarray:
        """The part (N,) each gland belongs to, hyperplasia spread evenly."""
        labels, random = self.arrays["label"], np.random.default_rng(self.seed)
        folds = np.empty(len(labels), int)
        for value in (0, 1):
            rows = random.permutation(np.flatnonzero(labels == value))
            folds[rows] = np.arange(len(rows)) % FOLDS
        return folds

    @cached_property
    def _placed(self) -> dict[str, tuple[Tensor, Tensor, list[Tensor]]]:
        return {}

    def placed(self, device: torch.device) -> tuple[Tensor, Tensor, list[Tensor]]:
        """What a batch is made of, on the device.

        Returns
        -------
        distance : (N, 1, 64, 64, 64) tensor, float16
            Signed distances of every gland, in units of `LIMIT`.
        label : (N,) tensor, int64
        rows : list of tensors
            The glands that each member trains on.
        """
        if str(device) not in self._placed:
            rows = [torch.from_numpy(np.flatnonzero(self.fold != member)).to(device) for member in range(FOLDS)]
            label = torch.from_numpy(self.arrays["label"].astype(np.int64)).to(device)
            self._placed[str(device)] = distances(self.masks, LIMIT, device), label, rows
        return self._placed[str(device)]

    def network(self) -> nn.Module:
        return task.Members([task.network(self.variant) for _ in range(FOLDS)])

    def batch(self, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
        images, label, rows = self.placed(device)
        generator, size = self.generator(step, device), (self.schedule.batch_size,)
        drawn = [mine[torch.randint(len(mine), size, generator=generator, device=device)] for mine in rows]
        picks = torch.cat(drawn)
        matrix, scale, exact = place(len(picks), generator, device)
        return warp(images, picks, matrix, scale, GRID, generator, exact), label[picks]

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target, label_smoothing=SMOOTHING)

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        logits, labels = self.out_of_fold_logits(network, device, flips=1), self.arrays["label"]
        margin = logits[:, 1] - logits[:, 0]
        both = weighed(margin, self.fit_descriptors(device), labels, self.fold)
        surprise = float(F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels.astype(np.int64))))
        value = auc(labels, both)
        return {
            "auc_network": auc(labels, margin), "accuracy_network": accuracy(labels, margin > 0),
            "cross_entropy": surprise, "auc": value, "accuracy": accuracy(labels, both > 0), "score": value,
        }  # fmt: skip

    def fit_descriptors(self, device: torch.device) -> np.ndarray:
        """Logit (N,) of hyperplasia by the descriptors alone, of each gland from a fit to the other folds."""
        table, labels = self.table(device), self.arrays["label"]
        margin = np.empty(len(labels))
        for member in range(FOLDS):
            there = self.fold == member
            margin[there] = fit(table[~there], labels[~there], DECAY).margin(table[there])
        return margin

    def table(self, device: torch.device) -> np.ndarray:
        """The shape descriptors (N, K) of every gland, computed once."""
        if not hasattr(self, "_table"):
            self._table = descriptors(self.masks, device)
        return self._table

    @torch.inference_mode()
    def out_of_fold_logits(self, network: nn.Module, device: torch.device, flips: int = 2) -> np.ndarray:
        """Logits (N, 2) of every gland by the one member that has not seen it, averaged over so many mirrorings."""
        images, logits = self.placed(device)[0], np.zeros((len(self.fold), 2), np.float32)
        matrices = flip_combinations(device)[:flips]
        for member in range(FOLDS):
            rows = np.flatnonzero(self.fold == member)
            for start in range(0, len(rows), 64):
                some = torch.from_numpy(rows[start : start + 64]).to(device)
                for matrix in matrices:
                    x = warp(images, some, matrix.expand(len(some), 3, 4), torch.ones(len(some), device=device), GRID)
                    with torch.autocast(device.type, torch.bfloat16):
                        answer = network.members[member](x)  # type: ignore[index,operator,union-attr]
                    logits[some.cpu().numpy()] += answer.float().cpu().numpy() / len(matrices)
        return logits
