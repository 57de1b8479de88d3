"""By which networks the two restoration bundles answer, and those they are compared with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from napari_mamba import models
from napari_mamba.nn.descriptors.noise import estimate_noise_std, log_noise_channel

NETWORK: dict[str, Any] = {"in_channels": 1, "features": [32, 64, 96], "depths": [2, 2, 2], "d_state": 8, "expand": 1.0}
SCANS = {"mamba": "bidirectional", "axis": "axis", "conv": ""}
"""The scan of each variant: forwards and backwards in raster order, along each axis, none."""


class ResidualSegResNet(nn.Module):
    """MONAI's SegResNet (Myronenko, arXiv:1810.11654) that answers what to change, with 2.2 million parameters.

    `noise_scaled` as in `models.voxel_mamba_unet`: the comparison is of the networks between.
    """

    def __init__(self, in_channels: int = 1, noise_scaled: bool = False) -> None:
        super().__init__()
        from monai.networks.nets import SegResNet  # a machine that trains the other variants need not have it

        self.noise_scaled = noise_scaled
        channels = in_channels + noise_scaled
        self.network = SegResNet(
            3, 28, channels, 1, blocks_down=(2, 2, 2), blocks_up=(1, 1), norm=("GROUP", {"num_groups": 2})
        )

    def forward(self, x: Tensor) -> Tensor:
        if not self.noise_scaled:
            return x[:, :1] + self.network(x).to(x.dtype)
        noise = estimate_noise_std(x)
        return x + noise * self.network(torch.cat([x, log_noise_channel(noise)], dim=1)).to(x.dtype)


def network(variant: str, arguments: dict[str, Any]) -> nn.Module:
    """A variant with random weights; `arguments` are the shipped network's."""
    if variant == "segresnet":
        return ResidualSegResNet(arguments["in_channels"], arguments.get("noise_scaled", False))
    return models.create("voxel_mamba_unet", **arguments, scan=SCANS[variant])
