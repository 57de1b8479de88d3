"""What `mr-quality` answers, of what, and by which network: nnMamba for classification (arXiv:2402.03526).

Slices lie 4 mm apart at 1 mm in-plane: fine enough for noise and blur, and wide enough to hold a head, whose shading
only the whole shows.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from napari_mamba import models
from napari_mamba.recipes.quality.artefacts import ARTEFACTS
from napari_mamba.training.baselines import small_resnet

SPACING = (4.0, 1.0, 1.0)
WINDOW = (32, 192, 160)
CLASSES = ("clean", *ARTEFACTS)
NETWORK: dict[str, Any] = {
    "in_ch": 1, "channels": 16, "blocks": 1, "number_classes": len(CLASSES), "hidden": 64, "dropout": 0.1,
}  # fmt: skip


def network(variant: str) -> nn.Module:
    """nnMamba with its scan in raster order or along all three axes, or a ResNet of as many parameters."""
    if variant == "resnet":
        return small_resnet(NETWORK["in_ch"], NETWORK["number_classes"])
    return models.create("nnmamba_cls", **arguments(variant))


def arguments(variant: str) -> dict[str, Any]:
    """What builds the network of a variant of nnMamba."""
    return {**NETWORK, "order": "axis"} if variant == "nnmamba-axis" else dict(NETWORK)
