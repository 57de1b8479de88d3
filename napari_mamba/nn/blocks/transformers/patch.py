"""Patch embedding, merging and expanding of images in channels-last rows (Swin Transformer, Swin-Unet)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_mamba.nn.norms.norm import LayerNorm


class PatchEmbed2D(nn.Module):
    """Strided convolution to tokens: (B, C, H, W) to (B, H / p, W / p, embed_dim).

    Parameters
    ----------
    patch_size : int or (int, int)
        Side of a patch, in pixels.
    in_chans : int
        Input channels.
    embed_dim : int
        Channels of a token.
    norm : bool
        Whether the tokens are normalised.
    """

    def __init__(
        self, patch_size: int | tuple[int, int] = 4, in_chans: int = 3, embed_dim: int = 96, norm: bool = True
    ) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, patch_size, stride=patch_size)
        self.norm = LayerNorm(embed_dim) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).movedim(1, -1))


class PatchMerging2D(nn.Module):
    """Halves an image's sides, doubling its channels: (B, H, W, C) to (B, H // 2, W // 2, 2C).

    An odd last row or column is left out, as in VMamba.

    Parameters
    ----------
    dim : int
        Channels in.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = LayerNorm(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
        # The authors' order of a patch's pixels: (row 0, column 0), (1, 0), (0, 1), (1, 1).
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class PatchExpand(nn.Module):
    """Enlarges an image `scale` times by a linear layer: (B, H, W, C) to (B, scale H, scale W, out_dim).

    Parameters
    ----------
    dim : int
        Channels in.
    out_dim : int
        Channels out.
    scale : int
        Factor on both sides.
    """

    def __init__(self, dim: int, out_dim: int, scale: int = 2) -> None:
        super().__init__()
        self.scale = scale
        self.expand = nn.Linear(dim, scale * scale * out_dim, bias=False)
        self.norm = LayerNorm(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        s = self.scale
        x = self.expand(x).unflatten(-1, (s, s, -1)).permute(0, 1, 3, 2, 4, 5)
        return self.norm(x.flatten(3, 4).flatten(1, 2))
