"""Loss of partial labels: a voxel that may be one of several classes asks only that these together be likely.

The marginal loss of Shi et al. (Medical Image Analysis 70, 2021, arXiv:2007.03868): where the cavity alone was drawn, a
voxel outside is background or wall, and the sum of their probabilities counts; where nothing was drawn, nothing does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from napari_mamba.recipes.heart import task


def partial_loss(logits: Tensor, codes: Tensor) -> Tensor:
    """Marginal cross-entropy plus the cavity's and the wall's soft Dice loss, over what is known.

    Parameters
    ----------
    logits : Tensor, shape (B, 3, *spatial), float32
    codes : Tensor, shape (B, 1, *spatial)
        Codes of `task`, in any dtype.

    Returns
    -------
    Tensor
        A scalar.

    Examples
    --------
    >>> logits = torch.tensor([[[[5.0]], [[-5.0]], [[5.0]]]])
    >>> bool(partial_loss(logits, torch.full((1, 1, 1, 1), 3.0)) < 1e-3)  # background or wall, surely no cavity
    True
    """
    log = torch.log_softmax(logits, dim=1)
    code = codes[:, 0]
    of = {
        task.BACKGROUND: log[:, 0],
        task.CAVITY: log[:, 1],
        task.WALL: log[:, 2],
        task.NOT_CAVITY: torch.logaddexp(log[:, 0], log[:, 2]),
    }
    entropy = -torch.stack([torch.where(code == number, value, 0.0) for number, value in of.items()]).sum(0)
    known = (code != task.UNKNOWN).float()
    probable = log.exp()
    return (
        entropy.sum() / known.sum().clamp(min=1)
        + soft_dice_loss(probable[:, 1], (code == task.CAVITY).float(), known)
        + 0.5 * soft_dice_loss(probable[:, 2], (code == task.WALL).float(), wall_drawn(code))
    )


def wall_drawn(code: Tensor) -> Tensor:
    """1 on the slices (the last two axes) on which the wall was drawn, and of which every voxel is known."""
    drawn = (code == task.WALL).any(dim=-1, keepdim=True).any(dim=-2, keepdim=True)
    return (drawn & (code != task.UNKNOWN) & (code != task.NOT_CAVITY)).float()


def soft_dice_loss(probable: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """One minus the soft Dice over what is known: of each sample that has any of it, and of the batch as a whole."""
    both, either = probable * truth * known, (probable + truth) * known
    axes = tuple(range(1, probable.ndim))
    there = ((truth * known).sum(axes) > 0).float()
    each = 1 - (2 * both.sum(axes) + 1) / (either.sum(axes) + 1)
    whole = 1 - (2 * both.sum() + 1) / (either.sum() + 1)
    return 0.5 * (each * there).sum() / there.sum().clamp(min=1) + 0.5 * whole * (there.sum() > 0).float()
