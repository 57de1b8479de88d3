"""`adrenal-shape`: normal or hyperplastic adrenal gland from its mask, by nnMamba's classifier and shape descriptors.

Data: AdrenalMNIST3D at 64³ of MedMNIST+ (Yang et al., Scientific Data 10:41, 2023), CC BY 4.0: masks in windows of
64 mm. Network: nnMamba for classification (Gong et al., arXiv:2402.03526), beside a logistic regression over the
gland's granulometry (`napari_mamba.nn.descriptors.granulometry`). The network's input is the signed distance to the gland's
surface, which keeps the thickness of its limbs at a coarser grid and moves smoothly under deformation, in space and
within axial slices: the labels are readers' judgements, and limbs are measured in axial slices.

The official training and validation glands are cut into `FOLDS` parts; a run trains as many networks side by side, each
on all parts but its own. Their answers on the part that each has not seen are the validation score of the whole
recipe, and the networks together are the bundle. The official test glands are read by `evaluate` alone.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.nn.descriptors.granulometry import in_slices
from napari_mamba.recipes.shape.augment import distances, flip_combinations, place, warp
from napari_mamba.recipes.shape.card import BATCH
from napari_mamba.recipes.shape.stacking import DECAY, descriptors, weighed
from napari_mamba.training.baselines import small_resnet
from napari_mamba.training.linear import fit
from napari_mamba.training.recipe import Recipe, Schedule
from napari_mamba.training.scoring.classification import accuracy, auc

FILE = "adrenalmnist3d_64.npz"
WINDOW, LIMIT = 64, 8.0  # mm
GRID = 64
FOLDS = 5
NETWORK: dict[str, Any] = {
    "in_ch": 1, "channels": 16, "blocks": 1, "number_classes": 2, "hidden": 32, "dropout": 0.5, "slices": True,
    "shrink": 2,
}  # fmt: skip
CLASSES = ("normal", "hyperplasia")
SMOOTHING = 0.05


class Members(nn.Module):
    """Networks trained side by side: in training the batch is dealt out among them, otherwise each sees all of it.

    Takes (B, 1, Z, Y, X); returns logits (B, K) in training, (members, B, K) in evaluation.
    """

    def __init__(self, networks: list[nn.Module]):
        super().__init__()
        self.members: nn.ModuleList = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return torch.stack([member(x) for member in self.members])
        return torch.cat([member(part) for member, part in zip(self.members, x.chunk(len(self.members)), strict=True)])


class WithSliceAverages(nn.Module):
    """A network for comparison, with what nnMamba has before its own: distances within slices, and fewer voxels."""

    def __init__(self, trunk: nn.Module):
        super().__init__()
        self.trunk = trunk

    def forward(self, x: Tensor) -> Tensor:
        return self.trunk(F.avg_pool3d(torch.cat([x, in_slices(x)], dim=1), NETWORK["shrink"]))


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
        return Members([network(self.variant) for _ in range(FOLDS)])

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

    def export(self, weights: dict[str, Tensor], destination: Path, history: dict[str, Any]) -> Path:
        from napari_mamba.recipes.shape.bundle import export

        return export(self, weights, destination, history)

    def evaluate(self, bundle: Path | str, **options: Any) -> dict[str, Any]:
        from napari_mamba.recipes.shape.bundle import evaluate

        return evaluate(self.data, bundle, **options)


def network(variant: str) -> nn.Module:
    """One member: nnMamba with its scan in raster order or along all three axes, or a ResNet of as many parameters."""
    if variant == "resnet":
        return WithSliceAverages(small_resnet(NETWORK["in_ch"] + 1, NETWORK["number_classes"]))
    from napari_mamba import models

    return models.create("nnmamba_cls", **arguments(variant))


def arguments(variant: str) -> dict[str, Any]:
    """What builds the network of a variant of nnMamba."""
    return {**NETWORK, "order": "axis"} if variant == "nnmamba-axis" else dict(NETWORK)


def load(data: Path) -> Any:
    """The data set's arrays, by name; raises `InputError` where the file is missing or of another size."""
    path = data / FILE if data.is_dir() else data
    if not path.is_file():
        raise InputError(f"{data} holds no {FILE}: get it from MedMNIST (medmnist.com), the version of size 64")
    stored = np.load(path, allow_pickle=False)
    if "train_images" not in stored.files or stored["val_images"].shape[1:] != (WINDOW,) * 3:
        raise InputError(f"{path} is no AdrenalMNIST3D file of size 64: get {FILE} from MedMNIST")
    return stored


def glands(stored: Any, part: str) -> tuple[np.ndarray, np.ndarray]:
    """The masks (N, Z, Y, X), bool, and labels (N,) of "train", "val" or "test".

    The file does not say what its axes are, but they show: along the last one neighbouring planes are often equal, as
    where thick CT slices were cut up, so it is z; along the first one the glands come in two kinds, each the other's
    mirror image, which are the left and the right ones.
    """
    return stored[f"{part}_images"].transpose(0, 3, 2, 1) > 0, stored[f"{part}_labels"].ravel().astype(int)
