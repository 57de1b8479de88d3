"""Vision-LSTM, versions 1 and 2: images as tokens through mLSTM blocks whose directions alternate.

Alkin et al., arXiv:2406.04303; read in github.com/NX-AI/vision-lstm, `vision_lstm/vision_lstm{,2}.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.drop import rising_rates
from napari_mamba.nn.blocks.tokens import from_tokens
from napari_mamba.nn.norms.norm import LayerNorm
from napari_mamba.nn.xlstm.mlstm import ResidualNorm
from napari_mamba.nn.xlstm.vil import ViLBlock

FACTS: dict[str, Any] = {
    "task": "classification",
    "spatial_dims": (2,),
    "paper": "arXiv:2406.04303",
    "repository": "github.com/NX-AI/vision-lstm",
    "licence": "Apache-2.0 and MIT",
    "scan_order": "raster and reverse in turn",
}
LEGACY_EPS = 1e-5
FIRST, LAST = "rowwise_from_top_left", "rowwise_from_bot_right"


class PatchEmbed(nn.Module):
    """Patches as tokens, kept as a map (B, H, W, dim)."""

    def __init__(self, channels: int, dim: int, patch: int, stride: int | None) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, patch, stride or patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).movedim(1, -1)


class PositionEmbed(nn.Module):
    """Learned positions of a map, interpolated for maps of other sizes."""

    def __init__(self, grid: Sequence[int], dim: int) -> None:
        super().__init__()
        self.embed = nn.Parameter(torch.empty(1, *grid, dim).normal_(std=0.02))

    def forward(self, x: Tensor) -> Tensor:
        embed: Tensor = self.embed
        if embed.shape[1:3] != x.shape[1:3]:
            embed = F.interpolate(embed.movedim(-1, 1), x.shape[1:3], mode="bicubic").movedim(1, -1)
        return x + embed.to(x.dtype)


class BlockPair(nn.Module):
    """Version 2's: one block forwards, one backwards."""

    def __init__(self, dim: int, drop_path: float, **layer: Any) -> None:
        super().__init__()
        self.add_module(FIRST, ViLBlock(dim, False, 2, drop_path=drop_path, **layer))
        self.add_module(LAST, ViLBlock(dim, True, 2, drop_path=drop_path, **layer))

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        for name in (FIRST, LAST):
            x = self.get_submodule(name)(x, size)
        return x


