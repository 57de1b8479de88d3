"""LKM-UNet: U-Mamba's encoder with scans over sparse grids of voxels and over pooled windows at every stage.

Wang et al., Large window-based Mamba UNet for medical image segmentation (arXiv:2403.07332);
github.com/wjh892521292/LKM-UNet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.segmentation.plans import plan_arguments, transposed_strides
from napari_mamba.models.segmentation.umamba import UMamba
from napari_mamba.models.shapes import has
from napari_mamba.nn.blocks.tokens import Float32Module, from_tokens, to_tokens, without_autocast
from napari_mamba.nn.blocks.unets.conv_blocks import dimensional
from napari_mamba.nn.blocks.unets.residual_unet import Encoder, Plan
from napari_mamba.nn.mixers.exchange import ReplaceableMixer
from napari_mamba.nn.mixers.mamba import Mamba
from napari_mamba.scan import placed, scan_order


class BidirectionalLayer(Float32Module, ReplaceableMixer):
    """Layer norm, a mixer forwards and one backwards, which share the output projection, and a residual."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.mamba_forw, self.mamba_backw = Mamba(dim), Mamba(dim)
        self.out_proj = self.mamba_forw.out_proj
        self.mamba_forw.out_proj = self.mamba_backw.out_proj = nn.Identity()  # type: ignore[assignment]

    def replace_mixer(self, name: str) -> None:
        # S6's two directions share a projection that other mixers, each complete in itself, have of their own.
        self.mamba_forw.replace_mixer(name)
        self.mamba_backw.replace_mixer(name)
        self.out_proj = nn.Identity()  # type: ignore[assignment]

    def scan(self, tokens: Tensor) -> Tensor:
        """(B, L, C) to (B, L, C)."""
        tokens = self.norm(tokens)
        backwards = scan_order("reverse", (tokens.shape[1],))
        return self.out_proj(self.mamba_forw(tokens) + self.mamba_backw(tokens, backwards))

    def branch(self, x: Tensor) -> Tensor:
        """What is added to the map `x`."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        with without_autocast(x):
            wide = x.to(self.norm.weight.dtype)
            return (self.branch(wide) + wide).to(x.dtype)


class PixelLayer(BidirectionalLayer):
    """Scans sparse grids: the voxels at one place of every window of size `windows` are one sequence.

    The windows' places are sequences apart from each other, not one path through the map, so they become a batch.
    A map that the windows do not divide is scanned as a whole, as published.
    """

    def __init__(self, dim: int, windows: Sequence[int]):
        super().__init__(dim)
        self.windows = tuple(windows)

    def branch(self, x: Tensor) -> Tensor:
        spatial, channels = x.shape[2:], x.shape[1]
        if any(size % window for size, window in zip(spatial, self.windows, strict=True)):
            return from_tokens(self.scan(to_tokens(x)), spatial)
        dims = len(spatial)
        x, to_sequences = self._sparse(x)
        grid = x.shape
        with placed(lambda: (tuple(spatial), self._cells(len(x), spatial))):
            y = self.scan(x.reshape(-1, math.prod(grid[dims + 1 : -1]), channels)).reshape(grid)
        back = sorted(range(len(grid)), key=to_sequences.__getitem__)
        y = y.permute(back)
        for axis in range(2, dims + 2):
            y = y.flatten(axis, axis + 1)
        return y

    def _sparse(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """(B, C, *spatial) as (B, *places in a window, *windows, C), and the permutation that ends in that."""
        for axis, window in reversed(list(enumerate(self.windows, start=2))):
            x = x.unflatten(axis, (-1, window))
        dims = len(self.windows)
        to_sequences = (0, *range(3, 2 * dims + 3, 2), *range(2, 2 * dims + 2, 2), 1)
        return x.permute(to_sequences), to_sequences

    def _cells(self, batch: int, spatial: torch.Size) -> Tensor:
        """The map's cell of each token, (B · places, windows)."""
        x, _ = self._sparse(torch.arange(spatial.numel()).view(1, 1, *spatial))
        return x.reshape(-1, math.prod(x.shape[len(spatial) + 1 : -1])).repeat(batch, 1)


