"""A cascade of two plain 3D U-Nets: the second one sees the input and what the first one answered.

Liu et al., A cascade 3D U-Net for dose prediction in radiotherapy (Medical Physics 48:5574, 2021), which won the
OpenKBP challenge; read in github.com/LSL000UD/RTDosePrediction, `RTDosePrediction/Src/C3D/model.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from napari_mamba.models.registry import register
from napari_mamba.nn.blocks.unets.conv_blocks import ConvNormAct, PointwiseUpsample, initialise_he, pointwise

KERNEL = (3, 3, 3)


class PlainUNet(nn.Module):
    """Two convolutions a level down and up again, with instance norm; from (B, C, Z, Y, X) to (B, classes, Z, Y, X)."""

    def __init__(self, channels: int, classes: int, features: Sequence[int]) -> None:
        super().__init__()
        before = [channels, *features[:-1]]
        self.down = nn.ModuleList(
            nn.Sequential(
                ConvNormAct(before[level], features[level], KERNEL, stride=1 if level == 0 else 2),
                ConvNormAct(features[level], features[level], KERNEL),
            )
            for level in range(len(features))
        )
        pairs = list(pairwise(features))
        self.enlarge = nn.ModuleList(PointwiseUpsample(coarse, fine, (2, 2, 2)) for fine, coarse in pairs)
        self.up = nn.ModuleList(
            nn.Sequential(ConvNormAct(2 * fine, fine, KERNEL), ConvNormAct(fine, fine, KERNEL)) for fine, _ in pairs
        )
        self.head = pointwise(features[0], classes, 3)
        self.apply(initialise_he)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level in self.down:
            x = level(x)
            skips.append(x)
        skips.pop()
        for enlarge, level in zip(reversed(self.enlarge), reversed(self.up), strict=True):  # type: ignore[call-overload]
            x = level(torch.cat([enlarge(x), skips.pop()], dim=1))
        return self.head(x)


@register(
    name="cascade_unet",
    title="Cascade 3D U-Net",
    task="regression",
    spatial_dims=(3,),
    paper="",
    repository="github.com/LSL000UD/RTDosePrediction",
    licence="MIT",
    scan_order="",
)
class CascadeUNet(nn.Module):
    """(B, in_channels, Z, Y, X) to (B, out_channels, Z, Y, X), sides being multiples of 2 to the number of poolings.

    Parameters
    ----------
    in_channels, out_channels : int
    features : sequence of int
        Channels of each level of the second network, finest first.
    first_features : sequence of int
        Those of the first network.

    Returns
    -------
    Tensor or (Tensor, Tensor)
        What the second network answers; while training what both do, the first one's first.

    Examples
    --------
    >>> CascadeUNet(2, 1, (4, 8), (2, 4)).eval()(torch.zeros(1, 2, 4, 6, 8)).shape
    torch.Size([1, 1, 4, 6, 8])
    """

    def __init__(
        self, in_channels: int, out_channels: int, features: Sequence[int], first_features: Sequence[int]
    ) -> None:
        super().__init__()
        self.first = PlainUNet(in_channels, out_channels, first_features)
        self.second = PlainUNet(in_channels + out_channels, out_channels, features)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        first = self.first(x)
        second = self.second(torch.cat([x, first.to(x.dtype)], dim=1))
        return (first, second) if self.training else second
