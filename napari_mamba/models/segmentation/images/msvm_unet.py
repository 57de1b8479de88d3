"""MSVM-UNet: a VMamba encoder, and a decoder of VSS blocks whose perceptrons see three neighbourhoods.

Chen, Yu, Min and Wang, MSVM-UNet: multi-scale vision Mamba UNet for medical image segmentation (arXiv:2408.13735).
Read in github.com/gndlwch2w/msvm-unet, `model/`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import depths as depths_of
from napari_mamba.models.shapes import has
from napari_mamba.nn.blocks.drop import drop_path_rates
from napari_mamba.nn.blocks.transformers.mlp import Mlp
from napari_mamba.nn.blocks.vmamba import VSSBlock, downsample, patch_embed
from napari_mamba.nn.blocks.vss import grey_to_rgb, init_vss_weights, stage_dims
from napari_mamba.nn.mixers.images.ss2d_v2 import SS2Dv2
from napari_mamba.nn.norms.norm import LayerNorm

ENCODERS = {"tiny_0230s": (2, 2, 8, 2), "small_0229s": (2, 2, 20, 2)}
"""Blocks of the encoder's stages, by the VMamba release from which its weights were taken."""
DROP_PATH = {"tiny_0230s": 0.2, "small_0229s": 0.3}
KERNELS = (1, 3, 5)
DECODER_DEPTH = 2


class ParameterSS2D(SS2Dv2):
    """VMamba's SS2D "v05_noz" with one state per channel, its grouped projections stored as parameters."""

    projection_names = ("x_proj_weight", "dt_projs_weight")

    def __init__(self, dim: int) -> None:
        super().__init__(dim, d_state=1, ssm_ratio=1.0, conv_bias=False, forward_type="v05_noz")
        x_proj, dt_projs = (weight.detach().clone() for weight in super().projections())
        self.remove_modules("x_proj", "dt_projs")
        self.x_proj_weight, self.dt_projs_weight = nn.Parameter(x_proj), nn.Parameter(dt_projs)

    def projections(self) -> tuple[Tensor, Tensor]:
        return self.x_proj_weight, self.dt_projs_weight


class MultiScaleConv(nn.Module):
    """Depth-wise convolutions of three sizes over (B, H, W, C), added to it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dw_convs = nn.ModuleList(
            nn.Conv2d(dim, dim, size, padding=size // 2, groups=dim, bias=False) for size in KERNELS
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(-1, 1)
        return (x + sum(conv(x) for conv in self.dw_convs)).movedim(1, -1)


class MultiScaleMlp(Mlp):
    """The two-layer perceptron with `MultiScaleConv` between its layers."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(dim, hidden)
        self.multiscale_conv = MultiScaleConv(hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.multiscale_conv(self.act(self.fc1(x))))


def stage(dim: int, rates: Sequence[float], mlp: type[Mlp]) -> nn.Sequential:
    """VSS blocks under the key `blocks`, one for each rate of stochastic depth."""
    blocks = [VSSBlock(dim, ParameterSS2D(dim), mlp(dim, 4 * dim), rate, use_checkpoint=False) for rate in rates]
    return nn.Sequential(OrderedDict(blocks=nn.Sequential(*blocks)))


class Encoder(nn.Module):
    """VMamba without its classifier; (B, C, H, W) to every stage's output, channels last, the finest first."""

    def __init__(self, in_channels: int, dims: Sequence[int], depths: Sequence[int], drop_path_rate: float) -> None:
        super().__init__()
        embedding = patch_embed("v2", in_channels, dims[0], 4, norm=True)
        self.layer0, self.layer1 = embedding[:5], nn.Sequential(*embedding[5:])
        rates = drop_path_rates(drop_path_rate, depths)
        self.layers = nn.ModuleList(stage(dim, rate, Mlp) for dim, rate in zip(dims, rates, strict=True))
        self.downsamples = nn.ModuleList(downsample("v3", fine, coarse) for fine, coarse in pairwise(dims))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.layer1(self.layer0(x))
        outputs = [self.layers[0](x)]
        for down, layer in zip(self.downsamples, self.layers[1:], strict=True):
            outputs.append(layer(down(outputs[-1])))
        return outputs


