"""VoxelMorph's U-Net (Balakrishnan et al., arXiv:1809.05231), as MambaMorph takes it to make features of an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAK = 0.2


class ConvBlock(nn.Module):
    """3-convolution and leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.main = nn.Conv3d(in_channels, out_channels, 3, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.main(x), LEAK)


class FeatureUnet(nn.Module):
    """(B, in_channels, *size), sides divisible by 4, to (B, features, *size)."""

    def __init__(self, in_channels: int, features: int, levels: int = 2) -> None:
        super().__init__()

        def level(channels: int) -> nn.ModuleList:
            return nn.ModuleList([ConvBlock(channels, features)])

        self.encoder = nn.ModuleList(level(features if number else in_channels) for number in range(levels))
        self.decoder = nn.ModuleList(level(features * (2 if number else 1)) for number in range(levels))
        self.remaining = nn.ModuleList([ConvBlock(2 * features, features), ConvBlock(features, features)])

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for (conv,) in self.encoder:
            skips.append(conv(x))
            x = F.max_pool3d(skips[-1], 2)
        for (conv,) in self.decoder:
            x = torch.cat([F.interpolate(conv(x), scale_factor=2, mode="nearest"), skips.pop()], dim=1)
        for conv in self.remaining:
            x = conv(x)
        return x