class WindowLayer(BidirectionalLayer):
    """Scans the means of windows of side `window`, and gives every voxel its window's result.

    A map that the windows do not divide is scanned voxel by voxel, as published.
    """

    def __init__(self, dim: int, window: int):
        super().__init__(dim)
        self.window = window

    def branch(self, x: Tensor) -> Tensor:
        window = 1 if any(size % self.window for size in x.shape[2:]) else self.window
        if window > 1:
            x = dimensional("AvgPool", x.ndim - 2)(window)(x)
        with placed(lambda: (tuple(x.shape[2:]), None)):
            y = from_tokens(self.scan(to_tokens(x)), x.shape[2:])
        return F.interpolate(y, scale_factor=float(window), mode="nearest") if window > 1 else y


class LKMEncoder(Encoder):
    """The encoder, with a pixel layer and a window layer after every stage."""

    def __init__(self, plan: Plan):
        dims, stages = plan.spatial_dims, plan.stages
        sides = [2 ** ((stages - s + 1) // 2 - 1) for s in range(stages)]
        factors = (5, 5) if dims == 2 else (5, 7, 6)
        super().__init__(
            plan,
            [
                PixelLayer(dim, [factor * side for factor in factors])
                for dim, side in zip(plan.features, sides, strict=True)
            ],
        )
        self.w_mamba_layers = nn.ModuleList(
            WindowLayer(dim, side) for dim, side in zip(plan.features, sides, strict=True)
        )

    def scan(self, x: Tensor, stage: int) -> Tensor:
        return self.w_mamba_layers[stage](super().scan(x, stage))


def identify(shapes: Shapes) -> Identification | None:
    """Recognise an LKM-UNet state_dict; its shapes determine every argument."""
    if not has(shapes, "encoder.w_mamba_layers.0.mamba_backw.A_log", "encoder.stem.convs.0.conv.weight"):
        return None
    return Identification("lkm_unet", arguments=plan_arguments(shapes, "v1") | {"strides": transposed_strides(shapes)})


@register(
    name="lkm_unet",
    title="LKM-UNet",
    task="segmentation",
    spatial_dims=(2, 3),
    paper="arXiv:2403.07332",
    repository="github.com/wjh892521292/LKM-UNet",
    licence="Apache-2.0",
    scan_order="bidirectional over sparse grids and pooled windows",
    vectors={
        "LKMUNet_2d": {
            "spatial_dims": 2,
            "input_channels": 1,
            "num_classes": 3,
            "features_per_stage": (32, 64, 128, 256, 512),
            "kernel_sizes": 3,
            "strides": (1, 2, 2, 2, 2),
            "n_conv_per_stage": 2,
            "n_conv_per_stage_decoder": 2,
        },
        "LKMUNet_3d": {
            "spatial_dims": 3,
            "input_channels": 1,
            "num_classes": 3,
            "features_per_stage": (32, 64, 128, 256),
            "kernel_sizes": 3,
            "strides": (1, 2, 2, 2),
            "n_conv_per_stage": 2,
            "n_conv_per_stage_decoder": 2,
        },
    },
    identify=identify,
)
class LKMUNet(UMamba):
    """LKM-UNet; takes (B, C, *spatial), returns logits (B, num_classes, *spatial).

    Its arguments are `UMamba`'s but for the generation, of which there is one; `input_size` is not needed, since the
    weights' shapes do not depend on it.

    Raises
    ------
    InputError
        If the arguments do not describe a network, or an image's sizes are no multiples of the strides.

    Examples
    --------
    >>> LKMUNet(2, 1, 3, [8, 16], 3, [1, 2], 1, 1)(torch.zeros(1, 1, 20, 20)).shape
    torch.Size([1, 3, 20, 20])
    """

    channels_last_input = False  # its windows are cut out of channels-first maps

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named, generation="v1")

    def build_encoder(self) -> Encoder:
        return LKMEncoder(self.plan)
