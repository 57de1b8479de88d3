"""Reading off a U-Mamba-like state_dict what its nnU-Net plan said."""

from __future__ import annotations

from typing import Any

from napari_mamba.models.registry import Shapes
from napari_mamba.models.shapes import count


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
