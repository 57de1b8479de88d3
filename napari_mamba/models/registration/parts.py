"""What the registration networks of TransMorph's family share: patches, decoder, warping and integration of flows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registration.features import ConvBlock, FeatureUnet
from napari_mamba.models.registry import Shapes
from napari_mamba.nn.blocks.tokens import Float32Module, from_tokens, to_tokens
from napari_mamba.nn.norms.instance_norm import InstanceNorm3d, norm_act
from napari_mamba.nn.norms.norm import LayerNorm

STEPS = 7
"""Of scaling and squaring."""
FEATURES = 16
"""Channels of the feature extractor's output."""
LEARNED_SIDE, USED_STAGES = 224, 3
"""Of the images that learned positions are made for; stages that the decoder sees."""
UNUSED = ("drop_path_rate", "rpe", "use_checkpoint", "out_indices")
"""Of the authors' configuration: what changes nothing."""


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
    """Strided convolution to patches, normalised if asked: (B, C, *spatial) to (B, embed_dim, *spatial / patch)."""

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int, norm: bool):
        super().__init__()
        self.proj = nn.Conv3d(in_chans, embed_dim, patch_size, stride=patch_size)
        self.norm = LayerNorm(embed_dim, channels_first=True) if norm else nn.Identity()

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


@dataclass(frozen=True)
class Positions:
    """How patches enter: normalised or not, with learned positions, a sinusoidal code, or neither; then dropout.

    Learned positions go before the code. As published they are made for images of 224³ and stretched to the real ones.
    """

    spe: bool = True
    ape: bool = False
    patch_norm: bool = True
    drop_rate: float = 0.0


