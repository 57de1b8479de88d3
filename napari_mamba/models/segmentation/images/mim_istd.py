"""MiM-ISTD: scans of patches and, within each, of its words, for small targets (Chen et al., arXiv:2403.02148).

Read in github.com/txchen-USTC/MiM-ISTD, `mim_network.py`. Its tokens become maps by a `reshape` where a permutation is
missing, so that space and channels are mixed up: the weights were trained that way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.transformers.patch import PatchExpand, PatchMerging2D
from napari_mamba.nn.blocks.vss import grey_to_rgb
from napari_mamba.nn.mixers.images.ss2d import SS2D
from napari_mamba.nn.norms.norm import LayerNorm
from napari_mamba.scan import placed

PATCH, WORDS, UNIT, LONG = 8, 4, 64, 6
"""Side of a patch in pixels, words on a side of it, what the image's sides are multiples of; a stage of more blocks
than `LONG` sees the words in two of them."""
HEADS, REDUCTION = (2, 4, 8, 16), (4, 2, 1, 1)
"""Of the tables of positions that are stored and never used."""


class MixedSS2D(SS2D):
    """SS2D on tokens (B, L, C) laid out as a map of `side` with channels where places should be, and back."""

    def forward(self, x: Tensor, side: int) -> Tensor:  # type: ignore[override]
        rows = x.transpose(1, 2).reshape(len(x), side, side, -1)
        with placed(lambda: None):
            return super().forward(rows).reshape(x.shape)


class FeedForward(nn.Module):
    """Widen, convolve each channel beside a residual, narrow, each with GELU and batch norm; on a mixed-up map."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        wide = 2 * dim
        first = nn.Sequential(nn.Conv2d(dim, wide, 1), nn.GELU(), nn.BatchNorm2d(wide))
        self.conv1x1_gelu_bn = nn.ModuleDict({"conv3x3_gelu_bn": first})
        self.conv3x3_dw = nn.ModuleDict({"conv": nn.Conv2d(wide, wide, 3, padding=1, groups=wide)})
        self.act = nn.Sequential(nn.GELU(), nn.BatchNorm2d(wide))
        self.conv1x1_pw = nn.Sequential(nn.Conv2d(wide, dim, 1), nn.BatchNorm2d(dim))

    def forward(self, x: Tensor, channels: int) -> Tensor:
        """(B, N, C) of any split of rows to the same shape."""
        side = math.isqrt(x[0].numel() // channels)
        y = self.conv1x1_gelu_bn["conv3x3_gelu_bn"](x.reshape(len(x), channels, side, side))
        return self.conv1x1_pw(y + self.act(self.conv3x3_dw["conv"](y))).reshape(x.shape)


class Block(nn.Module):
    """The words of each patch (where it sees them) mixed and told to the patch, then the patches."""

    def __init__(self, dim: int, word: int, feed_forward: bool) -> None:
        super().__init__()
        self.word = word
        if word:
            wide = WORDS * WORDS * word
            self.inner_norm1, self.inner_attn = LayerNorm(wide), MixedSS2D(word)
            if feed_forward:
                self.inner_norm2, self.inner_mlp = LayerNorm(wide), FeedForward(word)
            self.proj_norm1, self.proj = LayerNorm(wide), nn.Linear(wide, dim, bias=False)
            self.proj_norm2 = LayerNorm(dim)
        self.outer_norm1, self.outer_attn = LayerNorm(dim), MixedSS2D(dim)
        self.feed_forward = feed_forward
        if feed_forward:
            self.outer_norm2, self.outer_mlp = LayerNorm(dim), FeedForward(dim)

    def forward(self, words: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, 16 c) words of patches, and patches (B, N, C), to the same."""
        if self.word:
            one = self.inner_norm1(words).reshape(-1, WORDS * WORDS, self.word)
            words = words + self.inner_attn(one, WORDS).reshape(words.shape)
            if self.feed_forward:
                words = words + self.inner_mlp(self.inner_norm2(words), self.word)
            patches = patches + self.proj_norm2(self.proj(self.proj_norm1(words)))
        side = math.isqrt(patches.shape[1])
        patches = patches + self.outer_attn(self.outer_norm1(patches), side)
        if self.feed_forward:
            patches = patches + self.outer_mlp(self.outer_norm2(patches), patches.shape[2])
        return words, patches


class Stage(nn.Module):
    """Blocks on one pyramid level; `relative_pos` is stored and never used."""

    def __init__(self, dim: int, word: int, depth: int, level: int, img_size: int, feed_forward: bool) -> None:
        super().__init__()
        seeing = 2 if depth > LONG else 1
        self.blocks = nn.ModuleList(Block(dim, word if j < seeing else 0, feed_forward) for j in range(depth))
        patches = (img_size // PATCH >> level) ** 2
        shape = (1, HEADS[level], patches, patches // REDUCTION[level] ** 2)
        self.relative_pos = nn.Parameter(torch.randn(shape))

    def forward(self, words: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        for block in self.blocks:
            words, patches = block(words, patches)
        return words, patches


def conv_unit(channels: int, out: int, stride: int = 1) -> list[nn.Module]:
    """3-convolution, batch norm, ReLU."""
    return [nn.Conv2d(channels, out, 3, stride, 1), nn.BatchNorm2d(out), nn.ReLU()]


class Stem(nn.Module):
    """Convolutions to the words (at half the resolution) and to the patches (at an eighth)."""

    def __init__(self, in_chans: int, dim: int, word: int) -> None:
        super().__init__()
        self.common_conv = nn.Sequential(*conv_unit(in_chans, 2 * word, 2))
        self.inner_convs = nn.Sequential(*conv_unit(2 * word, word))
        units = conv_unit(2 * word, 4 * word, 2) + conv_unit(4 * word, 8 * word, 2) + conv_unit(8 * word, dim)
        self.outer_convs = nn.Sequential(*units)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.common_conv(x)
        inner = self.inner_convs(x)
        words = F.unfold(inner, WORDS, stride=WORDS).unflatten(1, (inner.shape[1], -1))
        return words.permute(0, 3, 2, 1).flatten(2), self.outer_convs(x).flatten(2).transpose(1, 2)


class WordMerging(nn.Module):
    """The words of 2 x 2 patches to those of one, by a convolution with stride."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.dim = dim
        self.norm = LayerNorm(dim)
        self.conv = nn.Sequential(nn.Conv2d(dim, out, 3, padding=1, stride=2))

    def forward(self, words: Tensor, side: int) -> Tensor:
        """(B, N, 16 c) of side x side patches to (B, N / 4, 16 c')."""
        x = self.norm(words.reshape(len(words), side, side, WORDS, WORDS, self.dim))
        # row and column of the patch in its four, then of the word in its patch
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).permute(0, 1, 3, 7, 2, 5, 4, 6)
        x = x.flatten(6, 7).flatten(4, 5).flatten(0, 2)
        return self.conv(x).flatten(2).transpose(1, 2).reshape(len(words), words.shape[1] // 4, -1)


class UpsampleBlock(nn.Module):
    """A transposed convolution and a convolution, each with batch norm and GELU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.transposed_conv, self.batch_norm1 = nn.ConvTranspose2d(dim, dim, 2, 2), nn.BatchNorm2d(dim)
        self.conv, self.batch_norm2 = nn.Conv2d(dim, dim, 3, padding=1), nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.batch_norm1(self.transposed_conv(x)))
        return F.gelu(self.batch_norm2(self.conv(x)))


class Encoder(nn.Module):
    """The pyramid of words and patches; `norm` is stored and never used."""

    def __init__(
        self, dims: Sequence[int], word: int, depths: Sequence[int], in_chans: int, img_size: int, feed_forward: bool
    ) -> None:
        super().__init__()
        words = [word << level for level in range(len(dims))]
        self.patch_embed = Stem(in_chans, dims[0], word)
        self.word_merges = nn.ModuleList(WordMerging(a, b) for a, b in pairwise(words))
        self.sentence_merges = nn.ModuleList(PatchMerging2D(dim) for dim in dims[:-1])
        self.stages = nn.ModuleList(
            Stage(dim, words[level], depths[level], level, img_size, feed_forward) for level, dim in enumerate(dims)
        )
        self.norm = LayerNorm(dims[-1])
        self.up_blocks = nn.ModuleList(UpsampleBlock(dim) for dim in dims)

    def forward(self, x: Tensor) -> list[Tensor]:
        words, patches = self.patch_embed(x)
        side, maps = x.shape[2] // PATCH, []
        for level, stage in enumerate(self.stages):
            if level:
                words = self.word_merges[level - 1](words, side)
                patches = self.sentence_merges[level - 1](patches.unflatten(1, (side, side))).flatten(1, 2)
                side //= 2
            words, patches = stage(words, patches)
            maps.append(self.up_blocks[level](patches.transpose(1, 2).unflatten(2, (side, side))))
        return maps


class ResidualBlock(nn.Module):
    """Two 3-convolutions added to the input."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(dim, dim, 3, padding=1, bias=False) for _ in range(2))
        self.body = nn.Sequential(first, nn.BatchNorm2d(dim), nn.ReLU(), second, nn.BatchNorm2d(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


def identify(shapes: Shapes) -> Identification | None:
    """Recognise MiM-ISTD's state_dict, with feed-forward networks (since 10 November 2024) or without."""
    stages = "mim_backbone.stages."
    if not has(shapes, f"{stages}0.relative_pos", f"{stages}0.blocks.0.inner_attn.A_logs", "head.block.4.weight"):
        return None
    dims = [shapes[f"{stages}{level}.blocks.0.outer_norm1.weight"][0] for level in range(4)]
    patches = shapes[f"{stages}0.relative_pos"][2]
    later = f"{stages}0.blocks.0.outer_mlp.act.1.weight" in shapes
    return Identification(
        "mim_istd",
        generation="since 2024-11-10" if later else "before 2024-11-10",
        arguments={
            "layer_blocks": [count(shapes, f"uplayer{level}.") for level in (1, 2, 3)],
            "channels": [dims[0] // 2, *dims],
            "depths": [count(shapes, f"{stages}{level}.blocks.") for level in range(4)],
            "inner_dim": shapes["mim_backbone.patch_embed.inner_convs.1.weight"][0],
            "in_chans": shapes["mim_backbone.patch_embed.common_conv.0.weight"][1],
            "num_classes": shapes["head.block.4.weight"][0],
            "img_size": PATCH * math.isqrt(patches),
            "feed_forward": later,
        },
    )


@register(
    name="mim_istd",
    title="MiM-ISTD",
    task="segmentation",
    spatial_dims=(2,),
    paper="arXiv:2403.02148",
    repository="github.com/txchen-USTC/MiM-ISTD",
    licence="MIT",
    scan_order="ss2d",
    vectors={"MiM_ISTD": {"layer_blocks": [2, 2, 2], "channels": [16, 32, 64, 128, 256]}},
    identify=identify,
)
class MiMISTD(nn.Module):
    """MiM-ISTD; takes square images with sides that are multiples of 64, of any such size.

    Parameters
    ----------
    layer_blocks : sequence of int
        Residual blocks of the decoder's three levels, finest first.
    channels : sequence of int
        The first is not used; the others are those of the four stages, as its authors have it 32, 64, 128, 256.
    depths : sequence of int
        Blocks of each stage.
    inner_dim, in_chans, num_classes : int
        Channels of a word, which double; input channels (where 3, one grey channel is repeated); logits.
    img_size : int
        Side for which tables are stored that nothing uses.
    feed_forward : bool
        Whether blocks have feed-forward networks, as since 10 November 2024.

    Raises
    ------
    InputError
        If an image is not square, or its sides are not multiples of 64.
    """

    def __init__(
        self,
        layer_blocks: Sequence[int] = (2, 2, 2),
        channels: Sequence[int] = (16, 32, 64, 128, 256),
        *,
        depths: Sequence[int] = (2, 2, 2, 2),
        inner_dim: int = 4,
        in_chans: int = 3,
        num_classes: int = 1,
        img_size: int = 512,
        feed_forward: bool = True,
    ) -> None:
        super().__init__()
        dims = list(channels[1:])
        if any(later != 2 * dim for dim, later in pairwise(dims)) or len(dims) != 4:
            raise InputError(f"MiM-ISTD's channels double from stage to stage, four times, not {tuple(channels)}")
        self.in_chans = in_chans
        for level in (3, 2, 1):
            self.add_module(f"deconv{level}", PatchExpand(dims[level], dims[level - 1]))
            blocks = [ResidualBlock(dims[level - 1]) for _ in range(layer_blocks[level - 1])]
            self.add_module(f"uplayer{level}", nn.Sequential(*blocks))
        narrow = dims[0] // 4
        first, last = nn.Conv2d(dims[0], narrow, 3, padding=1, bias=False), nn.Conv2d(narrow, num_classes, 1)
        self.head = nn.ModuleDict(
            {"block": nn.Sequential(first, nn.BatchNorm2d(narrow), nn.ReLU(), nn.Dropout(0.1), last)}
        )
        self.mim_backbone = Encoder(dims, inner_dim, depths, in_chans, img_size, feed_forward)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, S, S) to logits (B, num_classes, S, S)."""
        size = x.shape[2:]
        if size[0] != size[1] or size[0] % UNIT:
            raise InputError(
                f"MiM-ISTD takes square images whose sides are multiples of {UNIT}, not {tuple(size)}: its tokens "
                "mean something else on others; crop or resize"
            )
        *maps, x = self.mim_backbone(grey_to_rgb(x, self.in_chans))
        for level in (3, 2, 1):
            x = self.get_submodule(f"deconv{level}")(x.movedim(1, -1)).movedim(-1, 1)
            x = self.get_submodule(f"uplayer{level}")(x + maps[level - 1])
        return F.interpolate(self.head["block"](x), size=size, mode="bilinear")
