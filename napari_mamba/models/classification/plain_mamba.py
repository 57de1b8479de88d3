"""PlainMamba: an image classifier of equal blocks on one map (Yang et al., arXiv:2403.17695).

Read in github.com/ChenhongyiYang/PlainMamba, `mmcls/plain_mamba_dev/models/plain_mamba/`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.drop import DropPath, rising_rates
from napari_mamba.nn.blocks.tokens import Float32Module, from_tokens, to_tokens, without_autocast
from napari_mamba.nn.blocks.vss import grey_to_rgb
from napari_mamba.nn.mixers.exchange import PathMixers, ReplaceableMixer
from napari_mamba.nn.mixers.mamba import init_dt_, s4d_real_log
from napari_mamba.nn.mixers.selective import rank_of
from napari_mamba.nn.norms.norm import LayerNorm, RMSNorm
from napari_mamba.scan import scan_order, selective_scan

BLOCK = {"use_rms_norm": False, "mamba_cfg": {"bias": True}}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "L1": {"embed_dims": 192, "num_layers": 24, "num_convs_patch_embed": 1, "layers_with_dwconv": (0,)},
    "L2": {"embed_dims": 384, "num_layers": 24, "num_convs_patch_embed": 2, "layers_with_dwconv": ()},
    "L3": {"embed_dims": 448, "num_layers": 36, "num_convs_patch_embed": 2, "layers_with_dwconv": ()},
}
STEM = 64  # channels of the stem, the same in every published network
ORDER = "continuous"


@lru_cache(maxsize=32)
def moves(shape: tuple[int, int]) -> Tensor:
    """The move by which each path comes to each cell, (4, L): 0 begins, 1 right, 2 left, 3 up, 4 down."""
    order = scan_order(ORDER, shape)
    row, column = np.divmod(order.table, shape[1])
    codes = np.zeros_like(order.table)
    down, right = np.diff(row, axis=1), np.diff(column, axis=1)
    codes[:, 1:] = np.select([right > 0, right < 0, down < 0], [1, 2, 3], 4)
    with torch.inference_mode(False):  # made under inference, it must still serve a training
        return torch.from_numpy(np.take_along_axis(codes, order.inverse, axis=1))


class PlainMamba2D(Float32Module, ReplaceableMixer):
    """Gated mixer of a map's tokens: depth-wise convolution, then one S6 along four serpentine paths, summed.

    The published code permutes the tokens alone: at step t of a path, its step size, B and C are those of token t
    in raster order. It also adds the step size's bias twice. Weights were trained so, and it is so here.

    Parameters
    ----------
    d_model, d_state, expand, dt_rank, dt_min, dt_max, dt_init, dt_scale, dt_init_floor, conv_bias, bias
        As in `mamba_ssm.Mamba`.
    conv_size : int
        Side of the depth-wise kernel, odd.
    init_layer_scale : float, optional
        Initial factor on each channel of the output.
    default_hw_shape
        The authors' argument that changes nothing here.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        expand: float = 2,
        dt_rank: int | str = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_size: int = 7,
        conv_bias: bool = True,
        bias: bool = False,
        init_layer_scale: float | None = None,
        default_hw_shape: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if conv_size % 2 == 0:
            raise InputError(f"conv_size must be odd, not {conv_size}")
        self.d_state, self.d_inner, rank = d_state, int(expand * d_model), rank_of(dt_rank, d_model)
        inner = self.d_inner
        self.A_log = nn.Parameter(s4d_real_log(inner, d_state))
        self.D = nn.Parameter(torch.ones(inner))
        self.direction_Bs = nn.Parameter(nn.init.trunc_normal_(torch.zeros(5, d_state), std=0.02))
        self.gamma = None if init_layer_scale is None else nn.Parameter(init_layer_scale * torch.ones(d_model))
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=bias)
        self.conv2d = nn.Conv2d(inner, inner, conv_size, padding=conv_size // 2, groups=inner, bias=conv_bias)
        self.x_proj = nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        init_dt_(self.dt_proj, dt_min, dt_max, dt_init, dt_scale, dt_init_floor)
        self.out_proj = nn.Linear(inner, d_model, bias=bias)

    def replace_mixer(self, name: str) -> None:
        self.exchanged = PathMixers(name, self.d_inner, d_state=self.d_state, expand=1)
        self.remove_modules("x_proj", "dt_proj", "A_log", "D", "direction_Bs")

    def _scan(self, u: Tensor, z: Tensor, shape: tuple[int, int]) -> Tensor:
        """The four paths of tokens (B, L, D), summed and gated."""
        order = scan_order(ORDER, shape)
        if self.exchanged is not None:
            return self.exchanged(u, order) * F.silu(z)
        dt, B, C = self.x_proj(u).split([self.dt_proj.in_features, self.d_state, self.d_state], dim=-1)
        # Token t of the raster goes to the cell that a path visits at step t.
        steps = order.inverse_tensor(u.device)
        delta, B, C = (rows[:, steps] for rows in (self.dt_proj(dt), B, C))
        B = B + self.direction_Bs[moves(shape).to(u.device)]
        each = (order.paths, *self.A_log.shape)
        A, D, bias = (p.expand(each[: p.dim() + 1]) for p in (-torch.exp(self.A_log), self.D, self.dt_proj.bias))
        y = selective_scan(u, delta, A, B, C, D, z, bias, True, order)
        assert isinstance(y, Tensor)  # no last state was asked for
        return y

    def forward(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        """(B, L, C) of a map `hw_shape` to (B, L, C), in float32 also under autocast."""
        with without_autocast(x):
            u, z = self.in_proj(x.to(self.in_proj.weight.dtype)).chunk(2, dim=-1)
            u = to_tokens(F.silu(self.conv2d(from_tokens(u, hw_shape).contiguous()))).contiguous()
            y = self.out_proj(self._scan(u, z, hw_shape))
            return (y if self.gamma is None else y * self.gamma).to(x.dtype)


class PlainMambaLayer(nn.Module):
    """Normalise, mix, add; in some layers the sum then goes through a depth-wise convolution that nothing bypasses."""

    def __init__(
        self, embed_dims: int, use_rms_norm: bool, with_dwconv: bool, drop_path_rate: float, mamba_cfg: Mapping
    ) -> None:
        super().__init__()
        self.norm: nn.Module = RMSNorm(embed_dims) if use_rms_norm else LayerNorm(embed_dims)
        self.dw = None
        if with_dwconv:
            conv = nn.Conv2d(embed_dims, embed_dims, 3, padding=1, bias=False, groups=embed_dims)
            self.dw = nn.Sequential(conv, nn.BatchNorm2d(embed_dims), nn.GELU())
        self.mamba = PlainMamba2D(embed_dims, **mamba_cfg)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        x = x + self.drop_path(self.mamba(self.norm(x), hw_shape))
        return x if self.dw is None else to_tokens(self.dw(from_tokens(x, hw_shape)))


class ConvPatchEmbed(nn.Module):
    """Convolutions at half the resolution, then patches; what does not divide is padded below and on the right."""

    def __init__(self, in_channels: int, embed_dims: int, num_convs: int, patch_size: int) -> None:
        super().__init__()
        if patch_size % 2:
            raise InputError(f"patch_size must be even, not {patch_size}")

        def unit(channels: int, kernel: int, stride: int) -> list[nn.Module]:
            conv = nn.Conv2d(channels, STEM, kernel, stride, kernel // 2, bias=False)
            return [conv, nn.BatchNorm2d(STEM), nn.ReLU()]

        self.side = patch_size // 2
        self.stem = nn.Sequential(*unit(in_channels, 7, 2))
        self.convs = nn.Sequential(*[layer for _ in range(num_convs) for layer in unit(STEM, 3, 1)])
        self.projection = nn.Conv2d(STEM, embed_dims, self.side, self.side)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convs(self.stem(x))
        return self.projection(F.pad(x, (0, -x.shape[3] % self.side, 0, -x.shape[2] % self.side)))


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a PlainMamba classifier."""
    first, stem = "backbone.layers.0.mamba.", "backbone.patch_embed."
    required = (f"{stem}stem.0.weight", f"{stem}projection.weight", "head.fc.weight", "backbone.layers.0.norm.weight")
    if not has(shapes, f"{first}direction_Bs", f"{first}A_log", *required):
        return None
    inner, states = shapes[f"{first}A_log"]
    dims, _, side, _ = shapes[f"{stem}projection.weight"]
    layers, rank = count(shapes, "backbone.layers."), shapes[f"{first}dt_proj.weight"][1]
    mixer: dict[str, Any] = {
        "d_state": states,
        "expand": inner / dims,
        "dt_rank": "auto" if rank == rank_of("auto", dims) else rank,
        "conv_size": shapes[f"{first}conv2d.weight"][2],
        "conv_bias": f"{first}conv2d.bias" in shapes,
        "bias": f"{first}in_proj.bias" in shapes,
    }
    if f"{first}gamma" in shapes:
        mixer["init_layer_scale"] = 1.0
    tokens = shapes.get("backbone.pos_embed", (1, 0))[1]
    grid = (math.isqrt(tokens),) * 2 if math.isqrt(tokens) ** 2 == tokens else (1, tokens)
    arguments: dict[str, Any] = {
        "in_channels": shapes[f"{stem}stem.0.weight"][1],
        "num_classes": shapes["head.fc.weight"][0],
        "patch_size": 2 * side,
        "embed_dims": dims,
        "num_layers": layers,
        # Each is a convolution without bias, a norm and an activation that has no keys.
        "num_convs_patch_embed": sum(key.startswith(f"{stem}convs.") and len(s) == 4 for key, s in shapes.items()),
        "layers_with_dwconv": tuple(i for i in range(layers) if f"backbone.layers.{i}.dw.0.weight" in shapes),
        "with_pos_embed": tokens > 0,
        "final_norm": "backbone.ln1.weight" in shapes,
        "layer_cfgs": {"use_rms_norm": "backbone.layers.0.norm.bias" not in shapes, "mamba_cfg": mixer},
    }
    if tokens:
        arguments["img_size"] = tuple(2 * side * n for n in grid)
    return Identification(
        "plain_mamba",
        arguments=arguments,
        ambiguous=("img_size",) if tokens and grid[0] != grid[1] else (),
        note="The number of positions is no square: name the img_size the network was trained with."
        * (grid[0] != grid[1]),
    )


@register(
    name="plain_mamba",
    title="PlainMamba",
    task="classification",
    spatial_dims=(2,),
    paper="arXiv:2403.17695",
    repository="github.com/ChenhongyiYang/PlainMamba",
    licence="Apache-2.0",
    scan_order="continuous",
    vectors={"PlainMamba_L1": {"arch": "L1"}},
    identify=identify,
)
class PlainMamba(nn.Module):
    """PlainMamba with its classifier, for images of any size.

    Parameters
    ----------
    img_size : int or (int, int)
        Sides of the image for which positions are learned; for others they are interpolated.
    in_channels, num_classes : int
        Input channels (where 3, one grey channel is repeated), classes.
    arch : {"L1", "L2", "L3"}, optional
        A published network; it takes the place of the next six arguments.
    patch_size, embed_dims, num_layers, num_convs_patch_embed : int
        Side of a patch, channels, blocks, convolutions before the patches are cut.
    layers_with_dwconv : sequence of int
        Blocks that end with a depth-wise convolution.
    layer_cfgs : mapping
        `use_rms_norm`, and `mamba_cfg` with the arguments of `PlainMamba2D`.
    with_pos_embed, final_norm : bool
        Whether positions are learned, and the last tokens normalised.
    drop_rate, drop_path_rate : float
        Dropout of the tokens, and of blocks.
    interpolate_mode : str
        How positions are interpolated.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        arch: str | None = None,
        patch_size: int = 16,
        embed_dims: int = 192,
        num_layers: int = 20,
        num_convs_patch_embed: int = 1,
        layers_with_dwconv: Sequence[int] = (),
        layer_cfgs: Mapping[str, Any] | None = None,
        with_pos_embed: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        final_norm: bool = True,
        interpolate_mode: str = "bicubic",
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        if arch is not None:
            if arch not in ARCHITECTURES:
                raise InputError(f"arch must be one of {', '.join(ARCHITECTURES)}, not {arch!r}")
            one = ARCHITECTURES[arch]
            embed_dims, num_layers = one["embed_dims"], one["num_layers"]
            num_convs_patch_embed, layers_with_dwconv = one["num_convs_patch_embed"], one["layers_with_dwconv"]
            patch_size, layer_cfgs = 16, BLOCK
        block = {**BLOCK, **(layer_cfgs or {})}
        sides = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.in_channels, self.mode = in_channels, interpolate_mode
        self.grid = tuple(math.ceil(n // 2 / (patch_size // 2)) for n in sides)
        backbone: dict[str, nn.Module] = {
            "patch_embed": ConvPatchEmbed(in_channels, embed_dims, num_convs_patch_embed, patch_size),
            "drop_after_pos": nn.Dropout(drop_rate),
            "layers": nn.ModuleList(
                PlainMambaLayer(embed_dims, with_dwconv=i in layers_with_dwconv, drop_path_rate=rate, **block)
                for i, rate in enumerate(rising_rates(drop_path_rate, num_layers))
            ),
        }
        if final_norm:
            backbone["ln1"] = LayerNorm(embed_dims, eps=1e-6)
        self.backbone = nn.ModuleDict(backbone)
        positions = nn.init.trunc_normal_(torch.zeros(1, math.prod(self.grid), embed_dims), std=0.02)
        self.backbone.register_parameter("pos_embed", nn.Parameter(positions) if with_pos_embed else None)
        self.head = nn.ModuleDict({"fc": nn.Linear(embed_dims, num_classes)})

    def _positions(self, shape: tuple[int, int]) -> Tensor:
        positions = self.backbone.get_parameter("pos_embed")
        if shape == self.grid:
            return positions
        grid = from_tokens(positions, self.grid)
        return to_tokens(F.interpolate(grid, shape, mode=self.mode, align_corners=False)).to(positions.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to logits (B, num_classes)."""
        x = self.backbone["patch_embed"](grey_to_rgb(x, self.in_channels))
        shape = (x.shape[2], x.shape[3])
        x = to_tokens(x)
        if self.backbone.pos_embed is not None:
            x = x + self._positions(shape)
        x = self.backbone["drop_after_pos"](x)
        layers = self.backbone["layers"]
        assert isinstance(layers, nn.ModuleList)
        for layer in layers:
            x = layer(x, shape)
        x = self.backbone["ln1"](x) if "ln1" in self.backbone else x
        return self.head["fc"](x.mean(dim=1))
