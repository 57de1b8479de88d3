"""EM-Net: scans and filters of the spectrum in the stages of a U-Net (Chang et al., arXiv:2409.17675).

Read in github.com/zang0902/EM-Net, `models/em_net_model.py`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.segmentation.norms import norm_of
from napari_mamba.models.segmentation.volumes.em_net_layers import (
    MambaConvLayer,
    MambaLayer,
    MlpChannel,
    Size,
    SpectralLayer,
)
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.unets.unetr import (
    NormName,
    UnetOutBlock,
    UnetrBasicBlock,
    UnetrConvBlock,
    UnetrUpBlock,
    named_conv,
)
from napari_mamba.nn.norms.norm import LayerNorm

STEM, UNIT = 4, 32
"""Voxels of a side that the stem makes one, and of which the sides are multiples."""
VARIANTS = ("EMNet", "EMNet_Bot", "EMNet_Conv_Enc")
"""The authors' classes: as published, with a scan at the bottom, with convolutions beside the encoder's scans."""


class MambaEncoder(nn.Module):
    """Stem and four stages; returns each stage's map, normalised and through a perceptron."""

    def __init__(
        self,
        dims: Sequence[int],
        depths: Sequence[int],
        fft_nums: Sequence[int],
        size: Size,
        spatial_mamba: bool,
        scanning: type[MambaLayer],
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
                SpectralLayer(dim, grid) if number < spectral else scanning(dim, grid, spatial_mamba)
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


def variant_of(shapes: Shapes) -> str:
    """Which of the authors' classes the weights are of."""
    if "encoder_hidden.pos_embed" in shapes:
        return "EMNet_Bot"
    beside = re.compile(r"mamba_encoder\.stages\.\d+\.\d+\.res_block\.")
    return "EMNet_Conv_Enc" if any(beside.match(key) for key in shapes) else "EMNet"


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
        "variant": variant_of(shapes),
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
    variant : {"EMNet", "EMNet_Bot", "EMNet_Conv_Enc"}
        The authors' classes: EMNet_Bot scans once more at the bottom, EMNet_Conv_Enc has a residual of convolutions
        beside each of the encoder's scans.
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
        variant: str = "EMNet",
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise InputError(f"EM-Net's variant is one of {', '.join(VARIANTS)}, not {variant!r}")
        self.size = size = tuple(in_shpae)
        if len(size) != 3 or any(n % UNIT for n in size) or (any(fft_nums) and size[0] != size[1]):
            raise InputError(f"EM-Net takes volumes with two equal sides, multiples of 32 voxels, not {size}")
        if in_chans != 1 or len(depths) != 4 or hidden_size != feat_size[3]:
            raise InputError("EM-Net takes one channel, in four stages, the last of hidden_size channels")
        scanning = MambaConvLayer if variant == "EMNet_Conv_Enc" else MambaLayer
        self.mamba_encoder = MambaEncoder(feat_size, depths, fft_nums, size, spatial_mamba, scanning)
        self.encoder_hidden: nn.Module = nn.Identity()
        if variant == "EMNet_Bot":
            self.encoder_hidden = MambaLayer(hidden_size, tuple(n // UNIT for n in size), spatial_mamba)
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
        y = self.encoder_hidden(maps.pop())
        skips, coarse = [self.encoder1(x), *maps], []
        for number in (4, 3, 2, 1):
            y = self.get_submodule(f"decoder{number}")(y, skips)
            coarse.append(y)
        return [self.out(y), self.out2(coarse[2]), self.out3(coarse[1])] if self.ds else self.out(y)
