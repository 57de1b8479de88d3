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
FIRST, LAST = "rowwise_from_top_left", "rowwise_from_bot_right"


class PatchEmbed(nn.Module):
    """Patches as tokens, kept as a map (B, H, W, dim)."""

    def __init__(self, channels: int, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, patch, patch)

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

    def __init__(self, dim: int, drop_path: float) -> None:
        super().__init__()
        self.add_module(FIRST, ViLBlock(dim, False, 2, drop_path=drop_path))
        self.add_module(LAST, ViLBlock(dim, True, 2, drop_path=drop_path))

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        for name in (FIRST, LAST):
            x = self.get_submodule(name)(x, size)
        return x


class _Tokens(nn.Module):
    """What both versions share: patches, positions, blocks."""

    def __init__(self, dim: int, input_shape: Sequence[int], patch_size: int) -> None:
        super().__init__()
        channels, *sides = input_shape
        if len(sides) != 2 or any(side % patch_size for side in sides):
            raise InputError(
                f"Vision-LSTM takes images whose sides are multiples of its patches of {patch_size}, not "
                f"{tuple(input_shape)}"
            )
        self.channels, self.patch = channels, patch_size
        self.patch_embed = PatchEmbed(channels, dim, patch_size)
        self.pos_embed = PositionEmbed([side // patch_size for side in sides], dim)

    def tokens(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the tokens behind the last block (B, L, dim)."""
        if x.shape[1] != self.channels or any(side % self.patch or not side for side in x.shape[2:]):
            raise InputError(
                f"Vision-LSTM takes images of {self.channels} channels and sides that are multiples of {self.patch}, "
                f"not {tuple(x.shape[1:])}; crop or resize them"
            )
        tokens = self.pos_embed(self.patch_embed(x))
        size, tokens = tokens.shape[1:3], tokens.flatten(1, 2)
        for block in self.blocks.children():
            tokens = block(tokens, size)
        return tokens


def _arguments(shapes: Shapes) -> dict[str, Any]:
    dim, channels, patch, _ = shapes["patch_embed.proj.weight"]
    grid = shapes["pos_embed.embed"][1:3]
    return {
        "dim": dim,
        "input_shape": [channels, *(side * patch for side in grid)],
        "patch_size": patch,
        "depth": count(shapes, "blocks."),
        "output_shape": [shapes["head.weight"][0]],
    }


def identify(shapes: Shapes) -> Identification | None:
    """Recognise version 1."""
    if not has(
        shapes, "patch_embed.proj.weight", "blocks.0.layer.conv1d.conv.weight", "pos_embed.embed", "head.weight"
    ):
        return None
    arguments = _arguments(shapes) | {"legacy_norm": "legacy_norm.weight" in shapes}
    return Identification("vision_lstm", "1", arguments)


def identify2(shapes: Shapes) -> Identification | None:
    """Recognise version 2."""
    if not has(shapes, "patch_embed.proj.weight", f"blocks.0.{FIRST}.layer.conv.weight", "head.weight"):
        return None
    arguments = _arguments(shapes) | {"legacy_norm": "legacy_norm.weight" in shapes}
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
    drop_path_rate : float
        Of stochastic depth.
    legacy_norm : bool
        A norm before the pooling too, which the published weights have.

    Examples
    --------
    >>> VisionLSTM(16, (3, 32, 32), depth=2, output_shape=(5,))(torch.zeros(1, 3, 32, 48)).shape
    torch.Size([1, 5])
    """

    def __init__(
        self,
        dim: int = 192,
        input_shape: Sequence[int] = (3, 224, 224),
        patch_size: int = 16,
        depth: int = 24,
        output_shape: Sequence[int] = (1000,),
        drop_path_rate: float = 0.0,
        legacy_norm: bool = False,
    ) -> None:
        super().__init__(dim, input_shape, patch_size)
        self.blocks = nn.ModuleList(ViLBlock(dim, bool(n % 2), drop_path=drop_path_rate) for n in range(depth))
        self.legacy_norm = ResidualNorm(dim) if legacy_norm else nn.Identity()
        self.norm = LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, output_shape[0])

    def features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, dim)."""
        tokens = self.legacy_norm(self.tokens(x))
        return self.norm((tokens[:, 0] + tokens[:, -1]) / 2)

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
    dim, input_shape, patch_size, output_shape, drop_path_rate
        As of version 1.
    depth : int
        Pairs of blocks, one forwards and one backwards.
    legacy_norm : bool
        A norm behind the pooling, which the published weights have.

    Examples
    --------
    >>> VisionLSTM2(16, (3, 32, 32), depth=1, output_shape=(5,))(torch.zeros(1, 3, 48, 32)).shape
    torch.Size([1, 5])
    """

    def __init__(
        self,
        dim: int = 192,
        input_shape: Sequence[int] = (3, 224, 224),
        patch_size: int = 16,
        depth: int = 12,
        output_shape: Sequence[int] = (1000,),
        drop_path_rate: float = 0.0,
        legacy_norm: bool = False,
    ) -> None:
        super().__init__(dim, input_shape, patch_size)
        self.blocks = nn.ModuleList(BlockPair(dim, drop_path_rate) for _ in range(depth))
        self.norm = ResidualNorm(dim, bias=True, eps=1e-6)
        self.legacy_norm = LayerNorm(2 * dim, eps=1e-6) if legacy_norm else nn.Identity()
        self.head = nn.Linear(2 * dim, output_shape[0])

    def features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 2 dim)."""
        tokens = self.norm(self.tokens(x))
        return self.legacy_norm(torch.cat([tokens[:, 0], tokens[:, -1]], dim=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))
