"""MambaClinix: nnU-Net's residual encoder with gated convolutions in its upper half and scans in its lower half.

Bian et al., MambaClinix: hierarchical gated convolution and Mamba-based U-Net for enhanced 3D medical image
segmentation (arXiv:2409.12533). Read in github.com/CYB08/MambaClinix-PyTorch, `nnunetv2/nets/MambaClinix_3d.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.segmentation.plans import plan_arguments
from napari_mamba.models.shapes import has
from napari_mamba.nn.blocks.drop import DropPath, rising_rates
from napari_mamba.nn.blocks.tokens import Float32Module, from_tokens, to_tokens, without_autocast
from napari_mamba.nn.blocks.unets.conv_blocks import (
    LEAK,
    PointwiseUpsample,
    ProjectedResidualBlock,
    ResidualBlock,
    ResidualStack,
    conv,
    initialise_he,
    pointwise,
)
from napari_mamba.nn.blocks.unets.residual_unet import PerStage, Plan, Stem, make_plan
from napari_mamba.nn.mixers.token_mixer import Float32LayerNorm, Float32Mamba
from napari_mamba.nn.norms.norm import at_least_float32

DIMS = 3
PLAN_3D = {
    "input_channels": 1,
    "num_classes": 3,
    "features_per_stage": (32, 64, 128, 256, 320, 320),
    "kernel_sizes": ((1, 3, 3), 3, 3, 3, 3, 3),
    "strides": (1, (1, 2, 2), 2, 2, 2, (1, 2, 2)),
    "n_conv_per_stage": 2,
    "n_conv_per_stage_decoder": 2,
}


class ChannelNorm(Float32Module):
    """Layer norm over the channels of (B, C, *spatial), in float32, with the authors' keys."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        rows = at_least_float32(x).movedim(1, -1)
        return F.layer_norm(rows, self.gamma.shape, self.gamma, self.beta, 1e-6).movedim(-1, 1).to(x.dtype)


class ConvUnit(nn.Module):
    """A convolution without norm, and where `activation` leaky ReLU; stored twice, as nnU-Net stores its units."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Sequence[int], *, activation: bool = False) -> None:
        super().__init__()
        self.conv = conv(in_channels, out_channels, kernel)
        self.all_modules = nn.Sequential(self.conv, *([nn.LeakyReLU(LEAK)] if activation else []))

    def forward(self, x: Tensor) -> Tensor:
        return self.all_modules(x)


class HighOrderConv(nn.Module):
    """Depth-wise convolutions of 1, 2, 4, ... parts of the channels, each added to what came of those before."""

    def __init__(self, channels: int, kernel: Sequence[int], order: int) -> None:
        super().__init__()
        self.parts = [channels // 2**i for i in reversed(range(order))]
        if channels % 2 ** (order - 1):
            raise InputError(f"a stage of MambaClinix splits {channels} channels in half {order - 1} times; it cannot")
        total = sum(self.parts)
        self.proj_in = pointwise(channels, 2 * channels, DIMS)
        self.dwconv = nn.Conv3d(total, total, tuple(kernel), padding=tuple(n // 2 for n in kernel), groups=total)
        self.reconv = nn.ModuleList(pointwise(n, 2 * n, DIMS) for n in self.parts[:-1])
        self.proj_out = pointwise(channels, channels, DIMS)

    def forward(self, x: Tensor) -> Tensor:
        x, rest = self.proj_in(x).split([self.parts[0], sum(self.parts)], dim=1)
        first, *others = self.dwconv(rest).split(self.parts, dim=1)
        x = x + first  # a gate by name: the published code adds and multiplies nothing
        for widen, part in zip(self.reconv, others, strict=True):
            x = widen(x) + part
        return self.proj_out(x)


class GatedConvBlock(nn.Module):
    """Residual block around a high-order convolution on half the channels."""

    def __init__(self, channels: int, kernel: Sequence[int], order: int, drop_path: float) -> None:
        super().__init__()
        half = channels // 2
        self.hgConvs = HighOrderConv(half, kernel, order)
        self.lynorm1, self.lynorm2 = ChannelNorm(half), ChannelNorm(half)
        self.transconv = ConvUnit(channels, half, (1,) * DIMS)
        self.conv1 = ConvUnit(half, channels, kernel, activation=True)
        self.conv2 = ConvUnit(channels, channels, kernel)
        self.gamma1 = nn.Parameter(1e-6 * torch.ones(half))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.transconv(x)
        y = y + self.drop_path(self.gamma1.view(-1, 1, 1, 1) * self.hgConvs(self.lynorm1(y)))
        return x + self.drop_path(self.conv2(self.conv1(self.lynorm2(y))))


class ResidualMambaLayer(Float32Module):
    """Norm, scan over the voxels, the same norm again, projection; added to the input. In float32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = Float32LayerNorm(channels)
        self.mamba = Float32Mamba(channels)
        self.proj = nn.Linear(channels, channels)
        self.skip_scale = nn.Parameter(torch.ones(1))  # stored, and never used

    def forward(self, x: Tensor) -> Tensor:
        with without_autocast(x):
            tokens = to_tokens(x.to(self.proj.weight.dtype))
            mixed = self.proj(self.norm(self.mamba(self.norm(tokens))))
            return x + from_tokens(mixed, x.shape[2:]).to(x.dtype)


