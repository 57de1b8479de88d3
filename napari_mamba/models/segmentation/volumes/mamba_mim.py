"""MambaMIM's network for fine-tuning: convolutions down to a sixteenth, Mamba there, a UNETR decoder (Tang et al.).

arXiv:2408.08070; read in github.com/FengheTan9/MambaMIM, `models/network/hymamba.py: Hybird`, spelt so.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.tokens import Float32Module, from_tokens, to_tokens, without_autocast
from napari_mamba.nn.blocks.transformers.mlp import Mlp
from napari_mamba.nn.blocks.unets.conv_blocks import LEAK
from napari_mamba.nn.blocks.unets.unetr import UnetrUpBlock
from napari_mamba.nn.mixers.mamba import Mamba, s4d_real_log
from napari_mamba.nn.norms.norm import LayerNorm
from napari_mamba.scan import placed

STEP, EPS = 16, 1e-6
"""Input voxels a token's side; added to the variance by norms of maps."""
PUBLISHED = {
    "in_channel": 1,
    "n_classes": 14,
    "channels": (32, 64, 128, 192, 384),
    "depths": (1, 2, 2, 2, 1),
    "exp_r": (2, 2, 4, 4, 4),
    "depth": 4,
}
"""What the authors' `build_hybird` builds."""


