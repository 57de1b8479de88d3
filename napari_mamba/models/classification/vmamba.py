"""VMamba: a hierarchical image classifier of SS2D blocks (Liu et al., arXiv:2401.10166).

Read in github.com/MzeroMiko/VMamba, `vmamba.py`: version 0 (January 2024) and the faster ones up to 05.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import depths as depths_of
from napari_mamba.models.shapes import has
from napari_mamba.nn.blocks.drop import drop_path_rates
from napari_mamba.nn.blocks.transformers.mlp import GatedMlp, Mlp
from napari_mamba.nn.blocks.vmamba import ACTIVATIONS, NORMS, VSSBlock, downsample, patch_embed
from napari_mamba.nn.blocks.vss import grey_to_rgb, init_vss_weights, stage_dims
from napari_mamba.nn.mixers.images.ss2d import SS2D
from napari_mamba.nn.mixers.images.ss2d_m0 import SS2Dm0
from napari_mamba.nn.mixers.images.ss2d_v2 import SS2Dv2
from napari_mamba.nn.mixers.selective import rank_of

TINY_V0 = {"forward_type": "v0", "mlp_ratio": 0.0, "downsample_version": "v1", "drop_path_rate": 0.2}
TINY_V05_NOZ = {
    "depths": [2, 2, 8, 2],
    "ssm_d_state": 1,
    "ssm_ratio": 1.0,
    "ssm_conv_bias": False,
    "forward_type": "v05_noz",
    "norm_layer": "ln2d",
    "downsample_version": "v3",
    "patchembed_version": "v2",
    "drop_path_rate": 0.2,
}
TINY_M2 = {
    "depths": [2, 2, 4, 2],
    "ssm_d_state": 64,
    "ssm_ratio": 1.0,
    "ssm_act_layer": "gelu",
    "ssm_conv_bias": False,
    "ssm_init": "v2",
    "forward_type": "m0_noz",
    "downsample_version": "v3",
    "patchembed_version": "v2",
    "drop_path_rate": 0.2,
}
"""The published `vanilla_vmamba_tiny`, `vmamba_tiny_s1l8` and `vmamba_tiny_m2`."""


OLD_KEYS = (
    (r"patch_embed\.proj\.", "patch_embed.0."),
    (r"patch_embed\.norm\.", "patch_embed.2."),
    (r"(layers\.\d+\.blocks\.\d+)\.ln_1\.", r"\1.norm."),
    (r"(layers\.\d+\.blocks\.\d+)\.self_attention\.", r"\1.op."),
    (r"(layers\.\d+)\.downsample\.norm\.", r"\1.downsample.1."),
    (r"(layers\.\d+)\.downsample\.reduction\.", r"\1.downsample.2."),
    (r"norm\.", "classifier.norm."),
    (r"head\.", "classifier.head."),
)
"""Keys of the published checkpoints, which are older than the code read here, and what that code calls them."""


def remap_old_key(key: str) -> str:
    """An old checkpoint's key, as it is called now."""
    for old, new in OLD_KEYS:
        key = re.sub(f"^{old}", new, key)
    return key


