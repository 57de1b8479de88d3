"""Convolutional blocks of UNETR's encoder skips and decoder (arXiv:2103.10504), in two and three dimensions."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.nn.blocks.unets.conv_blocks import LEAK, dimensional
from napari_mamba.nn.norms.instance_norm import instance_norm_layer, norm_act

NormName = str | tuple[str, dict[str, Any]]


def make_norm(name: NormName, spatial_dims: int, channels: int) -> nn.Module:
    """A normalisation by MONAI's name: "instance" (without weights unless asked), "batch", "group"."""
    kind, arguments = (name, {}) if isinstance(name, str) else name
    if kind.lower() == "instance":
        return instance_norm_layer(spatial_dims)(channels, **arguments)
    if kind.lower() == "batch":
        return dimensional("BatchNorm", spatial_dims)(channels, **arguments)
    if kind.lower() == "group":
        return nn.GroupNorm(num_channels=channels, **arguments)
    raise InputError(f'norm_name must be "instance", "batch" or "group", not {kind!r}')


def named_conv(layer: nn.Module) -> nn.Sequential:
    """A layer stored under `conv`, as MONAI's `Convolution` stores it."""
    return nn.Sequential(OrderedDict(conv=layer))


class UnetrConvBlock(nn.Module):
    """Two 3-convolutions with normalisation and leaky ReLU, with or without a residual.

    Parameters
    ----------
    spatial_dims : int
        2 or 3.
    in_channels, out_channels : int
        Channels.
    kernel_size : int
        Side of the kernels, odd.
    norm_name : str or (str, dict)
        See `make_norm`.
    res_block : bool
        Whether the input is added, through a 1-convolution where the channels differ.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        norm_name: NormName = "instance",
        res_block: bool = True,
    ) -> None:
        super().__init__()
        conv = dimensional("Conv", spatial_dims)
        same = {"padding": kernel_size // 2, "bias": False}
        self.conv1 = named_conv(conv(in_channels, out_channels, kernel_size, **same))
        self.conv2 = named_conv(conv(out_channels, out_channels, kernel_size, **same))
        self.norm1 = make_norm(norm_name, spatial_dims, out_channels)
        self.norm2 = make_norm(norm_name, spatial_dims, out_channels)
        self.res_block = res_block
        self.conv3: nn.Module = nn.Identity()
        self.norm3: nn.Module = nn.Identity()
        if res_block and in_channels != out_channels:
            self.conv3 = named_conv(conv(in_channels, out_channels, 1, bias=False))
            self.norm3 = make_norm(norm_name, spatial_dims, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(norm_act(self.norm1, self.conv1(x), LEAK, overwrite=True))
        return norm_act(self.norm2, y, LEAK, self._shortcut(x) if self.res_block else None, overwrite=True)

    def _shortcut(self, x: Tensor) -> Tensor:
        return x if isinstance(self.norm3, nn.Identity) else norm_act(self.norm3, self.conv3(x), None, overwrite=True)


class UnetrBasicBlock(nn.Module):
    """`UnetrConvBlock`, stored under `layer`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.layer = UnetrConvBlock(*args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class UnetrUpBlock(nn.Module):
    """Enlarges by a transposed convolution, concatenates the skip, then a `UnetrConvBlock`.

    Parameters
    ----------
    spatial_dims, in_channels, out_channels, kernel_size, norm_name, res_block
        As in `UnetrConvBlock`; the skip has `out_channels`.
    upsample_kernel_size : int
        Factor of the enlargement.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        upsample_kernel_size: int = 2,
        norm_name: NormName = "instance",
        res_block: bool = True,
    ) -> None:
        super().__init__()
        k = upsample_kernel_size
        transposed = dimensional("ConvTranspose", spatial_dims)
        self.transp_conv = named_conv(transposed(in_channels, out_channels, k, stride=k, bias=False))
        self.conv_block = UnetrConvBlock(
            spatial_dims, 2 * out_channels, out_channels, kernel_size, norm_name, res_block
        )

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        """Takes the last of the skips off their list, so that its memory is free during the convolutions."""
        return self.conv_block(torch.cat([self.transp_conv(x), skips.pop()], dim=1))


class UnetOutBlock(nn.Module):
    """The last 1-convolution, stored under `conv.conv`."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = named_conv(dimensional("Conv", spatial_dims)(in_channels, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)
