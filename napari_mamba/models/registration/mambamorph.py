"""MambaMorph: deformable registration of MR to CT by a U-Net with scans over patches.

Guo et al., MambaMorph: a Mamba-based framework for medical MR-CT deformable registration (arXiv:2401.13934);
github.com/Guo-Stone/MambaMorph, `MambaMorphOri`, which registers images without a feature extractor before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.tokens import Float32Module, from_tokens, to_tokens
from napari_mamba.nn.mixers.token_mixer import MambaLayer
from napari_mamba.nn.norms.instance_norm import InstanceNorm3d, norm_act
from napari_mamba.nn.norms.norm import LayerNorm


def position_code(channels: int, spatial: Sequence[int], like: Tensor) -> Tensor:
    """Sinusoids of the three coordinates, a third of the channels each: (1, channels, *spatial)."""
    width = 2 * math.ceil(channels / 6)
    width += width % 2
    frequency = 10000.0 ** (-torch.arange(0, width, 2, device=like.device, dtype=torch.float32) / width)
    codes = []
    for axis, size in enumerate(spatial):
        phase = torch.arange(size, device=like.device)[:, None] * frequency
        code = torch.cat((phase.sin(), phase.cos()), dim=1).t()
        shape = [1] * len(spatial)
        shape[axis] = size
        codes.append(code.reshape(width, *shape).expand(width, *spatial))
    return torch.cat(codes)[None, :channels].to(like.dtype)


class PatchEmbed3D(nn.Module):
    """Strided convolution to patches, normalised: (B, C, *spatial) to (B, embed_dim, *spatial / patch)."""

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int):
        super().__init__()
        self.proj = nn.Conv3d(in_chans, embed_dim, patch_size, stride=patch_size)
        self.norm = LayerNorm(embed_dim, channels_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x))


class PatchMerging3D(nn.Module):
    """Halves a map's sides, doubling its channels: the eight voxels of a cube, normalised and projected."""

    # The authors' order of a cube's voxels, which the weights know.
    CORNERS = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (1, 0, 1), (1, 1, 1))

    def __init__(self, dim: int):
        super().__init__()
        self.norm = LayerNorm(8 * dim)
        self.reduction = nn.Linear(8 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[:, :, i::2, j::2, k::2] for i, j, k in self.CORNERS], dim=1)
        return from_tokens(self.reduction(self.norm(to_tokens(x))), x.shape[2:])


class ScanStage(MambaLayer):
    """Layer norm and mixer without a residual; `downsample` halves the map afterwards."""

    def __init__(self, dim: int, downsample: bool, **mixer: Any):
        super().__init__(dim, **mixer)
        self.downsample = PatchMerging3D(dim) if downsample else None


class ScanEncoder(nn.Module):
    """Patches with a position code, then stages of scans; returns every stage's normalised map."""

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int, stages: int, spe: bool, **mixer: int):
        super().__init__()
        self.spe = spe
        self.patch_embed = PatchEmbed3D(patch_size, in_chans, embed_dim)
        dims = [embed_dim * 2**stage for stage in range(stages)]
        self.layers = nn.ModuleList(
            ScanStage(dim, downsample=stage < stages - 1, **mixer) for stage, dim in enumerate(dims)
        )
        for stage, dim in enumerate(dims):
            self.add_module(f"norm{stage}", LayerNorm(dim, channels_first=True))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.patch_embed(x)
        if self.spe:
            x = x + position_code(x.shape[1], x.shape[2:], x)
        maps = []
        for stage, layer in enumerate(self.layers):
            x = layer(x)
            maps.append(self.get_submodule(f"norm{stage}")(x))
            if isinstance(merge := layer.downsample, PatchMerging3D):
                x = merge(x)
        return maps


