"""SegMamba-V2: large convolution kernels, then one Mamba scanned along three axis orders (Xing et al., IEEE TMI 2025).

Read in github.com/ge-xing/SegMamba-V2, `brats23/models_segmamba/segmambav2.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.segmentation.norms import norm_of
from napari_mamba.models.segmentation.segmamba import StagedEncoder, UNETRHead, head_arguments
from napari_mamba.models.shapes import depths as depths_of
from napari_mamba.models.shapes import has
from napari_mamba.nn.blocks.tokens import Float32Module, from_tokens, to_tokens, without_autocast
from napari_mamba.nn.mixers.mamba import Mamba
from napari_mamba.nn.norms.instance_norm import InstanceNorm3d, norm_act
from napari_mamba.nn.norms.norm import LayerNorm
from napari_mamba.scan import scan_order

AXES = ((0, 1, 2), (1, 0, 2), (2, 1, 0))
"""The three rasters, slowest axis first: depth-width-height, width-depth-height, height-width-depth."""


class TriAxisMamba(Float32Module):
    """Normalise, run one Mamba along the three axis orders, add the three and the input."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = LayerNorm(dim)
        self.mamba = Mamba(dim)

    def forward(self, x: Tensor) -> Tensor:
        spatial = tuple(x.shape[2:])
        with without_autocast(x):
            tokens = self.norm(to_tokens(x).to(self.norm.weight.dtype))
            y = self.mamba(tokens, scan_order("axis", spatial, axes=AXES))
        return x + from_tokens(y, spatial).to(x.dtype)


class ConvBlock(nn.Module):
    """Convolution that keeps the size, instance norm, ReLU."""

    def __init__(self, channels: int, kernel: int, dilation: int = 1) -> None:
        super().__init__()
        conv = nn.Conv3d(channels, channels, kernel, padding=kernel // 2 * dilation, dilation=dilation)
        self.block = nn.Sequential(conv, InstanceNorm3d(channels), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        conv, norm, _ = self.block
        return norm_act(norm, conv(x), slope=0, overwrite=True)


class SEBlock(nn.Module):
    """Squeeze and excitation: each channel times a gate computed from the channels' means."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        hidden = channels // reduction
        self.fc = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean(dim=(2, 3, 4)))[:, :, None, None, None]


class LargeKernelConv(nn.Module):
    """A deep path of 5, 3 and dilated 3 kernels, a shallow one of 3 and 1, the input; added, squeezed and excited."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.deep_path = nn.Sequential(ConvBlock(channels, 5), ConvBlock(channels, 3), ConvBlock(channels, 3, 2))
        self.shortcut_path = nn.Sequential(ConvBlock(channels, 3), ConvBlock(channels, 1))
        self.se = SEBlock(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.se(self.deep_path(x) + self.shortcut_path(x) + x)


def mamba_encoder(in_chans: int, depths: Sequence[int], dims: Sequence[int]) -> StagedEncoder:
    """The encoder: large kernels in all four stages, Mamba after them in the last two; it takes the first skip."""
    channels = [dims[0], *dims]
    downs = [nn.Sequential(nn.Conv3d(fine, coarse, 3, stride=2, padding=1)) for fine, coarse in pairwise(channels)]
    plan = list(zip(dims, depths, strict=True))
    gscs = [nn.Sequential(*[LargeKernelConv(dim) for _ in range(depth)]) for dim, depth in plan]
    stages = [nn.Sequential(*[TriAxisMamba(dim) for _ in range(depth)]) for dim, depth in plan[2:]]
    return StagedEncoder(dims, downs, gscs, [None, None, *stages])


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a SegMamba-V2 state_dict by its large kernels."""
    if not has(shapes, "vit.gscs.0.0.deep_path.0.block.0.weight", "vit.stages.2.0.mamba.A_log", "out.conv.conv.weight"):
        return None
    depths = depths_of(shapes, "vit.gscs.", ".")
    norm = norm_of(shapes)
    arguments = {**head_arguments(shapes), "depths": depths}
    return Identification("segmamba_v2", arguments=arguments, ambiguous=norm.unsaid, note=norm.note)


@register(
    name="segmamba_v2",
    title="SegMamba-V2",
    task="segmentation",
    spatial_dims=(3,),
    paper="IEEE TMI 2025, SegMamba-V2",
    repository="github.com/ge-xing/SegMamba-V2",
    licence="none stated",
    scan_order="axis",
    vectors={"SegMambaV2_64": {"in_chans": 4, "out_chans": 4}},
    identify=identify,
)
class SegMambaV2(UNETRHead):
    """SegMamba-V2.

    Parameters
    ----------
    *args, **kwargs
        As of `UNETRHead`, from `in_chans` on; `depths` are the blocks of each stage.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(mamba_encoder, *args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, D, H, W), sides divisible by 16, to (B, out_chans, D, H, W)."""
        first = self.encoder1(x)
        return self.logits(first, [first])