class Encoder(nn.Module):
    """The stem, a residual block for every stage, and what follows it."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        features, kernels = plan.features, plan.kernels
        self.stem = Stem(plan.input_channels, features[0], kernels[0])
        self.last_gated = max(s for s, blocks in enumerate(plan.blocks) if blocks == 2)
        self.LayerNorm = ChannelNorm(features[self.last_gated])
        rates = rising_rates(0.5, plan.stages)
        self.encoder_layers = nn.ModuleList(
            GatedConvBlock(features[s], kernels[s], s + 2, rates[s]) if blocks == 2 else ResidualMambaLayer(features[s])
            for s, blocks in enumerate(plan.blocks)
        )
        finer = (features[0], *features)
        self.stages = nn.ModuleList(
            ResidualStack(1, finer[s], features[s], kernels[s], plan.strides[s]) for s in range(plan.stages)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        skips = []
        for number, (stage, layer) in enumerate(zip(self.stages, self.encoder_layers, strict=True)):
            x = stage(x)
            x = layer(self.LayerNorm(x) if number == self.last_gated else x)
            skips.append(x)
        return skips


class Decoder(nn.Module):
    """From the bottom up: enlarge, concatenate the skip behind a residual block, convolve.

    Holds the encoder a second time, as the published one does.
    """

    def __init__(self, plan: Plan, encoder: Encoder, deep_supervision: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.deep_supervision = deep_supervision
        features, kernels = plan.features, plan.kernels
        self.Init_Residual = ResidualBlock(features[-1], features[-1], kernels[-1])
        upwards = range(plan.stages - 2, -1, -1)
        self.residual_blocks = nn.ModuleList(ResidualBlock(features[s], features[s], kernels[s]) for s in upwards)
        self.stages = nn.ModuleList(ProjectedResidualBlock(2 * features[s], features[s], kernels[s]) for s in upwards)
        self.upsample_layers = nn.ModuleList(
            PointwiseUpsample(features[s + 1], features[s], plan.strides[s + 1]) for s in upwards
        )
        self.seg_layers = nn.ModuleList(pointwise(features[s], plan.num_classes, DIMS) for s in upwards)

    def forward(self, skips: list[Tensor]) -> Tensor | list[Tensor]:
        x, outputs = self.Init_Residual(skips[-1]), []
        parts = zip(self.upsample_layers, self.residual_blocks, self.stages, self.seg_layers, strict=True)
        for skip, (upsample, residual, stage, head) in zip(skips[-2::-1], parts, strict=True):
            x = stage(torch.cat([upsample(x), residual(skip)], dim=1))
            if self.deep_supervision or skip is skips[0]:
                outputs.append(head(x))
        return outputs[::-1] if self.deep_supervision else outputs[0]


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a MambaClinix by its gated convolutions and scans."""
    if not has(shapes, "encoder.LayerNorm.gamma", "decoder.Init_Residual.conv1.conv.weight"):
        return None
    if not any(key.endswith(".hgConvs.proj_in.weight") for key in shapes):
        return None
    arguments = plan_arguments(shapes, "v1")
    stages = range(len(arguments["features_per_stage"]))
    gated = [f"encoder.encoder_layers.{s}.gamma1" in shapes for s in stages]
    arguments |= {"n_conv_per_stage": [2 if one else 1 for one in gated], "n_conv_per_stage_decoder": 2}
    del arguments["spatial_dims"]
    note = "strides leave no trace in the weights: take them from nnU-Net's plans.json"
    return Identification("mamba_clinix", arguments=arguments, ambiguous=("strides",), note=note)


