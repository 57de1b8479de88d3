"""Microscopic-Mamba: one SS2D for four chunks of half the channels, convolutions on the other half, gating each other.

Zou et al., arXiv:2409.07896; read in github.com/zs1314/Microscopic-Mamba, `microscopicmamba.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import depths as depths_of
from napari_mamba.models.shapes import has
from napari_mamba.nn.blocks.drop import DropPath
from napari_mamba.nn.blocks.tokens import Float32Module, without_autocast
from napari_mamba.nn.blocks.vss import VSSEncoder, grey_to_rgb, init_vss_weights
from napari_mamba.nn.mixers.images.ss2d import SS2D


def deal(x: Tensor, hands: int, dim: int) -> Tensor:
    """Channels dealt like cards: those at 0, `hands`, 2 `hands`… first, then those at 1, `hands` + 1….

    >>> deal(torch.arange(6), 2, 0)
    tensor([0, 2, 4, 1, 3, 5])
    """
    return x.unflatten(dim, (-1, hands)).movedim(dim + 1 if dim >= 0 else dim, dim).flatten(dim, dim + 1)


class PSFFN(nn.Module):
    """Partially selected feed-forward network: pointwise convolution, a depth-wise one on a quarter, a shuffle."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.quarter = out_dim // 4
        self.conv_0 = nn.Conv2d(dim, out_dim, 1)
        self.conv_1 = nn.Conv2d(self.quarter, self.quarter, 3, padding=1, groups=self.quarter)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) to (B, W, H, out_dim): rows and columns change places, as published weights learned it."""
        x = F.silu(self.conv_0(x.movedim(-1, 1)))
        first, rest = x.tensor_split([self.quarter], dim=1)
        x = torch.cat([F.silu(self.conv_1(first)), rest], dim=1)
        return deal(x, 2, 1).permute(0, 3, 2, 1)


class SS2DFeedForward(SS2D):
    """SS2D that ends in a `PSFFN` and adds its input; `out_proj` is stored and never used."""

    def __init__(self, d_model: int, d_state: int = 16, dropout: float = 0.0) -> None:
        super().__init__(d_model, d_state=d_state, dropout=dropout)
        self.PSFFN = PSFFN(self.d_inner, d_model)

    def forward(self, x: Tensor) -> Tensor:
        u, z = self.in_proj(x).chunk(2, dim=-1)
        u = F.silu(self.conv2d(u.movedim(-1, 1)).movedim(1, -1))
        y = self.out_norm(self.scan(u)) * F.silu(z)
        return self.dropout(self.PSFFN(y)) + x


class PVMLayer(Float32Module):
    """Normalise, mix each quarter of the channels by one SS2D, normalise by the same norm; `proj` is never used."""

    def __init__(self, dim: int, dropout: float, d_state: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.mamba = SS2DFeedForward(dim // 4, d_state=d_state, dropout=dropout)
        self.proj = nn.Linear(dim, dim)
        self.skip_scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same, H equal to W."""
        with without_autocast(x):
            # The four quarters share one mixer, so they go through it as one batch.
            quarters = torch.cat(self.norm(x.to(self.norm.weight.dtype)).chunk(4, dim=-1))
            mixed = self.mamba(quarters) + self.skip_scale * quarters
            return self.norm(torch.cat(mixed.chunk(4), dim=-1)).to(x.dtype)


class ChannelGate(nn.Module):
    """Each channel times the sigmoid of its own mean, weighed (ECA, arXiv:1910.03151, with a kernel of one)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 1, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.conv(x.mean(dim=(2, 3))[..., None]))[..., None]


class MIFA(nn.Module):
    """Two maps gate each other, through one depth-wise convolution; together they are shuffled and gated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.DWConv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.attention = ChannelGate(2 * channels)

    def forward(self, local: Tensor, wide: Tensor) -> Tensor:
        """Two maps (B, C, H, W) to (B, 2C, H, W)."""
        by_local = torch.sigmoid(F.relu(self.DWConv(local))) * wide
        by_wide = torch.sigmoid(F.gelu(self.DWConv(wide))) * local
        return self.attention(deal(torch.cat([by_local, by_wide], dim=1), 4, 1))


