"""SwinIR's frame for restoration (Liang et al., arXiv:2108.10257): shallow and deep features, reconstruction.

MambaIR and MambaIRv2 put groups of their own layers into it. Read in github.com/csguoh/MambaIR. Groups take and
return (B, H, W, C).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.nn.mixers.images.ss2d_v2 import MapConv
from napari_mamba.nn.norms.norm import LayerNorm

RGB_MEAN = (0.4488, 0.4371, 0.4040)
FEATURES = 64
UPSAMPLERS = ("", "pixelshuffle", "pixelshuffledirect", "nearest+conv")


def residual_conv(dim: int, kind: str) -> nn.Module:
    """The convolution before a residual: one ("1conv"), or three through a quarter of the channels ("3conv")."""
    if kind == "1conv":
        return MapConv(dim, dim, 3, padding=1)
    if kind != "3conv":
        raise InputError(f'resi_connection must be "1conv" or "3conv", not {kind!r}')
    narrow = dim // 4
    return nn.Sequential(
        MapConv(dim, narrow, 3, padding=1),
        nn.LeakyReLU(0.2),
        MapConv(narrow, narrow, 1),
        nn.LeakyReLU(0.2),
        MapConv(narrow, dim, 3, padding=1),
    )


class ResidualGroup(nn.Module):
    """Layers, a convolution, and the input added; keys `residual_group.*` and `conv.*`."""

    def __init__(self, dim: int, residual_group: nn.Module, resi_connection: str = "1conv") -> None:
        super().__init__()
        self.residual_group = residual_group
        self.conv = residual_conv(dim, resi_connection)

    def forward(self, x: Tensor, *context: Any) -> Tensor:
        return x + self.conv(self.residual_group(x, *context))


class PatchNorm(nn.Module):
    """The norm of single-pixel patches, or none; stored under `norm`."""

    def __init__(self, dim: int, norm: bool) -> None:
        super().__init__()
        self.norm = LayerNorm(dim) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


def pixel_shuffles(scale: int, dim: int) -> nn.Sequential:
    """Enlarges (B, dim, H, W) by a power of two, in doublings, or by three."""
    doublings = int(math.log2(scale)) if scale > 0 else -1
    if scale != 3 and scale != 2**doublings:
        raise InputError(f'the upsampler "pixelshuffle" enlarges by 3 or a power of 2, not by {scale}')
    factors = [3] if scale == 3 else [2] * doublings
    layers: list[nn.Module] = []
    for factor in factors:
        layers += [nn.Conv2d(dim, factor * factor * dim, 3, padding=1), nn.PixelShuffle(factor)]
    return nn.Sequential(*layers)


class SwinIRFrame(nn.Module):
    """An image to a restored, or enlarged, one: (B, in_chans, H, W) to (B, in_chans, scale H, scale W).

    Parameters
    ----------
    in_chans : int
        Channels in and out; where 3, the mean of DIV2K's RGB in [0, 1] is subtracted and added again.
    embed_dim : int
        Channels of the features.
    groups : sequence of nn.Module
        The deep layers, of (B, H, W, embed_dim).
    upscale : int
        Factor of the enlargement; without an upsampler nothing is enlarged.
    img_range : float
        What the image is multiplied by, and divided again.
    upsampler : {"", "pixelshuffle", "pixelshuffledirect", "nearest+conv"}
        How it is enlarged. "" adds the restored difference to the image.
    resi_connection : {"1conv", "3conv"}
        The convolution after the groups.
    patch_norm : bool
        Whether the shallow features are normalised before the groups.

    Raises
    ------
    InputError
        If there is no such upsampler, or not by this factor.
    """

    def __init__(
        self,
        in_chans: int,
        embed_dim: int,
        groups: Sequence[nn.Module],
        upscale: int = 2,
        img_range: float = 1.0,
        upsampler: str = "",
        resi_connection: str = "1conv",
        patch_norm: bool = True,
    ) -> None:
        super().__init__()
        if upsampler not in UPSAMPLERS or (upsampler == "nearest+conv" and upscale != 4):
            raise InputError(f'upsampler must be one of {UPSAMPLERS}, and "nearest+conv" enlarges 4 times')
        self.img_range, self.upsampler = img_range, upsampler
        self.upscale = upscale if upsampler else 1
        mean = torch.tensor(RGB_MEAN).view(1, 3, 1, 1) if in_chans == 3 else torch.zeros(1, 1, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, padding=1)
        self.patch_embed = PatchNorm(embed_dim, patch_norm)
        self.layers = nn.ModuleList(groups)
        self.norm = LayerNorm(embed_dim)
        self.conv_after_body = residual_conv(embed_dim, resi_connection)
        self._add_reconstruction(in_chans, embed_dim)

    def _add_reconstruction(self, channels: int, dim: int) -> None:
        if self.upsampler == "pixelshuffledirect":
            enlarge = nn.Conv2d(dim, self.upscale**2 * channels, 3, padding=1)
            self.upsample = nn.Sequential(enlarge, nn.PixelShuffle(self.upscale))
            return
        if self.upsampler:
            before = nn.Conv2d(dim, FEATURES, 3, padding=1)
            self.conv_before_upsample = nn.Sequential(before, nn.LeakyReLU())
        if self.upsampler == "pixelshuffle":
            self.upsample = pixel_shuffles(self.upscale, FEATURES)
        elif self.upsampler == "nearest+conv":
            for name in ("conv_up1", "conv_up2", "conv_hr"):
                self.add_module(name, nn.Conv2d(FEATURES, FEATURES, 3, padding=1))
        self.conv_last = nn.Conv2d(FEATURES if self.upsampler else dim, channels, 3, padding=1)

    def reconstruct(self, image: Tensor, y: Tensor) -> Tensor:
        """From the image and its features, both (B, C, H, W), to the output."""
        if self.upsampler == "pixelshuffledirect":
            return self.upsample(y)
        if not self.upsampler:
            return image + self.conv_last(y)
        y = self.conv_before_upsample(y)
        if self.upsampler == "pixelshuffle":
            return self.conv_last(self.upsample(y))
        for conv in (self.conv_up1, self.conv_up2):
            y = F.leaky_relu(conv(F.interpolate(y, scale_factor=2, mode="nearest")), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(y), 0.2))

    def deep(self, x: Tensor, *context: Any) -> Tensor:
        """The groups' features of the shallow ones, (B, H, W, C) to the same shape; `context` goes to every group."""
        x = self.patch_embed(x)
        for group in self.layers:
            x = group(x, *context)
        return self.norm(x)

    def restore(self, x: Tensor, *context: Any) -> Tensor:
        """(B, in_chans, H, W) to (B, in_chans, scale H, scale W)."""
        image = (x - self.mean) * self.img_range
        shallow = self.conv_first(image).movedim(1, -1).contiguous()
        y = shallow + self.conv_after_body(self.deep(shallow, *context))
        return self.reconstruct(image, y.movedim(-1, 1)) / self.img_range + self.mean

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) to (B, in_chans, scale H, scale W)."""
        return self.restore(x)


def init_swinir_weights(module: nn.Module) -> None:
    """SwinIR's initialisation, for `nn.Module.apply`: truncated normal linear layers without offset."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
