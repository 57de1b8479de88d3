"""VM-UNetV2: a VSS encoder, attended skips multiplied across scales (Zhang et al., arXiv:2403.09157).

Read in github.com/nobodyplayer1/VM-UNetV2, `models/vmunet/vmunet_v2.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import depths as depths_of
from napari_mamba.models.shapes import has
from napari_mamba.nn.blocks.probability import Probability
from napari_mamba.nn.blocks.vss import VSSEncoder, grey_to_rgb, init_vss_weights


class ChannelAttention(nn.Module):
    """A gate for each channel from its mean and its maximum (CBAM, arXiv:1807.06521)."""

    def __init__(self, channels: int, ratio: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // ratio, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // ratio, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = (x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True))
        return torch.sigmoid(sum(self.fc2(F.relu(self.fc1(p))) for p in pooled))


class SpatialAttention(nn.Module):
    """A gate for each pixel from its channels' mean and maximum (CBAM)."""

    def __init__(self, kernel: int = 7) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.conv1(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)))


class Translayer(nn.Module):
    """1-convolution and batch norm."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class SDI(nn.Module):
    """Semantics and detail infusion: all scales brought to one, convolved and multiplied (U-Net v2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(4))

    def forward(self, scales: list[Tensor], anchor: Tensor) -> Tensor:
        size, product = anchor.shape[2:], torch.ones_like(anchor)
        for conv, x in zip(self.convs, scales, strict=True):
            if x.shape[-1] > size[-1]:
                x = F.adaptive_avg_pool2d(x, size)
            elif x.shape[-1] < size[-1]:
                x = F.interpolate(x, size=size, mode="bilinear", align_corners=True)
            product = product * conv(x)
        return product


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a VM-UNetV2 state_dict by its SDI blocks; whether it trained with deep supervision is not in it."""
    if not has(shapes, "sdi_1.convs.0.weight", "deconv6.weight", "vmunet.patch_embed.proj.weight"):
        return None
    return Identification(
        "vm_unet_v2",
        arguments={
            "input_channels": shapes["vmunet.patch_embed.proj.weight"][1],
            "num_classes": shapes["seg_outs.0.weight"][0],
            "mid_channel": shapes["seg_outs.0.weight"][1],
            "depths": depths_of(shapes, "vmunet.layers.", ".blocks."),
            "deep_supervision": shapes["seg_outs.0.weight"][0] == 1,
        },
        ambiguous=("deep_supervision",),
        note="VM-UNetV2 adds its second scale to the output where it was built with deep_supervision=True (the "
        "authors' default for one class), and the weights do not say whether it was.",
    )


@register(
    name="vm_unet_v2",
    title="VM-UNetV2",
    task="segmentation",
    spatial_dims=(2,),
    paper="arXiv:2403.09157",
    repository="github.com/nobodyplayer1/VM-UNetV2",
    licence="Apache-2.0",
    scan_order="ss2d",
    vectors={"VMUNetV2": {}},
    identify=identify,
)
class VMUNetV2(nn.Module):
    """VM-UNetV2.

    Parameters
    ----------
    input_channels : int
        Input channels; where 3, one grey channel is repeated.
    num_classes : int
        Output channels; with deep supervision it must be one.
    mid_channel : int
        Channels of the skips, half those of the first stage.
    depths : sequence of int
        Blocks of the encoder's four stages.
    drop_path_rate : float
        Of stochastic depth.
    deep_supervision : bool
        Add the second scale's output to the first's.
    depths_decoder, load_ckpt_path
        The authors' arguments that change nothing: there is no VSS decoder, and the importer loads weights.
    """

    def __init__(
        self,
        input_channels: int = 3,
        num_classes: int = 1,
        mid_channel: int = 48,
        depths: Sequence[int] = (2, 2, 9, 2),
        depths_decoder: Sequence[int] = (2, 9, 2, 2),
        drop_path_rate: float = 0.2,
        load_ckpt_path: str | None = None,
        deep_supervision: bool = True,
    ) -> None:
        super().__init__()
        self.input_channels = input_channels
        self.num_classes = num_classes
        self.deep_supervision = deep_supervision
        dims = [mid_channel * 2**scale for scale in range(1, 5)]
        for number, dim in enumerate(dims, start=1):
            setattr(self, f"ca_{number}", ChannelAttention(dim))
            setattr(self, f"sa_{number}", SpatialAttention())
            setattr(self, f"Translayer_{number}", Translayer(dim, mid_channel))
            setattr(self, f"sdi_{number}", SDI(mid_channel))
        self.seg_outs = nn.ModuleList(nn.Conv2d(mid_channel, num_classes, 1) for _ in range(4))
        for number in (2, 3, 4, 5):  # the fourth is stored and never used
            setattr(self, f"deconv{number}", nn.ConvTranspose2d(mid_channel, mid_channel, 4, 2, 1, bias=False))
        self.deconv6 = nn.ConvTranspose2d(1, 1, 3, stride=2, padding=1, output_padding=1)
        self.probability = Probability()
        self.vmunet = VSSEncoder(in_chans=input_channels, depths=depths, dims=dims, drop_path_rate=drop_path_rate)
        self.vmunet.apply(init_vss_weights)

    def _skip(self, number: int, x: Tensor) -> Tensor:
        x = x.movedim(-1, 1)
        x = self.get_submodule(f"ca_{number}")(x) * x
        x = self.get_submodule(f"sa_{number}")(x) * x
        return self.get_submodule(f"Translayer_{number}")(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), sides divisible by 32, to probabilities (one class) or logits (B, num_classes, H, W)."""
        # What enters each stage is used, so the last stage, whose weights are stored, is never run.
        last, stages = self.vmunet.features(grey_to_rgb(x, self.input_channels), stages=3)
        skips = [self._skip(number, stage) for number, stage in enumerate([*stages, last], start=1)]
        f1, f2, f3, f4 = (self.get_submodule(f"sdi_{n}")(skips, skips[n - 1]) for n in (1, 2, 3, 4))
        y = self.deconv3(self.deconv2(f4) + f3) + f2
        second = self.seg_outs[2](y)
        first = self.seg_outs[3](self.deconv4(y) + f1)
        first = F.interpolate(first, scale_factor=4, mode="bilinear")
        if not self.deep_supervision:
            return self.probability(first) if self.num_classes == 1 else first
        return self.probability(first + self.deconv6(F.interpolate(second, scale_factor=4, mode="bilinear")))
