"""Every registered network at a size at which a test can afford all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

FOUR = [1, 1, 1, 1]
PLAN = {
    "spatial_dims": 3,
    "input_channels": 1,
    "num_classes": 3,
    "features_per_stage": [8, 16],
    "kernel_sizes": 3,
    "strides": [1, 2],
    "n_conv_per_stage": 1,
    "n_conv_per_stage_decoder": 1,
}
SEGMAMBA = {"out_chans": 3, "depths": FOUR, "feat_size": [8, 8, 16, 16], "hidden_size": 16}
SWIN_D = {
    "vss_args": {"in_chans": 1, "patch_size": 4, "depths": FOUR, "dims": 8},
    "decoder_args": {"num_classes": 3, "features_per_stage": [8, 16, 32, 64]},
}
VMAMBA = {"depths": [1, 1], "dims": 16, "num_classes": 5}
LOCAL_VIM = {
    "img_size": 64,
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 2,
    "num_classes": 4,
    "rms_norm": True,
    "final_pool_type": "mean",
    "if_abs_pos_embed": True,
    "directions": "searched",
}
ROPE = {"if_rope": True, "if_rope_residual": True}
PLAIN_MAMBA = {"img_size": 64, "embed_dims": 32, "num_layers": 2, "layers_with_dwconv": (0,), "num_classes": 4}
V2 = {"embed_dim": 24, "d_state": 4, "depths": [1, 1], "num_heads": [2, 3], "window_size": 8, "num_tokens": 10}
VIM_UNET = {"out_channels": 3, "img_size": 64, "depth": 2, "embed_dim": 16, "initial_features": 8}
TP_MAMBA = {"num_classes": 3, "embed_dim": 32, "depth": 4, "num_heads": 2, "img_size": 64, "window_size": 2}
TP_MAMBA |= {"global_attn_indexes": (1, 3), "rank": 4, "out_dim": 4}
MIM_ISTD = {"layer_blocks": [1, 1, 1], "channels": [8, 16, 32, 64, 128], "depths": [1] * 4, "inner_dim": 2}
MIM_ISTD |= {"num_classes": 3, "img_size": 64}
MAMBA_MIM = {"in_channel": 1, "n_classes": 3, "channels": [4, 4, 4, 6, 6], "depths": [1, 1, 1, 1, 1]}
MAMBA_MIM |= {"exp_r": [2, 2, 2, 2, 2], "img_size": 32, "depth": 1}
GFE = {"categories": [2, 3], "num_continuous": 3, "dim": 16, "depth": 1, "heads": 2, "dim_out": 2, "seq_length": 2}
GFE |= {"slice_pixels": 256, "mid_positions": 384}
GFE_GENERATOR = {"f_maps": [8, 8], "is_segmentation": False, "image_size": (16, 16, 12), "patch_size": 2}
GFE_GENERATOR |= {"dim": 16, "depth": 1, "heads": 1, "mlp_dim": 16}
ROW = (torch.tensor([[1, 2]]), torch.tensor([[0.5, -1.0, 2.0]]))
TIME = (torch.tensor([7]),)
MD_DOSE = {"inp_channels": 3, "dim": 8, "img_size": 32, "depths": [1] * 8}
EDGES = torch.arange(23).repeat(2, 2) + torch.tensor([[1] * 46, [0] * 23 + [3] * 23])
EDGES = EDGES[:, EDGES.amax(0) < 23]
ORDERS = tuple(torch.randperm(23, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
VISION_LSTM = {"dim": 32, "input_shape": (3, 64, 64), "output_shape": (4,)}
FOUR_STAGES = PLAN | {"spatial_dims": 2, "features_per_stage": [8, 8, 16, 32], "strides": [1, 2, 2, 2]}
VMAMBAIR = {"dim": 8, "num_blocks": FOUR, "num_refinement_blocks": 1}


@dataclass(frozen=True)
class Tiny:
    """A network's name, the arguments that make it small, and the shape of an input."""

    name: str
    arguments: Mapping[str, Any]
    shape: tuple[int, ...]
    note: str = ""
    more: tuple[tuple[int, ...], ...] = field(default=())
    fixed: tuple[Tensor, ...] = field(default=())
    """Forward arguments after the images that stay as they are: edges, orders, a time."""
    first: tuple[Tensor, ...] = field(default=())
    """Those before the images: a table's row."""

    def __str__(self) -> str:
        return f"{self.name}-{self.note}" if self.note else self.name

    def inputs(self, seed: int = 0) -> list[Tensor]:
        """Images: smooth structures with noise, from 0 to 1, not noise alone."""
        generator = torch.Generator().manual_seed(seed)
        return [image(shape, generator) for shape in (self.shape, *self.more)]

    def run(self, network: nn.Module, inputs: list[Tensor]) -> Tensor:
        """The network's first output."""
        first, last = ([x.to(inputs[0].device) for x in fixed] for fixed in (self.first, self.fixed))
        y = network(*first, *inputs, *last)
        return y if isinstance(y, Tensor) else y[0]


