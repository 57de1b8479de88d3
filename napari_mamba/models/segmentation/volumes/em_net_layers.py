"""EM-Net's layers: scans of a map with convolutions after them, and filters of its spectrum.

Read in github.com/zang0902/EM-Net, `models/em_net_model.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_mamba.nn.blocks.tokens import Float32Module, from_tokens, to_tokens, without_autocast
from napari_mamba.nn.blocks.unets.conv_blocks import ResidualBlock
from napari_mamba.nn.blocks.unets.unetr import UnetrConvBlock
from napari_mamba.nn.mixers.multipath import MultiPathMamba
from napari_mamba.nn.norms.norm import LayerNorm
from napari_mamba.scan import placed, scan_order

Size = tuple[int, ...]


class MlpChannel(nn.Module):
    """Perceptron over the channels of a map."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Conv3d(dim, hidden, 1), nn.GELU(), nn.Conv3d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class MambaLayer(nn.Module):
    """One mixer over the tokens, both ways, and again over a perceptron of them; then a residual of convolutions.

    Until 13 December 2024 the perceptron's branch was not scanned, with the same keys: `spatial_mamba=False`.
    """

    widened = 1
    """Maps side by side that enter the convolutions."""

    def __init__(self, dim: int, grid: Size, spatial_mamba: bool) -> None:
        super().__init__()
        self.spatial_mamba = spatial_mamba
        self.norm, self.norm1, self.norm2 = LayerNorm(dim), LayerNorm(dim), LayerNorm(dim)
        self.mamba = MultiPathMamba(dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, torch.Size(grid).numel(), dim))
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6))
        self.mlp = MlpChannel(dim, dim // 4)
        self.conv51 = UnetrConvBlock(3, self.widened * dim, dim, 3, "batch")
        self.conv8 = nn.Sequential(nn.Dropout3d(0.1), nn.Conv3d(dim, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        out = self.scanned(x)
        return out + self.conv8(self.conv51(out))

    def scanned(self, x: Tensor) -> Tensor:
        """The map with what both branches add."""
        size = tuple(x.shape[2:])
        tokens = to_tokens(x) + self.pos_embed
        rows = self.norm(tokens)
        beside = to_tokens(self.mlp(from_tokens(rows, size)))
        both = self.norm1(self._mix(rows, size))
        both = both + self.norm2(self._mix(beside, size) if self.spatial_mamba else beside)
        return from_tokens(tokens + self.gamma * both, size)

    def _mix(self, rows: Tensor, size: Size) -> Tensor:
        with placed(lambda: (size, None)):
            return self.mamba(rows, scan_order("bidirectional", (rows.shape[1],)))


class MambaConvLayer(MambaLayer):
    """`MambaLayer` beside a residual of convolutions, whose branch of a perceptron is never scanned."""

    widened = 2

    def __init__(self, dim: int, grid: Size, spatial_mamba: bool) -> None:
        super().__init__(dim, grid, spatial_mamba=False)
        self.res_block = ResidualBlock(dim, dim, (3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv51(torch.cat([self.scanned(x), self.res_block(x)], dim=1))
        return out + self.conv8(out)


class SpectralFilter(Float32Module):
    """Multiplies the spectrum of a map, channel by channel, by learned weights; in float32."""

    def __init__(self, dim: int, grid: Size) -> None:
        super().__init__()
        self.complex_weight = nn.Parameter(0.02 * torch.randn(dim, *grid[:2], grid[2] // 2 + 1, 2))

    def forward(self, x: Tensor) -> Tensor:
        with without_autocast(x):
            axes = (2, 3, 4)
            spectrum = torch.fft.rfftn(x.to(self.complex_weight.dtype), dim=axes, norm="ortho")
            spectrum = spectrum * torch.view_as_complex(self.complex_weight)
            return torch.fft.irfftn(spectrum, s=x.shape[2:], dim=axes, norm="ortho").to(x.dtype)


class SpectralLayer(nn.Module):
    """Filters the normalised map and adds a perceptron of it.

    As published the normalised tokens (B, L, C) are read as (B, C, *size) without a transposition, and the result's
    last two axes are exchanged.
    """

    def __init__(self, dim: int, grid: Size) -> None:
        super().__init__()
        self.norm1, self.norm2 = LayerNorm(dim), LayerNorm(dim)
        self.mlp = MlpChannel(dim, dim // 2)
        self.ffp_module = SpectralFilter(dim, grid)

    def forward(self, x: Tensor) -> Tensor:
        size = tuple(x.shape[2:])
        scrambled = self.norm1(to_tokens(x)).reshape(x.shape)
        filtered = self.norm2(to_tokens(self.ffp_module(scrambled)))
        y = x + self.mlp(from_tokens(filtered, size))
        return y.transpose(-1, -2).reshape(x.shape)