class MicroscopicBlock(nn.Module):
    """Convolutions on the first half of the channels, a `PVMLayer` on the second, joined by `MIFA`; no residual."""

    def __init__(self, hidden_dim: int, drop_path: float = 0.0, attn_drop_rate: float = 0.0, d_state: int = 16) -> None:
        super().__init__()
        half = hidden_dim // 2
        self.drop_path = DropPath(drop_path)
        self.MIFA = MIFA(half)
        self.Conv_branch = nn.Sequential(
            nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 3, padding=1, groups=half),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, hidden_dim, 3, padding=1, groups=half),
            nn.BatchNorm2d(hidden_dim),
            nn.ReLU(),
            nn.Conv2d(hidden_dim, half, 1),
            nn.BatchNorm2d(half),
            nn.ReLU(),
        )
        self.pvm_layer = PVMLayer(half, attn_drop_rate, d_state)

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=-1)
        wide = deal(self.drop_path(self.pvm_layer(right)).movedim(-1, 1), 2, 1)
        return self.MIFA(self.Conv_branch(left.movedim(-1, 1)), wide).movedim(1, -1)


class ConvStem(nn.Sequential):
    """Two convolutions of stride 2, each with batch norm: (B, 3, H, W) to (B, H / 4, W / 4, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__(_conv_norm(3, channels // 2), nn.GELU(), _conv_norm(channels // 2, channels))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).movedim(1, -1)


def _conv_norm(channels: int, out: int) -> nn.Sequential:
    layers = nn.Sequential()
    layers.add_module("c", nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=False))
    layers.add_module("bn", nn.BatchNorm2d(out))
    return layers


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a Microscopic-Mamba state_dict by its MIFA blocks."""
    block = "layers.0.blocks.0."
    if not has(shapes, f"{block}MIFA.DWConv.weight", f"{block}pvm_layer.mamba.A_logs"):
        return None
    stages = depths_of(shapes, "layers.", ".blocks.")
    return Identification(
        "microscopic_mamba",
        arguments={
            "num_classes": shapes.get("head.weight", (0,))[0],
            "depths": stages,
            "dims": [2 * shapes[f"layers.{i}.blocks.0.MIFA.DWConv.weight"][0] for i in range(len(stages))],
            "d_state": shapes[f"{block}pvm_layer.mamba.A_logs"][1],
        },
    )


@register(
    name="microscopic_mamba",
    title="Microscopic-Mamba",
    task="classification",
    spatial_dims=(2,),
    paper="arXiv:2409.07896",
    repository="github.com/zs1314/Microscopic-Mamba",
    licence="none stated",
    scan_order="ss2d",
    vectors={"MicroscopicMamba_T": {"num_classes": 1000}},
    identify=identify,
)
class MicroscopicMamba(VSSEncoder):
    """Microscopic-Mamba, for square images.

    Parameters
    ----------
    num_classes : int
        Classes; 0 returns the pooled features.
    depths : sequence of int
        Blocks of each stage: [2, 2, 4, 2] is T, [2, 2, 8, 2] S, [2, 2, 12, 2] with `dims` from 128 is B.
    dims : int or sequence of int
        Channels of each stage, divisible by 32.
    d_state : int or None
        States per channel; None is a sixth of the first stage's channels.
    drop_rate, attn_drop_rate, drop_path_rate : float
        Dropout of tokens, inside SS2D, and of the SS2D branch.
    use_checkpoint : bool
        Recompute the blocks while training, to save memory.

    Examples
    --------
    >>> MicroscopicMamba(2, depths=[1], dims=[32])(torch.zeros(1, 3, 16, 16)).shape
    torch.Size([1, 2])
    """

    def __init__(
        self,
        num_classes: int = 1000,
        depths: Sequence[int] = (2, 2, 4, 2),
        dims: int | Sequence[int] = (96, 192, 384, 768),
        d_state: int | None = 16,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        use_checkpoint: bool = False,
    ) -> None:
        rates = (drop_rate, attn_drop_rate, drop_path_rate)
        super().__init__(4, 3, depths, dims, d_state, *rates, False, use_checkpoint, block=MicroscopicBlock)
        self.patch_embed = ConvStem(self.dims[0])  # type: ignore[assignment]  # in the place of strided patches
        self.head = nn.Linear(self.dims[-1], num_classes) if num_classes else nn.Identity()
        self.apply(init_vss_weights)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, N, N) to logits (B, num_classes); one grey channel is repeated.

        Raises
        ------
        InputError
            If height and width differ: each block exchanges them and adds its input.
        """
        height, width = x.shape[2:]
        if height != width:
            raise InputError(
                f"Microscopic-Mamba takes square images, this one has {height} rows and {width} columns; "
                "resize or pad it to a square"
            )
        x, _ = self.features(grey_to_rgb(x, 3))
        return self.head(x.mean(dim=(1, 2)))
