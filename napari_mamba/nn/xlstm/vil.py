"""The block of Vision-LSTM (ViL): up-projection, convolution, mLSTM, gate, down-projection, in one direction.

Alkin et al., Vision-LSTM: xLSTM as Generic Vision Backbone (arXiv:2406.04303); names and initialisation are those of
github.com/NX-AI/vision-lstm. Version 1 convolves causally along the tokens and has no biases beside the gates';
version 2 convolves the map that the tokens are of, and has biases throughout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.nn.blocks.drop import DropPath
from napari_mamba.nn.blocks.tokens import Float32Module, from_tokens, to_tokens, without_autocast
from napari_mamba.nn.xlstm.mlstm import MLSTMCell, ResidualNorm


class Headwise(nn.Module):
    """A linear layer for each group of a few channels."""

    def __init__(self, dim: int, size: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim // size, size, size).normal_(std=math.sqrt(2 / 5 / size)))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("...hd,hod->...ho", x.unflatten(-1, self.weight.shape[:2]), self.weight).flatten(-2)
        return y if self.bias is None else y + self.bias


class CausalConv(nn.Module):
    """Depth-wise convolution along the tokens that never looks ahead; stored under `conv`."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, dim, kernel, padding=kernel - 1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)


class ViLLayer(Float32Module):
    """Tokens through an mLSTM, in float32.

    Parameters
    ----------
    dim : int
        Channels of the tokens.
    backwards : bool
        From the last token to the first.
    version : {1, 2}
        Of Vision-LSTM.
    expansion : int
        Inner channels over `dim`.
    block_size : int
        Channels that a query's, key's or value's projection mixes, and the number of heads of the mLSTM, as published.
    proj_bias, norm_bias : bool
        Version 2's biases of the projections and of the norm.
    conv_kind : {"2d", "causal1d"}
        Version 2's convolution: of the map, or along the tokens, never ahead.
    """

    def __init__(
        self,
        dim: int,
        backwards: bool = False,
        version: int = 1,
        expansion: int = 2,
        block_size: int = 4,
        proj_bias: bool = True,
        norm_bias: bool = True,
        conv_kind: str = "2d",
    ) -> None:
        super().__init__()
        inner, bias = expansion * dim, version == 2 and proj_bias
        if conv_kind not in ("2d", "causal1d"):
            raise InputError(f'conv_kind must be "2d" or "causal1d", not {conv_kind!r}')
        if inner % block_size:
            raise InputError(f"an mLSTM of {inner} channels does not divide into blocks of {block_size}")
        self.backwards = backwards
        self.learnable_skip = nn.Parameter(torch.ones(inner))
        self.proj_up = nn.Linear(dim, 2 * inner, bias=bias)
        self.q_proj, self.k_proj, self.v_proj = (Headwise(inner, block_size, bias) for _ in range(3))
        if version == 1:
            self.conv1d = CausalConv(inner, 4)
        elif conv_kind == "causal1d":
            self.conv: nn.Module = CausalConv(inner, 3)
        else:
            self.conv = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.mlstm_cell = MLSTMCell(inner, block_size, norm_bias=version == 2 and norm_bias)
        self.proj_down = nn.Linear(inner, dim, bias=bias)

    def forward(self, x: Tensor, size: Sequence[int] = ()) -> Tensor:
        """(B, L, dim) to (B, L, dim); version 2 needs the map's `size`, whose product is L."""
        dtype = x.dtype
        with without_autocast(x):
            x = x.to(self.proj_up.weight.dtype)
            x = x.flip(1) if self.backwards else x
            u, z = self.proj_up(x).chunk(2, dim=-1)
            near = F.silu(self._near(u, size))
            y = self.mlstm_cell(self.q_proj(near), self.k_proj(near), self.v_proj(u))
            y = self.proj_down((y + self.learnable_skip * near) * F.silu(z))
            return (y.flip(1) if self.backwards else y).to(dtype)

    def _near(self, u: Tensor, size: Sequence[int]) -> Tensor:
        """The tokens convolved with those near them."""
        conv = self.conv if hasattr(self, "conv") else self.conv1d
        return conv(u) if isinstance(conv, CausalConv) else to_tokens(conv(from_tokens(u, size)))


class ViLBlock(nn.Module):
    """`ViLLayer` of the normalised tokens, added to them.

    Examples
    --------
    >>> ViLBlock(16)(torch.zeros(1, 20, 16)).shape
    torch.Size([1, 20, 16])
    """

    def __init__(
        self,
        dim: int,
        backwards: bool = False,
        version: int = 1,
        block_size: int = 4,
        drop_path: float = 0.0,
        norm_bias: bool = True,
        **layer: Any,
    ) -> None:
        super().__init__()
        self.norm = ResidualNorm(dim, bias=version == 2 and norm_bias)
        self.layer = ViLLayer(dim, backwards, version, block_size=block_size, norm_bias=norm_bias, **layer)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, size: Sequence[int] = ()) -> Tensor:
        return x + self.drop_path(self.layer(self.norm(x), size))
