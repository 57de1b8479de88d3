"""T-Mamba: DenseVNet with a bidirectional Mamba and a Fourier branch after every dense unit (Hao et al.).

arXiv:2404.01065; read in github.com/isbrycee/T-Mamba, `lib/models/TMamba3D.py` and its fork of mamba_ssm,
`mamba_simple_fft.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import has
from napari_mamba.nn.blocks.tokens import Float32Module, from_tokens, to_tokens, without_autocast
from napari_mamba.nn.mixers.exchange import PathMixers
from napari_mamba.nn.mixers.multipath import MultiPathMamba
from napari_mamba.nn.mixers.selective import project_and_scan
from napari_mamba.nn.norms.norm import RMSNorm
from napari_mamba.scan import causal_conv1d, scan_order

GROWTH, UNITS, SKIPS, KERNELS = (4, 8, 16), (5, 10, 10), (12, 24, 24), (5, 3, 3)
"""Of each of the three levels: channels of a dense unit, number of units, channels of the skip, first kernel."""

STEM, POOLED = 24, 2048
"""Channels of each level's first convolution; tokens to which the gate network averages."""

SEED = 1777777
"""With which the authors' programs for training and testing draw what no checkpoint holds."""


def sine_positions(tokens: int, dim: int) -> Tensor:
    """Sine and cosine position table (1, tokens, dim)."""
    angles = torch.arange(tokens)[:, None] / 10000 ** (torch.arange(0, dim, 2).float() / dim)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None]


