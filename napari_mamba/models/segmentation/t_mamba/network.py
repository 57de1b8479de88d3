"""T-Mamba: DenseVNet with a bidirectional Mamba and a Fourier branch after every dense unit (Hao et al.).

arXiv:2404.01065; read in github.com/isbrycee/T-Mamba, `lib/models/TMamba3D.py` and `TMamba2D.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.segmentation.t_mamba.mixer import GateNetwork, VimBlock
from napari_mamba.nn.blocks.tokens import Float32Module, without_autocast
from napari_mamba.nn.blocks.unets.conv_blocks import dimensional

KERNELS = (5, 3, 3)
"""Side of each level's first kernel."""

SEED = 1777777
"""With which the authors' programs for training and testing draw what no checkpoint holds."""

NOTE = (
    "The size of the input ({size}), the two thresholds and the seed are not among the weights, and the network "
    "computes with random tables that the seed draws: with another seed it computes something else."
)
UNTOLD = ("input_size", "high_freq", "low_freq", "seed")


@dataclass(frozen=True)
class Widths:
    """Sizes of the three levels.

    Attributes
    ----------
    dims : int
        Of space.
    blocks : str
        The name under which the scanning blocks are stored.
    stem : int
        Channels of each level's first convolution.
    growth, units, skips : tuple of int
        Channels of a dense unit, number of units, channels of the skip.
    by_level : bool
        Whether the levels keep different parts of the spectrum; else all keep small magnitudes.
    """

    dims: int = 3
    blocks: str = "Vim_Block"
    stem: int = 24
    growth: tuple[int, ...] = (4, 8, 16)
    units: tuple[int, ...] = (5, 10, 10)
    skips: tuple[int, ...] = (12, 24, 24)
    by_level: bool = True

    def channels(self, level: int) -> int:
        """That leave a level's dense units."""
        return self.stem + self.units[level] * self.growth[level]


def sine_positions(tokens: int, dim: int) -> Tensor:
    """Sine and cosine position table (1, tokens, dim)."""
    angles = torch.arange(tokens)[:, None] / 10000 ** (torch.arange(0, dim, 2).float() / dim)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None]


class ConvBlock(nn.Module):
    """Batch norm, ReLU, zero padding (one more voxel at the end where it is uneven), convolution."""

    def __init__(self, dims: int, channels: int, out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        total = kernel - stride
        sides = (1, total - 1) if total % 2 else (total // 2, total // 2)
        pad = dimensional("ConstantPad", dims)(sides * dims, 0.0)
        conv = dimensional("Conv", dims)(channels, out, kernel, stride=stride)
        self.conv = nn.Sequential(dimensional("BatchNorm", dims)(channels), nn.ReLU(), pad, conv)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class DenseStack(nn.Module):
    """Units that each see all that came before, each followed by a `VimBlock`."""

    def __init__(self, widths: Widths, level: int, low: float, high: float) -> None:
        super().__init__()
        growth, units, self.name = widths.growth[level], widths.units[level], widths.blocks
        self.units = nn.ModuleList(
            ConvBlock(widths.dims, widths.stem + unit * growth, growth, 3) for unit in range(units)
        )
        part = level if widths.by_level else 0
        self.add_module(self.name, nn.ModuleList(VimBlock(growth, part, low, high) for _ in range(units)))

    def forward(self, x: Tensor, *tables: Tensor | nn.Module) -> Tensor:
        for unit, block in zip(self.units, self.get_submodule(self.name).children(), strict=True):
            x = torch.cat([x, block(unit(x), *tables)], dim=1)
        return x


class Level(nn.Module):
    """Halve the sides, dense units, and a skip."""

    def __init__(self, channels: int, widths: Widths, level: int, low: float, high: float) -> None:
        super().__init__()
        self.downsample = ConvBlock(widths.dims, channels, widths.stem, KERNELS[level], stride=2)
        self.dfs = DenseStack(widths, level, low, high)
        self.skip = ConvBlock(widths.dims, widths.channels(level), widths.skips[level], 3)

    def forward(self, x: Tensor, *tables: Tensor | nn.Module) -> tuple[Tensor, Tensor]:
        x = self.dfs(self.downsample(x), *tables)
        return x, self.skip(x)


class TMamba(Float32Module):
    """T-Mamba in any number of dimensions: three levels, their skips side by side, and the classes.

    In float32 at any precision, as a threshold in it amplifies rounding. The gate networks and the weights of spectra
    are neither trained nor stored: they are drawn from a seed.
    """

    def __init__(
        self,
        widths: Widths,
        in_channels: int,
        classes: int,
        input_size: Sequence[int],
        high_freq: float,
        low_freq: float,
        seed: int,
    ) -> None:
        super().__init__()
        if any(side % 8 or side < 8 for side in input_size) or len(input_size) != widths.dims:
            raise InputError(
                f"this T-Mamba takes {widths.dims} sides that are multiples of 8 for its input_size, not "
                f"{tuple(input_size)}"
            )
        self.input_size, self.mode = tuple(input_size), "trilinear" if widths.dims == 3 else "bilinear"
        tokens = [math.prod(input_size) // 2 ** (widths.dims * level) for level in (1, 2, 3)]
        self.SpectralGatingBlocks, self.learnable_positional_embed = nn.Module(), nn.Module()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._draw_first(widths, in_channels, classes)
            for level, (growth, count) in enumerate(zip(widths.growth, tokens, strict=True)):
                table = torch.randn(4 * growth, count) * 0.02
                self.SpectralGatingBlocks.register_buffer(str(level), table, persistent=False)
            self.GateModules = nn.ModuleList(GateNetwork() for _ in widths.growth)
        for level, (growth, count) in enumerate(zip(widths.growth, tokens, strict=True)):
            positions = sine_positions(count, growth)
            self.learnable_positional_embed.register_buffer(str(level), positions, persistent=False)
        channels = [in_channels, *(widths.channels(level) for level in range(3))]
        self.dfs_blocks = nn.ModuleList(
            Level(channels[level], widths, level, low_freq, high_freq) for level in range(3)
        )
        self.out_conv = ConvBlock(widths.dims, sum(widths.skips), classes, 3)

    def _draw_first(self, widths: Widths, in_channels: int, classes: int) -> None:
        """What the authors' code draws of the seed's stream before the tables; nothing in three dimensions."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, *input_size) to logits (B, classes, *input_size).

        Raises
        ------
        InputError
            If the image has another size than the network was built for.
        """
        if tuple(x.shape[2:]) != self.input_size:
            raise InputError(
                f"this T-Mamba takes images of {self.input_size} voxels, not {tuple(x.shape[2:])}: "
                "its tables are made for one size; resample or cut the image to it"
            )
        dtype = x.dtype
        with without_autocast(x):
            x = x.to(torch.promote_types(dtype, torch.float32))
            skips = []
            for level, stage in enumerate(self.dfs_blocks):
                tables = [
                    part.get_buffer(str(level)) for part in (self.learnable_positional_embed, self.SpectralGatingBlocks)
                ]
                x, skip = stage(x, *tables, self.GateModules[level])
                skips.append(F.interpolate(skip, scale_factor=2**level, mode=self.mode) if level else skip)
            logits = self.out_conv(torch.cat(skips, dim=1))
            return F.interpolate(logits, scale_factor=2, mode=self.mode).to(dtype)
