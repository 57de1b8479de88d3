"""The four-level U-shape of Restormer (Zamir et al., arXiv:2111.09881), with any block; its norm and feed-forward.

VmambaIR and MambaIR-UNet put their own blocks into it. Read in github.com/swz30/Restormer's descendants
github.com/AlphacatPlus/VmambaIR and github.com/csguoh/MambaIR. Blocks take and return (B, H, W, C).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.nn.blocks.tokens import Float32Module
from napari_mamba.nn.mixers.images.ss2d_v2 import MapConv
from napari_mamba.nn.norms.norm import LayerNorm, at_least_float32

STEP = 8
"""The sides of an image are multiples of this: three halvings."""


class VarianceNorm(Float32Module):
    """Divides by the deviation over the channels and scales; the mean stays (Restormer's "BiasFree")."""

    def __init__(self, dim: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        wide = at_least_float32(x)
        variance = wide.var(-1, keepdim=True, unbiased=False)
        return (wide * torch.rsqrt(variance + self.eps) * self.weight).to(x.dtype)


class RestormerNorm(nn.Module):
    """Layer norm over the last axis, or `VarianceNorm` for `kind="BiasFree"`; stored under `body`."""

    def __init__(self, dim: int, kind: str = "WithBias") -> None:
        super().__init__()
        self.body = VarianceNorm(dim) if kind == "BiasFree" else LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class GatedFeedForward(nn.Module):
    """Widens, mixes 3×3 neighbourhoods, gates one half by the GELU of the other, narrows: (B, H, W, C) to the same.

    Parameters
    ----------
    dim : int
        Channels in and out.
    expansion : float
        Hidden channels per channel.
    bias : bool
        Whether the convolutions have one.
    """

    def __init__(self, dim: int, expansion: float, bias: bool) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        self.project_in = MapConv(dim, 2 * hidden, 1, bias=bias)
        self.dwconv = MapConv(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = MapConv(hidden, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, x = self.dwconv(self.project_in(x)).chunk(2, dim=-1)
        return self.project_out(F.gelu(gate) * x)


class Resample(nn.Module):
    """Halves the sides and doubles the channels (`finer=False`), or the reverse: 3-convolution and pixel shuffle."""

    def __init__(self, dim: int, finer: bool) -> None:
        super().__init__()
        conv = nn.Conv2d(dim, 2 * dim if finer else dim // 2, 3, padding=1, bias=False)
        self.body = nn.Sequential(conv, nn.PixelShuffle(2) if finer else nn.PixelUnshuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.movedim(-1, 1)).movedim(1, -1).contiguous()


class OverlapPatchEmbed(nn.Module):
    """3-convolution of (B, C, H, W) to (B, H, W, embed_dim)."""

    def __init__(self, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).movedim(1, -1).contiguous()


class RestormerUNet(nn.Module):
    """Three encoder and decoder levels around a latent one, then refinement at full resolution.

    Parameters
    ----------
    inp_channels : int
        Input channels.
    dim : int
        Channels of the first level, even; they double with each. The first decoder level and the refinement have
        twice as many, for its skip is concatenated and not reduced.
    num_blocks : sequence of 4 int
        Blocks of the levels, the latent one last.
    num_refinement_blocks : int
        Blocks of the refinement.
    block : callable
        `block(dim, level)`, with level from 0 to 3, is a module from (B, H, W, dim) to the same shape.
    bias : bool
        Whether the 1-convolutions after the skips have one.
    """

    divisor = 8
    """Of which the sides are multiples."""

    def __init__(
        self,
        inp_channels: int,
        dim: int,
        num_blocks: Sequence[int],
        num_refinement_blocks: int,
        block: Callable[[int, int], nn.Module],
        bias: bool = False,
    ) -> None:
        super().__init__()
        if len(num_blocks) != 4:
            raise InputError(f"num_blocks={list(num_blocks)} has {len(num_blocks)} numbers; give four, one for a level")
        dims = [dim * 2**level for level in range(4)]

        def blocks(count: int, width: int, level: int) -> nn.Sequential:
            return nn.Sequential(*[block(width, level) for _ in range(count)])

        self.patch_embed = OverlapPatchEmbed(inp_channels, dim)
        for level in range(3):
            here, below = level + 1, level + 2
            self.add_module(f"encoder_level{here}", blocks(num_blocks[level], dims[level], level))
            self.add_module(f"down{here}_{below}", Resample(dims[level], finer=False))
            self.add_module(f"up{below}_{here}", Resample(dims[level + 1], finer=True))
            width = dims[level] if level else 2 * dim
            if level:
                self.add_module(f"reduce_chan_level{here}", MapConv(2 * width, width, 1, bias=bias))
            self.add_module(f"decoder_level{here}", blocks(num_blocks[level], width, level))
        self.latent = blocks(num_blocks[3], dims[3], 3)
        self.refinement = blocks(num_refinement_blocks, 2 * dim, 0)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) to the refined features (B, H, W, 2 dim) and the embedded image (B, H, W, dim).

        Raises `InputError` where the sides are no multiples of 8.
        """
        if x.ndim != 4 or any(side % STEP for side in x.shape[2:]):
            raise InputError(
                f"this network takes images whose sides are multiples of {STEP}, not {tuple(x.shape[2:])}; pad the "
                "image or choose such a tile"
            )
        embedded = x = self.patch_embed(x)
        skips = []
        for here in (1, 2, 3):
            x = self.get_submodule(f"encoder_level{here}")(x)
            skips.append(x)
            x = self.get_submodule(f"down{here}_{here + 1}")(x)
        x = self.latent(x)
        for here in (3, 2, 1):
            x = torch.cat([self.get_submodule(f"up{here + 1}_{here}")(x), skips.pop()], dim=-1)
            x = self.get_submodule(f"reduce_chan_level{here}")(x) if here > 1 else x
            x = self.get_submodule(f"decoder_level{here}")(x)
        return self.refinement(x), embedded

    def end_at_the_same_size(self, dim: int, out_channels: int, bias: bool, dual_pixel_task: bool) -> None:
        """Add the last layers of a network whose answer is as large as its image; for `answer`.

        With `dual_pixel_task` the embedded image is added before the last convolution, else the image after it.
        """
        self.dual_pixel_task = dual_pixel_task
        self.output = nn.Conv2d(2 * dim, out_channels, 3, padding=1, bias=bias)
        if dual_pixel_task:
            self.skip_conv = nn.Conv2d(dim, 2 * dim, 1, bias=bias)

    def answer(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out_channels, H, W), through the layers of `end_at_the_same_size`."""
        y, embedded = (maps.movedim(-1, 1) for maps in self.features(x))
        return self.output(y + self.skip_conv(embedded)) if self.dual_pixel_task else self.output(y) + x