class _Tokens(nn.Module):
    """What both versions share: patches, positions, blocks, and how tokens become one answer."""

    poolings: tuple[str | None, ...] = ()
    folds = False
    """Whether tokens are folded to a map."""

    def __init__(
        self,
        dim: int,
        input_shape: Sequence[int],
        patch_size: int,
        stride: int | None,
        mode: str | None,
        pooling: str | None,
    ) -> None:
        super().__init__()
        if mode not in ("classifier", "features", None):
            raise InputError(f'mode must be "classifier" or "features", not {mode!r}')
        if pooling not in self.poolings:
            raise InputError(f"pooling must be one of {', '.join(map(str, self.poolings))}, not {pooling!r}")
        channels, *sides = input_shape
        if len(sides) != 2 or any(side % patch_size for side in sides):
            raise InputError(
                f"Vision-LSTM takes images whose sides are multiples of its patches of {patch_size}, not "
                f"{tuple(input_shape)}"
            )
        self.channels, self.patch, self.pooling = channels, patch_size, pooling
        self.patch_embed = PatchEmbed(channels, dim, patch_size, stride)
        self.rows = sides[0] // patch_size
        self.pos_embed = PositionEmbed([side // patch_size for side in sides], dim)

    def tokens(self, x: Tensor) -> tuple[Tensor, Sequence[int]]:
        """(B, C, H, W) to the tokens behind the last block (B, L, dim), and the map that they are folded to.

        As published, that map has as many rows as the network's own images have, whatever this image has.
        """
        if x.shape[1] != self.channels or any(side % self.patch or not side for side in x.shape[2:]):
            raise InputError(
                f"Vision-LSTM takes images of {self.channels} channels and sides that are multiples of {self.patch}, "
                f"not {tuple(x.shape[1:])}; crop or resize them"
            )
        tokens = self.pos_embed(self.patch_embed(x))
        tokens = tokens.flatten(1, 2)
        if self.folds and tokens.shape[1] % self.rows:
            raise InputError(
                f"this Vision-LSTM folds its patches to {self.rows} rows, and {tuple(x.shape[2:])} pixels give "
                f"{tokens.shape[1]} patches: resize the image to the network's own size"
            )
        size = (self.rows, tokens.shape[1] // self.rows)
        for block in self.blocks.children():
            tokens = block(tokens, size)
        return tokens, size

    @staticmethod
    def rates(drop_path_rate: float, depth: int, rising: bool) -> Sequence[float]:
        """Stochastic depth of each block."""
        return rising_rates(drop_path_rate, depth) if rising and drop_path_rate else [drop_path_rate] * depth


def _arguments(shapes: Shapes) -> dict[str, Any]:
    dim, channels, patch, _ = shapes["patch_embed.proj.weight"]
    grid = shapes["pos_embed.embed"][1:3]
    classes = shapes.get("head.weight")
    return {
        "dim": dim,
        "input_shape": [channels, *(side * patch for side in grid)],
        "patch_size": patch,
        "depth": count(shapes, "blocks."),
        "legacy_norm": "legacy_norm.weight" in shapes,
        **({"output_shape": [classes[0]]} if classes else {"mode": "features", "pooling": None}),
    }


def identify(shapes: Shapes) -> Identification | None:
    """Recognise version 1."""
    if not has(shapes, "patch_embed.proj.weight", "blocks.0.layer.conv1d.conv.weight", "pos_embed.embed"):
        return None
    return Identification("vision_lstm", "1", _arguments(shapes))


def identify2(shapes: Shapes) -> Identification | None:
    """Recognise version 2."""
    layer = f"blocks.0.{FIRST}.layer."
    causal = f"{layer}conv.conv.weight" in shapes
    if not has(shapes, "patch_embed.proj.weight", "pos_embed.embed", f"{layer}learnable_skip"):
        return None
    arguments = _arguments(shapes) | {
        "conv_kind": "causal1d" if causal else "2d",
        "proj_bias": f"{layer}proj_up.bias" in shapes,
        "norm_bias": "norm.bias" in shapes,
    }
    if "head.weight" in shapes and shapes["head.weight"][1] == arguments["dim"]:
        arguments["pooling"] = "bilateral_avg"
    return Identification("vision_lstm2", "2", arguments)


@register(
    name="vision_lstm",
    title="Vision-LSTM",
    vectors={
        "VisionLSTM_tiny": {"input_shape": (3, 96, 128), "legacy_norm": True},
        "VisionLSTM_tiny_depth6": {"input_shape": (3, 96, 128), "depth": 6, "legacy_norm": True},
    },
    identify=identify,
    **FACTS,
)
class VisionLSTM(_Tokens):
    """Vision-LSTM, version 1: (B, C, H, W) to class scores; the mean of the first and the last token decides.

    Parameters
    ----------
    dim : int
        Channels of the tokens: 192 (tiny), 384 (small), 768 (base).
    input_shape : sequence of int
        (channels, height, width) for which positions are learned; they are interpolated for others.
    patch_size, depth : int
        Side of a patch; blocks.
    output_shape : sequence of int
        (classes,).
    mode : {"classifier", "features"}
        Without the classifier the normalised tokens, pooled, are the answer.
    pooling : {"bilateral_avg", None}
        The mean of the first and the last token, or every token.
    drop_path_rate, drop_path_decay
        Of stochastic depth, and whether it rises with the depth.
    stride : int, optional
        Between patches, where it is not their side; the map must stay the same.
    alternation : {"bidirectional"}
        Blocks run forwards and backwards in turn.
    legacy_norm : bool
        A norm before the pooling too, which the published weights have.

    Examples
    --------
    >>> VisionLSTM(16, (3, 32, 32), depth=2, output_shape=(5,))(torch.zeros(1, 3, 32, 48)).shape
    torch.Size([1, 5])
    """

    poolings = ("bilateral_avg", None)

    def __init__(
        self,
        dim: int = 192,
        input_shape: Sequence[int] = (3, 224, 224),
        patch_size: int = 16,
        depth: int = 24,
        output_shape: Sequence[int] | None = (1000,),
        mode: str | None = "classifier",
        pooling: str | None = "bilateral_avg",
        drop_path_rate: float = 0.0,
        stride: int | None = None,
        alternation: str = "bidirectional",
        drop_path_decay: bool = False,
        legacy_norm: bool = False,
    ) -> None:
        super().__init__(dim, input_shape, patch_size, stride, mode, pooling)
        if alternation != "bidirectional":
            raise InputError(f'alternation must be "bidirectional", not {alternation!r}')
        rates = self.rates(drop_path_rate, depth, drop_path_decay)
        self.blocks = nn.ModuleList(ViLBlock(dim, bool(n % 2), drop_path=rate) for n, rate in enumerate(rates))
        self.legacy_norm = ResidualNorm(dim) if legacy_norm else nn.Identity()
        self.norm = LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, (output_shape or ())[0]) if mode == "classifier" else nn.Identity()

    def features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, dim), or (B, L, dim) without pooling."""
        tokens = self.legacy_norm(self.tokens(x)[0])
        return self.norm(tokens if self.pooling is None else (tokens[:, 0] + tokens[:, -1]) / 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


@register(
    name="vision_lstm2",
    title="Vision-LSTM 2",
    vectors={
        "VisionLSTM2_tiny": {"input_shape": (3, 128, 96)},
        "VisionLSTM2_tiny_depth2": {"input_shape": (3, 128, 96), "depth": 2, "legacy_norm": True},
    },
    identify=identify2,
    **FACTS,
)
class VisionLSTM2(_Tokens):
    """Vision-LSTM, version 2: (B, C, H, W) to class scores; the first and the last token, one after the other, decide.

    Parameters
    ----------
    dim, input_shape, patch_size, output_shape, mode, drop_path_rate, drop_path_decay, stride
        As of version 1.
    pooling : {"bilateral_flatten", "bilateral_avg", "to_image", None}
        The first and the last token one after the other, their mean, the map (B, dim, H, W), or every token.
    depth : int
        Pairs of blocks, one forwards and one backwards.
    legacy_norm : bool
        A norm behind the pooling, which the published weights have.
    conv_kind, proj_bias, norm_bias
        Of the blocks, see `ViLLayer`.
    conv_kernel_size, init_weights
        The authors' arguments that change nothing here: no kernel size reaches their blocks.

    Examples
    --------
    >>> VisionLSTM2(16, (3, 32, 32), depth=1, output_shape=(5,))(torch.zeros(1, 3, 48, 32)).shape
    torch.Size([1, 5])
    """

    poolings = ("bilateral_flatten", "bilateral_avg", "to_image", None)

    def __init__(
        self,
        dim: int = 192,
        input_shape: Sequence[int] = (3, 224, 224),
        patch_size: int = 16,
        depth: int = 12,
        output_shape: Sequence[int] | None = (1000,),
        mode: str | None = "classifier",
        pooling: str | None = "bilateral_flatten",
        drop_path_rate: float = 0.0,
        drop_path_decay: bool = False,
        stride: int | None = None,
        legacy_norm: bool = False,
        conv_kind: str = "2d",
        conv_kernel_size: int = 3,
        proj_bias: bool = True,
        norm_bias: bool = True,
        init_weights: str = "original",
    ) -> None:
        super().__init__(dim, input_shape, patch_size, stride, mode, pooling)
        self.folds = conv_kind == "2d" or pooling == "to_image"
        layer = {"conv_kind": conv_kind, "proj_bias": proj_bias, "norm_bias": norm_bias}
        rates = self.rates(drop_path_rate, depth, drop_path_decay)
        self.blocks = nn.ModuleList(BlockPair(dim, rate, **layer) for rate in rates)
        width = 2 * dim if mode == "classifier" and pooling == "bilateral_flatten" else dim
        self.norm = ResidualNorm(dim, bias=norm_bias, eps=1e-6)
        self.legacy_norm = LayerNorm(width, eps=LEGACY_EPS) if legacy_norm else nn.Identity()
        self.head = nn.Linear(width, (output_shape or ())[0]) if mode == "classifier" else nn.Identity()

    def features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 2 dim), or what `pooling` says."""
        tokens, size = self.tokens(x)
        tokens = self.norm(tokens)
        if self.pooling == "bilateral_flatten":
            tokens = torch.cat([tokens[:, 0], tokens[:, -1]], dim=1)
        elif self.pooling == "bilateral_avg":
            tokens = (tokens[:, 0] + tokens[:, -1]) / 2
        tokens = self.legacy_norm(tokens)
        return from_tokens(tokens, size) if self.pooling == "to_image" else tokens

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))
