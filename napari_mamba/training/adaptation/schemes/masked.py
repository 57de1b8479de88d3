"""Learning from images alone: parts are hidden, and the network paints them.

Tang et al., MambaMIM: Pre-training Mamba with state space token interpolation (Medical Image Analysis,
arXiv:2408.08070), whose masks and loss these are: 60% of the blocks, squared error on what was hidden. Its network
skips hidden blocks by sparse convolutions and fills states between them; here hidden voxels hold the patch's mean, as
in SimMIM (Xie et al., CVPR 2022, arXiv:2111.09886), so that any network of the registry can learn so.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

HIDDEN = 0.6


def hide(image: Tensor, draw: Generator, share: float = HIDDEN) -> tuple[Tensor, Tensor, Tensor]:
    """What the network sees, what it should answer, and where it is asked.

    Parameters
    ----------
    image : (B, C, *spatial) tensor
    draw : Generator
        On the CPU.
    share : float
        Of the blocks that are hidden; a block has up to 8 voxels a side.

    Returns
    -------
    shown, whole : (B, C, *spatial) tensors
        Standardised by each sample's and channel's mean and standard deviation; hidden voxels of `shown` are 0.
    hidden : (B, 1, *spatial) bool tensor
    """
    axes = tuple(range(2, image.ndim))
    whole = (image - image.mean(axes, keepdim=True)) / image.std(axes, keepdim=True).clamp(min=1e-6)
    hidden = blocks(len(image), image.shape[2:], draw, share).to(image.device)
    return torch.where(hidden, 0.0, whole), whole, hidden


def blocks(count: int, size: Sequence[int], draw: Generator, share: float) -> Tensor:
    """Where (count, 1, *size) blocks are hidden: the same number of blocks in each sample."""
    side = [max(1, min(8, n // 4)) for n in size]
    grid = [-(-n // s) for n, s in zip(size, side, strict=True)]
    total = torch.Size(grid).numel()
    order = torch.rand(count, total, generator=draw).argsort(1)
    hidden = torch.zeros(count, total, dtype=torch.bool).scatter_(1, order[:, : round(share * total)], True)
    hidden = hidden.view(count, 1, *grid)
    for axis, s in enumerate(side):
        hidden = hidden.repeat_interleave(s, axis + 2)
    return hidden[(slice(None), slice(None), *(slice(0, n) for n in size))]


def masked_loss(answer: Tensor, whole: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error of hidden voxels; answer (B, C, *spatial) paints every channel."""
    there = hidden.expand_as(whole)
    error = F.mse_loss(answer.float(), whole.float(), reduction="none")
    return torch.where(there, error, 0.0).sum() / there.sum().clamp(min=1)
