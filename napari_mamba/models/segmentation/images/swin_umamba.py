"""Swin-UMamba and Swin-UMamba†: VMamba encoders with a UNETR or a VSS decoder (Liu et al., arXiv:2402.03302).

Read in github.com/JiarunLiu/Swin-UMamba, `swin_umamba/nnunetv2/nets/`, as since 2024-03-06.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.segmentation.norms import norm_of
from napari_mamba.models.shapes import count, has
from napari_mamba.models.shapes import depths as depths_of
from napari_mamba.nn.blocks.drop import rising_rates
from napari_mamba.nn.blocks.transformers.patch import PatchExpand
from napari_mamba.nn.blocks.unets.unetr import NormName, UnetOutBlock, UnetrBasicBlock, UnetrUpBlock
from napari_mamba.nn.blocks.vss import VSSEncoder, VSSLayer, init_vss_weights, states
from napari_mamba.nn.norms.instance_norm import InstanceNorm2d


class VSSMEncoder(VSSEncoder):
    """`VSSEncoder` that stores its patch mergings beside the stages and returns its input and every stage's output."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.downsamples = nn.ModuleList(layer.downsample for layer in self.layers[:-1])
        for layer in self.layers:
            layer.downsample = nn.Identity()
        self.apply(init_vss_weights)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) to five maps (B, C, H, W), coarser and coarser."""
        outputs = [x]
        x = self.pos_drop(self.patch_embed(x))
        for layer, down in zip(self.layers, [*self.downsamples, nn.Identity()], strict=True):
            x = layer(x)
            outputs.append(x.movedim(-1, 1))
            x = down(x)
        return outputs


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a Swin-UMamba state_dict by its stem and UNETR decoder."""
    if not has(shapes, "stem.0.weight", "vssm_encoder.patch_embed.proj.weight", "decoder6.transp_conv.conv.weight"):
        return None
    norm = norm_of(shapes)
    return Identification(
        "swin_umamba",
        arguments={
            "in_chans": shapes["stem.0.weight"][1],
            "out_chans": shapes["out_layers.0.conv.conv.weight"][0],
            "feat_size": [shapes[f"encoder{level}.layer.conv2.conv.weight"][0] for level in range(1, 6)],
            "hidden_size": shapes["decoder6.transp_conv.conv.weight"][0],
            "res_block": "decoder6.conv_block.conv3.conv.weight" in shapes,
            "norm_name": norm.name,
        },
        ambiguous=norm.unsaid,
        note=norm.note,
    )


@register(
    name="swin_umamba",
    title="Swin-UMamba",
    task="segmentation",
    spatial_dims=(2,),
    paper="arXiv:2402.03302",
    repository="github.com/JiarunLiu/Swin-UMamba",
    licence="Apache-2.0",
    scan_order="ss2d",
    vectors={"SwinUMamba": {"out_chans": 14}},
    identify=identify,
)
class SwinUMamba(nn.Module):
    """Swin-UMamba.

    Parameters
    ----------
    in_chans, out_chans : int
        Input channels and classes.
    feat_size : sequence of int
        Channels at full resolution, then of the encoder's four stages.
    hidden_size : int
        Channels of the bottleneck, those of the last stage.
    norm_name : str
        Normalisation of the convolutional blocks.
    res_block : bool
        Whether they are residual.
    deep_supervision : bool
        Return four resolutions, the finest first, instead of one.
    drop_path_rate, layer_scale_init_value, spatial_dims
        The authors' arguments that change nothing: the encoder's rate is 0.2, as theirs.
    """

    def __init__(
        self,
        in_chans: int = 1,
        out_chans: int = 13,
        feat_size: Sequence[int] = (48, 96, 192, 384, 768),
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        hidden_size: int = 768,
        norm_name: NormName = "instance",
        res_block: bool = True,
        spatial_dims: int = 2,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        first = feat_size[0]
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, first, 7, stride=2, padding=3), InstanceNorm2d(first, eps=1e-5, affine=True)
        )
        self.vssm_encoder = VSSMEncoder(patch_size=2, in_chans=first, dims=feat_size[1:], drop_path_rate=0.2)
        shared = {"norm_name": norm_name, "res_block": res_block}
        channels = [in_chans, *feat_size, hidden_size]
        for level in range(1, 6):
            setattr(self, f"encoder{level}", UnetrBasicBlock(2, channels[level - 1], channels[level], **shared))
        self.decoder6 = UnetrUpBlock(2, hidden_size, channels[5], **shared)
        for level in range(5, 1, -1):
            setattr(self, f"decoder{level}", UnetrUpBlock(2, channels[level], channels[level - 1], **shared))
        self.decoder1 = UnetrBasicBlock(2, first, first, **shared)
        self.out_layers = nn.ModuleList(UnetOutBlock(2, feat_size[i], out_chans) for i in range(4))

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """(B, in_chans, H, W), sides divisible by 32, to logits (B, out_chans, H, W)."""
        *features, bottom = self.vssm_encoder(self.stem(x))
        skips = [self.encoder1(x)]
        for level, feature in enumerate(features, start=2):
            skips.append(self.get_submodule(f"encoder{level}")(feature))
        maps, y = [], bottom
        for decoder in (self.decoder6, self.decoder5, self.decoder4, self.decoder3, self.decoder2):
            y = decoder(y, skips)
            maps.append(y)
        maps[-1] = self.decoder1(y)
        if not self.deep_supervision:
            return self.out_layers[0](maps[-1])
        return [layer(y) for layer, y in zip(self.out_layers, maps[:0:-1], strict=True)]