class ScanEncoder(nn.Module):
    """Patches with their positions, then stages of scans; returns the first three stages' normalised maps.

    `stage(dim, downsample, number)` makes a stage, whose `downsample` halves the map after it, if it is not None. More
    than three stages can be built and are stored; nothing uses them, as published.
    """

    def __init__(
        self,
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        stages: int,
        positions: Positions,
        stage: Callable[[int, bool, int], nn.Module],
    ):
        super().__init__()
        self.spe = positions.spe and not positions.ape
        self.patch_embed = PatchEmbed3D(patch_size, in_chans, embed_dim, positions.patch_norm)
        if positions.ape:
            learned = torch.empty(1, embed_dim, *[LEARNED_SIDE // patch_size] * 3)
            self.absolute_pos_embed = nn.Parameter(nn.init.trunc_normal_(learned, std=0.02))
        self.pos_drop = nn.Dropout(positions.drop_rate)
        dims = [embed_dim * 2**number for number in range(stages)]
        self.layers = nn.ModuleList(stage(dim, number < stages - 1, number) for number, dim in enumerate(dims))
        for number, dim in enumerate(dims[:USED_STAGES]):
            self.add_module(f"norm{number}", LayerNorm(dim, channels_first=True))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.patch_embed(x)
        if hasattr(self, "absolute_pos_embed"):
            x = x + F.interpolate(self.absolute_pos_embed, size=x.shape[2:], mode="trilinear").to(x.dtype)
        elif self.spe:
            x = x + position_code(x.shape[1], x.shape[2:], x)
        x = self.pos_drop(x)
        maps = []
        for number, layer in enumerate(list(self.layers)[:USED_STAGES]):
            x = layer(x)
            maps.append(self.get_submodule(f"norm{number}")(x))
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


class VecInt(nn.Module):
    """Integrates a velocity, (B, 3, *size) in voxels, by scaling and squaring (VoxelMorph's layer)."""

    def __init__(self, size: Sequence[int], nsteps: int = STEPS):
        super().__init__()
        self.nsteps = nsteps
        self.transformer = SpatialTransformer(size)

    def forward(self, velocity: Tensor) -> Tensor:
        flow = velocity.to(self.transformer.grid.dtype) / 2**self.nsteps
        for _ in range(self.nsteps):
            flow = flow + self.transformer(flow, flow)
        return flow


def position_arguments(shapes: Shapes) -> dict[str, Any]:
    """What a state_dict tells of `Positions`; the sinusoidal code leaves no trace."""
    return {
        "ape": "transformer.absolute_pos_embed" in shapes,
        "patch_norm": "transformer.patch_embed.norm.weight" in shapes,
    }


class DisplacementNetwork(nn.Module):
    """Two images to a displacement: an encoder of three stages over patches of 4, and a convolutional decoder.

    Parameters
    ----------
    img_size : sequence of int
        Size of the images; part of the state_dict (`spatial_trans.grid`).
    in_chans : int
        Channels that enter: of both images, or of their features.
    embed_dim, reg_head_chan : int
        Channels of a patch, and at full resolution.
    if_transskip, if_convskip : bool
        Whether the decoder sees the encoder's maps, and convolutions of what enters.
    integrate : bool
        Whether the network's output is a velocity.
    extract : bool
        Whether a U-Net makes features of each image first.
    """

    def __init__(
        self,
        transformer: ScanEncoder,
        img_size: Sequence[int],
        in_chans: int,
        embed_dim: int,
        reg_head_chan: int,
        if_transskip: bool,
        if_convskip: bool,
        integrate: bool = False,
        extract: bool = False,
    ):
        super().__init__()
        self.extract = extract
        if extract:
            self.feature_extractor = FeatureUnet(1, FEATURES)
            self.read_out_head = nn.ModuleList(
                [ConvBlock(FEATURES, FEATURES // 2, stride=2), ConvBlock(FEATURES // 2, 3)]
            )
        self.transformer = transformer
        dims = (embed_dim * 4, embed_dim * 2, embed_dim, embed_dim // 2, reg_head_chan)
        skipped = (if_transskip, if_transskip, if_convskip, if_convskip)
        for number, (below, here, skip) in enumerate(zip(dims, dims[1:], skipped, strict=False), start=1):
            self.add_module(f"up{number}", UpBlock(below, here, here * skip))
        self.if_transskip, self.if_convskip = if_transskip, if_convskip
        # The authors keep these convolutions where they are not used.
        self.c1, self.c2 = ConvNormReLU(in_chans, embed_dim // 2), ConvNormReLU(in_chans, reg_head_chan)
        head = nn.Conv3d(reg_head_chan, 3, 3, padding=1)
        nn.init.normal_(head.weight, std=1e-5)
        nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        self.reg_head = nn.Sequential(head)
        self.spatial_trans = SpatialTransformer(img_size)
        self.integrate = VecInt(img_size) if integrate else None

    def check_sizes(self, source: Tensor, target: Tensor) -> None:
        """Raise `InputError` unless both images have the network's size."""
        size = tuple(self.spatial_trans.grid.shape[2:])
        if source.shape[2:] != size or target.shape[2:] != size:
            raise InputError(
                f"this network registers images of {size} voxels, not {tuple(source.shape[2:])} and "
                f"{tuple(target.shape[2:])}; resample or crop both"
            )

    def flow(self, source: Tensor, target: Tensor) -> Tensor:
        """The decoder's output for two images, or for the features of two images: (B, 3, *size)."""
        x = torch.cat((source, target), dim=1)
        maps = self.transformer(x)
        skips: list[Tensor | None] = [maps[1], maps[0]] if self.if_transskip else [None, None]
        skips += [self.c1(F.avg_pool3d(x, 3, 2, 1)), self.c2(x)] if self.if_convskip else [None, None]
        y = maps[-1]
        for number, skip in enumerate(skips, start=1):
            y = self.get_submodule(f"up{number}")(y, skip)
        return self.reg_head(y)

    def register(
        self, source: Tensor, target: Tensor, return_pos_flow: bool, return_feature: bool, rec_num: int = 1
    ) -> tuple[Tensor, ...]:
        """What the authors' networks return, in their order; `rec_num` steps are composed."""
        self.check_sizes(source, target)
        moved, displacement = source, None
        features = [target] if not self.extract else [self.feature_extractor(target)]
        for _ in range(rec_num):
            first = self.feature_extractor(moved) if self.extract else moved
            velocity = self.flow(first, features[0])
            step = velocity if self.integrate is None else self.integrate(velocity)
            displacement = step if displacement is None else self.spatial_trans(displacement, step) + step
            moved = self.spatial_trans(source, displacement)
        outputs = [moved, velocity]
        if return_pos_flow and self.integrate is not None:
            outputs.append(displacement)
        if return_feature and self.extract:
            outputs.append(torch.cat([self._read_out(first), self._read_out(features[0])], dim=1))
        return tuple(outputs)

    def _read_out(self, features: Tensor) -> Tensor:
        for head in self.read_out_head:
            features = head(features)
        return features
