"""What `adrenal-shape` answers, and by which networks: nnMamba for classification (Gong et al., arXiv:2402.03526)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba import models
from napari_mamba.nn.descriptors.granulometry import in_slices
from napari_mamba.training.baselines import small_resnet

WINDOW, LIMIT = 64, 8.0  # mm
GRID = 64
FOLDS = 5
NETWORK: dict[str, Any] = {
    "in_ch": 1, "channels": 16, "blocks": 1, "number_classes": 2, "hidden": 32, "dropout": 0.5, "slices": True,
    "shrink": 2,
}  # fmt: skip
CLASSES = ("normal", "hyperplasia")
BATCH = 16
"""Glands a step of each member."""


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


def network(variant: str) -> nn.Module:
    """One member: nnMamba with its scan in raster order or along all three axes, or a ResNet of as many parameters."""
    if variant == "resnet":
        return WithSliceAverages(small_resnet(NETWORK["in_ch"] + 1, NETWORK["number_classes"]))
    return models.create("nnmamba_cls", **arguments(variant))


def arguments(variant: str) -> dict[str, Any]:
    """What builds the network of a variant of nnMamba."""
    return {**NETWORK, "order": "axis"} if variant == "nnmamba-axis" else dict(NETWORK)
