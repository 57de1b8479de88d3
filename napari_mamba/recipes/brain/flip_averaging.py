"""What the average over the mirrored copy is worth: Dice with and without it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from napari_mamba.recipes.brain.losses import confusion_dice
from napari_mamba.recipes.brain.recipe import BrainStructures
from napari_mamba.recipes.brain.structures import INDICES, left_right_swap
from napari_mamba.recipes.brain.synthetic.synthesis import synthesise

KINDS = ("t1", "t2", "random")


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
    sides = left_right_swap()

    def dice(logits: Tensor, target: Tensor) -> float:
        return float(np.nanmean(confusion_dice(logits.argmax(1)[0], target, len(INDICES)).cpu().numpy()))

    scores = {}
    for kind, image, target in zip(KINDS, images, targets, strict=True):
        plain = network(image[None])
        mirrored = network(image[None].flip(-1)).flip(-1)[:, sides]
        scores[kind] = {"without": dice(plain, target), "with": dice(plain + mirrored, target)}
    return scores
