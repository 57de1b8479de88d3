"""Soft Dice and cross-entropy over many classes of large windows, with few copies of the logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CLASS_BLOCK = 512
"""Sums kept beside each other of one class, so that threads of a GPU seldom wait for one address."""


def dice_and_cross_entropy(logits: Tensor, target: Tensor, smooth: float = 20.0) -> Tensor:
    """Mean soft Dice loss of the foreground classes over the whole batch, plus cross-entropy.

    Parameters
    ----------
    logits : Tensor, shape (B, K, Z, Y, X), float32 or float64
    target : Tensor, shape (B, 1, Z, Y, X), integers below K
    smooth : float
        Voxels added to both sides of the Dice ratio, so that a sliver of a structure at the rim of a window weighs
        little.

    Returns
    -------
    Tensor
        Scalar; it can be differentiated once.

    Examples
    --------
    >>> logits = torch.full((1, 2, 4, 4, 4), -50.0)
    >>> logits[:, 1] = 50
    >>> float(dice_and_cross_entropy(logits, torch.ones(1, 1, 4, 4, 4, dtype=torch.uint8)))
    0.0
    """
    return _DiceAndCrossEntropy.apply(logits.flatten(2), target.flatten(2).long(), smooth)


class _DiceAndCrossEntropy(torch.autograd.Function):
    """The gradient in closed form: autograd would read and write maps of all the classes twice as often."""

    @staticmethod
    def forward(ctx, logits: Tensor, target: Tensor, smooth: float) -> Tensor:
        chance = F.log_softmax(logits, 1)
        cross_entropy = -chance.gather(1, target).mean()
        chance = chance.exp_()
        right = chance.gather(1, target)
        shared, truth = (_by_class(one, target, chance.shape[1]) for one in (right, torch.ones_like(right)))
        both = chance.sum((0, 2)) + truth + smooth
        dice = (2 * shared + smooth) / both
        ctx.save_for_backward(chance, right, target, dice, both)
        return 1 - dice[1:].mean() + cross_entropy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        chance, right, target, dice, both = ctx.saved_tensors
        voxels = target.numel()
        # Of the Dice loss by a chance: `everywhere`, and where the class is right `there` as well.
        share = torch.full_like(dice, 1 / (len(dice) - 1))
        share[0] = 0
        everywhere, there = grad * share * dice / both, -2 * grad * share / both
        here = right * there[target]
        mean = everywhere @ chance + here[:, 0]  # the softmax takes away what all the logits of a voxel share
        gradient = (everywhere + grad / voxels).view(1, -1, 1) - mean[:, None]
        gradient = gradient.mul_(chance).scatter_add_(1, target, here - grad / voxels)
        return gradient, None, None


def _by_class(values: Tensor, target: Tensor, classes: int) -> Tensor:
    """Sum of the values (B, 1, V) over the voxels of each class, (classes,)."""
    lane = torch.arange(target.shape[-1], device=target.device) % CLASS_BLOCK
    sums = values.new_zeros(classes * CLASS_BLOCK)
    return (
        sums.scatter_add_(0, (target * CLASS_BLOCK + lane).flatten(), values.flatten())
        .view(classes, CLASS_BLOCK)
        .sum(1)
    )


def confusion_dice(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    """Dice (classes - 1,) of the foreground classes of two label tensors of one shape; NaN where both lack one."""
    pairs = torch.bincount(predicted.flatten().long() * classes + target.flatten().long(), minlength=classes**2)
    table = pairs.view(classes, classes).double()
    dice = 2 * table.diagonal() / (table.sum(0) + table.sum(1))
    return dice[1:].float()