class PatchExpand(nn.Module):
    """Large-kernel patch expanding: (B, H, W, C) to (B, s H, s W, out_dim) by convolutions and a pixel shuffle."""

    def __init__(self, dim: int, out_dim: int, scale: int) -> None:
        super().__init__()
        self.scale, wide = scale, out_dim * scale * scale
        self.expand = nn.Sequential(
            nn.Conv2d(dim, wide, 1),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide),
        )
        self.norm = LayerNorm(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.expand(x.movedim(-1, 1)).unflatten(1, (self.scale, self.scale, -1))  # (B, row, column, C, H, W)
        return self.norm(x.permute(0, 4, 1, 5, 2, 3).flatten(1, 2).flatten(2, 3))


class UpBlock(nn.Module):
    """Enlarge, concatenate the skip, two VSS blocks."""

    def __init__(self, dim: int, rates: Sequence[float]) -> None:
        super().__init__()
        self.up = PatchExpand(2 * dim, dim, 2)
        self.concat_layer = nn.Linear(2 * dim, dim)
        self.vss_layer = stage(dim, rates, MultiScaleMlp)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.vss_layer(self.concat_layer(torch.cat([self.up(x), skip], dim=-1)))


class Head(PatchExpand):
    """Four times enlarged, then the classes: (B, H, W, C) to (B, num_classes, 4 H, 4 W)."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__(dim, dim, 4)
        self.out = nn.Conv2d(dim, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(super().forward(x).movedim(-1, 1))


class Decoder(nn.Module):
    """From the coarsest output up; (B, H, W, C) of every stage to logits (B, num_classes, 4 H, 4 W)."""

    def __init__(self, dims: Sequence[int], num_classes: int) -> None:
        super().__init__()
        upwards = list(reversed(dims[:-1]))
        rates = drop_path_rates(0.2, [DECODER_DEPTH] * len(upwards))[::-1]  # they fall towards the output
        self.layers = nn.ModuleList(UpBlock(dim, rate[::-1]) for dim, rate in zip(upwards, rates, strict=True))
        self.out_layers = nn.Sequential(Head(dims[0], num_classes))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        x = features[-1]
        for layer, skip in zip(self.layers, features[-2::-1], strict=True):
            x = layer(x, skip)
        return self.out_layers(x)


def identify(shapes: Shapes) -> Identification | None:
    """Recognise an MSVM-UNet by its two-part patch embedding and its last layer."""
    required = ("encoder.layer0.0.weight", "encoder.layer1.0.weight", "decoder.out_layers.0.out.weight")
    if not has(shapes, *required, "encoder.layers.0.blocks.0.op.x_proj_weight"):
        return None
    found = tuple(depths_of(shapes, "encoder.layers.", ".blocks."))
    name = next((name for name, depths in ENCODERS.items() if depths == found), "tiny_0230s")
    return Identification(
        "msvm_unet",
        arguments={
            "in_channels": shapes["encoder.layer0.0.weight"][1],
            "num_classes": shapes["decoder.out_layers.0.out.weight"][0],
            "enc_name": name,
            "dims": shapes["encoder.layer1.0.weight"][0],
            "depths": found,
        },
    )


@register(
    name="msvm_unet",
    title="MSVM-UNet",
    task="segmentation",
    spatial_dims=(2,),
    paper="arXiv:2408.13735",
    repository="github.com/gndlwch2w/msvm-unet",
    licence="none stated",
    scan_order="ss2d",
    vectors={"MSVMUNet": {}},
    identify=identify,
)
class MSVMUNet(nn.Module):
    """MSVM-UNet.

    Parameters
    ----------
    in_channels : int
        Input channels; where 3, one grey channel is repeated.
    num_classes : int
        Output channels, logits.
    enc_name : {"tiny_0230s", "small_0229s"}
        The VMamba release that the encoder is.
    dims : int
        Channels of the first stage; they double.
    depths : sequence of int, optional
        Blocks of the encoder's stages, if not those of `enc_name`.

    Raises
    ------
    InputError
        If there is no such encoder, or an image's sides are no multiples of 32.

    Examples
    --------
    >>> MSVMUNet(num_classes=2, dims=8, depths=[1, 1, 1, 1])(torch.zeros(1, 1, 64, 32)).shape
    torch.Size([1, 2, 64, 32])
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 9,
        *,
        enc_name: str = "tiny_0230s",
        dims: int = 96,
        depths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if enc_name not in ENCODERS:
            raise InputError(f"MSVM-UNet has the encoders {' and '.join(ENCODERS)}, not {enc_name!r}")
        depths = ENCODERS[enc_name] if depths is None else depths
        self.in_channels = in_channels
        self.dims = stage_dims(dims, len(depths))
        self.unit = 2 ** (len(depths) + 1)
        self.encoder = Encoder(in_channels, self.dims, depths, DROP_PATH[enc_name])
        self.decoder = Decoder(self.dims, num_classes)
        self.apply(init_vss_weights)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), sides divisible by 32, to logits (B, num_classes, H, W)."""
        if any(side % self.unit for side in x.shape[2:]):
            raise InputError(
                f"MSVM-UNet takes images whose sides are multiples of {self.unit}, not {tuple(x.shape[2:])}; pad them"
            )
        return self.decoder(self.encoder(grey_to_rgb(x, self.in_channels)))
