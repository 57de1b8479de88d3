"""UltraLight VM-UNet: one Mamba shared by four quarters of the channels (Wu et al., arXiv:2403.20035).

Read in github.com/wurenkai/UltraLight-VM-UNet, `models/UltraLight_VM_UNet.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import has
from napari_mamba.nn.blocks.tokens import Float32Module, from_tokens, to_tokens, without_autocast
from napari_mamba.nn.blocks.unets.light_unet import SixStageUNet, init_light_weights, six_stage_arguments
from napari_mamba.nn.mixers.mamba import Mamba


class PVMLayer(Float32Module):
    """Parallel vision Mamba: normalise, mix each quarter of the channels, normalise by the same norm, project."""

    def __init__(self, input_dim: int, output_dim: int, d_state: int = 16, d_conv: int = 4, expand: int = 2) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(input_dim)
        self.mamba = Mamba(input_dim // 4, d_state=d_state, d_conv=d_conv, expand=expand)
        self.proj = nn.Linear(input_dim, output_dim)
        self.skip_scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, input_dim, *spatial) to (B, output_dim, *spatial)."""
        with without_autocast(x):
            tokens = self.norm(to_tokens(x).to(self.norm.weight.dtype))
            # The four quarters share one mixer, so they go through it as one batch.
            quarters = torch.cat(tokens.chunk(4, dim=2))
            mixed = self.mamba(quarters) + self.skip_scale * quarters
            mixed = self.proj(self.norm(torch.cat(mixed.chunk(4), dim=2)))
        return from_tokens(mixed, x.shape[2:]).to(x.dtype)


def identify(shapes: Shapes) -> Identification | None:
    """Recognise an UltraLight VM-UNet state_dict by its PVM layers."""
    if not has(shapes, "encoder4.0.skip_scale", "encoder6.0.mamba.A_log", "decoder3.0.proj.weight", "final.weight"):
        return None
    c_list = [shapes[f"encoder{i}.0.weight"][0] for i in (1, 2, 3)]
    c_list += [shapes[f"encoder{i}.0.proj.weight"][0] for i in (4, 5, 6)]
    return Identification("ultralight_vm_unet", arguments=six_stage_arguments(shapes, c_list))


@register(
    name="ultralight_vm_unet",
    title="UltraLight VM-UNet",
    task="segmentation",
    spatial_dims=(2,),
    paper="arXiv:2403.20035",
    repository="github.com/wurenkai/UltraLight-VM-UNet",
    licence="MIT",
    scan_order="raster",
    vectors={"UltraLight_VM_UNet": {}},
    identify=identify,
)
class UltraLightVMUNet(SixStageUNet):
    """UltraLight VM-UNet, about fifty thousand parameters.

    Parameters
    ----------
    num_classes : int
        Output channels, each a probability.
    input_channels : int
        Input channels.
    c_list : sequence of 6 int
        Channels of the stages, divisible by 4.
    split_att : str
        "fc" or "conv": the gates of the bridge.
    bridge : bool
        Whether the skips are attended.

    Examples
    --------
    >>> UltraLightVMUNet()(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 1, 64, 64])
    """

    def __init__(
        self,
        num_classes: int = 1,
        input_channels: int = 3,
        c_list: Sequence[int] = (8, 16, 24, 32, 48, 64),
        split_att: str = "fc",
        bridge: bool = True,
    ) -> None:
        widths = [input_channels, *c_list]
        encoders = [
            nn.Sequential(nn.Conv2d(fine, coarse, 3, padding=1) if stage < 3 else PVMLayer(fine, coarse))
            for stage, (fine, coarse) in enumerate(pairwise(widths))
        ]
        decoders = [
            nn.Sequential(PVMLayer(coarse, fine) if stage < 3 else nn.Conv2d(coarse, fine, 3, padding=1))
            for stage, (coarse, fine) in enumerate(pairwise(c_list[::-1]))
        ]
        super().__init__(encoders, decoders, c_list, num_classes, split_att, bridge)
        self.apply(init_light_weights)
