"""A small U-shaped residual network for restoring volumes: convolutions at full resolution, scans below it.

This project's own arrangement of published parts: a U of plain residual blocks without norms (EDSR, Lim et al.,
arXiv:1707.02921; DRUNet, Zhang et al., arXiv:2008.13751), with MambaIR's residual state-space block (Guo et al.,
arXiv:2402.15648) in three dimensions wherever voxels have been pooled. The image itself is added at the end, so the
network answers what to change: for denoising, in units of the noise that it finds in the image (`estimate_noise_std`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.models.registry import register
from napari_mamba.nn.blocks.tokens import from_tokens, to_tokens
from napari_mamba.nn.descriptors.noise import estimate_noise_std, log_noise_channel
from napari_mamba.nn.mixers.multipath import MultiPathMamba
from napari_mamba.nn.norms.norm import LayerNorm
from napari_mamba.scan import scan_order


class VoxelScan(nn.Module):
    """Layer norm and a Mamba mixer over the voxels of (B, C, Z, Y, X), added to the scaled input.

    Parameters
    ----------
    dim, d_state : int
        Channels; states a channel.
    expand : float
        Inner channels a channel.
    scan : str
        Name of a scan order; each of its paths has convolution and state-space parameters of its own.
    """

    def __init__(self, dim: int, d_state: int = 8, expand: float = 1.0, scan: str = "bidirectional") -> None:
        super().__init__()
        self.scan = scan
        paths = scan_order(scan, (2, 2, 2)).paths
        self.norm = LayerNorm(dim)
        self.mixer = MultiPathMamba(dim, d_state=d_state, expand=expand, paths=("", *map(str, range(1, paths))))
        self.skip_scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        spatial = tuple(x.shape[2:])
        tokens = to_tokens(x)
        mixed = self.mixer(self.norm(tokens), scan_order(self.scan, spatial)).to(x.dtype)
        return from_tokens(tokens * self.skip_scale.to(x.dtype) + mixed, spatial)


class ConvBlock(nn.Module):
    """Two 3-convolutions with a GELU between, added to the input; no norm, which would forget the noise's level."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(dim, dim, 3, padding=1)
        self.conv2 = nn.Conv3d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # In place: at full resolution a tile's new tensor costs the CPU as much as the sum.
        return self.conv2(nn.functional.gelu(self.conv1(x))).add_(x)


@register(
    name="voxel_mamba_unet",
    title="Voxel Mamba U-Net",
    task="restoration",
    spatial_dims=(3,),
    paper="",
    repository="",
    licence="BSD-3-Clause",
    scan_order="bidirectional",
)
class VoxelMambaUNet(nn.Module):
    """Restore (B, in_channels, Z, Y, X) to (B, out_channels, Z, Y, X). Sides are padded to what the poolings need.

    Parameters
    ----------
    in_channels : int
        Channels of the input: the image's, then any that only tell something about it.
    features : sequence of int
        Channels of each level, finest first; each level has half the resolution of the one before.
    depths : sequence of int
        Blocks of each level: on the way down and again on the way up, the last level's once.
    d_state, expand, scan
        As in `VoxelScan`; `scan` "" leaves the scans out.
    out_channels : int, optional
        Channels of the image and of the answer; as many as `in_channels` if not given.
    noise_scaled : bool
        Tell the network how strong the noise around each voxel is, and take its answer in that unit. Its own estimate:
        nobody need know the noise. For images of one channel.

    Raises
    ------
    InputError
        If `features` and `depths` differ in length.

    Examples
    --------
    >>> VoxelMambaUNet(features=(8, 16), depths=(1, 1))(torch.zeros(1, 1, 6, 7, 9)).shape
    torch.Size([1, 1, 6, 7, 9])
    """

    def __init__(
        self,
        in_channels: int = 1,
        features: Sequence[int] = (32, 64, 96),
        depths: Sequence[int] = (1, 2, 2),
        d_state: int = 8,
        expand: float = 1.0,
        scan: str = "bidirectional",
        out_channels: int | None = None,
        noise_scaled: bool = False,
    ) -> None:
        super().__init__()
        self.out_channels = out_channels or in_channels
        self.noise_scaled = noise_scaled
        if len(features) != len(depths):
            raise InputError(
                f"voxel_mamba_unet takes one depth a level: {len(features)} features, {len(depths)} depths"
            )

        def level(n: int) -> nn.Sequential:
            blocks: list[nn.Module] = []
            for _ in range(depths[n]):
                if n > 0 and scan:
                    blocks.append(VoxelScan(features[n], d_state, expand, scan))
                blocks.append(ConvBlock(features[n]))
            return nn.Sequential(*blocks)

        steps = list(itertools.pairwise(features))
        self.stem = nn.Conv3d(in_channels + noise_scaled, features[0], 3, padding=1)
        self.down = nn.ModuleList(level(n) for n in range(len(features)))
        self.shrink = nn.ModuleList(nn.Conv3d(fine, coarse, 2, stride=2) for fine, coarse in steps)
        self.grow = nn.ModuleList(nn.ConvTranspose3d(coarse, fine, 2, stride=2) for fine, coarse in steps)
        self.merge = nn.ModuleList(nn.Conv3d(2 * fine, fine, 1) for fine in features[:-1])
        self.up = nn.ModuleList(level(n) for n in range(len(features) - 1))
        self.head = nn.Conv3d(features[0], self.out_channels, 3, padding=1)
        nn.init.zeros_(self.head.weight)  # it starts as the identity
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        if not self.noise_scaled:
            return x[:, : self.out_channels] + self.change(x).to(x.dtype)
        noise = estimate_noise_std(x)
        return x + noise * self.change(torch.cat([x, log_noise_channel(noise)], dim=1)).to(x.dtype)

    def change(self, x: Tensor) -> Tensor:
        """What to add to the image, from all that the network is told, (B, out_channels, Z, Y, X)."""
        size, divisor = x.shape[2:], 2 ** len(self.shrink)
        padding = [p for n in reversed(size) for p in (0, -n % divisor)]
        features = self.stem(nn.functional.pad(x, padding, mode="replicate") if any(padding) else x)
        skips = []
        for level, shrink in zip(self.down, self.shrink, strict=False):
            features = level(features)
            skips.append(features)
            features = shrink(features)
        features = self.down[-1](features)
        for n in reversed(range(len(skips))):
            features = self.up[n](self.merge[n](torch.cat([self.grow[n](features), skips[n]], dim=1)))
        return self.head(features)[..., : size[0], : size[1], : size[2]]
