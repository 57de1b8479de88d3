"""Normalisations that stay in float32 whatever the precision around them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.nn.blocks.tokens import Float32Module


def at_least_float32(x: Tensor) -> Tensor:
    """`x`, raised to float32 if it is narrower; float64 stays."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


class LayerNorm(Float32Module, nn.LayerNorm):
    """Layer normalisation over the channels, in float32.

    Half precision overflows in the variance of a state-space output (the NaN most reported of U-Mamba), so the
    statistics are float32 and only the result returns to the input's type.

    Parameters
    ----------
    dim : int
        Number of channels.
    eps : float
        Added to the variance.
    channels_first : bool
        True for (B, C, *spatial), False for (B, *spatial, C).

    Examples
    --------
    >>> LayerNorm(8, channels_first=True)(torch.zeros(1, 8, 4, 4)).shape
    torch.Size([1, 8, 4, 4])
    """

    def __init__(self, dim: int, eps: float = 1e-5, channels_first: bool = False) -> None:
        super().__init__(dim, eps=eps)
        self.channels_first = channels_first

    def forward(self, x: Tensor) -> Tensor:
        rows = x.movedim(1, -1) if self.channels_first else x
        rows = F.layer_norm(at_least_float32(rows), self.normalized_shape, self.weight, self.bias, self.eps)
        rows = rows.to(x.dtype)
        return rows.movedim(-1, 1) if self.channels_first else rows


class RMSNorm(Float32Module):
    """Root-mean-square normalisation over the last axis, in float32 (Zhang and Sennrich, arXiv:1910.07467).

    Parameters
    ----------
    dim : int
        Number of channels.
    eps : float
        Added to the mean square.
    """

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        wide = at_least_float32(x)
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * self.weight).to(x.dtype)