class ConvNormReLU(nn.Sequential):
    """3-convolution, instance norm without weights, leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(
            nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False),
            InstanceNorm3d(out_channels),
            nn.LeakyReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        conv, norm, activation = self
        return norm_act(norm, conv(x), activation.negative_slope, overwrite=True)


class UpBlock(nn.Module):
    """Doubles the sides, concatenates the skip if there is one, convolves twice."""

    def __init__(self, in_channels: int, out_channels: int, skip_channels: int):
        super().__init__()
        self.conv1 = ConvNormReLU(in_channels + skip_channels, out_channels)
        self.conv2 = ConvNormReLU(out_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="trilinear")
        if skip is not None:
            x = torch.cat((x, skip), dim=1)
        return self.conv2(self.conv1(x))


class SpatialTransformer(Float32Module):
    """Moves an image along a displacement in voxels, (B, 3, *size), by linear interpolation (VoxelMorph's layer).

    Places stay in float32: half precision cannot tell neighbouring voxels of a large image apart.
    """

    grid: Tensor

    def __init__(self, size: Sequence[int]):
        super().__init__()
        axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in size], indexing="ij")
        self.register_buffer("grid", torch.stack(axes)[None])

    def forward(self, image: Tensor, flow: Tensor) -> Tensor:
        last = torch.tensor(flow.shape[2:], device=flow.device, dtype=self.grid.dtype) - 1
        places = (self.grid + flow).movedim(1, -1) / last * 2 - 1
        # grid_sample names the axes from the last to the first.
        moved = F.grid_sample(image.to(places.dtype), places.flip(-1), align_corners=True)
        return moved.to(image.dtype)


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a MambaMorph state_dict; only the position code leaves no trace in it."""
    if not has(shapes, "transformer.patch_embed.proj.weight", "transformer.layers.0.mamba.A_log", "spatial_trans.grid"):
        return None
    embed, in_chans, patch = shapes["transformer.patch_embed.proj.weight"][:3]
    inner, d_state = shapes["transformer.layers.0.mamba.A_log"]
    return Identification(
        "mambamorph",
        arguments={
            "img_size": tuple(shapes["spatial_trans.grid"][2:]),
            "patch_size": patch,
            "in_chans": in_chans,
            "embed_dim": embed,
            "depths": (1,) * count(shapes, "transformer.layers."),
            "reg_head_chan": shapes["reg_head.0.weight"][1],
            "if_transskip": shapes["up1.conv1.0.weight"][1] > 4 * embed,
            "if_convskip": "c1.0.weight" in shapes,
            "d_state": d_state,
            "d_conv": shapes["transformer.layers.0.mamba.conv1d.weight"][2],
            "expand": inner // embed,
        },
    )


@register(
    name="mambamorph",
    title="MambaMorph",
    task="registration",
    spatial_dims=(3,),
    paper="arXiv:2401.13934",
    repository="github.com/Guo-Stone/MambaMorph",
    licence="MIT",
    scan_order="raster",
    vectors={"MambaMorphOri": {"img_size": (64, 64, 64)}},
    identify=identify,
)
class MambaMorph(nn.Module):
    """MambaMorph; takes a moving and a fixed image, (B, 1, *img_size) each.

    Returns the moved image (B, 1, *img_size) and the displacement (B, 3, *img_size) in voxels, which says where in the
    moving image each voxel comes from.

    Parameters
    ----------
    img_size : sequence of int
        Size of the images, multiples of four patches. It is part of the state_dict (`spatial_trans.grid`).
    patch_size : int
        Side of a patch; 4, for the decoder's last two steps restore a quarter.
    in_chans : int
        Channels of both images together.
    embed_dim : int
        Channels of a patch.
    depths : sequence of int
        One entry a stage, three; as published, each stage has one scan whatever its entry.
    reg_head_chan : int
        Channels at full resolution.
    if_transskip, if_convskip : bool
        Whether the decoder sees the encoder's maps, and convolutions of the images.
    spe : bool
        Whether patches carry a sinusoidal position code.
    d_state, d_conv, expand : int
        Of the mixers.

    Raises
    ------
    InputError
        If the images have another size than `img_size`.

    Examples
    --------
    >>> network = MambaMorph((16, 16, 16), embed_dim=12)
    >>> moved, flow = network(torch.zeros(1, 1, 16, 16, 16), torch.zeros(1, 1, 16, 16, 16))
    >>> flow.shape
    torch.Size([1, 3, 16, 16, 16])
    """

    def __init__(
        self,
        img_size: Sequence[int] = (160, 160, 192),
        patch_size: int = 4,
        in_chans: int = 2,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 4),
        reg_head_chan: int = 16,
        if_transskip: bool = True,
        if_convskip: bool = True,
        spe: bool = True,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
    ):
        super().__init__()
        if patch_size != 4 or len(depths) != 3 or any(size % 16 for size in img_size):
            raise InputError("MambaMorph needs patches of 4, three stages, and image sizes that are multiples of 16")
        self.transformer = ScanEncoder(
            patch_size, in_chans, embed_dim, len(depths), spe, d_state=d_state, d_conv=d_conv, expand=expand
        )
        dims = (embed_dim * 4, embed_dim * 2, embed_dim, embed_dim // 2, reg_head_chan)
        skipped = (if_transskip, if_transskip, if_convskip, if_convskip)
        for number, (below, here, skip) in enumerate(zip(dims, dims[1:], skipped, strict=False), start=1):
            self.add_module(f"up{number}", UpBlock(below, here, here * skip))
        self.if_transskip, self.if_convskip = if_transskip, if_convskip
        if if_convskip:
            self.c1, self.c2 = ConvNormReLU(in_chans, embed_dim // 2), ConvNormReLU(in_chans, reg_head_chan)
        head = nn.Conv3d(reg_head_chan, 3, 3, padding=1)
        nn.init.normal_(head.weight, std=1e-5)
        nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        self.reg_head = nn.Sequential(head)
        self.spatial_trans = SpatialTransformer(img_size)

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        size = tuple(self.spatial_trans.grid.shape[2:])
        if source.shape[2:] != size or target.shape[2:] != size:
            raise InputError(
                f"this network registers images of {size} voxels, not {tuple(source.shape[2:])} and "
                f"{tuple(target.shape[2:])}; resample or crop both"
            )
        x = torch.cat((source, target), dim=1)
        maps = self.transformer(x)
        skips: list[Tensor | None] = [maps[1], maps[0]] if self.if_transskip else [None, None]
        skips += [self.c1(F.avg_pool3d(x, 3, 2, 1)), self.c2(x)] if self.if_convskip else [None, None]
        y = maps[-1]
        for number, skip in enumerate(skips, start=1):
            y = self.get_submodule(f"up{number}")(y, skip)
        flow = self.reg_head(y)
        return self.spatial_trans(source, flow), flow
