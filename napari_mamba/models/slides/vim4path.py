"""Vim4Path: Vision Mamba as its authors train it by DINO for features of pathology patches (arXiv:2404.13222).

Nasiri-Sarvi et al.; read in github.com/AtlasAnalyticsLab/Vim4Path, `dino/vim/models_mamba.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.classification.vim import Vim
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has

NUDGE = 0.1
"""What DINO adds to a grid's sides before it divides them, against rounding."""


def identify(shapes: Shapes) -> Identification | None:
    """Recognise Vim4Path's keys, which Vim's published networks have too but for the head of two classes, or none.

    DINO, which trains it, takes that head away.
    """
    if not has(shapes, "cls_token", "pos_embed", "layers.0.mixer.A_b_log", "norm_f.weight"):
        return None
    classes = shapes["head.weight"][0] if "head.weight" in shapes else 0
    if classes not in (0, 2):
        return None
    dim, channels, patch, _ = shapes["patch_embed.proj.weight"]
    return Identification(
        "vim4path",
        arguments={
            "img_size": math.isqrt(shapes["pos_embed"][1] - 1) * patch,
            "patch_size": patch,
            "depth": count(shapes, "layers."),
            "embed_dim": dim,
            "d_state": shapes["layers.0.mixer.A_log"][1],
            "channels": channels,
            "rms_norm": "norm_f.bias" not in shapes,
            **({} if classes else {"num_classes": 0}),
            **({"init_layer_scale": 1.0} if "layers.0.mixer.gamma" in shapes else {}),
        },
        ambiguous=("if_devide_out",),
        note='A Vim classifier of two classes has the same keys: give the name "vim" if it is one. For Vim4Path say '
        "whether the two directions are averaged (if_devide_out), as its authors have it.",
    )


@register(
    name="vim4path",
    title="Vim4Path",
    task="features",
    spatial_dims=(2,),
    paper="arXiv:2404.13222",
    repository="github.com/AtlasAnalyticsLab/Vim4Path",
    licence="MIT",
    scan_order="bidirectional",
    vectors={
        "Vim4Path_vim_t_depth8_crop96": {"depth": 8},
        "Vim4Path_vim_t_plus": {"depth": 12, "embed_dim": 384},
    },
    identify=identify,
)
class Vim4Path(Vim):
    """Vim4Path: a patch of a slide to its features.

    Positions are added to the patches and to a class token before them; then the class token is put in the middle a
    second time, without a position, and what becomes of that one is returned.

    Parameters
    ----------
    img_size, patch_size : int
        Side of the images for which positions are learned, which are interpolated for others; side of a patch.
    depth, embed_dim, d_state, channels : int
        Blocks (24 in vim-t), channels (192; 384 in vim-t-plus and vim-s), states, input channels.
    num_classes : int
        Of a head that is stored and not used; 0 for none, as in DINO's checkpoints.
    drop_rate, drop_path_rate : float
        Dropout of the tokens, and of blocks.
    if_devide_out : bool
        Average the two directions instead of adding them; spelt as the authors do.
    stride, rms_norm, norm_epsilon, ssm_cfg, init_layer_scale
        As in `Vim`; the published configurations have none of their own.
    use_middle_cls_token, return_features : bool
        Whether the second class token stands in the middle or first; whether features are returned, or the head's
        scores.
    attn_drop_rate, residual_in_fp32, fused_add_norm, final_pool_type, if_abs_pos_embed, if_rope, if_rope_residual, \
    if_cls_token, bimamba_type
        The authors' arguments, of which their configurations have one value each, as it is here.

    Examples
    --------
    >>> Vim4Path(depth=1, embed_dim=16)(torch.zeros(1, 3, 96, 64)).shape
    torch.Size([1, 16])
    """

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        depth: int = 24,
        embed_dim: int = 192,
        d_state: int = 16,
        channels: int = 3,
        num_classes: int = 2,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        if_devide_out: bool = True,
        stride: int | None = None,
        rms_norm: bool = True,
        norm_epsilon: float = 1e-5,
        ssm_cfg: Mapping[str, Any] | None = None,
        init_layer_scale: float | None = None,
        use_middle_cls_token: bool = True,
        return_features: bool = True,
        attn_drop_rate: float = 0.0,
        residual_in_fp32: bool = True,
        fused_add_norm: bool = True,
        final_pool_type: str = "mean",
        if_abs_pos_embed: bool = True,
        if_rope: bool = False,
        if_rope_residual: bool = False,
        if_cls_token: bool = True,
        bimamba_type: str = "v2",
    ) -> None:
        if not (if_cls_token and if_abs_pos_embed) or if_rope or bimamba_type != "v2" or final_pool_type == "all":
            raise InputError("Vim4Path has a class token, learned positions, no rotary ones, and scans both ways")
        super().__init__(
            img_size,
            patch_size,
            stride=stride or patch_size,
            depth=depth,
            embed_dim=embed_dim,
            d_state=d_state,
            channels=channels,
            num_classes=num_classes,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            use_middle_cls_token=use_middle_cls_token,
            if_divide_out=if_devide_out,
            rms_norm=rms_norm,
            norm_epsilon=norm_epsilon,
            ssm_cfg=ssm_cfg,
            init_layer_scale=init_layer_scale,
        )
        self.return_features = return_features
        self.patch = patch_size
        self.learned = self.grid

    def _positions(self, grid: tuple[int, ...]) -> Tensor:
        positions = self.pos_embed
        assert positions is not None
        if grid == self.learned:
            return positions
        image = positions[:, 1:].unflatten(1, self.learned).movedim(-1, 1)
        scale = [(side + NUDGE) / learned for side, learned in zip(grid, self.learned, strict=True)]
        image = F.interpolate(image, scale_factor=scale, mode="bicubic")
        return torch.cat([positions[:, :1], image.flatten(2).transpose(1, 2)], dim=1)

    def tokens(self, x: Tensor) -> tuple[Tensor, list[int]]:
        """(B, channels, H, W) to all normalised tokens (B, L, C), and where the class token is that counts."""
        if x.shape[1] != self.channels or any(side % self.patch or not side for side in x.shape[2:]):
            raise InputError(
                f"Vim4Path takes images of {self.channels} channels and sides that are multiples of {self.patch}, not "
                f"{tuple(x.shape[1:])}; crop or resize them"
            )
        stride = self.patch_embed.proj.stride[0]
        self.grid = tuple((side - self.patch) // stride + 1 for side in x.shape[2:])
        token = self.cls_token.expand(len(x), -1, -1)
        x = torch.cat([token, self.patch_embed(x)], dim=1) + self._positions(self.grid)
        x = self.pos_drop(x)
        place = x.shape[1] // 2 if self.middle else 0
        x = torch.cat([x[:, :place], token.to(x.dtype), x[:, place:]], dim=1)
        x, residual = self._blocks(x, [0, place or 1])
        return self.norm_f(residual + self.drop_path(x)).to(x.dtype), [place]

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to features (B, embed_dim), or scores (B, num_classes) without `return_features`."""
        features = self.features(x)
        return features if self.return_features else self.head(features)
