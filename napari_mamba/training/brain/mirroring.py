"""What the average over the mirrored copy is worth: Dice with and without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from napari_mamba.training.brain.losses import confusion_dice
from napari_mamba.training.brain.structures import INDICES, LEFT_RIGHT, STRUCTURES
from napari_mamba.training.brain.synthesis import synthesise

if TYPE_CHECKING:
    from napari_mamba.training.brain.recipe import BrainStructures

KINDS = ("t1", "t2", "random")


def swapped_sides() -> list[int]:
    """For each output channel the one of the same structure on the other side.

    >>> [INDICES[swapped_sides()[INDICES.index(label)]] for label in (17, 53, 16)]
    [53, 17, 16]
    """
    return [INDICES.index(_other(label)) for label in INDICES]


def _other(label: int) -> int:
    sides = {left: right for left, right in LEFT_RIGHT.items() if left in STRUCTURES}
    return {**sides, **{right: left for left, right in sides.items()}}.get(label, label)


@torch.inference_mode()
def mirroring(recipe: BrainStructures, network: nn.Module, device: torch.device) -> dict[str, dict[str, float]]:
    """Mean Dice over structures on one window of each held-out person, each of another contrast.

    Returns
    -------
    dict
        Contrast of `KINDS` to "without" and "with" the mirrored copy, the logits of both averaged.
    """
    heads = recipe.heads(device, held_out=True)
    images, targets = synthesise(heads, (20231, 0), len(KINDS), recipe.window, kinds=KINDS, central=True)
    sides = swapped_sides()

    def dice(logits: Tensor, target: Tensor) -> float:
        return float(np.nanmean(confusion_dice(logits.argmax(1)[0], target, len(INDICES)).cpu().numpy()))

    scores = {}
    for kind, image, target in zip(KINDS, images, targets, strict=True):
        plain = network(image[None])
        mirrored = network(image[None].flip(-1)).flip(-1)[:, sides]
        scores[kind] = {"without": dice(plain, target), "with": dice(plain + mirrored, target)}
    return scores
