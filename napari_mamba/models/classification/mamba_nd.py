"""Mamba-ND for images: layers that scan rows and columns in turn (Li et al., arXiv:2402.05892).

Read in github.com/jacklishufan/Mamba-ND, `image_classification/src/mamba.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.drop import DropPath, rising_rates
from napari_mamba.nn.blocks.tokens import from_tokens, to_tokens, without_autocast
from napari_mamba.nn.blocks.vss import grey_to_rgb
from napari_mamba.nn.mixers.token_mixer import Float32Mamba
from napari_mamba.nn.norms.norm import LayerNorm
from napari_mamba.scan import placed, scan_order

Grid = tuple[int, int]
ARCHITECTURES = {"small": (384, 12), "base": (768, 12)}
"""Channels and pairs of layers of the published networks."""


def path(grid: Grid, reverse: bool, transpose: bool, device: torch.device) -> Tensor:
    """One path over the map's tokens, (1, L): along rows or columns, forth or back."""
    order = scan_order("axis", grid, axes=0 if transpose else 1, reverse=True)
    return order.tensor(device)[int(reverse) :][:1]


class Block(nn.Module):
    """Normalise, then add what the mixer makes of the normalised tokens to *them*, as published."""

    def __init__(self, dim: int, reverse: bool, transpose: bool, merge: bool, drop_path: float, **mixer: Any) -> None:
        super().__init__()
        self.reverse, self.transpose = reverse, transpose
        self.mixer = Float32Mamba(dim, **mixer)
        self.norm = LayerNorm(dim)
        self.drop_path = DropPath(drop_path)
        self.down_sample_layer = PatchMerging(dim) if merge else None

    def forward(self, x: Tensor, grid: Grid, skip: bool = True) -> tuple[Tensor, Grid]:
        """(B, L, C) of a map to (B, L', C) and the map that they are of; without `skip` what the mixer makes alone."""
        if self.transpose and grid[0] != grid[1]:
            raise InputError(
                f"Mamba-ND scans columns of square maps only, not of {grid} patches; crop or pad the image"
            )
        with without_autocast(x), placed(partial(self._places, grid)):
            rows = self.norm(x)
            wide = rows.to(self.norm.weight.dtype)
            mixed = self.mixer(wide, path(grid, self.reverse, self.transpose, x.device))
            mixed = self.drop_path(mixed).to(rows.dtype)
            x = rows + mixed if skip else mixed
        return (x, grid) if self.down_sample_layer is None else self.down_sample_layer(x, grid)

    @staticmethod
    def _places(grid: Grid) -> tuple[Grid, None]:
        return grid, None


class PatchMerging(nn.Module):
    """Each 2 x 2 tokens to one, normalised and projected; a channel's four values stand side by side."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, dim, bias=False)

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        image = F.pad(from_tokens(x, grid), (0, grid[1] % 2, 0, grid[0] % 2))
        rows = F.unfold(image, 2, stride=2).transpose(1, 2)
        return self.reduction(self.norm(rows)), (image.shape[2] // 2, image.shape[3] // 2)


class PatchEmbed(nn.Module):
    """Patches to a map of channels; what does not divide is padded below and on the right."""

    def __init__(self, in_channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.side = patch_size
        self.projection = nn.Conv2d(in_channels, dim, patch_size, patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(F.pad(x, (0, -x.shape[3] % self.side, 0, -x.shape[2] % self.side)))


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a Mamba-ND classifier."""
    first, embed = "backbone.layers.0.mixer.", "backbone.patch_embed.projection.weight"
    required = (embed, "backbone.pos_embed", "backbone.ln2.weight", "head.fc.weight", f"{first}dt_proj.weight")
    if not has(shapes, f"{first}A_log", *required):
        return None
    dim, channels, patch, _ = shapes[embed]
    inner, states = shapes[f"{first}A_log"]
    layers, tokens = count(shapes, "backbone.layers."), shapes["backbone.pos_embed"][1]
    return Identification(
        "mamba_nd",
        arguments={
            "img_size": math.isqrt(tokens) * patch,
            "patch_size": patch,
            "in_channels": channels,
            "embed_dims": dim,
            "num_layers": layers // 2,
            "final_norm": "backbone.ln1.weight" in shapes,
            "downsample": [i for i in range(layers) if f"backbone.layers.{i}.down_sample_layer.norm.weight" in shapes],
            "expand": inner / dim,
            "d_state": states,
            "num_classes": shapes["head.fc.weight"][0],
        },
    )


