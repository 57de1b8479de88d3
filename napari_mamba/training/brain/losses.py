"""Soft Dice and cross-entropy over many classes of large windows, with few copies of the logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def dice_and_cross_entropy(logits: Tensor, target: Tensor, smooth: float = 20.0) -> Tensor:
    """Mean soft Dice loss of the foreground classes over the whole batch, plus cross-entropy.

    Parameters
    ----------
    logits : Tensor, shape (B, K, Z, Y, X), float32
    target : Tensor, shape (B, 1, Z, Y, X), integers below K
    smooth : float
        Voxels added to both sides of the Dice ratio, so that a sliver of a structure at the rim of a window weighs
        little.

    Returns
    -------
    Tensor
        Scalar.

    Examples
    --------
    >>> logits = torch.full((1, 2, 4, 4, 4), -50.0)
    >>> logits[:, 1] = 50
    >>> float(dice_and_cross_entropy(logits, torch.ones(1, 1, 4, 4, 4, dtype=torch.uint8)))
    0.0
    """
    classes = logits.shape[1]
    log_p = F.log_softmax(logits, 1)
    cross_entropy = F.nll_loss(log_p, target[:, 0].long())
    p = log_p.exp()
    axes = (0, 2, 3, 4)
    is_class = target == torch.arange(classes, device=target.device, dtype=target.dtype).view(1, -1, 1, 1, 1)
    shared = (p * is_class).sum(axes)
    both = p.sum(axes) + is_class.sum(axes)
    dice = (2 * shared + smooth) / (both + smooth)
    return 1 - dice[1:].mean() + cross_entropy


def confusion_dice(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    """Dice (classes - 1,) of the foreground classes of two label tensors of one shape; NaN where both lack one."""
    pairs = torch.bincount(predicted.flatten().long() * classes + target.flatten().long(), minlength=classes**2)
    table = pairs.view(classes, classes).double()
    dice = 2 * table.diagonal() / (table.sum(0) + table.sum(1))
    return dice[1:].float()
