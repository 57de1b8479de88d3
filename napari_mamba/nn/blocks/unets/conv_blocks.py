"""Convolutional blocks that the U-shaped networks share, in two and three dimensions.

Attribute names are those of the nnU-Net family (`dynamic_network_architectures`), so that its checkpoints load.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.nn.blocks.layout import is_channels_last
from napari_mamba.nn.norms.instance_norm import instance_norm_layer, norm_act

PerAxis = int | Sequence[int]
LEAK = 1e-2


def dimensional(kind: str, spatial_dims: int) -> type[nn.Module]:
    """torch.nn's layer of this kind for 2 or 3 axes: `dimensional("Conv", 3)` is `nn.Conv3d`."""
    return getattr(nn, f"{kind}{spatial_dims}d")


def per_axis(value: PerAxis, spatial_dims: int) -> tuple[int, ...]:
    """One integer for every axis, from one for all of them or from a sequence."""
    return (value,) * spatial_dims if isinstance(value, int) else tuple(value)


def conv(in_channels: int, out_channels: int, kernel: Sequence[int], stride: PerAxis = 1, bias: bool = True):
    """Convolution over `len(kernel)` axes, padded to keep the size at stride 1."""
    dims, padding = len(kernel), tuple(size // 2 for size in kernel)
    layer = dimensional("Conv", dims)
    return layer(in_channels, out_channels, tuple(kernel), per_axis(stride, dims), padding, bias=bias)


def pointwise(in_channels: int, out_channels: int, spatial_dims: int, stride: PerAxis = 1, bias: bool = True):
    """1×1 convolution."""
    return conv(in_channels, out_channels, (1,) * spatial_dims, stride, bias)


def instance_norm(channels: int, spatial_dims: int) -> nn.Module:
    """Instance normalisation with scale and offset."""
    return instance_norm_layer(spatial_dims)(channels, eps=1e-5, affine=True)


def before_norm(layer: nn.Module, x: Tensor) -> Tensor:
    """A convolution whose output an instance norm follows, which takes away any offset.

    On a GPU the offset is a pass of its own over the map, and left out where no gradient is asked for.
    """
    if x.is_cuda and layer.bias is not None and not torch.is_grad_enabled():
        return layer._conv_forward(x, layer.weight, None)
    return layer(x)


class ConvNormAct(nn.Module):
    """Convolution, instance norm and, where `activation`, leaky ReLU: nnU-Net's basic unit.

    `all_modules` holds the same layers a second time under nnU-Net's keys.
    """

    def __init__(self, in_channels, out_channels, kernel, stride=1, *, bias: bool = True, activation: bool = True):
        super().__init__()
        self.conv = conv(in_channels, out_channels, kernel, stride, bias)
        self.norm = instance_norm(out_channels, len(kernel))
        self.slope = LEAK if activation else None
        activations = [nn.LeakyReLU(LEAK, inplace=True)] if activation else []
        self.all_modules = nn.Sequential(self.conv, self.norm, *activations)

    def forward(self, x: Tensor, residual: Tensor | None = None, slope: float | None = None) -> Tensor:
        """Activates by `slope` after adding a residual, else by the unit's own, if it has one."""
        slope = self.slope if residual is None else slope
        return norm_act(self.norm, before_norm(self.conv, x), slope, residual, overwrite=True)


class ResidualBlock(nn.Module):
    """nnU-Net's residual block: two `ConvNormAct`, activation after the sum.

    Where it changes resolution the shortcut is average-pooled, where it changes channels projected and normalised.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: Sequence[int], stride: PerAxis = 1):
        super().__init__()
        stride = per_axis(stride, len(kernel))
        self.conv1 = ConvNormAct(in_channels, out_channels, kernel, stride)
        self.conv2 = ConvNormAct(out_channels, out_channels, kernel, activation=False)
        shortcut: list[nn.Module] = []
        if max(stride) > 1:
            shortcut.append(dimensional("AvgPool", len(kernel))(stride))
        if in_channels != out_channels:
            shortcut.append(ConvNormAct(in_channels, out_channels, (1,) * len(kernel), bias=False, activation=False))
        self.skip = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x), self.skip(x), LEAK)


class ProjectedResidualBlock(nn.Module):
    """Two convolutions with instance norm, and a strided 1×1 convolution as the shortcut (U-Mamba, LKM-UNet)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Sequence[int], stride: PerAxis = 1):
        super().__init__()
        dims = len(kernel)
        self.conv1 = conv(in_channels, out_channels, kernel, stride)
        self.norm1 = instance_norm(out_channels, dims)
        self.conv2 = conv(out_channels, out_channels, kernel)
        self.norm2 = instance_norm(out_channels, dims)
        self.conv3 = pointwise(in_channels, out_channels, dims, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = norm_act(self.norm1, before_norm(self.conv1, x), LEAK, overwrite=True)
        y = before_norm(self.conv2, y)
        return norm_act(self.norm2, y, LEAK, residual=self.conv3(x), overwrite=True)


class ResidualStack(nn.Module):
    """`count` residual blocks, the first of which changes channels and resolution; keys `blocks.*`."""

    def __init__(self, count: int, in_channels: int, out_channels: int, kernel: Sequence[int], stride: PerAxis = 1):
        super().__init__()
        first = ResidualBlock(in_channels, out_channels, kernel, stride)
        rest = [ResidualBlock(out_channels, out_channels, kernel) for _ in range(count - 1)]
        self.blocks = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


def projected_stack(
    count: int, in_channels: int, out_channels: int, kernel: Sequence[int], stride: PerAxis = 1
) -> nn.Sequential:
    """A `ProjectedResidualBlock` that changes channels and resolution, then `count - 1` residual blocks."""
    rest = [ResidualBlock(out_channels, out_channels, kernel) for _ in range(count - 1)]
    return nn.Sequential(ProjectedResidualBlock(in_channels, out_channels, kernel, stride), *rest)


class PointwiseUpsample(nn.Module):
    """1×1 convolution and nearest-neighbour enlargement.

    The two commute, so the convolution runs before it, on `prod(factor)` times fewer voxels than as published.
    """

    def __init__(self, in_channels: int, out_channels: int, factor: Sequence[int]):
        super().__init__()
        self.conv = pointwise(in_channels, out_channels, len(factor))
        self.factor = tuple(float(step) for step in factor)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if x.is_cuda and is_channels_last(x) and all(step.is_integer() for step in self.factor):
            return _repeated(x, [int(step) for step in self.factor])
        return F.interpolate(x, scale_factor=self.factor, mode="nearest")


def _repeated(x: Tensor, factor: Sequence[int]) -> Tensor:
    """Nearest-neighbour enlargement of a channels-last map, as it lies; PyTorch's own would make it channels-first."""
    rows = x.movedim(1, -1)
    for axis, step in enumerate(factor):
        rows = rows.unsqueeze(2 * axis + 2)
        rows = rows.expand(*rows.shape[: 2 * axis + 2], step, *rows.shape[2 * axis + 3 :])
    sizes = [size * step for size, step in zip(x.shape[2:], factor, strict=True)]
    return rows.reshape(x.shape[0], *sizes, x.shape[1]).movedim(-1, 1)


def initialise_he(module: nn.Module) -> None:
    """nnU-Net's initialisation, for `Module.apply`: He for 2D and 3D convolutions, no offset."""
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=LEAK)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def zero_last_norm(module: nn.Module) -> None:
    """For `Module.apply`: nnU-Net's residual blocks begin as identities (Goyal et al., arXiv:1706.02677)."""
    if isinstance(module, ResidualBlock):
        nn.init.zeros_(module.conv2.norm.weight)
        nn.init.zeros_(module.conv2.norm.bias)
