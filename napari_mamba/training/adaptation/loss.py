"""Cross-entropy and Dice over the voxels whose class is known.

Partial cross-entropy: Tang et al., Normalized cut loss for weakly-supervised CNN segmentation (CVPR 2018,
arXiv:1804.01346). Classes that nobody drew count as background where background was drawn: Shi et al., Marginal loss
and exclusion loss for partially supervised multi-organ segmentation (Medical Image Analysis 70, 2021,
arXiv:2007.03868).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

UNKNOWN = -1
"""The channel of a voxel that nobody painted."""


def partial_loss(logits: Tensor, target: Tensor, drawn: Sequence[bool], smooth: float = 1.0) -> Tensor:
    """Cross-entropy plus one minus the soft Dice, over known voxels alone.

    Parameters
    ----------
    logits : (B, K, *spatial) tensor
    target : (B, *spatial) tensor of int64
        Channels, `UNKNOWN` where nobody painted: such voxels have no part in the loss and no gradient.
    drawn : sequence of bool
        One a channel. Where background is drawn, the background or any class that is not drawn anywhere may be right.
    smooth : float
        Added to both sides of the Dice's fraction, in voxels.

    Returns
    -------
    Tensor
        A number; 0 where nothing is known.

    Examples
    --------
    >>> logits = torch.tensor([[[9.0, -9.0], [-9.0, 9.0]]])
    >>> float(partial_loss(logits, torch.tensor([[0, -1]]), [True, True])) < 0.01
    True
    """
    logp = _marginal(F.log_softmax(logits.float(), dim=1), drawn)
    known = target != UNKNOWN
    channels = [channel for channel, is_drawn in enumerate(drawn) if is_drawn and channel]
    p = logp[:, channels].exp() * known[:, None]
    truth = torch.stack([target == channel for channel in channels], dim=1).to(p.dtype)
    axes = (0, *range(2, p.ndim))
    dice = (2 * (p * truth).sum(axes) + smooth) / (p.sum(axes) + truth.sum(axes) + smooth)
    return _entropy(logp, target, known) + torch.where(known.any(), 1 - dice.mean(), 0.0)


def partial_cross_entropy(logits: Tensor, target: Tensor, drawn: Sequence[bool]) -> Tensor:
    """The cross-entropy of `partial_loss` alone, a mean over known voxels."""
    return _entropy(_marginal(F.log_softmax(logits.float(), dim=1), drawn), target, target != UNKNOWN)


def _entropy(logp: Tensor, target: Tensor, known: Tensor) -> Tensor:
    picked = logp.gather(1, target.clamp(min=0)[:, None])[:, 0]
    return -torch.where(known, picked, 0.0).sum() / known.sum().clamp(min=1)


def _marginal(logp: Tensor, drawn: Sequence[bool]) -> Tensor:
    """Log-probabilities whose background is "background, or a class that nobody drew"."""
    merged = [0, *(channel for channel, is_drawn in enumerate(drawn) if channel and not is_drawn)]
    if len(merged) == 1:
        return logp
    return torch.cat([logp[:, merged].logsumexp(1, keepdim=True), logp[:, 1:]], dim=1)