@register(
    name="mamba_clinix",
    title="MambaClinix",
    task="segmentation",
    spatial_dims=(3,),
    paper="arXiv:2409.12533",
    repository="github.com/CYB08/MambaClinix-PyTorch",
    licence="Apache-2.0",
    scan_order="raster",
    vectors={"MambaClinix_3d": PLAN_3D},
    identify=identify,
)
class MambaClinix(nn.Module):
    """MambaClinix; (B, C, D, H, W) to logits (B, num_classes, D, H, W).

    Parameters
    ----------
    input_channels, num_classes : int
        Channels of the image; classes, the background included.
    features_per_stage, kernel_sizes, strides, n_conv_per_stage, n_conv_per_stage_decoder
        As an nnU-Net plan has them, one entry a stage (the decoder's: one less); one integer stands for all. A stage of
        two blocks has a gated convolution, one of a single block a scan; the lower half has scans whatever they say.
        The decoder's numbers change nothing.
    n_stages : int, optional
        Number of stages, where all of these are integers.
    spatial_dims : int
        3.
    deep_supervision : bool
        Return the logits of every decoder stage, highest resolution first.

    Raises
    ------
    InputError
        If the arguments do not describe a network, or an image's sizes are no multiples of the strides.

    Examples
    --------
    >>> network = MambaClinix(1, 3, [16, 32, 64], 3, [1, 2, 2], 2, 2)
    >>> network(torch.zeros(1, 1, 8, 16, 8)).shape
    torch.Size([1, 3, 8, 16, 8])
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        features_per_stage: PerStage,
        kernel_sizes: PerStage,
        strides: PerStage,
        n_conv_per_stage: PerStage,
        n_conv_per_stage_decoder: PerStage,
        n_stages: int | None = None,
        *,
        spatial_dims: int = DIMS,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        if spatial_dims != DIMS:
            raise InputError(f"MambaClinix takes volumes, not {spatial_dims}D images; choose another network")
        self.plan = make_plan(
            spatial_dims=DIMS,
            input_channels=input_channels,
            num_classes=num_classes,
            features_per_stage=features_per_stage,
            kernel_sizes=kernel_sizes,
            strides=strides,
            n_conv_per_stage=n_conv_per_stage,
            n_conv_per_stage_decoder=n_conv_per_stage_decoder,
            n_stages=n_stages,
            generation="v2",  # one block a stage in the lower half
        )
        if 2 not in self.plan.blocks or not {1, 2}.issuperset(self.plan.blocks):
            raise InputError(
                "MambaClinix's stages have one or two blocks, and one of them two; correct n_conv_per_stage"
            )
        self.encoder = Encoder(self.plan)
        self.decoder = Decoder(self.plan, self.encoder, deep_supervision)
        self.apply(initialise_he)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        self.plan.check(x.shape[2:])
        return self.decoder(self.encoder(x))
