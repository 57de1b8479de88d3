"""MedMamba: half the channels through SS2D, half through convolutions (Yue and Li, arXiv:2403.03849).

Read in github.com/YubiaoYue/MedMamba, `MedMamba.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import depths as depths_of
from napari_mamba.models.shapes import has
from napari_mamba.nn.blocks.vss import VSSBlock, VSSEncoder, grey_to_rgb, init_vss_weights


class SSConvSSM(VSSBlock):
    """Convolutions on the first half of the channels beside SS2D on the second, interleaved, with a residual."""

    def __init__(self, hidden_dim: int, drop_path: float = 0.0, attn_drop_rate: float = 0.0, d_state: int = 16) -> None:
        half = hidden_dim // 2
        super().__init__(half, drop_path, attn_drop_rate, d_state)
        self.conv33conv33conv11 = nn.Sequential(
            nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 3, padding=1),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, half, 3, padding=1),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, half, 1),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=-1)
        left = self.conv33conv33conv11(left.movedim(-1, 1)).movedim(1, -1)
        right = self.drop_path(self.self_attention(self.ln_1(right)))
        return x + torch.stack([left, right], dim=-1).flatten(-2)


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a MedMamba state_dict (since 2024-04-07) by its convolutional branch."""
    block = "layers.0.blocks.0."
    if not has(shapes, f"{block}conv33conv33conv11.7.weight", f"{block}self_attention.A_logs", "head.weight"):
        return None
    embed = shapes["patch_embed.proj.weight"]
    stages = depths_of(shapes, "layers.", ".blocks.")
    return Identification(
        "medmamba",
        arguments={
            "patch_size": embed[2],
            "in_chans": embed[1],
            "num_classes": shapes["head.weight"][0],
            "depths": stages,
            "dims": [2 * shapes[f"layers.{i}.blocks.0.ln_1.weight"][0] for i in range(len(stages))],
            "d_state": shapes[f"{block}self_attention.A_logs"][1],
            "patch_norm": "patch_embed.norm.weight" in shapes,
        },
    )


@register(
    name="medmamba",
    title="MedMamba",
    task="classification",
    spatial_dims=(2,),
    paper="arXiv:2403.03849",
    repository="github.com/YubiaoYue/MedMamba",
    licence="none stated",
    scan_order="ss2d",
    vectors={
        "MedMamba_T": {"num_classes": 6, "depths": [2, 2, 4, 2]},
        "MedMamba_S": {"num_classes": 6, "depths": [2, 2, 8, 2]},
        "MedMamba_B": {"num_classes": 6, "depths": [2, 2, 12, 2], "dims": [128, 256, 512, 1024]},
    },
    identify=identify,
)
class MedMamba(VSSEncoder):
    """MedMamba.

    Parameters
    ----------
    patch_size : int
        Side of a patch, in pixels.
    in_chans : int
        Input channels; where 3, one grey channel is repeated.
    num_classes : int
        Classes; 0 returns the pooled features.
    depths : sequence of int
        Blocks of each stage: [2, 2, 4, 2] is T, [2, 2, 8, 2] S, [2, 2, 12, 2] with `dims` from 128 is B.
    dims : int or sequence of int
        Channels of each stage.
    d_state : int or None
        States per channel; None is a sixth of the first stage's channels.
    drop_rate, attn_drop_rate, drop_path_rate : float
        Dropout of tokens, inside SS2D, and of blocks.
    patch_norm : bool
        Whether embedded patches are normalised.
    use_checkpoint : bool
        Recompute the blocks while training, to save memory.
    depths_decoder, dims_decoder
        The authors' arguments that change nothing: there is no decoder.
    """

    def __init__(
        self,
        patch_size: int = 4,
        in_chans: int = 3,
        num_classes: int = 1000,
        depths: Sequence[int] = (2, 2, 4, 2),
        depths_decoder: Sequence[int] = (2, 9, 2, 2),
        dims: int | Sequence[int] = (96, 192, 384, 768),
        dims_decoder: Sequence[int] = (768, 384, 192, 96),
        d_state: int | None = 16,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__(
            patch_size,
            in_chans,
            depths,
            dims,
            d_state,
            drop_rate,
            attn_drop_rate,
            drop_path_rate,
            patch_norm,
            use_checkpoint,
            block=SSConvSSM,
        )
        self.in_chans = in_chans
        self.head = nn.Linear(self.dims[-1], num_classes) if num_classes else nn.Identity()
        self.apply(init_vss_weights)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) to logits (B, num_classes)."""
        x, _ = self.features(grey_to_rgb(x, self.in_chans))
        return self.head(x.mean(dim=(1, 2)))
