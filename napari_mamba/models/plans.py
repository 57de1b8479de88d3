"""What an nnU-Net plan says of a network, spread to one entry a stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Shapes
from napari_mamba.models.shapes import count
from napari_mamba.nn.conv_blocks import PerAxis, per_axis

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
                f"this U-Mamba takes {self.spatial_dims}D images whose sizes are multiples of {tuple(unit)}, "
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
) -> Plan:
    """The plan with one entry a stage; a scalar stands for every stage, a scalar in a list for every axis."""
    if generation not in GENERATIONS:
        raise InputError(f"U-Mamba has the generations {' and '.join(GENERATIONS)}, not {generation!r}")
    lists = [features_per_stage, kernel_sizes, strides, n_conv_per_stage]
    lengths = {len(value) for value in lists if not isinstance(value, int)} | ({n_stages} - {None})
    if len(lengths) != 1:
        raise InputError(
            "U-Mamba's features_per_stage, kernel_sizes, strides and n_conv_per_stage need one entry a stage; "
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
    return Plan(
        spatial_dims=spatial_dims,
        input_channels=input_channels,
        num_classes=num_classes,
        features=tuple(spread(features_per_stage)),
        kernels=tuple(per_axis(kernel, spatial_dims) for kernel in spread(kernel_sizes)),
        strides=tuple(per_axis(stride, spatial_dims) for stride in spread(strides)),
        blocks=tuple(blocks),
        decoder_blocks=tuple(decoder_blocks),
        generation=generation,
    )


def plan_arguments(shapes: Shapes, generation: str) -> dict[str, Any]:
    """The arguments of `make_plan` that a U-Mamba-like state_dict's shapes determine: all but the strides."""
    blocks, first = (".blocks.", "conv1.conv.weight") if generation == "v1" else (".", "conv1.weight")
    stages = range(count(shapes, "encoder.stages."))
    convolutions = [shapes[f"encoder.stages.{stage}{blocks}0.{first}"] for stage in stages]
    stem = shapes["encoder.stem.convs.0.conv.weight" if generation == "v1" else "encoder.stem.0.conv1.weight"]
    return {
        "spatial_dims": len(stem) - 2,
        "input_channels": stem[1],
        "num_classes": shapes["decoder.seg_layers.0.weight"][0],
        "features_per_stage": [shape[0] for shape in convolutions],
        "kernel_sizes": [list(shape[2:]) for shape in convolutions],
        "n_conv_per_stage": [count(shapes, f"encoder.stages.{stage}{blocks}") for stage in stages],
        "n_conv_per_stage_decoder": [count(shapes, f"decoder.stages.{stage}{blocks}") for stage in stages[:-1]],
    }


def transposed_strides(shapes: Shapes) -> list[list[int]]:
    """Every stage's stride from the transposed convolutions that undo it; nnU-Net never strides the first stage."""
    kernels = [
        list(shapes[f"decoder.transpconvs.{s}.weight"][2:]) for s in range(count(shapes, "decoder.transpconvs."))
    ]
    return [[1] * len(kernels[0]), *kernels[::-1]]