def cube_positions(side: int, dim: int) -> Tensor:
    """Sines and cosines of a cube's three indices (1, side³, dim)."""
    if dim % 6:
        raise InputError(f"the deepest level's channels must be a multiple of 6, not {dim}")
    rates = 10000.0 ** -(torch.arange(dim // 6).float() / (dim // 6))
    grid = torch.meshgrid(*[torch.arange(side).float()] * 3, indexing="ij")
    angles = [axis.flatten()[:, None] * rates for axis in grid]
    return torch.cat([part for one in angles for part in (one.sin(), one.cos())], dim=1)[None]


class ForwardMamba(Float32Module, Mamba):
    """Mamba in float32, forwards alone; the weights of the way back are stored and never used, as published."""

    BACK = ("conv1d_b", "x_proj_b", "dt_proj_b", "A_b_log", "D_b")

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        inner, rank = self.d_inner, self.dt_rank
        self.conv1d_b = nn.Conv1d(inner, inner, self.d_conv, groups=inner, padding=self.d_conv - 1)
        self.x_proj_b = nn.Linear(inner, rank + 2 * self.d_state, bias=False)
        self.dt_proj_b = nn.Linear(rank, inner)
        self.A_b_log = nn.Parameter(s4d_real_log(inner, self.d_state))
        self.D_b = nn.Parameter(torch.ones(inner))

    def replace_mixer(self, name: str) -> None:
        super().replace_mixer(name)
        self.remove_modules(*self.BACK)


class MambaLayer(nn.Module):
    """Mixer and perceptron, each normalised and added."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.mamba = LayerNorm(dim), ForwardMamba(dim)
        self.mlp, self.norm2 = Mlp(dim, 2 * dim), LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        with without_autocast(x):
            wide = next(self.mamba.parameters()).dtype
            x = x + self.mamba(self.norm1(x).to(wide)).to(x.dtype)
        return x + self.mlp(self.norm2(x))


class Tokens(nn.Module):
    """Positions of a cube, and layers over its tokens."""

    def __init__(self, side: int, dim: int, depth: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(cube_positions(side, dim), requires_grad=False)
        self.blocks = nn.ModuleList(MambaLayer(dim) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        size = tuple(x.shape[2:])
        tokens = to_tokens(x) + self.pos_embed.to(x.dtype)
        with placed(lambda: (size, None)):
            for block in self.blocks:
                tokens = block(tokens)
        return from_tokens(tokens, size)


class MedNextBlock(nn.Module):
    """Depth-wise convolution, layer norm over channels, and a perceptron, added."""

    def __init__(self, dim: int, ratio: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.norm = LayerNorm(dim, EPS, channels_first=True)
        self.conv2, self.conv3 = nn.Conv3d(dim, ratio * dim, 1), nn.Conv3d(ratio * dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv3(F.gelu(self.conv2(self.norm(self.conv1(x)))))


class ResidualConvs(nn.Module):
    """Two 3-convolutions with layer norms over channels, added to the input, through a 1-convolution if it is wider."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv3d(channels, out, 3, padding=1), nn.Conv3d(out, out, 3, padding=1)
        self.norm1, self.norm2 = (LayerNorm(out, EPS, channels_first=True) for _ in range(2))
        if channels != out:
            self.conv3, self.norm3 = nn.Conv3d(channels, out, 1), LayerNorm(out, EPS, channels_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.leaky_relu(self.norm1(self.conv1(x)), LEAK)))
        return F.leaky_relu(y + (self.norm3(self.conv3(x)) if hasattr(self, "conv3") else x), LEAK)


class Pyramid(nn.Module):
    """Levels of blocks between poolings; a level's skip is what it becomes by a convolution to the next one's width."""

    def __init__(
        self,
        in_channel: int,
        channels: Sequence[int],
        depths: Sequence[int],
        kernels: Sequence[int],
        exp_r: Sequence[int],
    ) -> None:
        super().__init__()
        self.stem = nn.Conv3d(in_channel, channels[0], 3, padding=1)
        for level in range(1, len(channels)):
            blocks = [MedNextBlock(channels[level], exp_r[level], kernels[level]) for _ in range(depths[level])]
            self.add_module(f"layer{level + 1}", nn.Sequential(*blocks))
        for level, (narrow, wide) in enumerate(pairwise(channels), start=1):
            self.add_module(f"expend{level}", nn.Conv3d(narrow, wide, 3, padding=1))
        for level, wide in enumerate(channels[1:], start=1):
            self.add_module(f"encoder{level}", ResidualConvs(wide, wide))
        self.levels = len(channels)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The deepest map, and the skips, finest first."""
        x, skips = self.stem(x), []
        for level in range(1, self.levels):
            x = self.get_submodule(f"expend{level}")(x)
            skips.append(self.get_submodule(f"encoder{level}")(x))
            x = self.get_submodule(f"layer{level + 1}")(F.max_pool3d(x, 2))
        return x, skips


class Decoder(nn.Module):
    """UNETR's blocks up to the full resolution, and the classes."""

    def __init__(self, n_classes: int, channels: Sequence[int]) -> None:
        super().__init__()
        ins = [channels[4], channels[4], channels[3], channels[2]]
        for level, (wide, narrow) in enumerate(zip(ins, channels[:0:-1], strict=True)):
            self.add_module(f"decoder{5 - level}", UnetrUpBlock(3, wide, narrow))
        self.decoder1 = ResidualConvs(channels[1], channels[0])
        self.out = nn.ModuleDict({"conv": nn.Conv3d(channels[0], n_classes, 1)})

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        for level in (5, 4, 3, 2):
            x = self.get_submodule(f"decoder{level}")(x, skips)
        return self.out["conv"](self.decoder1(x))


def identify(shapes: Shapes) -> Identification | None:
    """Recognise the fine-tuning network's state_dict."""
    required = ("embeddings.expend1.weight", "mae.pos_embed", "decoder.out.conv.weight")
    if not has(shapes, "mae.blocks.0.mamba.A_b_log", *required):
        return None
    levels = range(2, 6)
    channels = [shapes["embeddings.stem.weight"][0], *(shapes[f"embeddings.expend{i}.weight"][0] for i in range(1, 5))]
    first = {level: f"embeddings.layer{level}.0." for level in levels}
    return Identification(
        "mamba_mim",
        arguments={
            "in_channel": shapes["embeddings.stem.weight"][1],
            "n_classes": shapes["decoder.out.conv.weight"][0],
            "channels": channels,
            "depths": [1, *(count(shapes, f"embeddings.layer{level}.") for level in levels)],
            "kernels": [3, *(shapes[f"{first[level]}conv1.weight"][2] for level in levels)],
            "exp_r": [2, *(shapes[f"{first[i]}conv2.weight"][0] // channels[i - 1] for i in levels)],
            "img_size": STEP * round(shapes["mae.pos_embed"][1] ** (1 / 3)),
            "depth": count(shapes, "mae.blocks."),
        },
    )


@register(
    name="mamba_mim",
    title="MambaMIM (HyMamba)",
    task="segmentation",
    spatial_dims=(3,),
    paper="arXiv:2408.08070",
    repository="github.com/FengheTan9/MambaMIM",
    licence="Apache-2.0",
    scan_order="raster",
    vectors={"MambaMIM_Hybird": {**PUBLISHED, "img_size": 64}},
    identify=identify,
)
class MambaMIM(nn.Module):
    """MambaMIM's network for segmentation; takes cubes of one size.

    The weights of its mixers for the way back are stored and not used: their authors ask for a kind of scan that their
    code does not know.

    Parameters
    ----------
    in_channel, n_classes : int
        Channels in; logits out.
    channels, depths, kernels, exp_r : sequence of int
        Of the five levels: channels, blocks, sides of their kernels, hidden channels per channel. The first level has
        no blocks: only its channels count.
    img_size : int
        Side of the cubes, a multiple of 16: positions are stored for it.
    depth : int
        Mamba layers on the deepest level.

    Raises
    ------
    InputError
        If a volume has another size.

    Examples
    --------
    >>> net = MambaMIM(1, 2, channels=(4, 4, 6, 6, 12), depths=(1,) * 5, img_size=32, depth=1)
    >>> net(torch.zeros(1, 1, 32, 32, 32)).shape
    torch.Size([1, 2, 32, 32, 32])
    """

    def __init__(
        self,
        in_channel: int = 3,
        n_classes: int = 3,
        channels: Sequence[int] = (32, 64, 96, 128, 192),
        depths: Sequence[int] = (1, 1, 3, 3, 1),
        kernels: Sequence[int] = (3, 3, 3, 3, 3),
        exp_r: Sequence[int] = (2, 4, 4, 4, 2),
        img_size: int = 96,
        depth: int = 3,
    ) -> None:
        super().__init__()
        if img_size % STEP:
            raise InputError(f"MambaMIM's img_size must be a multiple of {STEP}, not {img_size}")
        self.img_size = img_size
        self.embeddings = Pyramid(in_channel, channels, depths, kernels, exp_r)
        self.mae = Tokens(img_size // STEP, channels[-1], depth)
        self.decoder = Decoder(n_classes, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channel, S, S, S) to logits (B, n_classes, S, S, S)."""
        if tuple(x.shape[2:]) != (self.img_size,) * 3:
            raise InputError(
                f"this MambaMIM takes cubes of side {self.img_size}, not {tuple(x.shape[2:])}: use tiles of that size"
            )
        x, skips = self.embeddings(x)
        return self.decoder(self.mae(x), skips)
