"""The blocks of VMamba and its descendants on (B, H, W, C): patches, half the sides, mixer and perceptron.

Read in github.com/MzeroMiko/VMamba, `vmamba.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from napari_mamba.errors import InputError
from napari_mamba.nn.blocks.drop import DropPath
from napari_mamba.nn.mixers.images.ss2d_v2 import MapConv
from napari_mamba.nn.norms.norm import LayerNorm

ACTIVATIONS = {"silu": nn.SiLU, "gelu": nn.GELU, "relu": nn.ReLU, "sigmoid": nn.Sigmoid}


class MapBatchNorm(nn.BatchNorm2d):
    """Batch normalisation of (B, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(-1, 1)).movedim(1, -1)


NORMS: dict[str, type[nn.Module]] = {"ln": LayerNorm, "ln2d": LayerNorm, "bn": MapBatchNorm}
"""Rows are channels-last in all of them."""


class PatchMerge(nn.Module):
    """Each 2 x 2 pixels side by side in the channels; an odd row or column is padded with zeros."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        return torch.cat([x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], dim=-1)


class ToRows(nn.Module):
    """(B, C, H, W) as (B, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1)


class VSSBlock(nn.Module):
    """Mixer and, where there is one, perceptron, each normalised and added."""

    def __init__(
        self,
        dim: int,
        mixer: nn.Module | None,
        mlp: nn.Module | None,
        drop_path: float,
        use_checkpoint: bool,
        norm: type[nn.Module] = LayerNorm,
    ) -> None:
        super().__init__()
        self.use_checkpoint = use_checkpoint
        self.drop_path = DropPath(drop_path)
        self.op, self.mlp = mixer, mlp
        self.norm = norm(dim) if mixer is not None else None
        self.norm2 = norm(dim) if mlp is not None else None

    def _forward(self, x: Tensor) -> Tensor:
        if self.op is not None:
            x = x + self.drop_path(self.op(self.norm(x)))
        return x if self.mlp is None else x + self.drop_path(self.mlp(self.norm2(x)))

    def forward(self, x: Tensor) -> Tensor:
        if self.use_checkpoint and self.training:
            return checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)


def patch_embed(
    version: str, in_chans: int, dim: int, patch_size: int, norm: bool, kind: type[nn.Module] = LayerNorm
) -> nn.Sequential:
    """(B, C, H, W) to (B, H / p, W / p, dim): one strided convolution ("v1") or two ("v2")."""
    make = kind if norm else lambda *_, **__: nn.Identity()
    if version == "v1":
        return nn.Sequential(nn.Conv2d(in_chans, dim, patch_size, patch_size), ToRows(), make(dim))
    if version != "v2":
        raise InputError(f'patchembed_version must be "v1" or "v2", not {version!r}')
    stride = patch_size // 2
    conv = {"kernel_size": stride + 1, "stride": stride, "padding": 1}
    return nn.Sequential(
        nn.Conv2d(in_chans, dim // 2, **conv),
        ToRows(),
        make(dim // 2),
        nn.Identity(),
        nn.GELU(),
        MapConv(dim // 2, dim, **conv),
        nn.Identity(),
        make(dim),
    )


def downsample(version: str, dim: int, out_dim: int, norm: type[nn.Module] = LayerNorm) -> nn.Module:
    """Half the sides: patch merging ("v1"), a 2-convolution ("v2"), an overlapping 3-convolution ("v3")."""
    if version == "v1":
        return nn.Sequential(PatchMerge(), norm(4 * dim), nn.Linear(4 * dim, out_dim, bias=False))
    if version not in ("v2", "v3"):
        raise InputError(f'downsample_version must be "v1", "v2" or "v3", not {version!r}')
    kernel, padding = (2, 0) if version == "v2" else (3, 1)
    conv = MapConv(dim, out_dim, kernel, stride=2, padding=padding)
    return nn.Sequential(nn.Identity(), conv, nn.Identity(), norm(out_dim))
