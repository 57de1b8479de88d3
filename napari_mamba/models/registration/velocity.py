"""A network that looks at two images and says along which velocity the one moves onto the other.

As SynthMorph's (Hoffmann et al., IEEE TMI 41:543, 2022, arXiv:2004.10282) it answers on a grid of half the resolution,
and the integrated velocity is enlarged; the body is a U-Mamba Enc (Ma et al., arXiv:2401.04722). Eight voxels of a cube
become channels (pixel unshuffle), so that no layer works at full resolution and nothing of the images is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from napari_mamba.models.registry import register
from napari_mamba.models.segmentation.umamba import UMamba, UMambaEnc
from napari_mamba.nn import fields

FINE = 2
"""Sides of a cube of voxels that become channels."""


@register(
    name="velocity_umamba",
    title="U-Mamba of a velocity",
    task="registration",
    spatial_dims=(3,),
    paper="",
    repository="",
    licence="BSD-3-Clause",
    scan_order="raster",
)
class VelocityNetwork(nn.Module):
    """Takes (B, 2, Z, Y, X), the moving and the fixed image in 0 to 1; answers the displacement (B, 3, Z, Y, X).

    The displacement is in voxels along (z, y, x): from a voxel of the fixed image to its place in the moving one. While
    training, the answer is the stationary velocity (B, 3, Z/2, Y/2, X/2) behind it, in voxels of its own grid, which
    `displacement` integrates and enlarges.

    Parameters
    ----------
    features : sequence of int
        Channels of the stages, the first one at half resolution.
    first_scan : int
        The first stage with scans; the number of stages for none.
    passes : int
        How often the network looks, after training: at the images, and then at them as its last answer brought them
        together. What it answers is composed (Zhao et al., recursive cascaded networks, arXiv:1907.12353).

    Examples
    --------
    >>> network = VelocityNetwork((8, 16, 16), first_scan=1)
    >>> network(torch.zeros(1, 2, 16, 16, 16)).shape
    torch.Size([1, 3, 8, 8, 8])
    >>> network.eval()(torch.zeros(1, 2, 16, 16, 16)).shape
    torch.Size([1, 3, 16, 16, 16])
    """

    def __init__(self, features: Sequence[int] = (24, 48, 96, 128, 160), first_scan: int = 2, passes: int = 1) -> None:
        super().__init__()
        self.passes = passes
        stages = len(features)
        plan: dict[str, Any] = {
            "spatial_dims": 3,
            "input_channels": 2 * FINE**3,
            "num_classes": 3,
            "features_per_stage": list(features),
            "kernel_sizes": 3,
            "strides": [1, *[2] * (stages - 1)],
            "n_conv_per_stage": 1,
            "n_conv_per_stage_decoder": 1,
            "generation": "v1",
        }
        scans = first_scan < stages
        self.body: UMamba = UMambaEnc(**plan, first_scan=first_scan) if scans else UMamba(**plan)
        head: Any = self.body.decoder.seg_layers[-1]
        nn.init.normal_(head.weight, std=1e-3)  # a network that has learnt nothing moves next to nothing
        nn.init.zeros_(head.bias)
        self.divisor = FINE * 2 ** (stages - 1)
        """An image's sides are multiples of it."""

    def forward(self, pair: Tensor) -> Tensor:
        velocity = self.body(unshuffled(pair, FINE))
        if self.training:
            return velocity
        size = pair.shape[2:]
        total = displacement(velocity, size)[0]
        for _ in range(self.passes - 1):
            moved = fields.warp(pair[:, :1], total).to(pair.dtype)
            velocity = self.body(unshuffled(torch.cat([moved, pair[:, 1:]], 1), FINE))
            total = fields.compose(displacement(velocity, size)[0], total)
        return total


def unshuffled(x: Tensor, factor: int) -> Tensor:
    """(B, C, Z, Y, X) as (B, C * factor³, Z / factor, Y / factor, X / factor): cubes of voxels become channels."""
    batch, channels, *size = x.shape
    z, y, x_ = (n // factor for n in size)
    cut = x.reshape(batch, channels, z, factor, y, factor, x_, factor)
    return cut.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(batch, channels * factor**3, z, y, x_)


def displacement(velocity: Tensor, size: Sequence[int], steps: int = fields.STEPS) -> tuple[Tensor, Tensor]:
    """The displacement of a velocity on a grid of `size`, in its voxels, and the one that leads back."""
    velocity = velocity.float()
    both = fields.integrate(torch.cat([velocity, -velocity]), steps)
    forth, back = fields.resized(both, size).chunk(2)
    return forth, back