@register(
    name="mamba_nd",
    title="Mamba-ND",
    task="classification",
    spatial_dims=(2,),
    paper="arXiv:2402.05892",
    repository="github.com/jacklishufan/Mamba-ND",
    licence="none stated",
    scan_order="axis",
    vectors={"MambaND_2D_S": {"arch": "small", "img_size": 112, "patch_size": 8, "downsample": [9]}},
    identify=identify,
)
class MambaND(nn.Module):
    """Mamba-ND's image classifier as published: rows, rows back, columns, columns back in turn.

    The switches of the authors' code that its published configurations turn off are not here: a class token, a
    perceptron, and blocks that were not released.

    Parameters
    ----------
    arch : {"small", "base"}
        A published network; `embed_dims` and `num_layers` take precedence.
    img_size : int
        Side of the image for which positions are learned; for others they are interpolated. Maps are square.
    patch_size, in_channels, num_classes : int
        Side of a patch, input channels (where 3, one grey channel is repeated), classes.
    drop_rate, drop_path_rate : float
        Dropout of the tokens, and of mixers.
    final_norm : bool
        Whether the last tokens are normalised before their mean is.
    interpolate_mode : str
        How positions are interpolated.
    embed_dims, num_layers : int, optional
        Channels, and pairs of layers.
    has_transpose, has_reverse : bool
        Whether columns are scanned, and whether every second layer runs backwards.
    downsample : sequence of int
        Layers after which 2 x 2 tokens become one.
    expand, d_state
        Inner channels per channel, and states per channel.
    update_interval : int, optional
        As many layers in turn read the same tokens, and what they make is added.
    constant_dim, use_ref, fused_add_norm, with_cls_token, out_type, is_2d, use_mlp
        The authors' arguments, of which the published code runs one value each, as it is here.
    """

    def __init__(
        self,
        arch: str = "small",
        img_size: int = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        final_norm: bool = True,
        interpolate_mode: str = "bicubic",
        embed_dims: int | None = None,
        num_layers: int | None = None,
        has_transpose: bool = True,
        has_reverse: bool = True,
        downsample: Sequence[int] = (),
        expand: float = 2,
        d_state: int = 16,
        num_classes: int = 1000,
        update_interval: int | None = None,
        constant_dim: bool = True,
        use_ref: bool = False,
        fused_add_norm: bool = False,
        with_cls_token: bool = False,
        out_type: str = "avg_featmap",
        is_2d: bool = False,
        use_mlp: bool = False,
    ) -> None:
        super().__init__()
        if arch not in ARCHITECTURES:
            raise InputError(f"arch must be one of {', '.join(ARCHITECTURES)}, not {arch!r}")
        dim, depth = embed_dims or ARCHITECTURES[arch][0], 2 * (num_layers or ARCHITECTURES[arch][1])
        side = math.ceil(img_size / patch_size)
        if fused_add_norm or with_cls_token or is_2d or use_mlp or out_type != "avg_featmap":
            raise InputError("Mamba-ND's class token, perceptron, fused norm and 2D blocks are not in its classifiers")
        self.grid, self.mode, self.in_channels = (side, side), interpolate_mode, in_channels
        self.update_interval = update_interval
        backbone: dict[str, nn.Module] = {
            "patch_embed": PatchEmbed(in_channels, dim, patch_size),
            "drop_after_pos": nn.Dropout(drop_rate),
            "layers": nn.ModuleList(
                Block(
                    dim,
                    reverse=has_reverse and i % 2 == 1,
                    transpose=has_transpose and i % 4 >= 2,
                    merge=i in downsample,
                    drop_path=rate,
                    d_state=d_state,
                    expand=expand,
                )
                for i, rate in enumerate(rising_rates(drop_path_rate, depth))
            ),
        }
        if final_norm:
            backbone["ln1"] = LayerNorm(dim, eps=1e-6)
        backbone["ln2"] = LayerNorm(dim, eps=1e-6)
        self.backbone = nn.ModuleDict(backbone)
        positions = nn.init.trunc_normal_(torch.zeros(1, side * side, dim), std=0.02)
        self.backbone.register_parameter("pos_embed", nn.Parameter(positions))
        self.head = nn.ModuleDict({"fc": nn.Linear(dim, num_classes)})

    def _positions(self, grid: Grid) -> Tensor:
        positions = self.backbone.get_parameter("pos_embed")
        if grid == self.grid:
            return positions
        image = F.interpolate(from_tokens(positions, self.grid), grid, mode=self.mode, align_corners=False)
        return to_tokens(image).to(positions.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to logits (B, num_classes)."""
        x = self.backbone["patch_embed"](grey_to_rgb(x, self.in_channels))
        grid = (x.shape[2], x.shape[3])
        x = self.backbone["drop_after_pos"](to_tokens(x) + self._positions(grid))
        layers = self.backbone["layers"]
        assert isinstance(layers, nn.ModuleList)
        given = x
        for i, layer in enumerate(layers):
            if self.update_interval is None:
                x, grid = layer(x, grid)
                continue
            mixed, grid = layer(given, grid, skip=False)
            x = x + mixed
            given = x if (i + 1) % self.update_interval == 0 else given
        x = self.backbone["ln1"](x) if "ln1" in self.backbone else x
        return self.head["fc"](self.backbone["ln2"](x.mean(dim=1)))
