"""EM-Net: scans and filters of the spectrum in the stages of a U-Net (Chang et al., arXiv:2409.17675).

Read in github.com/zang0902/EM-Net, `models/em_net_model.py`, class `EMNet`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.segmentation.norms import norm_of
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.tokens import Float32Module, from_tokens, to_tokens, without_autocast
from napari_mamba.nn.blocks.unets.unetr import (
    NormName,
    UnetOutBlock,
    UnetrBasicBlock,
    UnetrConvBlock,
    UnetrUpBlock,
    named_conv,
)
from napari_mamba.nn.mixers.multipath import MultiPathMamba
from napari_mamba.nn.norms.norm import LayerNorm
from napari_mamba.scan import placed, scan_order

STEM, UNIT = 4, 32
"""Voxels of a side that the stem makes one, and of which the sides are multiples."""
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

    def __init__(self, dim: int, grid: Size, spatial_mamba: bool) -> None:
        super().__init__()
        self.spatial_mamba = spatial_mamba
        self.norm, self.norm1, self.norm2 = LayerNorm(dim), LayerNorm(dim), LayerNorm(dim)
        self.mamba = MultiPathMamba(dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, torch.Size(grid).numel(), dim))
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6))
        self.mlp = MlpChannel(dim, dim // 4)
        self.conv51 = UnetrConvBlock(3, dim, dim, 3, "batch")
        self.conv8 = nn.Sequential(nn.Dropout3d(0.1), nn.Conv3d(dim, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        size = tuple(x.shape[2:])
        tokens = to_tokens(x) + self.pos_embed
        rows = self.norm(tokens)
        beside = to_tokens(self.mlp(from_tokens(rows, size)))
        both = self.norm1(self._mix(rows, size))
        both = both + self.norm2(self._mix(beside, size) if self.spatial_mamba else beside)
        out = from_tokens(tokens + self.gamma * both, size)
        return out + self.conv8(self.conv51(out))

    def _mix(self, rows: Tensor, size: Size) -> Tensor:
        with placed(lambda: (size, None)):
            return self.mamba(rows, scan_order("bidirectional", (rows.shape[1],)))


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


class MambaEncoder(nn.Module):
    """Stem and four stages; returns each stage's map, normalised and through a perceptron."""

    def __init__(
        self, dims: Sequence[int], depths: Sequence[int], fft_nums: Sequence[int], size: Size, spatial_mamba: bool
    ) -> None:
        super().__init__()
        # The published encoder has one input channel whatever in_chans is.
        stem = nn.Sequential(nn.Conv3d(1, dims[0], STEM, STEM), LayerNorm(dims[0], 1e-6, True))
        self.downsample_layers = nn.ModuleList([stem])
        for before, here in itertools.pairwise(dims):
            self.downsample_layers.append(nn.Sequential(LayerNorm(before, 1e-6, True), nn.Conv3d(before, here, 2, 2)))
        self.stages = nn.ModuleList()
        self.mlps = nn.ModuleList()
        for stage, (dim, depth, spectral) in enumerate(zip(dims, depths, fft_nums, strict=True)):
            grid = tuple(n // (STEM * 2**stage) for n in size)
            layers = [
                SpectralLayer(dim, grid) if number < spectral else MambaLayer(dim, grid, spatial_mamba)
                for number in range(depth)
            ]
            self.stages.append(nn.Sequential(*layers))
            self.add_module(f"norm{stage}", LayerNorm(dim, 1e-6, True))
            self.mlps.append(MlpChannel(dim, 4 * dim))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for number, (down, stage, mlp) in enumerate(zip(self.downsample_layers, self.stages, self.mlps, strict=True)):
            x = stage(down(x))
            maps.append(mlp(self.get_submodule(f"norm{number}")(x)))
        return maps


class EMNetUpBlock(nn.Module):
    """Enlarges, adds the skip, then three scans, or two convolutions where there is no `grid`."""

    def __init__(self, below: int, dim: int, factor: int, norm: NormName, grid: Size | None, spatial: bool) -> None:
        super().__init__()
        self.transp_conv = named_conv(nn.ConvTranspose3d(below, dim, factor, factor, bias=False))
        block = (
            UnetrConvBlock(3, dim, dim, 3, norm, res_block=False)
            if grid is None
            else nn.Sequential(*(MambaLayer(dim, grid, spatial) for _ in range(3)))
        )
        self.decoder_block = nn.ModuleList([block])

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        return self.decoder_block[0](self.transp_conv(x) + skips.pop())


def patch_size(shapes: Shapes) -> tuple[Size, bool]:
    """The size that position tables and spectra fit, and whether they leave it open."""
    layer = re.compile(r"mamba_encoder\.stages\.(\d)\.\d+\.(pos_embed|ffp_module\.complex_weight)$")
    decoder = re.compile(r"decoder(\d)\.decoder_block\.0\.0\.pos_embed$")
    tables = {2 ** int(match[1]): shapes[key][1] for key in shapes if (match := decoder.match(key))}
    spectra: dict[int, tuple[int, ...]] = {}
    for key, match in ((key, match) for key in shapes if (match := layer.match(key))):
        scale = STEM * 2 ** int(match[1])
        if match[2] == "pos_embed":
            tables[scale] = shapes[key][1]
        else:
            spectra[scale] = shapes[key]
    if not spectra:  # the number of tokens is known
        scale, tokens = next(iter(tables.items()), (UNIT, 1))
        units = tokens // (UNIT // scale) ** 3
        side = round(units ** (1 / 3))
        return ((UNIT * side,) * 3 if side**3 == units else (UNIT, UNIT, UNIT * units)), True
    finest = min(spectra)
    first, second = (finest * n for n in spectra[finest][1:3])
    if not tables:  # a spectrum's last axis is half the map's, and of the coarsest stage that is rounded
        return (first, second, 2 * finest * (spectra[finest][3] - 1) or UNIT), finest == UNIT
    scale, tokens = next(iter(tables.items()))
    return (first, second, scale * (tokens // (first // scale * (second // scale)))), False


def identify(shapes: Shapes) -> Identification | None:
    """Recognise an EM-Net state_dict; whether it is of before 13 December 2024 leaves no trace in it."""
    if not has(shapes, "mamba_encoder.downsample_layers.0.0.weight", "mamba_encoder.mlps.3.fc1.weight"):
        return None
    if not any(key.endswith(("conv51.conv1.conv.weight", "ffp_module.complex_weight")) for key in shapes):
        return None
    stages = [f"mamba_encoder.stages.{stage}." for stage in range(4)]
    depths = [count(shapes, stage) for stage in stages]
    spectral = [
        sum(f"{stage}{number}.ffp_module.complex_weight" in shapes for number in range(depth))
        for stage, depth in zip(stages, depths, strict=True)
    ]
    size, open_size = patch_size(shapes)
    norm = norm_of(shapes)
    arguments = {
        "in_chans": shapes["encoder1.layer.conv1.conv.weight"][1],
        "out_chans": shapes["out.conv.conv.weight"][0],
        "depths": depths,
        "feat_size": [shapes[f"mamba_encoder.norm{stage}.weight"][0] for stage in range(4)],
        "hidden_size": shapes["decoder4.transp_conv.conv.weight"][0],
        "conv_decoder": "decoder4.conv_block.conv1.conv.weight" in shapes,
        "fft_nums": spectral,
        "ds": "out2.conv.conv.weight" in shapes,
        "res_block": "encoder1.layer.conv3.conv.weight" in shapes,
        "norm_name": norm.name,
        "in_shpae": size,
    }
    return Identification(
        "em_net",
        arguments=arguments,
        ambiguous=("spatial_mamba", *(["in_shpae"] if open_size else []), *norm.unsaid),
        note=f"{norm.note} ".lstrip()
        + "EM-Net's keys are the same before and after 13 December 2024, when the spatial branch got its scan: say "
        "whether the network has it (spatial_mamba).",
    )


@register(
    name="em_net",
    title="EM-Net",
    task="segmentation",
    spatial_dims=(3,),
    paper="arXiv:2409.17675",
    repository="github.com/zang0902/EM-Net",
    licence="MIT (README)",
    scan_order="bidirectional",
    vectors={
        name: {
            "out_chans": 9,
            "depths": [3, 3, 3, 3],
            "hidden_size": 384,
            "fft_nums": [0, 0, 2, 2],
            "in_shpae": (64, 64, 32),
            "spatial_mamba": spatial,
        }
        for name, spatial in (("EMNet", True), ("EMNet_before20241213", False))
    },
    identify=identify,
)
class EMNet(nn.Module):
    """EM-Net.

    Parameters
    ----------
    in_chans, out_chans : int
        Input channels, of which there can be one only, as published; output channels.
    depths, feat_size, fft_nums : sequence of int
        Layers, channels, and layers that filter the spectrum, of each stage.
    hidden_size : int
        Channels of the last stage.
    norm_name : str or (str, dict)
        See `make_norm`.
    conv_decoder : bool
        A decoder of convolutions instead of scans.
    res_block : bool
        Whether convolutional blocks have a residual; without it the decoder's scans give way to such blocks, too.
    ds : bool
        Return also what is at a quarter and an eighth of the resolution.
    in_shpae : sequence of int
        The size of the images, spelt as the authors do: tables of positions and spectra are made for it.
    spatial_mamba : bool
        Whether the spatial branch is scanned too, as since 13 December 2024.
    drop_path_rate, layer_scale_init_value, conv_block, spatial_dims
        The authors' arguments that change nothing.

    Raises
    ------
    InputError
        If the size does not fit, or an image has another one.

    Examples
    --------
    >>> network = EMNet(feat_size=[8, 8, 8, 8], hidden_size=8, out_chans=2, in_shpae=(32, 32, 32)).eval()
    >>> network(torch.zeros(1, 1, 32, 32, 32)).shape
    torch.Size([1, 2, 32, 32, 32])
    """

    def __init__(
        self,
        in_chans: int = 1,
        out_chans: int = 13,
        depths: Sequence[int] = (2, 2, 2, 2),
        feat_size: Sequence[int] = (48, 96, 192, 384),
        hidden_size: int = 384,
        norm_name: NormName = "instance",
        conv_decoder: bool = False,
        fft_nums: Sequence[int] = (2, 2, 2, 2),
        ds: bool = False,
        in_shpae: Sequence[int] = (128, 128, 128),
        spatial_mamba: bool = True,
        res_block: bool = True,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        conv_block: bool = True,
        spatial_dims: int = 3,
    ) -> None:
        super().__init__()
        self.size = size = tuple(in_shpae)
        if len(size) != 3 or any(n % UNIT for n in size) or (any(fft_nums) and size[0] != size[1]):
            raise InputError(f"EM-Net takes volumes with two equal sides, multiples of 32 voxels, not {size}")
        if in_chans != 1 or len(depths) != 4 or hidden_size != feat_size[3]:
            raise InputError("EM-Net takes one channel, in four stages, the last of hidden_size channels")
        self.mamba_encoder = MambaEncoder(feat_size, depths, fft_nums, size, spatial_mamba)
        self.encoder1 = UnetrBasicBlock(3, in_chans, feat_size[0], 3, norm_name, res_block)
        dims = [hidden_size, feat_size[2], feat_size[1], feat_size[0], feat_size[0]]
        for number, (below, dim) in zip((4, 3, 2, 1), itertools.pairwise(dims), strict=True):
            factor = 4 if number == 1 else 2
            grid = tuple(n // 2**number for n in size) if res_block and number > 1 else None
            block: nn.Module = (
                UnetrUpBlock(3, below, dim, 3, factor, norm_name, res_block)
                if conv_decoder
                else EMNetUpBlock(below, dim, factor, norm_name, grid, spatial_mamba)
            )
            self.add_module(f"decoder{number}", block)
        self.out = UnetOutBlock(3, feat_size[0], out_chans)
        self.ds = ds
        if ds:
            self.out2, self.out3 = (UnetOutBlock(3, dim, out_chans) for dim in feat_size[:2])

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """(B, 1, *in_shpae) to logits (B, out_chans, *in_shpae), or three resolutions of them where `ds`."""
        if tuple(x.shape[2:]) != self.size or x.shape[1] != 1:
            raise InputError(f"this network was built for (1, {self.size}), not {tuple(x.shape[1:])}; use tiles")
        maps = self.mamba_encoder(x)
        y = maps.pop()
        skips, coarse = [self.encoder1(x), *maps], []
        for number in (4, 3, 2, 1):
            y = self.get_submodule(f"decoder{number}")(y, skips)
            coarse.append(y)
        return [self.out(y), self.out2(coarse[2]), self.out3(coarse[1])] if self.ds else self.out(y)
