"""LocalVim: Vim whose layers scan rows, columns and windows (LocalMamba; Huang et al., arXiv:2403.09338).

Read in github.com/hunto/LocalMamba, `classification/lib/models/local_vim.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.classification.vim import PatchEmbed, RotaryEmbedding, pair
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.drop import DropPath, rising_rates
from napari_mamba.nn.blocks.tokens import from_tokens, to_tokens
from napari_mamba.nn.blocks.vss import grey_to_rgb
from napari_mamba.nn.mixers.images.multi_mamba import MultiMamba
from napari_mamba.nn.mixers.selective import rank_of
from napari_mamba.nn.norms.norm import LayerNorm, RMSNorm, at_least_float32

Directions = Sequence[Sequence[str]]
SEARCHED: Directions = [
    names.split()
    for names in (
        "h v_flip w7 w7_flip",
        "h_flip w2_flip w7 w7_flip",
        "h h_flip v w7",
        *["h h_flip v v_flip"] * 3,
        "h_flip v v_flip w7",
        "h_flip v v_flip w2_flip",
        *["h h_flip v v_flip"] * 2,
        "h v v_flip w2",
        "h v v_flip w2_flip",
        "h h_flip v_flip w7",
        "h_flip v v_flip w2",
        "h h_flip v v_flip",
        "h v w2 w2_flip",
        "v v_flip w2 w7",
        "h h_flip v w2",
        "h h_flip w2_flip w7",
        "v v_flip w2 w2_flip",
    )
]
"""What the authors' search chose for each of LocalVim-T's twenty layers."""
UNSEARCHED = ["h", "h_flip", "w2", "w2_flip"]
"""The scans of every layer of the published function `local_vim_small`, and of LocalVim-T without a search."""

PUBLISHED = {"embed_dim": 192, "depth": 20, "rms_norm": True, "final_pool_type": "mean", "if_abs_pos_embed": True}
ROPE = {"if_rope": True, "if_rope_residual": True}
TINY = {**PUBLISHED, **ROPE, "directions": "searched"}
TINY_CLASS_TOKEN = {**PUBLISHED, "directions": "searched", "if_cls_token": True, "use_middle_cls_token": True}


class Block(nn.Module):
    """Adds what came before to the residual, normalises and mixes: (hidden, residual) to (hidden, residual)."""

    def __init__(self, mixer: nn.Module, norm: nn.Module, drop_path: float) -> None:
        super().__init__()
        self.mixer = mixer
        self.norm = norm
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, residual: Tensor | None, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        residual = at_least_float32(x) if residual is None else residual + self.drop_path(x)
        return self.mixer(self.norm(residual).to(x.dtype), grid), residual


def resize_tokens(tokens: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Tokens (B, L, C) of a map, interpolated to another."""
    if old == new:
        return tokens
    return to_tokens(F.interpolate(from_tokens(tokens, old), new, mode="bicubic", align_corners=False))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each pair of channels turned by an angle of its token."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return x * cos + torch.stack([-odd, even], dim=-1).flatten(-2) * sin


