"""Vim: a plain image classifier of bidirectional Mamba blocks (Zhu et al., arXiv:2401.09417).

Read in github.com/hustvl/Vim, `vim/models_mamba.py` and its fork of mamba_ssm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.drop import DropPath, rising_rates
from napari_mamba.nn.mixers.multipath import MultiPathMamba
from napari_mamba.nn.norms.norm import LayerNorm, RMSNorm, at_least_float32
from napari_mamba.scan import placed, scan_order

PATHS = {"none": 1, "v2": 2}


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) from one side or both."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


class VimMixer(MultiPathMamba):
    """Both ways along the tokens, each with its own parameters; summed or averaged, with an optional scale."""

    def __init__(self, dim: int, paths: int, divide: bool, layer_scale: float | None, **mixer: Any) -> None:
        super().__init__(dim, paths=("", "b")[:paths], scale=0.5 if divide and paths == 2 else 1.0, **mixer)
        self.order = "bidirectional" if paths == 2 else "raster"
        self.gamma = None if layer_scale is None else nn.Parameter(layer_scale * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        y = super().forward(x, scan_order(self.order, (x.shape[1],)))
        return y if self.gamma is None else y * self.gamma


class Block(nn.Module):
    """Adds what came before to the residual, normalises and mixes: (hidden, residual) to (hidden, residual)."""

    def __init__(self, mixer: nn.Module, norm: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.mixer = mixer
        self.norm = norm
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        # A stream of twenty-four additions is kept in float32.
        residual = at_least_float32(x) if residual is None else residual + self.drop_path(x)
        return self.mixer(self.norm(residual).to(x.dtype)), residual


class PatchEmbed(nn.Module):
    """Strided convolution to tokens (B, L, C); patches overlap where the stride is below their side."""

    def __init__(self, patch_size: tuple[int, int], stride: int, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class RotaryEmbedding(nn.Module):
    """Turns each pair of channels by an angle of the token's row (first half) or column (second half)."""

    def __init__(self, dim: int, pretrained_side: int, side: int) -> None:
        super().__init__()
        rates = 10000.0 ** -(torch.arange(0, dim, 2)[: dim // 2].float() / dim)
        angles = (torch.arange(side) / side * pretrained_side)[:, None] * rates
        angles = angles.repeat_interleave(2, dim=1)
        grid = torch.cat([angles[:, None].expand(-1, side, -1), angles[None].expand(side, -1, -1)], dim=-1)
        self.register_buffer("freqs_cos", grid.cos().flatten(0, 1))
        self.register_buffer("freqs_sin", grid.sin().flatten(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        # The authors leave out the first token of an odd number, wherever the class token stands.
        first, x = x.split([x.shape[1] % 2, x.shape[1] - x.shape[1] % 2], dim=1)
        even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack([-odd, even], dim=-1).flatten(-2)
        return torch.cat([first, x * self.freqs_cos + turned * self.freqs_sin], dim=1)


def grid_arguments(tokens: int, patch: int) -> dict[str, Any]:
    """An image size and a stride that give this many tokens: of 224 pixels if that can be, else without overlap."""
    side = math.isqrt(tokens)
    if side * side != tokens:
        return {"img_size": (patch, patch * tokens), "stride": patch}
    stride = (224 - patch) // (side - 1) if side > 1 else patch
    if 0 < stride <= patch and (224 - patch) // stride + 1 == side:
        return {"img_size": 224, "stride": stride}
    return {"img_size": side * patch, "stride": patch}


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a Vim classifier; read as the published ones where keys do not tell."""
    if not has(shapes, "patch_embed.proj.weight", "layers.0.mixer.A_log", "norm_f.weight", "head.weight"):
        return None
    embed = shapes["patch_embed.proj.weight"]
    double, single = "cls_token_head" in shapes, "cls_token" in shapes
    arguments: dict[str, Any] = {
        "patch_size": tuple(embed[2:]),
        "depth": count(shapes, "layers."),
        "embed_dim": embed[0],
        "d_state": shapes["layers.0.mixer.A_log"][1],
        "channels": embed[1],
        "num_classes": shapes["head.weight"][0],
        "rms_norm": "norm_f.bias" not in shapes,
        "bimamba_type": "v2" if "layers.0.mixer.A_b_log" in shapes else "none",
        "if_cls_token": double or single,
        "use_double_cls_token": double,
        "if_abs_pos_embed": "pos_embed" in shapes,
        "if_rope": "rope.freqs_cos" in shapes,
    }
    if "layers.0.mixer.gamma" in shapes:
        arguments["init_layer_scale"] = 1.0
    ambiguous: tuple[str, ...] = ()
    if "pos_embed" in shapes:
        tokens = shapes["pos_embed"][1] - int(single) - 2 * int(double)
        arguments |= grid_arguments(tokens, embed[2])
        ambiguous = () if arguments["img_size"] == 224 else ("img_size", "stride")
    return Identification(
        "vim",
        arguments=arguments,
        ambiguous=ambiguous,
        note="Taken as the published weights are: the two directions averaged and the class token in the middle, "
        "which no key or shape holds.",
    )


@register(
    name="vim",
    title="Vision Mamba (Vim)",
    task="classification",
    spatial_dims=(2,),
    paper="arXiv:2401.09417",
    repository="github.com/hustvl/Vim",
    licence="Apache-2.0",
    scan_order="bidirectional",
    vectors={"Vim_tiny_depth4_LN": {"depth": 4, "rms_norm": False}},
    identify=identify,
)
class Vim(nn.Module):
    """Vision Mamba.

    Parameters
    ----------
    img_size, patch_size : int or (int, int)
        Sides of the image and of a patch.
    stride : int
        Between patches.
    depth, embed_dim, d_state : int
        Blocks, channels, states per channel.
    channels, num_classes : int
        Input channels; classes, 0 for the features.
    ssm_cfg : mapping
        Further arguments of the mixers.
    drop_rate, drop_path_rate : float
        Dropout of the tokens, and of blocks.
    norm_epsilon, rms_norm
        Of the norms: root mean square, or layer norm.
    pt_hw_seq_len, ft_seq_len : int
        Sides of the token grid in pre-training; the second is the authors' and changes nothing.
    if_bidirectional : bool
        Run blocks in pairs, the second of each backwards.
    final_pool_type : str
        Without a class token: "none" (the last token), "mean", "max" or "all".
    if_abs_pos_embed, if_rope, if_rope_residual : bool
        Learned positions; rotated ones, of the tokens and of the residual.
    if_bimamba, bimamba_type
        "v2" scans both ways, "none" forwards.
    if_cls_token, use_double_cls_token, use_middle_cls_token : bool
        A class token: one at each end, in the middle, or first.
    if_divide_out : bool
        Average the two directions instead of adding them.
    init_layer_scale : float, optional
        Initial factor on each mixer's output.
    fused_add_norm, residual_in_fp32, flip_img_sequences_ratio, initializer_cfg
        The authors' arguments that change nothing here: fused or not the numbers are the same, the residual is always
        float32, and the rest is for training.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        stride: int = 16,
        depth: int = 24,
        embed_dim: int = 192,
        d_state: int = 16,
        channels: int = 3,
        num_classes: int = 1000,
        ssm_cfg: Mapping[str, Any] | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        norm_epsilon: float = 1e-5,
        rms_norm: bool = True,
        initializer_cfg: Mapping[str, Any] | None = None,
        fused_add_norm: bool = True,
        residual_in_fp32: bool = True,
        ft_seq_len: int | None = None,
        pt_hw_seq_len: int = 14,
        if_bidirectional: bool = False,
        final_pool_type: str = "none",
        if_abs_pos_embed: bool = True,
        if_rope: bool = False,
        if_rope_residual: bool = False,
        flip_img_sequences_ratio: float = -1.0,
        if_bimamba: bool = False,
        bimamba_type: str = "v2",
        if_cls_token: bool = True,
        if_divide_out: bool = True,
        init_layer_scale: float | None = None,
        use_double_cls_token: bool = False,
        use_middle_cls_token: bool = True,
    ) -> None:
        super().__init__()
        if if_bimamba or bimamba_type not in PATHS:
            raise InputError('Vim\'s mixers scan with bimamba_type "v2" or "none" here; choose one of them')
        if final_pool_type not in ("none", "mean", "max", "all"):
            raise InputError(f'final_pool_type must be "none", "mean", "max" or "all", not {final_pool_type!r}')
        self.img_size, self.channels = pair(img_size), channels
        self.if_bidirectional, self.final_pool_type = if_bidirectional, final_pool_type
        self.token = "none" if not if_cls_token else "double" if use_double_cls_token else "single"
        self.middle, self.if_rope_residual = use_middle_cls_token, if_rope_residual
        patch = pair(patch_size)
        self.patch_embed = PatchEmbed(patch, stride, channels, embed_dim)
        self.grid = grid = tuple((side - size) // stride + 1 for side, size in zip(self.img_size, patch, strict=True))
        names = {"none": (), "single": ("cls_token",), "double": ("cls_token_head", "cls_token_tail")}[self.token]
        for name in names:
            self.register_parameter(name, self._tokens(1, embed_dim))
        self.pos_embed = self._tokens(math.prod(grid) + len(names), embed_dim) if if_abs_pos_embed else None
        self.pos_drop = nn.Dropout(drop_rate)
        self.rope = RotaryEmbedding(embed_dim // 2, pt_hw_seq_len, self.img_size[0] // patch[0]) if if_rope else None
        self.head = nn.Linear(embed_dim, num_classes) if num_classes else nn.Identity()

        def norm() -> nn.Module:
            return RMSNorm(embed_dim, norm_epsilon) if rms_norm else LayerNorm(embed_dim, norm_epsilon)

        mixer = {"d_state": d_state, **(ssm_cfg or {})}
        rates = [0.0, *rising_rates(drop_path_rate, depth)][:depth]
        self.layers = nn.ModuleList(
            Block(VimMixer(embed_dim, PATHS[bimamba_type], if_divide_out, init_layer_scale, **mixer), norm(), rate)
            for rate in rates
        )
        self.drop_path = DropPath(drop_path_rate)
        self.norm_f = norm()
        self._initialise(depth)

    @staticmethod
    def _tokens(count: int, dim: int) -> nn.Parameter:
        return nn.Parameter(nn.init.trunc_normal_(torch.zeros(1, count, dim), std=0.02))

    @torch.no_grad()
    def _initialise(self, depth: int) -> None:
        if isinstance(self.head, nn.Linear):
            nn.init.trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)
        for layer in self.layers:  # so that the residual stream keeps its size through the depth
            layer.mixer.out_proj.weight /= math.sqrt(depth)

    def _with_class_tokens(self, x: Tensor) -> tuple[Tensor, list[int]]:
        """The tokens with those of the class, and where these are."""
        batch, length = len(x), x.shape[1]
        if self.token == "none":
            return x, []
        if self.token == "double":
            head, tail = self.cls_token_head.expand(batch, -1, -1), self.cls_token_tail.expand(batch, -1, -1)
            return torch.cat([head, x, tail], dim=1), [0, length + 1]
        place = length // 2 if self.middle else 0
        return torch.cat([x[:, :place], self.cls_token.expand(batch, -1, -1), x[:, place:]], dim=1), [place]

    def _cells(self, length: int, places: Sequence[int], backwards: bool = False) -> tuple[tuple[int, ...], Tensor]:
        """The patch that each token is, -1 for those of the class, which stand at `places`."""
        cells = torch.full((length,), -1)
        cells[[i for i in range(length) if i not in places]] = torch.arange(length - len(places))
        return self.grid, cells.flip(0) if backwards else cells

    def _blocks(self, x: Tensor, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        residual: Tensor | None = None
        pairs = zip(self.layers[::2], self.layers[1::2], strict=False)
        for layer, backward in pairs if self.if_bidirectional else ((layer, None) for layer in self.layers):
            if self.rope is not None:
                x = self.rope(x)
                residual = self.rope(residual) if residual is not None and self.if_rope_residual else residual
            if backward is None:
                with placed(partial(self._cells, x.shape[1], places)):
                    x, residual = layer(x, residual)
                continue
            with placed(partial(self._cells, x.shape[1], places, backwards=True)):
                x_b, residual_b = backward(x.flip(1), None if residual is None else residual.flip(1))
            with placed(partial(self._cells, x.shape[1], places)):
                x, residual = layer(x, residual)
            x, residual = x + x_b.flip(1), residual + residual_b.flip(1)
        assert residual is not None
        return x, residual

    def tokens(self, x: Tensor) -> tuple[Tensor, list[int]]:
        """(B, channels, H, W) to all normalised tokens (B, L, C), and where those of the class are."""
        if tuple(x.shape[2:]) != self.img_size:
            raise InputError(
                f"Vim was built for images of {self.img_size} pixels, not {tuple(x.shape[2:])}; resize them"
            )
        x, places = self._with_class_tokens(self.patch_embed(x))
        if self.pos_embed is not None:
            x = self.pos_drop(x + self.pos_embed)
        x, residual = self._blocks(x, places)
        return self.norm_f(residual + self.drop_path(x)).to(x.dtype), places

    def features(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the class's features (B, C), or all tokens (B, L, C) for "max" and "all"."""
        x, places = self.tokens(x)
        if places:
            return x[:, places].mean(dim=1)
        return (
            x if self.final_pool_type in ("max", "all") else x[:, -1] if self.final_pool_type == "none" else x.mean(1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to logits (B, num_classes)."""
        x = self.head(self.features(x))
        return x.amax(dim=1) if self.final_pool_type == "max" and self.token == "none" else x
