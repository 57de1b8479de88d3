"""xLSTM-UNet: U-Mamba's second generation with Vision-LSTM's blocks in the place of its scans.

Chen et al., xLSTM-UNet can be an Effective 2D & 3D Medical Image Segmentation Backbone with Vision-LSTM (ViL) better
than its Mamba Counterpart (arXiv:2407.01530); read in github.com/tianrun-chen/xLSTM-UNet-PyTorch,
`UxLSTM/nnunetv2/nets/`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.segmentation.plans import plan_arguments
from napari_mamba.models.segmentation.umamba import PLAN_3D, UMamba
from napari_mamba.models.shapes import count
from napari_mamba.nn.blocks.tokens import from_tokens, to_tokens
from napari_mamba.nn.blocks.unets.conv_blocks import ResidualBlock
from napari_mamba.nn.blocks.unets.residual_unet import Encoder, Plan
from napari_mamba.nn.norms.norm import LayerNorm
from napari_mamba.nn.xlstm.vil import ViLBlock

CONVOLVED = 3
"""Stages of a 3D encoder that are followed by a residual block and not by an mLSTM: their maps are too large."""
FACTS: dict[str, Any] = {
    "task": "segmentation",
    "spatial_dims": (2, 3),
    "paper": "arXiv:2407.01530",
    "repository": "github.com/tianrun-chen/xLSTM-UNet-PyTorch",
    "licence": "Apache-2.0; its vision_lstm.py AGPL-3.0",
    "scan_order": "raster",
}
PLAN_2D = PLAN_3D | {
    "spatial_dims": 2,
    "features_per_stage": (32, 64, 128, 256, 512, 512),
    "num_classes": 2,
    "input_size": (96, 64),
}


class ViLLayer(nn.Module):
    """An mLSTM over the voxels of a map in raster order, or over its channels where they are more."""

    def __init__(self, dim: int, channel_token: bool = False) -> None:
        super().__init__()
        self.dim, self.channel_token = dim, channel_token
        self.norm = LayerNorm(dim)  # stored and not used, as published
        self.vil = ViLBlock(dim, block_size=2 if dim % 4 else 4)

    def forward(self, x: Tensor) -> Tensor:
        spatial = x.shape[2:]
        if not self.channel_token:
            return from_tokens(self.vil(to_tokens(x)), spatial)
        if spatial.numel() != self.dim:
            raise InputError(
                f"this network scans over channels, on feature maps of {self.dim} voxels and not {spatial.numel()}: "
                "give it images of the patch size it was trained with"
            )
        return self.vil(x.flatten(2)).unflatten(2, spatial)


class XLSTMEncoder(Encoder):
    """U-Mamba's encoder with its layers under `xlstm_layers`."""

    def __init__(self, plan: Plan, layers: Sequence[nn.Module]) -> None:
        super().__init__(plan, None)
        self.xlstm_layers = nn.ModuleList(layers)

    def scan(self, x: Tensor, stage: int) -> Tensor:
        return self.xlstm_layers[stage](x)


def identify(name: str, shapes: Shapes) -> Identification | None:
    """xLSTM-UNet's arguments from a state_dict's keys and shapes, if it is the network called `name`."""
    last = f"encoder.xlstm_layers.{count(shapes, 'encoder.stages.') - 1}.vil.layer.proj_up.weight"
    key = {"uxlstm_enc": last, "uxlstm_bot": "xlstm.vil.layer.proj_up.weight"}[name]
    if key not in shapes or "decoder.upsample_layers.0.conv.weight" not in shapes:
        return None
    ambiguous = ("strides", "input_size") if name == "uxlstm_enc" else ("strides",)
    note = f"{' and '.join(ambiguous)} leave no trace in the weights: take them from nnU-Net's plans.json"
    return Identification(name, "", plan_arguments(shapes, "v2"), ambiguous, note)


@register(
    name="uxlstm_enc",
    title="xLSTM-UNet (Enc)",
    vectors={
        "UxLSTMEnc_2d": PLAN_2D | {"input_channels": 3, "num_classes": 4, "input_size": (128, 160)},
        "UxLSTMEnc_3d": PLAN_3D,
    },
    identify=lambda shapes: identify("uxlstm_enc", shapes),
    **FACTS,
)
class UxLSTMEnc(UMamba):
    """xLSTM-UNet with mLSTM blocks in its encoder; parameters as `UMamba`'s, of its second generation.

    In 3D from the fourth stage on, in 2D every other stage; stages before have a residual block more.
    """

    def build_encoder(self) -> Encoder:
        plan = self.plan
        if self.input_size is None:
            raise InputError("uxlstm_enc needs input_size, nnU-Net's patch size: its weights' shapes depend on it")
        sizes = plan.feature_map_sizes(self.input_size)
        return XLSTMEncoder(plan, [self._layer(stage, size) for stage, size in enumerate(sizes)])

    def _layer(self, stage: int, size: Sequence[int]) -> nn.Module:
        plan = self.plan
        channels, voxels = plan.features[stage], math.prod(size)
        convolved = stage < CONVOLVED if plan.spatial_dims == 3 else stage == 1
        if convolved:
            return ResidualBlock(channels, channels, plan.kernels[stage])
        if plan.spatial_dims == 2 and (stage < 2 or stage % 2 == plan.stages % 2):
            return nn.Identity()
        return ViLLayer(voxels, channel_token=True) if voxels <= channels else ViLLayer(channels)


@register(
    name="uxlstm_bot",
    title="xLSTM-UNet (Bot)",
    vectors={
        "UxLSTMBot_2d": PLAN_2D,
        "UxLSTMBot_3d": PLAN_3D,
    },
    identify=lambda shapes: identify("uxlstm_bot", shapes),
    **FACTS,
)
class UxLSTMBot(UMamba):
    """xLSTM-UNet with one mLSTM block, over the deepest feature map; parameters as `UMamba`'s."""

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self.xlstm = ViLLayer(self.plan.features[-1])

    def bottom(self, x: Tensor) -> Tensor:
        return self.xlstm(x)
