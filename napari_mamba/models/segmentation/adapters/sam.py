"""The image encoder of SAM (Kirillov et al., arXiv:2304.02643) with low-rank additions, without its neck.

A plain vision transformer with attention in windows but for a few layers, and positions relative to each other on rows
and columns (Li et al., arXiv:2203.16527). Keys are those of timm's `samvit_base_patch16`, read in
github.com/huggingface/pytorch-image-models, `timm/models/vision_transformer_sam.py`: its layer norms have 1e-5 where
SAM's own have 1e-6. LoRA is Hu et al., arXiv:2106.09685.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.nn.blocks.transformers.mlp import Mlp
from napari_mamba.nn.norms.norm import LayerNorm


class LowRankQkv(nn.Module):
    """The projection to queries, keys and values; what is added to the first and last is of low rank."""

    def __init__(self, dim: int, rank: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        for name in ("q", "v"):
            down, up = nn.Linear(dim, rank, bias=False), nn.Linear(rank, dim, bias=False)
            nn.init.zeros_(up.weight)
            self.add_module(f"linear_a_{name}", down)
            self.add_module(f"linear_b_{name}", up)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, L, C) to three of these."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q = q + self.linear_b_q(F.gelu(self.linear_a_q(x)))
        return q, k, v + self.linear_b_v(F.gelu(self.linear_a_v(x)))


def relative_rows(table: Tensor, side: int) -> Tensor:
    """Rows (side, side, C) of a table for the distances of all pairs; a table for another side is interpolated."""
    wanted = 2 * side - 1
    if len(table) != wanted:
        table = F.interpolate(table.T[None], size=wanted, mode="linear")[0].T
    places = torch.arange(side, device=table.device)
    return table[places[:, None] - places + side - 1]


class RelativeAttention(nn.Module):
    """Attention over a map's tokens; each query adds to its logits for the distance in rows and in columns."""

    def __init__(self, dim: int, heads: int, side: int, rank: int) -> None:
        super().__init__()
        self.heads = heads
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, dim // heads))
        self.qkv = LowRankQkv(dim, rank)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        height, width = x.shape[1:3]
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(x.flatten(1, 2)))
        grid = q.unflatten(2, (height, width))
        rows = torch.einsum("bnhwc,hkc->bnhwk", grid, relative_rows(self.rel_pos_h, height).to(q.dtype))
        columns = torch.einsum("bnhwc,wkc->bnhwk", grid, relative_rows(self.rel_pos_w, width).to(q.dtype))
        bias = (rows[..., :, None] + columns[..., None, :]).flatten(4).flatten(2, 3)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(y.transpose(1, 2).flatten(2)).view(x.shape)


class SamBlock(nn.Module):
    """Attention, in windows of side `window` (0: over the whole map), and a perceptron, each normalised and added."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, window: int, side: int, rank: int) -> None:
        super().__init__()
        self.window = window
        self.norm1, self.norm2 = LayerNorm(dim), LayerNorm(dim)
        self.attn = RelativeAttention(dim, heads, window or side, rank)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def _attend(self, x: Tensor) -> Tensor:
        if not self.window:
            return self.attn(x)
        w, (height, width) = self.window, x.shape[1:3]
        x = F.pad(x, (0, 0, 0, -width % w, 0, -height % w))
        rows, columns = x.shape[1] // w, x.shape[2] // w
        windows = x.unflatten(2, (columns, w)).unflatten(1, (rows, w)).transpose(2, 3)
        y = self.attn(windows.flatten(0, 2)).view(windows.shape).transpose(2, 3)
        return y.flatten(3, 4).flatten(1, 2)[:, :height, :width]

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        x = x + self._attend(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class SamPatches(nn.Module):
    """Patches to tokens (B, H, W, C), stored under `proj`."""

    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).movedim(1, -1)


class SamEncoder(nn.Module):
    """SAM's transformer; `tokens` and then each of `blocks` are run by what uses it.

    Parameters
    ----------
    dim, depth, heads : int
        Channels, layers, heads.
    patch, img_size : int
        Side of a patch, and of the images that it was trained with; positions are resampled for others.
    window : int
        Side of the windows.
    everywhere : sequence of int
        Layers whose attention spans the whole map.
    rank : int
        Of the additions to queries and values.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        heads: int,
        patch: int,
        img_size: int,
        window: int,
        everywhere: Sequence[int],
        rank: int,
    ) -> None:
        super().__init__()
        side = img_size // patch
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.zeros(1, side, side, dim), std=0.02))
        self.patch_embed = SamPatches(dim, patch)
        self.blocks = nn.ModuleList(
            SamBlock(dim, heads, 4, 0 if layer in everywhere else window, side, rank) for layer in range(depth)
        )

    def tokens(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, H / p, W / p, C), with positions."""
        x = self.patch_embed(x)
        positions: Tensor = self.pos_embed
        if x.shape[1:3] != positions.shape[1:3]:
            positions = F.interpolate(
                positions.movedim(-1, 1), size=x.shape[1:3], mode="bicubic", antialias=True
            ).movedim(1, -1)
        return x + positions