def image(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Noise at every scale, the coarse ones stronger, as natural and medical images have it."""
    if len(shape) <= 3:  # a bag of features
        return torch.randn(shape, generator=generator)
    batch, channels, *spatial = shape
    total = torch.zeros(batch, channels, *spatial)
    mode = "bilinear" if len(spatial) == 2 else "trilinear"
    for step in (16, 8, 4, 2, 1):
        coarse = torch.randn(batch, channels, *(max(n // step, 1) for n in spatial), generator=generator)
        total += step**0.5 * nn.functional.interpolate(coarse, spatial, mode=mode)
    low, high = total.amin(), total.amax()
    return (total - low) / (high - low)


TINY = [
    Tiny(
        "efficient_vmamba",
        {"depths": FOUR, "dims": 16, "mlp_ratio": 0.0, "downsample_version": "v1", "num_classes": 5},
        (2, 3, 44, 72),
    ),
    Tiny(
        "em_net",
        {"depths": FOUR, "feat_size": [8, 8, 16, 16], "hidden_size": 16, "fft_nums": [0, 0, 1, 0], "out_chans": 3}
        | {"in_shpae": (32, 32, 32)},
        (2, 1, 32, 32, 32),
    ),
    Tiny("fdv_net", {"n_blocks": 1, "side": 8}, (1, 3, 24, 16)),
    Tiny(
        "fusionmamba",
        {"depths": [1, 1], "depths_decoder": [1, 1], "dims": [16, 32], "dims_decoder": [32, 16]},
        (1, 1, 16, 24),
        more=((1, 1, 16, 24),),
    ),
    Tiny("h_vmunet", {"num_classes": 2}, (2, 3, 32, 64)),
    Tiny("hmt_unet", {"num_classes": 3, "depths": [1, 1, 2, 2], "dim": 16, "in_dim": 8}, (2, 3, 32, 64)),
    Tiny("lightm_unet", {"spatial_dims": 2, "init_filters": 8, "out_channels": 3}, (2, 1, 16, 24), "2d"),
    Tiny("lightm_unet", {"spatial_dims": 3, "init_filters": 8, "out_channels": 3}, (1, 1, 16, 8, 16), "3d"),
    Tiny("lkm_unet", {**PLAN, "spatial_dims": 2}, (2, 1, 20, 20), "2d"),
    Tiny("lkm_unet", PLAN, (1, 1, 10, 14, 12), "3d"),
    Tiny("local_vim", LOCAL_VIM | ROPE, (2, 3, 56, 40), "rope"),
    Tiny("local_vim", LOCAL_VIM | {"if_cls_token": True, "use_middle_cls_token": True}, (2, 3, 64, 64), "class token"),
    Tiny("local_vmamba", {"depths": [1, 1], "dims": 16, "num_classes": 5}, (2, 3, 36, 28)),
    Tiny(
        "mamba_clinix",
        {
            **PLAN,
            "features_per_stage": [8, 16, 16],
            "strides": [1, 2, 2],
            "n_conv_per_stage": 2,
        },
        (1, 1, 8, 16, 8),
    ),
    Tiny(
        "mamba_nd",
        {"img_size": 64, "patch_size": 8, "embed_dims": 32, "num_layers": 2, "downsample": [1], "num_classes": 4},
        (2, 3, 48, 48),
    ),
    Tiny(
        "mamba_nd_unetr",
        {"in_channels": 1, "out_channels": 3, "img_size": (16, 32, 32), "feature_size": 8, "hidden_size": 32},
        (1, 1, 16, 32, 32),
    ),
    Tiny("mamba_unet", {"num_classes": 3, "depths": FOUR, "dims": 16, "d_state": 4}, (2, 1, 32, 32)),
    Tiny("mambadfuse", {"embed_dim": 16}, (1, 1, 16, 24), more=((1, 1, 16, 24),)),
    Tiny("mambair", {"embed_dim": 32, "depths": [1], "mlp_ratio": 1.2, "upscale": 1}, (1, 3, 16, 12), "same size"),
    Tiny(
        "mambair",
        {"embed_dim": 32, "depths": [1], "mlp_ratio": 1.2, "upscale": 2, "upsampler": "pixelshuffledirect"},
        (1, 3, 12, 16),
        "light",
    ),
    Tiny("mambair_unet", {"dim": 32, "num_blocks": FOUR, "num_refinement_blocks": 1}, (1, 3, 16, 16)),
    Tiny("mambair_v2", V2, (1, 3, 16, 16)),
    Tiny("mambair_v2_light", V2, (1, 3, 16, 16)),
    *(Tiny("mambamil", {"in_dim": 32, "type": kind}, (1, 23, 32), kind) for kind in ("SRMamba", "BiMamba", "Mamba")),
    Tiny(
        "mambamorph",
        {"img_size": (16, 16, 16), "embed_dim": 12, "variant": "MambaMorphFeat"},
        (1, 1, 16, 16, 16),
        "features",
        more=((1, 1, 16, 16, 16),),
    ),
    Tiny("mambamorph", {"img_size": (16, 16, 16), "embed_dim": 12}, (1, 1, 16, 16, 16), more=((1, 1, 16, 16, 16),)),
    Tiny("medmamba", {"num_classes": 7, "depths": [1, 1], "dims": [16, 32]}, (2, 3, 40, 52)),
    Tiny("mamba_mim", MAMBA_MIM, (1, 1, 32, 32, 32)),
    Tiny("mhs_vm", {"num_classes": 3, "depths": FOUR, "depths_decoder": FOUR, "head_num": 4}, (1, 3, 64, 32)),
    Tiny("microscopic_mamba", {"num_classes": 7, "depths": [1, 1], "dims": [32, 64]}, (2, 3, 40, 40)),
    Tiny("mim_istd", MIM_ISTD, (2, 1, 64, 64)),
    Tiny("mucm_net", {"num_classes": 3, "variant": "MUCM_Net_2"}, (2, 3, 64, 128)),
    Tiny("msvm_unet", {"num_classes": 3, "dims": 16, "depths": FOUR}, (2, 1, 64, 32)),
    *(
        Tiny("nnmamba", {"channels": 16, "blocks": 2, "number_classes": 3, "generation": one}, (1, 1, 32, 32, 32), one)
        for one in ("first", "root")
    ),
    Tiny("nnmamba_cls", {"channels": 16, "blocks": 1, "number_classes": 3}, (1, 1, 32, 32, 32)),
    Tiny("plain_mamba", PLAIN_MAMBA, (2, 3, 48, 72)),
    Tiny("segmamba", SEGMAMBA, (1, 1, 32, 32, 32)),
    Tiny("segmamba_v2", SEGMAMBA, (1, 1, 32, 32, 32)),
    Tiny(
        "swin_umamba",
        {"in_chans": 1, "out_chans": 3, "feat_size": [8, 8, 16, 32, 64], "hidden_size": 64},
        (1, 1, 64, 64),
    ),
    Tiny("swin_umamba_d", SWIN_D, (1, 1, 64, 64)),
    Tiny("t_mamba_2d", {"classes": 3, "input_size": (32, 40)}, (2, 1, 32, 40)),
    Tiny("t_mamba_3d", {"classes": 3, "input_size": (16, 24, 16)}, (1, 1, 16, 24, 16)),
    *(Tiny("tp_mamba", TP_MAMBA | {"mode": mode}, (1, 1, 16, 24, 3), f"mode {mode}") for mode in (0, 2)),
    Tiny("ultralight_vm_unet", {"num_classes": 2}, (2, 3, 64, 32)),
    Tiny("umamba_bot", PLAN, (1, 1, 8, 8, 16)),
    Tiny("umamba_enc", {**PLAN, "input_size": (8, 8, 16)}, (1, 1, 8, 8, 16)),
    Tiny("umamba_enc", {**PLAN, "generation": "v1"}, (1, 1, 8, 8, 16), "v1"),
    Tiny("vim", {"img_size": 64, "depth": 2, "embed_dim": 32, "num_classes": 4}, (1, 3, 64, 64)),
    Tiny("vim4path", {"img_size": 64, "depth": 2, "embed_dim": 32}, (1, 3, 48, 64)),
    Tiny("vim_unet", VIM_UNET, (2, 3, 64, 50)),
    Tiny("vim_unet", {**VIM_UNET, "use_conv_transpose": True, "if_rope": True}, (1, 3, 64, 64), "first"),
    Tiny("vmrnn_b", {"embed_dim": 16, "depths": [2], "patch_size": 4}, (2, 1, 24, 16)),
    Tiny("vmrnn_d", {"embed_dim": 8, "depths_downsample": [1, 1], "depths_upsample": [1, 1]}, (1, 1, 16, 24)),
    Tiny("vm_unet", {"num_classes": 4, "depths": FOUR, "depths_decoder": FOUR}, (1, 1, 64, 32)),
    Tiny("vm_unet_v2", {"num_classes": 2, "depths": FOUR, "deep_supervision": False}, (2, 3, 64, 64)),
    Tiny("vmamba", {**VMAMBA, "forward_type": "v0", "mlp_ratio": 0.0}, (2, 3, 36, 28), "v0"),
    Tiny("vmamba", {**VMAMBA, "forward_type": "v05_noz"}, (2, 3, 32, 32), "v05"),
    Tiny("vmamba", {**VMAMBA, "forward_type": "m0_noz", "ssm_init": "v2"}, (2, 3, 36, 28), "m2"),
    Tiny("vmamba", {**VMAMBA, "forward_type": "v052d"}, (2, 3, 32, 32), "v052d"),
    Tiny("vmambair", VMAMBAIR, (1, 3, 16, 16), "wide channel scan"),
    Tiny("vmambair", {**VMAMBAIR, "network": "MambaRealSR11"}, (1, 3, 16, 16), "channel means"),
    Tiny("voxel_mamba_unet", {"features": (8, 16), "depths": (1, 1)}, (1, 1, 6, 8, 10)),
    Tiny(
        "vmambamorph",
        {"img_size": (16, 16, 16), "embed_dim": 12, "depths": (1, 1, 1), "variant": "VMambaMorphFeat", "rec_num": 2},
        (1, 1, 16, 16, 16),
        more=((1, 1, 16, 16, 16),),
    ),
]

# Networks that take a graph, a table or a time beside the features, or the frames of a clip, or follow a velocity, or
# have mLSTMs or nothing in a Mamba's place: not for tests of maps, or of mixers.
OTHERS = [
    Tiny("velocity_umamba", {"features": (8, 16, 16), "first_scan": 1}, (1, 2, 16, 16, 16)),
    Tiny("md_dose", MD_DOSE, (1, 3, 32, 32), fixed=TIME),
    Tiny("md_dose", MD_DOSE | {"inp_struc_channels": 2}, (1, 3, 32, 32), "struc", ((1, 2, 32, 32),), TIME),
    Tiny("gfe_mamba_generator", GFE_GENERATOR, (1, 1, 16, 16, 12)),
    Tiny("gfe_mamba", GFE, (1, 8, 64, 6), more=((1, 8, 64, 6), *((1, 1, 16, 16, 5),) * 2), first=ROW),
    Tiny("gfe_mamba_pair", GFE | {"mid_positions": 384, "generator": GFE_GENERATOR}, (1, 1, 12, 16, 16)),
    Tiny("gat_mamba", {}, (23, 1026), fixed=(EDGES,)),
    Tiny("mammil", {"input_dim": 32, "embed_dim": 32, "num_classes": 4}, (23, 32), fixed=(EDGES, *ORDERS)),
    Tiny(
        "vivim",
        {"out_chans": 3, "depths": FOUR, "feat_size": [16, 16, 32, 32], "backbone_depths": FOUR, "decoder_width": 32},
        (1, 5, 3, 32, 64),
    ),
    Tiny("vision_lstm", {**VISION_LSTM, "depth": 2}, (2, 3, 48, 64)),
    Tiny("vision_lstm2", {**VISION_LSTM, "depth": 1, "legacy_norm": True}, (2, 3, 48, 64)),
    Tiny("uxlstm_enc", {**FOUR_STAGES, "input_size": (32, 48)}, (1, 1, 32, 48)),
    Tiny("uxlstm_bot", FOUR_STAGES, (1, 1, 32, 48)),
    Tiny("uvixlstm", {"class_num": 3, "out_channels": 8, "depth": 2, "dim": 32}, (1, 1, 96, 96, 96)),
]