def remap_old_keys(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Hook of `load_state_dict`: renames and reshapes the entries of older VMamba checkpoints in place."""
    own = {key: value.shape for key, value in module.state_dict().items()}
    for key in [key for key in state_dict if key.startswith(prefix)]:
        name = remap_old_key(key[len(prefix) :])
        if name not in own:  # the projections of versions 01 to 05 were parameters before they were layers
            name = re.sub(r"\.op\.(x_proj|dt_projs)_weight$", r".op.\1.weight", name)
        value = state_dict.pop(key)
        # 1 x 1 convolutions became linear layers, with the same numbers.
        fits = name in own and value.shape != own[name] and value.numel() == own[name].numel()
        state_dict[prefix + name] = value.view(own[name]) if fits else value


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a VMamba classifier, with the keys of today or of the published checkpoints."""
    shapes = {remap_old_key(key): tuple(shape) for key, shape in shapes.items()}
    op = "layers.0.blocks.0.op."
    required = ("classifier.norm.weight", "classifier.head.weight", "patch_embed.0.weight")
    if not has(shapes, f"{op}A_logs", f"{op}in_proj.weight", *required):
        return None
    stages = depths_of(shapes, "layers.", ".blocks.")
    dims = [shapes[f"layers.{i}.blocks.0.norm.weight"][0] for i in range(len(stages))]
    embed, d_inner = shapes["patch_embed.0.weight"], shapes[f"{op}out_proj.weight"][1]
    two_step = "patch_embed.5.weight" in shapes
    gated = shapes[f"{op}in_proj.weight"][0] == 2 * d_inner
    down = shapes.get("layers.0.downsample.1.weight", (0,))
    mlp = shapes.get("layers.0.blocks.0.mlp.fc1.weight", (0,))
    hidden = shapes.get("layers.0.blocks.0.mlp.fc2.weight", (0, 0))[1]
    # Version 0 has no perceptron, and its projections are parameters.
    first = f"{op}x_proj_weight" in shapes and not mlp[0] and gated and len(shapes[f"{op}Ds"]) == 1
    first = first and f"{op}out_norm.weight" in shapes and f"{op}conv2d.weight" in shapes
    heads = shapes[f"{op}Ds"][1] if len(shapes[f"{op}Ds"]) == 3 else 0  # of Mamba-2's scan
    conv = shapes.get(f"{op}conv2d.1.weight" if heads else f"{op}conv2d.weight")
    rank = heads or shapes.get(f"{op}dt_projs_weight", shapes.get(f"{op}dt_projs.weight", (0,)))[-1]
    state = (shapes[f"{op}x_proj_weight"][1] - heads) // 2 if heads else shapes[f"{op}A_logs"][1]
    norms = {"out_norm.weight": "", "out_norm.2.weight": "_oncnorm", "out_norm.1.weight": "_ondwconv3"}
    norm = next((suffix for key, suffix in norms.items() if f"{op}{key}" in shapes), "_onnone")
    arguments = {
        "patch_size": 2 * (embed[2] - 1) if two_step else embed[2],
        "in_chans": embed[1],
        "num_classes": shapes["classifier.head.weight"][0],
        "depths": stages,
        "dims": dims,
        "ssm_d_state": state,
        "ssm_ratio": d_inner / dims[0],
        "ssm_dt_rank": "auto" if rank == rank_of("auto", dims[0]) else rank,
        "ssm_conv": conv[2] if conv else 1,
        "ssm_conv_bias": f"{op}conv2d.1.bias" in shapes or f"{op}conv2d.bias" in shapes,
        "forward_type": "v0" if first else ("m0" if heads else "v05") + norm + ("" if gated else "_noz"),
        "mlp_ratio": hidden / dims[0],
        "gmlp": hidden != mlp[0],
        "norm_layer": "bn" if "classifier.norm.running_mean" in shapes else "ln",
        "downsample_version": "v1" if len(down) != 4 else "v2" if down[2] == 2 else "v3",
        "patchembed_version": "v2" if two_step else "v1",
        "patch_norm": "patch_embed.2.weight" in shapes,
    }
    if heads:  # the weights do not say the activation: it is that of the published networks
        arguments |= {"ssm_init": "v2", "ssm_act_layer": "gelu"}
    if "pos_embed" in shapes:
        arguments |= {"posembed": True, "imgsize": shapes["pos_embed"][2] * arguments["patch_size"]}
    bare = norm == "_onnone"
    return Identification(
        "vmamba",
        generation="v0" if first else "m0" if heads else "v05",
        arguments=arguments,
        ambiguous=("forward_type",) if bare else (),
        note="The weights do not say whether the scan's output goes through a softmax, a sigmoid or nothing: name the "
        "forward_type they were trained with." * bare,
    )


@register(
    name="vmamba",
    title="VMamba",
    task="classification",
    spatial_dims=(2,),
    paper="arXiv:2401.10166",
    repository="github.com/MzeroMiko/VMamba",
    licence="MIT",
    scan_order="ss2d",
    vectors={"VMamba_tiny_v0": TINY_V0, "VMamba_tiny_v05_noz": TINY_V05_NOZ, "VMamba_tiny_m2": TINY_M2},
    identify=identify,
)
class VMamba(nn.Module):
    """VMamba. Rows are channels-last inside, whatever `norm_layer` says; the numbers are the same.

    Parameters
    ----------
    patch_size, in_chans, num_classes : int
        Side of a patch, input channels (where 3, one grey channel is repeated), classes.
    depths, dims : sequence of int
        Blocks and channels of each stage; an integer `dims` doubles.
    ssm_d_state, ssm_ratio, ssm_dt_rank, ssm_act_layer, ssm_conv, ssm_conv_bias, ssm_drop_rate, ssm_init
        Of the mixer, see `SS2Dv2`.
    forward_type : str
        "v0"; a later version with suffixes, see `SS2Dv2`; "m0_noz" for Mamba-2's scan, see `SS2Dm0`.
    mlp_ratio, mlp_act_layer, mlp_drop_rate
        Hidden channels per channel of the perceptron (0: none), its activation and dropout.
    drop_path_rate : float
        Of stochastic depth.
    patch_norm : bool
        Whether embedded patches are normalised.
    norm_layer : str
        "ln" or "ln2d", of channels, or "bn", of the batch.
    downsample_version, patchembed_version : str
        "v1", "v2" or "v3"; "v1" or "v2".
    use_checkpoint : bool
        Recompute the blocks while training, to save memory.
    posembed, imgsize
        Whether there is a position embedding, and for which image size.
    gmlp : bool
        Whether the perceptron is gated.
    """

    def __init__(
        self,
        patch_size: int = 4,
        in_chans: int = 3,
        num_classes: int = 1000,
        depths: Sequence[int] = (2, 2, 9, 2),
        dims: int | Sequence[int] = (96, 192, 384, 768),
        ssm_d_state: int = 16,
        ssm_ratio: float = 2.0,
        ssm_dt_rank: int | str = "auto",
        ssm_act_layer: str = "silu",
        ssm_conv: int = 3,
        ssm_conv_bias: bool = True,
        ssm_drop_rate: float = 0.0,
        ssm_init: str = "v0",
        forward_type: str = "v2",
        mlp_ratio: float = 4.0,
        mlp_act_layer: str = "gelu",
        mlp_drop_rate: float = 0.0,
        gmlp: bool = False,
        drop_path_rate: float = 0.1,
        patch_norm: bool = True,
        norm_layer: str = "LN",
        downsample_version: str = "v2",
        patchembed_version: str = "v1",
        use_checkpoint: bool = False,
        posembed: bool = False,
        imgsize: int = 224,
    ) -> None:
        super().__init__()
        if norm_layer.lower() not in NORMS:
            raise InputError(f'norm_layer must be "ln", "ln2d" or "bn", not {norm_layer!r}')
        norm = NORMS[norm_layer.lower()]
        dims = stage_dims(dims, len(depths))
        self.in_chans = in_chans
        self.pos_embed = None
        if posembed:
            side = imgsize // patch_size
            self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.zeros(1, dims[0], side, side), std=0.02))
        self.patch_embed = patch_embed(patchembed_version, in_chans, dims[0], patch_size, patch_norm, norm)

        def mixer(dim: int) -> nn.Module | None:
            shared = {"d_state": ssm_d_state, "dt_rank": ssm_dt_rank, "dropout": ssm_drop_rate}
            act = ACTIVATIONS[ssm_act_layer.lower()]
            if ssm_ratio <= 0:
                return None
            if forward_type in ("v0", "v0seq"):
                first = {"d_conv": max(ssm_conv, 1), "conv_bias": ssm_conv_bias}
                return SS2D(dim, expand=ssm_ratio, act=act, **first, **shared)
            form = {"d_conv": ssm_conv, "conv_bias": ssm_conv_bias, "initialize": ssm_init}
            kind = SS2Dm0 if forward_type.startswith("m0") else SS2Dv2
            return kind(dim, ssm_ratio=ssm_ratio, act=act, forward_type=forward_type, **shared, **form)

        def block(dim: int, rate: float) -> VSSBlock:
            act = ACTIVATIONS[mlp_act_layer.lower()]
            perceptron = GatedMlp if gmlp else Mlp
            mlp = perceptron(dim, int(dim * mlp_ratio), act, mlp_drop_rate) if mlp_ratio > 0 else None
            return VSSBlock(dim, mixer(dim), mlp, rate, use_checkpoint, norm)

        self.layers = nn.ModuleList()
        for stage, rates in enumerate(drop_path_rates(drop_path_rate, depths)):
            blocks = nn.Sequential(*[block(dims[stage], rate) for rate in rates])
            last = stage == len(dims) - 1
            down = nn.Identity() if last else downsample(downsample_version, dims[stage], dims[stage + 1], norm)
            self.layers.append(nn.Sequential(OrderedDict(blocks=blocks, downsample=down)))
        self.classifier = nn.ModuleDict({"norm": norm(dims[-1]), "head": nn.Linear(dims[-1], num_classes)})
        self.apply(init_vss_weights)
        self.register_load_state_dict_pre_hook(remap_old_keys)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) to logits (B, num_classes)."""
        x = self.patch_embed(grey_to_rgb(x, self.in_chans))
        if self.pos_embed is not None:
            x = x + self.pos_embed.movedim(1, -1)
        for layer in self.layers:
            x = layer(x)
        return self.classifier["head"](self.classifier["norm"](x).mean(dim=(1, 2)))