class UnsavedLinear(nn.Module):
    """A linear layer that is neither trained nor stored."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        drawn = nn.Linear(channels, out)
        self.register_buffer("weight", drawn.weight.detach(), persistent=False)
        self.register_buffer("bias", drawn.bias.detach(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.get_buffer("weight"), self.get_buffer("bias"))


class GateNetwork(nn.ModuleList):
    """Averages the tokens to 2,048 and maps each channel's to 128 numbers; neither trained nor stored."""

    def __init__(self) -> None:
        super().__init__(UnsavedLinear(*sizes) for sizes in ((POOLED, 512), (512, 256), (256, 128)))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L, C) to (B, 128 C)."""
        x = F.adaptive_avg_pool1d(tokens.transpose(1, 2), POOLED)
        for layer in self:
            x = F.elu(layer(x))
        return x.flatten(1)


class FourierMamba(MultiPathMamba):
    """Mamba both ways and a filtered spectrum, each weighed by a score of the gate network.

    `fft_conv` is stored and never used.
    """

    def __init__(self, dim: int, level: int, low: float, high: float) -> None:
        super().__init__(dim)
        self.level, self.low, self.high = level, low, high
        self.fft_conv = nn.Conv1d(2 * self.d_inner, 2 * self.d_inner, 5, padding=2)
        self.gate_mapping = nn.Linear(128 * dim, 3)

    def replace_mixer(self, name: str) -> None:
        self.exchanged = PathMixers(name, self.d_inner, len(self.paths), d_state=16, expand=1)
        parts = [f"{part}{path}" for path in self.paths for part in ("conv1d", "x_proj", "dt_proj", "D")]
        self.remove_modules(*parts, *(f"A{path}_log" for path in self.paths))

    def both_ways(self, u: Tensor, z: Tensor) -> Tensor:
        """The gated outputs (B, 2, L, D) of both directions."""
        order = scan_order("bidirectional", (u.shape[1],))
        if self.exchanged is not None:
            paths = zip(self.exchanged.mixers, order.tensor(u.device).split(1), strict=True)
            return torch.stack([mix(u, path) for mix, path in paths], dim=1) * F.silu(z)[:, None]
        u = causal_conv1d(u, self._stack("conv1d{}.weight").squeeze(2), self._stack("conv1d{}.bias"), order)
        names = ("x_proj{}.weight", "dt_proj{}.weight", "dt_proj{}.bias", "A{}_log", "D{}")
        return project_and_scan(u, *map(self._stack, names), order, z=z, merge="none")

    def kept(self, size: Tensor) -> Tensor:
        """Which magnitudes of the spectrum are kept: small ones, those between, large ones, by level."""
        if self.level == 0:
            return size < self.low
        return (size > self.low) & (size < self.high) if self.level == 1 else size > self.high

    def spectrum(self, u: Tensor, z: Tensor, table: Tensor) -> Tensor:
        """The Fourier branch of (B, L, D)."""
        spectrum = torch.fft.fftn(u.transpose(1, 2).contiguous(), dim=(1, 2))
        parts = F.silu(torch.cat([spectrum.real, spectrum.imag], dim=1) * table)
        spectrum = torch.complex(*parts.chunk(2, dim=1))
        y = torch.fft.ifftn(spectrum * self.kept(spectrum.abs()), dim=(1, 2))
        y = (y * F.silu(z).amax(dim=1)[..., None]).abs()
        return F.layer_norm(y, y.shape[-1:]).transpose(1, 2)

    def forward(self, x: Tensor, table: Tensor, gate: nn.Module) -> Tensor:  # type: ignore[override]
        """(B, L, C) to the same shape."""
        u, z = self.in_proj(x).chunk(2, dim=-1)
        forward, backward = self.both_ways(u, z).unbind(1)
        scores = self.gate_mapping(gate(x))[:, :, None, None].unbind(1)
        branches = (forward, backward, self.spectrum(u, z, table))
        return self.out_proj(torch.stack([s * y for s, y in zip(scores, branches, strict=True)]).sum(0))


class VimBlock(nn.Module):
    """Position table, norm, mixer, position table again, and the input."""

    def __init__(self, dim: int, level: int, low: float, high: float) -> None:
        super().__init__()
        self.mixer = FourierMamba(dim, level, low, high)
        self.norm = RMSNorm(dim)

    def forward(self, x: Tensor, positions: Tensor, table: Tensor, gate: nn.Module) -> Tensor:
        tokens = to_tokens(x)
        y = self.mixer(self.norm(tokens + positions), table, gate)
        return from_tokens(y + positions + tokens, x.shape[2:])


class ConvBlock(nn.Module):
    """Batch norm, ReLU, zero padding (one more voxel at the end where it is uneven), convolution."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        total = kernel - stride
        sides = (1, total - 1) if total % 2 else (total // 2, total // 2)
        pad = nn.ConstantPad3d(sides * 3, 0.0)
        self.conv = nn.Sequential(
            nn.BatchNorm3d(channels), nn.ReLU(), pad, nn.Conv3d(channels, out, kernel, stride=stride)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class DenseStack(nn.Module):
    """Units that each see all that came before, each followed by a `VimBlock`."""

    def __init__(self, channels: int, level: int, low: float, high: float) -> None:
        super().__init__()
        growth, units = GROWTH[level], UNITS[level]
        self.units = nn.ModuleList(ConvBlock(channels + unit * growth, growth, 3) for unit in range(units))
        self.Vim_Block = nn.ModuleList(VimBlock(growth, level, low, high) for _ in range(units))

    def forward(self, x: Tensor, *tables: Tensor | nn.Module) -> Tensor:
        for unit, block in zip(self.units, self.Vim_Block, strict=True):
            x = torch.cat([x, block(unit(x), *tables)], dim=1)
        return x


class Level(nn.Module):
    """Halve the volume, dense units, and a skip."""

    def __init__(self, channels: int, level: int, low: float, high: float) -> None:
        super().__init__()
        self.downsample = ConvBlock(channels, STEM, KERNELS[level], stride=2)
        self.dfs = DenseStack(STEM, level, low, high)
        self.skip = ConvBlock(STEM + UNITS[level] * GROWTH[level], SKIPS[level], 3)

    def forward(self, x: Tensor, *tables: Tensor | nn.Module) -> tuple[Tensor, Tensor]:
        x = self.dfs(self.downsample(x), *tables)
        return x, self.skip(x)


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a three-dimensional T-Mamba state_dict by its Fourier branches."""
    mixer = "dfs_blocks.0.dfs.Vim_Block.0.mixer."
    first = "dfs_blocks.0.downsample.conv.3.weight"
    if not has(shapes, f"{mixer}gate_mapping.weight", f"{mixer}fft_conv.weight", first, "out_conv.conv.3.weight"):
        return None
    if len(shapes[first]) != 5:
        return None
    return Identification(
        "t_mamba_3d",
        arguments={"in_channels": shapes[first][1], "classes": shapes["out_conv.conv.3.weight"][0]},
        ambiguous=("input_size", "high_freq", "low_freq", "seed"),
        note="The size of the input (crop_size), the two thresholds and the seed are not among the weights, and the "
        "network computes with random tables that the seed draws: with another seed it computes something else.",
    )


@register(
    name="t_mamba_3d",
    title="T-Mamba (3D)",
    task="segmentation",
    spatial_dims=(3,),
    paper="arXiv:2404.01065",
    repository="github.com/isbrycee/T-Mamba",
    licence="MIT",
    scan_order="bidirectional",
    vectors={"TMamba3D": {"classes": 2, "input_size": (32, 24, 40)}},
    identify=identify,
)
class TMamba3D(Float32Module):
    """T-Mamba for volumes of one size; in float32 at any precision, as a threshold in it amplifies rounding.

    The gate networks and the weights of spectra are neither trained nor stored: they are drawn from `seed`.

    Parameters
    ----------
    in_channels, classes : int
        Channels in; logits out.
    input_size : (int, int, int)
        The volume's sides, multiples of 8.
    high_freq, low_freq : float
        Thresholds of the spectrum's magnitude.
    seed : int
        What the authors' programs seed PyTorch with just before they build the network.

    Examples
    --------
    >>> TMamba3D(1, 2, input_size=(16, 8, 16))(torch.zeros(2, 1, 16, 8, 16)).shape
    torch.Size([2, 2, 16, 8, 16])
    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 1,
        input_size: Sequence[int] = (160, 160, 96),
        high_freq: float = 0.9,
        low_freq: float = 0.1,
        seed: int = SEED,
    ) -> None:
        super().__init__()
        if any(side % 8 or side < 8 for side in input_size):
            raise InputError(f"T-Mamba takes volumes whose sides are multiples of 8, not {tuple(input_size)}")
        self.input_size = tuple(input_size)
        tokens = [math.prod(input_size) // 8**level for level in (1, 2, 3)]
        self.SpectralGatingBlocks, self.learnable_positional_embed = nn.Module(), nn.Module()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for level, (growth, count) in enumerate(zip(GROWTH, tokens, strict=True)):
                table = torch.randn(4 * growth, count) * 0.02
                self.SpectralGatingBlocks.register_buffer(str(level), table, persistent=False)
            self.GateModules = nn.ModuleList(GateNetwork() for _ in GROWTH)
        for level, (growth, count) in enumerate(zip(GROWTH, tokens, strict=True)):
            positions = sine_positions(count, growth)
            self.learnable_positional_embed.register_buffer(str(level), positions, persistent=False)
        channels = [in_channels, *(STEM + units * growth for units, growth in zip(UNITS, GROWTH, strict=True))]
        self.dfs_blocks = nn.ModuleList(Level(channels[level], level, low_freq, high_freq) for level in range(3))
        self.out_conv = ConvBlock(sum(SKIPS), classes, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, *input_size) to logits (B, classes, *input_size).

        Raises
        ------
        InputError
            If the volume has another size than the network was built for.
        """
        if tuple(x.shape[2:]) != self.input_size:
            raise InputError(
                f"this T-Mamba takes volumes of {self.input_size} voxels, not {tuple(x.shape[2:])}: "
                "its tables are made for one size; resample or cut the volume to it"
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
                skips.append(F.interpolate(skip, scale_factor=2**level, mode="trilinear") if level else skip)
            logits = self.out_conv(torch.cat(skips, dim=1))
            return F.interpolate(logits, scale_factor=2, mode="trilinear").to(dtype)
