"""Soft Dice and cross-entropy where not every organ was drawn in every patient.

What nobody drew is not absent: its class and the background are one there, as in the marginal loss of Shi et al.,
Marginal loss and exclusion loss for partially supervised multi-organ segmentation (Medical Image Analysis 70, 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def partial_dice_and_cross_entropy(logits: Tensor, target: Tensor, drawn: Tensor, smooth: float = 20.0) -> Tensor:
    """Mean soft Dice loss of the drawn classes over the batch, plus cross-entropy.

    Parameters
    ----------
    logits : (B, K, Z, Y, X) float32 tensor
    target : (B, 1, Z, Y, X) tensor of integers
        0 is the background, and what is in an organ that nobody drew.
    drawn : (B, K) bool tensor
        Which classes a sample's labels hold where the patient has them; the background's entry is not looked at.
    smooth : float
        Voxels added to both sides of the Dice ratio.

    Examples
    --------
    >>> logits = torch.zeros(1, 3, 1, 1, 2)
    >>> logits[:, 2] = 50  # sure of an organ that nobody drew: right as far as one knows
    >>> float(partial_dice_and_cross_entropy(logits, torch.zeros(1, 1, 1, 1, 2), torch.tensor([[True, True, False]])))
    0.0
    """
    drawn = drawn.clone()
    drawn[:, 0] = True
    chance = F.log_softmax(logits.flatten(2), 1)
    hidden = chance.masked_fill(drawn[:, :, None], float("-inf"))
    background = torch.logsumexp(torch.cat([chance[:, :1], hidden[:, 1:]], 1), 1, keepdim=True)
    chance = torch.cat([background, chance[:, 1:]], 1)
    index = target.flatten(2).long()
    cross_entropy = -chance.gather(1, index).mean()
    truth = torch.zeros_like(chance).scatter_(1, index, 1.0)
    counted = drawn[:, 1:, None].float()
    soft = chance[:, 1:].exp() * counted
    shared = (soft * truth[:, 1:]).sum((0, 2))
    both = (soft + truth[:, 1:] * counted).sum((0, 2))
    present = drawn[:, 1:].any(0)
    dice = (2 * shared + smooth) / (both + smooth)
    return 1 - (dice * present).sum() / present.sum().clamp(min=1) + cross_entropy