def layer_directions(directions: str | Directions | None, depth: int) -> Sequence[Sequence[str] | None]:
    """The scans of each layer; None where it weighs them all."""
    if directions is None:
        return [None] * depth
    if not directions:
        raise InputError('LocalVim needs the scans of each layer: directions, such as "searched" for the published T')
    if isinstance(directions, str):
        known = {"searched": SEARCHED, "unsearched": [UNSEARCHED] * depth}
        if directions not in known:
            raise InputError(
                f'directions must be "searched", "unsearched" or the scans of each layer, not {directions!r}'
            )
        directions = known[directions]
    if len(directions) < depth:
        raise InputError(
            f"directions names the scans of {len(directions)} layers, and there are {depth}: name them all"
        )
    return directions[:depth]


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a LocalVim classifier; its scans leave no trace but their number."""
    if not has(shapes, "patch_embed.proj.weight", "layers.0.mixer.A_log_0", "norm_f.weight", "head.weight"):
        return None
    dim, channels, *patch = shapes["patch_embed.proj.weight"]
    class_token, depth = "cls_token" in shapes, count(shapes, "layers.")
    positions = shapes["pos_embed"][1] - class_token if "pos_embed" in shapes else 0
    tokens = shapes.get("rope.freqs_cos", (positions,))[0]
    mixer = "layers.0.mixer."
    inner, rank = shapes[f"{mixer}D_0"][0], shapes[f"{mixer}dt_proj_0.weight"][1]
    arguments: dict[str, Any] = {
        "patch_size": patch[0],
        "depth": depth,
        "embed_dim": dim,
        "channels": channels,
        "num_classes": shapes["head.weight"][0],
        "rms_norm": "norm_f.bias" not in shapes,
        "final_pool_type": "mean",
        "if_abs_pos_embed": "pos_embed" in shapes,
        "if_rope": "rope.freqs_cos" in shapes,
        "if_rope_residual": "rope.freqs_cos" in shapes,
        "if_cls_token": class_token,
        "use_middle_cls_token": class_token,
        "ssm_cfg": {
            "d_state": shapes[f"{mixer}A_log_0"][1],
            "d_conv": shapes[f"{mixer}conv1d_0.weight"][2],
            "expand": inner / dim,
            "dt_rank": "auto" if rank == rank_of("auto", dim) else rank,
            "conv_bias": f"{mixer}conv1d_0.bias" in shapes,
            "bias": f"{mixer}in_proj.bias" in shapes,
        },
    }
    side = math.isqrt(tokens)
    if tokens:
        arguments["img_size"] = side * patch[0] if side**2 == tokens else (patch[0], tokens * patch[0])
    unsaid = () if side**2 == tokens else ("img_size",)
    size = "The number of positions is no square: name the img_size the network was trained with. " * bool(unsaid)
    if f"{mixer}multi_scan.weights" in shapes:
        return Identification("local_vim", "search", arguments | {"directions": None}, unsaid, size)
    four = f"{mixer}A_log_3" in shapes and f"{mixer}A_log_4" not in shapes
    published = four and dim == PUBLISHED["embed_dim"] and depth == PUBLISHED["depth"]
    if published:
        arguments["directions"] = "searched"
    return Identification(
        "local_vim",
        arguments=arguments,
        ambiguous=unsaid if published else ("directions", *unsaid),
        note=size + "Taken as the published LocalVim-T is, with the scans that its search chose."
        if published
        else size
        + 'The weights do not say which scans each layer runs: name its directions ("searched" or "unsearched").',
    )


@register(
    name="local_vim",
    title="LocalVim",
    task="classification",
    spatial_dims=(2,),
    paper="arXiv:2403.09338",
    repository="github.com/hunto/LocalMamba",
    licence="Apache-2.0",
    scan_order="local",
    vectors={
        "LocalVim_T": TINY,
        "LocalVim_T_depth8": {**TINY, "depth": 8},
        "LocalVim_T_middle_cls_token": TINY_CLASS_TOKEN,
    },
    identify=identify,
)
class LocalVim(nn.Module):
    """LocalVim, for images of any size where it has no class token.

    Parameters
    ----------
    img_size, patch_size, depth, embed_dim, channels, num_classes, ssm_cfg, drop_rate, drop_path_rate, norm_epsilon, \
    rms_norm, pt_hw_seq_len, final_pool_type, if_abs_pos_embed, if_rope, if_rope_residual, if_cls_token, \
    use_middle_cls_token
        As in `Vim`; a class token stands in the middle or there is none, and "max" is no pooling here. Positions are
        interpolated for images of another size.
    directions : sequence of sequences of str, "searched", "unsearched" or None
        The scans of each layer, as `local_path` names them; those that the published search chose, for the first
        twenty layers; or rows and 2 x 2 windows, both ways, in each. None: every layer weighs all eight, as
        `local_vim_tiny_search` does.
    bimamba_type, ft_seq_len, initializer_cfg, fused_add_norm, residual_in_fp32
        The authors' arguments that change nothing here: the residual is always float32.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        depth: int = 24,
        embed_dim: int = 192,
        channels: int = 3,
        num_classes: int = 1000,
        ssm_cfg: Mapping[str, Any] | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        norm_epsilon: float = 1e-5,
        rms_norm: bool = False,
        initializer_cfg: Mapping[str, Any] | None = None,
        fused_add_norm: bool = False,
        residual_in_fp32: bool = False,
        ft_seq_len: int | None = None,
        pt_hw_seq_len: int = 14,
        final_pool_type: str = "none",
        if_abs_pos_embed: bool = False,
        if_rope: bool = False,
        if_rope_residual: bool = False,
        bimamba_type: str = "none",
        if_cls_token: bool = False,
        use_middle_cls_token: bool = False,
        directions: str | Directions | None = "",
    ) -> None:
        super().__init__()
        if if_cls_token != use_middle_cls_token or (if_cls_token and if_rope):
            raise InputError("LocalVim's class token stands in the middle and goes without rotary positions")
        if final_pool_type not in ("none", "mean", "all"):
            raise InputError(f'final_pool_type must be "none", "mean" or "all", not {final_pool_type!r}')
        sides = pair(img_size)
        self.patch, self.channels = patch_size, channels
        self.if_rope_residual, self.final_pool_type = if_rope_residual, final_pool_type
        self.grid = (math.ceil(sides[0] / patch_size), math.ceil(sides[1] / patch_size))
        self.patch_embed = PatchEmbed((patch_size, patch_size), patch_size, channels, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim)) if if_cls_token else None
        self.pos_embed = None
        if if_abs_pos_embed:
            positions = torch.zeros(1, math.prod(self.grid) + if_cls_token, embed_dim)
            self.pos_embed = nn.Parameter(nn.init.trunc_normal_(positions, std=0.02))
        self.pos_drop = nn.Dropout(drop_rate)
        side = sides[0] // patch_size
        if if_rope and self.grid != (side, side):
            raise InputError("rotary positions are those of a square image: give one img_size")
        self.rope = RotaryEmbedding(embed_dim // 2, pt_hw_seq_len, side) if if_rope else None
        self.head = nn.Linear(embed_dim, num_classes) if num_classes else nn.Identity()

        def norm() -> nn.Module:
            return RMSNorm(embed_dim, norm_epsilon) if rms_norm else LayerNorm(embed_dim, norm_epsilon)

        scans = layer_directions(directions, depth)
        rates = [0.0, *rising_rates(drop_path_rate, depth)][:depth]
        self.layers = nn.ModuleList(
            Block(MultiMamba(embed_dim, names, if_cls_token, **(ssm_cfg or {})), norm(), rate)
            for names, rate in zip(scans, rates, strict=True)
        )
        self.drop_path = DropPath(drop_path_rate)
        self.norm_f = norm()
        self._initialise(depth)

    @torch.no_grad()
    def _initialise(self, depth: int) -> None:
        if isinstance(self.head, nn.Linear):
            nn.init.trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)
        for layer in self.layers:  # so that the residual stream keeps its size through the depth
            layer.mixer.out_proj.weight /= math.sqrt(depth)

    def _embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens with positions and, in the middle, the class's; and the map that they are of."""
        x = F.pad(grey_to_rgb(x, self.channels), (0, -x.shape[3] % self.patch, 0, -x.shape[2] % self.patch))
        grid = (x.shape[2] // self.patch, x.shape[3] // self.patch)
        x = self.patch_embed(x)
        if self.cls_token is not None:
            if grid != self.grid:
                sizes = tuple(n * self.patch for n in self.grid)
                raise InputError(f"LocalVim with a class token takes images of {sizes} pixels only; resize them")
            middle = x.shape[1] // 2
            x = torch.cat([x[:, :middle], self.cls_token.expand(len(x), -1, -1), x[:, middle:]], dim=1)
        if self.pos_embed is not None:
            x = self.pos_drop(x + resize_tokens(self.pos_embed, self.grid, grid))
        return x, grid

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to logits (B, num_classes), or (B, L, num_classes) for "all"."""
        x, grid = self._embed(x)
        turn = None
        if self.rope is not None:
            tables = (self.rope.get_buffer(name) for name in ("freqs_cos", "freqs_sin"))
            turn = [resize_tokens(table[None], self.grid, grid) for table in tables]
        residual: Tensor | None = None
        for layer in self.layers:
            if turn is not None:
                x = rotate(x, *turn).to(x.dtype)
                residual = rotate(residual, *turn) if residual is not None and self.if_rope_residual else residual
            x, residual = layer(x, residual, grid)
        x = self.norm_f(residual + self.drop_path(x)).to(x.dtype)
        if self.cls_token is not None:
            return self.head(x[:, (x.shape[1] - 1) // 2])
        pooled = {"none": lambda: x[:, -1], "mean": lambda: x.mean(dim=1), "all": lambda: x}
        return self.head(pooled[self.final_pool_type]())
