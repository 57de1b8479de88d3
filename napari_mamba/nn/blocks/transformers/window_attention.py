"""Attention within shifted windows of an image (Swin Transformer, Liu et al., arXiv:2103.14030)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FORBIDDEN = -100.0
"""Added to the logits of tokens that were not neighbours before the shift, as published."""


def relative_positions(window: int) -> Tensor:
    """(N, N) int64, N = window²: the row of the bias table for each pair of a window's tokens."""
    row, column = torch.arange(window * window) // window, torch.arange(window * window) % window
    down, right = row[:, None] - row + window - 1, column[:, None] - column + window - 1
    return down * (2 * window - 1) + right


class WindowAttention(nn.Module):
    """Multi-head attention between the tokens of each window, with a learned bias for their relative position.

    Parameters
    ----------
    dim : int
        Channels, a multiple of `num_heads`.
    window_size : int
        Side of a window.
    num_heads : int
        Heads.
    """

    def __init__(self, dim: int, window_size: int, num_heads: int) -> None:
        super().__init__()
        self.window, self.heads = window_size, num_heads
        table = torch.zeros((2 * window_size - 1) ** 2, num_heads)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        self.proj = nn.Linear(dim, dim)

    def _masks(self, shift: int, device: torch.device) -> Iterator[tuple[slice, slice, Tensor | float]]:
        """Parts of the grid of windows, with what is added to their logits; only the last row and column wrap."""
        if not shift:
            yield slice(None), slice(None), 0.0
            return
        token = torch.arange(self.window**2, device=device)
        apart = []
        for place in (token // self.window, token % self.window):
            wrapped = place >= self.window - shift
            apart.append(wrapped[:, None] != wrapped)
        inner, last = slice(0, -1), slice(-1, None)
        yield inner, inner, 0.0
        yield last, inner, FORBIDDEN * apart[0]
        yield inner, last, FORBIDDEN * apart[1]
        yield last, last, FORBIDDEN * (apart[0] | apart[1])

    def forward(self, qkv: Tensor, positions: Tensor, shift: int = 0) -> Tensor:
        """Queries, keys and values (B, H, W, 3C) to (B, H, W, C).

        The sides are multiples of the window's; `positions` is (N, N), as `relative_positions` returns it; `shift` is
        by how much the grid of windows is moved down and right.
        """
        w, h = self.window, self.heads
        if shift:
            qkv = qkv.roll((-shift, -shift), (1, 2))
        bias = self.relative_position_bias_table[positions.flatten()].view(w * w, w * w, h).permute(2, 0, 1)
        grid = qkv.unflatten(2, (-1, w)).unflatten(1, (-1, w)).unflatten(-1, (3, h, -1))
        y = grid.new_empty(*grid.shape[:5], *grid.shape[6:])  # B, rows, w, columns, w, heads, C / heads
        for rows, columns, mask in self._masks(shift, qkv.device):
            part = grid[:, rows][:, :, :, columns]
            if not part.numel():
                continue
            q, k, v = part.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(3, -1, h, w * w, part.shape[-1])
            mixed = F.scaled_dot_product_attention(q, k, v, (bias + mask).to(q.dtype)[None])
            mixed = mixed.view(len(part), part.shape[1], part.shape[3], h, w, w, -1)
            y[:, rows][:, :, :, columns] = mixed.permute(0, 1, 4, 2, 5, 3, 6)
        y = y.flatten(5, 6).flatten(3, 4).flatten(1, 2)
        return self.proj(y.roll((shift, shift), (1, 2)) if shift else y)
