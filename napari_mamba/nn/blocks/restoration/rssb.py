"""The residual state-space block of MambaIR and MambaIR-UNet (Guo et al., arXiv:2402.15648).

Read in github.com/csguoh/MambaIR, `basicsr/archs/mambair_arch.py` and its history. Blocks take and return (B, H, W, C).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.nn.blocks.drop import DropPath
from napari_mamba.nn.mixers.images.ss2d import SS2D
from napari_mamba.nn.norms.norm import LayerNorm

SQUEEZE = 30
"""Channels per channel of the attention's bottleneck."""


class ChannelAttention(nn.Module):
    """Each channel of (B, C, H, W) times a gate computed from the channels' means (RCAN, arXiv:1807.02758)."""

    def __init__(self, dim: int, squeeze: int = SQUEEZE) -> None:
        super().__init__()
        narrow = dim // squeeze
        if not narrow:
            raise InputError(f"MambaIR's channel attention needs {squeeze} channels or more, not {dim}")
        gate = [nn.Conv2d(dim, narrow, 1), nn.ReLU(), nn.Conv2d(narrow, dim, 1), nn.Sigmoid()]
        self.attention = nn.Sequential(nn.AdaptiveAvgPool2d(1), *gate)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.attention(x)


def bottleneck_layers(dim: int, compress_ratio: int = 3) -> list[nn.Module]:
    """Two 3-convolutions through `dim // compress_ratio` channels, GELU between."""
    narrow = dim // compress_ratio
    return [nn.Conv2d(dim, narrow, 3, padding=1), nn.GELU(), nn.Conv2d(narrow, dim, 3, padding=1)]


def dilated_layers(dim: int) -> list[nn.Module]:
    """1-convolutions through half the channels, a depth-wise 3-convolution amid them and a dilated one at the end."""
    half = dim // 2
    return [
        nn.Conv2d(dim, half, 1),
        nn.Conv2d(half, half, 3, padding=1, groups=half),
        nn.GELU(),
        nn.Conv2d(half, dim, 1),
        nn.Conv2d(dim, dim, 3, padding=2, dilation=2, groups=dim),
    ]


def depthwise_layers(dim: int) -> list[nn.Module]:
    """One depth-wise 3-convolution."""
    return [nn.Conv2d(dim, dim, 3, padding=1, groups=dim)]


class CAB(nn.Module):
    """Convolutions, then channel attention, on (B, H, W, C); stored under `cab`.

    Parameters
    ----------
    dim : int
        Channels in and out.
    layers : callable
        Makes the convolutions of (B, C, H, W) for `dim` channels.
    """

    def __init__(self, dim: int, layers: Callable[[int], list[nn.Module]] = bottleneck_layers) -> None:
        super().__init__()
        self.cab = nn.Sequential(*layers(dim), ChannelAttention(dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.cab(x.movedim(-1, 1)).movedim(1, -1)


class ResidualStateSpaceBlock(nn.Module):
    """SS2D, then convolutions with channel attention, each normalised first and added to the scaled input.

    Parameters
    ----------
    dim : int
        Channels.
    drop_path : float
        Rate of stochastic depth of SS2D.
    attn_drop : float
        Dropout inside SS2D.
    d_state : int
        States per channel.
    expand : float
        Inner channels of SS2D per channel.
    layers : callable
        The convolutions, as in `CAB`.

    Raises
    ------
    InputError
        If there are fewer than 30 channels, of which the attention would leave none.

    Examples
    --------
    >>> ResidualStateSpaceBlock(60)(torch.zeros(1, 6, 5, 60)).shape
    torch.Size([1, 6, 5, 60])
    """

    def __init__(
        self,
        dim: int,
        drop_path: float = 0.0,
        attn_drop: float = 0.0,
        d_state: int = 16,
        expand: float = 2.0,
        layers: Callable[[int], list[nn.Module]] = bottleneck_layers,
    ) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = LayerNorm(dim), LayerNorm(dim)
        self.self_attention = SS2D(dim, d_state=d_state, expand=expand, dropout=attn_drop)
        self.drop_path = DropPath(drop_path)
        self.conv_blk = CAB(dim, layers)
        self.skip_scale, self.skip_scale2 = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.skip_scale + self.drop_path(self.self_attention(self.ln_1(x)))
        return x * self.skip_scale2 + self.conv_blk(self.ln_2(x))
