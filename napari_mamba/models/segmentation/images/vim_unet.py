"""ViM-UNet: Vim's tokens as the bottom of a U-Net, for microscopy (Archit and Pape, arXiv:2404.07705).

Read in github.com/constantinpape/torch-em, `torch_em/model/vim.py` and `unetr.py`. Three generations share the name. Up
to 13 November 2024 the encoder had rotary embeddings, its class token first and its two directions summed; since then
the class token stands in the middle and they are averaged. Up to 3 June 2025 the decoder enlarged by transposed
convolutions, since then by interpolation and 1x1 convolutions.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.classification.vim import Vim
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.probability import Probability
from napari_mamba.nn.blocks.vss import grey_to_rgb

WIDTHS = {"vim_t": 192, "vim_s": 384, "vim_b": 768}
LEVELS = 4
"""Doublings of the decoder, so that a patch of the encoder has 2^4 pixels a side."""


class ViMEncoder(Vim):
    """Vim that hands on all its patches, as a map."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, embed_dim, H / 16, W / 16)."""
        x, places = self.tokens(x)
        # As published the first token is left out, wherever the class token stands: in the middle it becomes a pixel,
        # and the patches before it move by one place.
        return x[:, len(places) :].transpose(1, 2).unflatten(2, self.grid)


class ConvBlock(nn.Module):
    """Twice instance norm, 3x3 convolution, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.InstanceNorm2d(in_channels),
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.ReLU(),
            nn.InstanceNorm2d(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class TransposedUpsample(nn.Module):
    """Doubles the sides by a transposed convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.block = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class BilinearUpsample(nn.Module):
    """Doubles the sides by interpolation, and a 1x1 convolution: before it, where there are four times fewer pixels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.conv(x), scale_factor=2, mode="bilinear", align_corners=False)


class PlainConv(nn.Module):
    """A 3x3 convolution under the authors' key `block`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class UpBlock(nn.Module):
    """Doubles the sides, then convolution, batch norm and ReLU."""

    def __init__(self, upsample: type[nn.Module], in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            upsample(in_channels, out_channels), PlainConv(out_channels), nn.BatchNorm2d(out_channels), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class Decoder(nn.Module):
    """Three times: double the sides, concatenate the middle channels of the map of that size, convolve."""

    def __init__(self, upsample: type[nn.Module], widths: list[int]) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.blocks = nn.ModuleList(ConvBlock(wide, narrow) for wide, narrow in pairs)
        self.samplers = nn.ModuleList(upsample(wide, narrow) for wide, narrow in pairs)

    def forward(self, x: Tensor, sides: list[Tensor]) -> Tensor:
        for sampler, block, side in zip(self.samplers, self.blocks, sides, strict=True):
            x = sampler(x)
            # As published the map is cut to the other's shape around its centre, which halves its channels.
            x = block(torch.cat([x, side.narrow(1, (side.shape[1] - x.shape[1]) // 2, x.shape[1])], dim=1))
        return x


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a ViM-UNet of any generation."""
    if not has(shapes, "encoder.pos_embed", "encoder.layers.0.mixer.A_b_log", "deconv4.block.2.weight"):
        return None
    width = shapes["encoder.patch_embed.proj.weight"][0]
    with_cls_token, first = "encoder.cls_token" in shapes, "encoder.rope.freqs_cos" in shapes
    tokens = shapes["encoder.pos_embed"][1] - int(with_cls_token)
    arguments: dict[str, Any] = {
        "out_channels": shapes["out_conv.weight"][0],
        "model_type": next((name for name, known in WIDTHS.items() if known == width), "vim_t"),
        "with_cls_token": with_cls_token,
        "img_size": 2**LEVELS * math.isqrt(tokens),
        "depth": count(shapes, "encoder.layers."),
        "embed_dim": width,
        "channels": shapes["encoder.patch_embed.proj.weight"][1],
        "initial_features": shapes["out_conv.weight"][1],
        "use_conv_transpose": "deconv_out.block.weight" in shapes,
        "if_rope": first,
    }
    generation = "before 2024-11-13" if first else "before 2025-06-03" if arguments["use_conv_transpose"] else "current"
    return Identification("vim_unet", generation, arguments)


@register(
    name="vim_unet",
    title="ViM-UNet",
    task="segmentation",
    spatial_dims=(2,),
    paper="arXiv:2404.07705",
    repository="github.com/constantinpape/torch-em",
    licence="MIT",
    scan_order="bidirectional",
    vectors={
        "ViMUNet_T_1024": {},
        "ViMUNet_T_256": {"out_channels": 2, "img_size": 256},
        "ViMUNet_T_before20241113_depth4": {
            "out_channels": 2,
            "img_size": 192,
            "depth": 4,
            "use_conv_transpose": True,
            "if_rope": True,
        },
        "ViMUNet_T_transposed_depth4": {"out_channels": 2, "img_size": 192, "depth": 4, "use_conv_transpose": True},
    },
    identify=identify,
)
class ViMUNet(nn.Module):
    """ViM-UNet; smaller images are padded by zeros to `img_size`.

    Parameters
    ----------
    out_channels : int
        Output channels, each a probability (sigmoid).
    model_type : {"vim_t", "vim_s", "vim_b"}
        The encoder's width: 192, 384 or 768.
    with_cls_token : bool
        Whether it has a class token.
    img_size : int
        Side of the square images that the encoder takes; the authors' is 1024.
    depth, embed_dim, channels : int
        Of the encoder: blocks, width (that of `model_type` where not given), input channels.
    initial_features : int
        Channels of the decoder's finest level.
    use_conv_transpose : bool
        Enlarge by transposed convolutions, as up to 3 June 2025.
    if_rope : bool
        The encoder as up to 13 November 2024: rotary embeddings, class token first, directions summed.

    Raises
    ------
    InputError
        If there is no such encoder, or `img_size` is no multiple of 16.

    Examples
    --------
    >>> ViMUNet(2, img_size=64, depth=1, embed_dim=16, initial_features=8)(torch.zeros(1, 3, 50, 64)).shape
    torch.Size([1, 2, 50, 64])
    """

    def __init__(
        self,
        out_channels: int = 1,
        model_type: str = "vim_t",
        with_cls_token: bool = True,
        img_size: int = 1024,
        depth: int = 24,
        embed_dim: int | None = None,
        channels: int = 3,
        initial_features: int = 64,
        use_conv_transpose: bool = False,
        if_rope: bool = False,
    ) -> None:
        super().__init__()
        if model_type not in WIDTHS:
            raise InputError(f"ViM-UNet has the encoders {', '.join(WIDTHS)}, not {model_type!r}; choose one of them")
        patch = 2**LEVELS
        if img_size < patch or img_size % patch:
            raise InputError(f"ViM-UNet's img_size must be a multiple of {patch} pixels, not {img_size}")
        self.img_size = img_size
        width = embed_dim or WIDTHS[model_type]
        self.encoder = ViMEncoder(
            img_size=img_size,
            patch_size=patch,
            stride=patch,
            depth=depth,
            embed_dim=width,
            channels=channels,
            final_pool_type="all",
            if_rope=if_rope,
            if_rope_residual=if_rope,
            if_cls_token=with_cls_token,
            if_divide_out=not if_rope,
            use_middle_cls_token=not if_rope,
        )
        upsample = TransposedUpsample if use_conv_transpose else BilinearUpsample
        widths = [initial_features * 2**level for level in reversed(range(LEVELS))]
        self.decoder = Decoder(upsample, widths)
        self.deconv1 = UpBlock(upsample, width, widths[0])
        self.deconv2 = UpBlock(upsample, widths[0], widths[1])
        self.deconv3 = UpBlock(upsample, widths[1], widths[2])
        self.deconv4 = UpBlock(upsample, widths[2], widths[3])
        self.base = ConvBlock(width, widths[0])
        self.out_conv = nn.Conv2d(widths[-1], out_channels, 1)
        self.deconv_out = upsample(widths[-1], widths[-1])
        self.decoder_head = ConvBlock(2 * widths[-1], widths[-1])
        self.probability = Probability()

    def _decode(self, bottom: Tensor) -> Tensor:
        sides = [self.deconv1(bottom)]
        for layer in (self.deconv2, self.deconv3, self.deconv4):
            sides.append(layer(sides[-1]))
        x = self.deconv_out(self.decoder(self.base(bottom), sides[:-1]))
        return self.out_conv(self.decoder_head(torch.cat([x, sides[-1]], dim=1)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, out_channels, H, W); one grey channel stands for three.

        As published, an image larger than `img_size` is cut to it, right and bottom, and the result stretched back.
        """
        height, width = x.shape[2:]
        x = F.pad(grey_to_rgb(x, self.encoder.channels), (0, self.img_size - width, 0, self.img_size - height))
        y = self.probability(self._decode(self.encoder(x)))[..., :height, :width]
        if y.shape[2:] == (height, width):
            return y
        return F.interpolate(y, (height, width), mode="bilinear", align_corners=False)