class UNetResDecoder(nn.Module):
    """VSS decoder that concatenates the skips, and a prediction at every resolution."""

    def __init__(
        self,
        num_classes: int,
        deep_supervision: bool = False,
        features_per_stage: Sequence[int] = (96, 192, 384, 768),
        drop_path_rate: float = 0.2,
        d_state: int | None = 16,
    ) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        dims = list(features_per_stage)[::-1]
        rates = rising_rates(drop_path_rate, 2 * (len(dims) - 1))[::-1]
        self.expand_layers, self.concat_back_dim = nn.ModuleList(), nn.ModuleList()
        self.stages, self.seg_layers = nn.ModuleList(), nn.ModuleList()
        for stage, (below, dim) in enumerate(pairwise(dims)):
            self.expand_layers.append(PatchExpand(below, below // 2))
            self.concat_back_dim.append(nn.Linear(2 * dim, dim))
            self.stages.append(VSSLayer(dim, rates[2 * stage : 2 * stage + 2], d_state=states(d_state, 2 * dim)))
            self.seg_layers.append(nn.Conv2d(dim, num_classes, 1))
        self.expand_layers.append(PatchExpand(dims[-1], dims[-1], scale=4))
        self.seg_layers.append(nn.Conv2d(dims[-1], num_classes, 1))

    def forward(self, skips: list[Tensor]) -> Tensor | list[Tensor]:
        *skips, x = [skip.movedim(1, -1) for skip in skips]
        maps = []
        for expand, join, stage in zip(self.expand_layers[:-1], self.concat_back_dim, self.stages, strict=True):
            x = stage(join(torch.cat([expand(x), skips.pop()], dim=-1)))
            maps.append(x)
        maps.append(self.expand_layers[-1](x))
        if not self.deep_supervision:
            return self.seg_layers[-1](maps[-1].movedim(-1, 1))
        outputs = [layer(y.movedim(-1, 1)) for layer, y in zip(self.seg_layers, maps, strict=True)]
        return outputs[::-1]


def identify_d(shapes: Shapes) -> Identification | None:
    """Recognise a Swin-UMamba† state_dict by its VSS decoder."""
    if not has(shapes, "vssm_encoder.patch_embed.proj.weight", "decoder.concat_back_dim.0.weight"):
        return None
    embed, attention = shapes["vssm_encoder.patch_embed.proj.weight"], "blocks.0.self_attention.A_logs"
    stages = count(shapes, "vssm_encoder.layers.")
    dims = [shapes[f"vssm_encoder.layers.{i}.blocks.0.ln_1.weight"][0] for i in range(stages)]
    decoder_states = {shapes[f"decoder.stages.{i}.{attention}"][1] for i in range(stages - 1)}
    return Identification(
        "swin_umamba_d",
        arguments={
            "vss_args": {
                "in_chans": embed[1],
                "patch_size": embed[2],
                "depths": depths_of(shapes, "vssm_encoder.layers.", ".blocks."),
                "dims": dims,
                "d_state": shapes[f"vssm_encoder.layers.0.{attention}"][1],
                "patch_norm": "vssm_encoder.patch_embed.norm.weight" in shapes,
            },
            "decoder_args": {
                "num_classes": shapes["decoder.seg_layers.0.weight"][0],
                "deep_supervision": False,
                "features_per_stage": dims,
                "d_state": decoder_states.pop() if len(decoder_states) == 1 else None,
            },
        },
    )


@register(
    name="swin_umamba_d",
    title="Swin-UMamba†",
    task="segmentation",
    spatial_dims=(2,),
    paper="arXiv:2402.03302",
    repository="github.com/JiarunLiu/Swin-UMamba",
    licence="Apache-2.0",
    scan_order="ss2d",
    vectors={
        "SwinUMambaD": {
            "vss_args": {"in_chans": 1, "patch_size": 4, "depths": [2, 2, 9, 2], "dims": 96, "drop_path_rate": 0.2},
            "decoder_args": {"num_classes": 14, "features_per_stage": [96, 192, 384, 768]},
        }
    },
    identify=identify_d,
)
class SwinUMambaD(nn.Module):
    """Swin-UMamba†, whose decoder is made of VSS blocks.

    Parameters
    ----------
    vss_args : mapping
        Of the encoder: patch_size, in_chans, depths, dims, d_state, drop_rate, attn_drop_rate, drop_path_rate,
        patch_norm, use_checkpoint.
    decoder_args : mapping
        num_classes, deep_supervision, features_per_stage (the encoder's dims), drop_path_rate, d_state.
    """

    def __init__(self, vss_args: Mapping[str, Any], decoder_args: Mapping[str, Any]) -> None:
        super().__init__()
        self.vssm_encoder = VSSMEncoder(**vss_args)
        self.decoder = UNetResDecoder(**decoder_args)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """(B, in_chans, H, W), sides divisible by 32, to logits (B, num_classes, H, W), or a list of them."""
        return self.decoder(self.vssm_encoder(x)[1:])
