"""nnU-Net's residual encoder and decoder, in both generations that U-Mamba and its descendants are built on.

"v1" has nnU-Net's own residual stacks and transposed convolutions; "v2" projected residual blocks, nearest-neighbour
upsampling, and one block a stage in the lower half. Isensee et al., nnU-Net (doi:10.1038/s41592-020-01008-z);
Ma, Li and Wang, U-Mamba (arXiv:2401.04722).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.nn.blocks.unets.conv_blocks import (
    ConvNormAct,
    PerAxis,
    PointwiseUpsample,
    ResidualStack,
    dimensional,
    per_axis,
    pointwise,
    projected_stack,
)

PerStage = int | Sequence[PerAxis]
GENERATIONS = ("v1", "v2")


@dataclass(frozen=True)
class Plan:
    """What an nnU-Net plan says of a network, one entry a stage, highest resolution first."""

    spatial_dims: int
    input_channels: int
    num_classes: int
    features: tuple[int, ...]
    kernels: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    generation: str
    stem: int
    """Channels that leave the first convolution."""

    @property
    def stages(self) -> int:
        return len(self.features)

    def feature_map_sizes(self, input_size: Sequence[int]) -> list[tuple[int, ...]]:
        """The size of every stage's feature map for an input of this size."""
        sizes, size = [], tuple(input_size)
        for stride in self.strides:
            size = tuple(n // step for n, step in zip(size, stride, strict=True))
            sizes.append(size)
        return sizes

    def check(self, spatial: Sequence[int]) -> None:
        """Refuse an input whose decoder would not meet its encoder."""
        unit = [math.prod(steps) for steps in zip(*self.strides, strict=True)]
        if len(spatial) != self.spatial_dims or any(n % step for n, step in zip(spatial, unit, strict=True)):
            raise InputError(
                f"this network takes {self.spatial_dims}D images whose sizes are multiples of {tuple(unit)}, "
                f"not {tuple(spatial)}; pad the image or choose such a tile"
            )


def make_plan(
    spatial_dims: int,
    input_channels: int,
    num_classes: int,
    features_per_stage: PerStage,
    kernel_sizes: PerStage,
    strides: PerStage,
    n_conv_per_stage: PerStage,
    n_conv_per_stage_decoder: PerStage,
    n_stages: int | None = None,
    generation: str = "v2",
    stem_channels: int | None = None,
) -> Plan:
    """The plan with one entry a stage; a scalar stands for every stage, a scalar in a list for every axis.

    Generation v2 takes `stem_channels` and has the first stage's, as published.
    """
    if generation not in GENERATIONS:
        raise InputError(f"the network has the generations {' and '.join(GENERATIONS)}, not {generation!r}")
    lists = [features_per_stage, kernel_sizes, strides, n_conv_per_stage]
    lengths = {len(value) for value in lists if not isinstance(value, int)}
    if n_stages is not None:
        lengths.add(n_stages)
    if len(lengths) != 1:
        raise InputError(
            "features_per_stage, kernel_sizes, strides and n_conv_per_stage need one entry a stage; "
            f"they have {sorted(lengths) or 'no'} entries"
        )
    stages = lengths.pop()

    def spread(value: PerStage, count: int = stages) -> list:
        return [value] * count if isinstance(value, int) else list(value)

    blocks, decoder_blocks = spread(n_conv_per_stage), spread(n_conv_per_stage_decoder, stages - 1)
    if len(decoder_blocks) != stages - 1:
        raise InputError(f"n_conv_per_stage_decoder needs {stages - 1} entries, one less than there are stages")
    if generation == "v2":  # one block a stage in the lower half of the encoder, and in the decoder's last stages
        blocks = [1 if stage >= math.ceil(stages / 2) else n for stage, n in enumerate(blocks)]
        decoder_blocks = [1 if stage >= math.ceil(stages / 2) else n for stage, n in enumerate(decoder_blocks)]
    features = tuple(spread(features_per_stage))
    return Plan(
        spatial_dims=spatial_dims,
        input_channels=input_channels,
        num_classes=num_classes,
        features=features,
        kernels=tuple(per_axis(kernel, spatial_dims) for kernel in spread(kernel_sizes)),
        strides=tuple(per_axis(stride, spatial_dims) for stride in spread(strides)),
        blocks=tuple(blocks),
        decoder_blocks=tuple(decoder_blocks),
        generation=generation,
        stem=stem_channels if stem_channels and generation == "v1" else features[0],
    )


class Stem(nn.Module):
    """The first convolution of generation v1, under its keys `convs.*`."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Sequence[int]):
        super().__init__()
        self.convs = nn.Sequential(ConvNormAct(in_channels, out_channels, kernel))

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class Encoder(nn.Module):
    """The stem and the stages; `mamba_layers`, one a stage, follow them in Enc."""

    def __init__(self, plan: Plan, mamba_layers: Sequence[nn.Module] | None):
        super().__init__()
        features, kernels = plan.features, plan.kernels
        stack = ResidualStack if plan.generation == "v1" else projected_stack
        if plan.generation == "v1":
            self.stem: nn.Module = Stem(plan.input_channels, plan.stem, kernels[0])
        else:
            self.stem = projected_stack(plan.blocks[0], plan.input_channels, features[0], kernels[0])
        channels = (plan.stem, *features)
        self.stages = nn.ModuleList(
            stack(plan.blocks[s], channels[s], features[s], kernels[s], plan.strides[s]) for s in range(plan.stages)
        )
        self.mamba_layers = nn.ModuleList(mamba_layers) if mamba_layers is not None else None

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        skips = []
        for number, stage in enumerate(self.stages):
            x = stage(x)  # in a line of its own: during the scan nothing holds the stage's input
            x = self.scan(x, number)
            skips.append(x)
        return skips

    def scan(self, x: Tensor, stage: int) -> Tensor:
        """What follows a stage."""
        return x if self.mamba_layers is None else self.mamba_layers[stage](x)


class Decoder(nn.Module):
    """From the bottom up: enlarge, concatenate the skip, convolve; a segmentation head at every stage.

    Holds the encoder a second time, as the published one does: its state_dict has every encoder tensor twice.
    """

    def __init__(self, plan: Plan, encoder: Encoder, deep_supervision: bool):
        super().__init__()
        self.encoder = encoder
        self.deep_supervision = deep_supervision
        dims, last = plan.spatial_dims, plan.stages - 2
        # In two dimensions v2 leaves out the skip of the highest resolution.
        self.skipped = [plan.generation == "v1" or dims == 3 or s < last for s in range(plan.stages - 1)]
        stack = ResidualStack if plan.generation == "v1" else projected_stack
        upsamples, stages, heads = [], [], []
        for s in range(plan.stages - 1):
            below, here, factor = plan.features[-s - 1], plan.features[-s - 2], plan.strides[-s - 1]
            if plan.generation == "v1":
                upsamples.append(dimensional("ConvTranspose", dims)(below, here, factor, factor))
            else:
                upsamples.append(PointwiseUpsample(below, here, factor))
            stages.append(stack(plan.decoder_blocks[s], (1 + self.skipped[s]) * here, here, plan.kernels[-s - 2], 1))
            heads.append(pointwise(here, plan.num_classes, dims))
        self.stages = nn.ModuleList(stages)
        setattr(self, "transpconvs" if plan.generation == "v1" else "upsample_layers", nn.ModuleList(upsamples))
        self.seg_layers = nn.ModuleList(heads)

    def forward(self, skips: list[Tensor]) -> Tensor | list[Tensor]:
        upsamples = self.transpconvs if hasattr(self, "transpconvs") else self.upsample_layers
        x, outputs = skips[-1], []
        for s, (upsample, stage, head) in enumerate(zip(upsamples, self.stages, self.seg_layers, strict=True)):
            x = upsample(x)
            if self.skipped[s]:
                x = torch.cat((x, skips[-s - 2]), 1)
            x = stage(x)
            if self.deep_supervision or s == len(self.stages) - 1:
                outputs.append(head(x))
        return outputs[::-1] if self.deep_supervision else outputs[0]
