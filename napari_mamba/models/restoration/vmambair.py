"""VmambaIR: image restoration by a U-Net of omni selective scans (Shi et al., arXiv:2403.11423).

Read in github.com/AlphacatPlus/VmambaIR. Its networks, named here as there (argument `network`), differ in the scan
over channels and in the output:

- "MambaSISR6" (`SRGAN/`): super-resolution, four times;
- "MambaRealSR11" (`RealSR/`): the same on photographs;
- "Mamber32", "Mamber33" (`Deraining/`): the image's own size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, factor, has
from napari_mamba.nn.blocks.restoration.restormer import GatedFeedForward, RestormerNorm, RestormerUNet
from napari_mamba.nn.blocks.tokens import Float32Module, without_autocast
from napari_mamba.nn.mixers.exchange import PathMixers, ReplaceableMixer
from napari_mamba.nn.mixers.mamba import s4d_real_log
from napari_mamba.nn.mixers.selective import initial_projection, initial_step, project_and_scan, rank_of
from napari_mamba.scan import ScanOrder, placed, scan_order

STATES = 16
SCALE = 4
DERAINING = {"num_blocks": (6, 6, 7, 8), "num_refinement_blocks": 2}


@dataclass(frozen=True)
class ChannelScan:
    """How a network scans over channels: at which width (0: the mean itself), and whether it multiplies or adds."""

    width: int
    multiplicative: bool = True
    enlarges: bool = False


NETWORKS = {
    "MambaSISR6": ChannelScan(4, enlarges=True),
    "MambaRealSR11": ChannelScan(0, enlarges=True),
    "Mamber32": ChannelScan(4, multiplicative=False),
    "Mamber33": ChannelScan(2),
}


class OSS(Float32Module, ReplaceableMixer):
    """Omni selective scan: rows and columns both ways, gated, then the channels' means both ways; (B, H, W, C).

    Parameters
    ----------
    dim : int
        Channels in and out.
    kind : ChannelScan
        The scan over channels.
    """

    def __init__(self, dim: int, kind: ChannelScan) -> None:
        super().__init__()
        self.register_module("exchanged_channels", None)
        self.multiplicative = kind.multiplicative
        self.dim, self.width = dim, kind.width or 1
        rank = rank_of("auto", dim)
        self.in_conv = nn.Conv2d(dim, 2 * dim, 1)
        self.conv2d = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        weight, bias = initial_step(4, dim, rank)
        self.x_proj_weight = nn.Parameter(initial_projection(4, rank + 2 * STATES, dim))
        self.dt_projs_weight, self.dt_projs_bias = nn.Parameter(weight), nn.Parameter(bias)
        self.A_logs = nn.Parameter(s4d_real_log(4 * dim, STATES))
        self.Ds = nn.Parameter(torch.ones(4 * dim))
        self.out_norm, self.channel_norm = RestormerNorm(dim), RestormerNorm(dim)
        self.out_conv = nn.Conv2d(dim, dim, 1)
        self._add_channel_scan(kind.width, rank)

    def _add_channel_scan(self, width: int, rank: int) -> None:
        self.conv_cin = nn.Conv2d(1, width, 1) if width else nn.Identity()
        self.conv_cout = nn.Conv2d(width, 1, 1) if width else nn.Identity()
        if width:
            rank = 6  # the authors', at any width
            step = torch.randn(2, width, rank), torch.randn(2, width)
            A_log = torch.randn(2 * width, STATES)
        else:
            width = 1
            step = initial_step(2, 1, rank)
            A_log = s4d_real_log(2, STATES)
        self.xc_proj_weight = nn.Parameter(initial_projection(2, rank + 2 * STATES, width))
        self.dtc_projs_weight, self.dtc_projs_bias = nn.Parameter(step[0]), nn.Parameter(step[1])
        self.Ac_logs = nn.Parameter(A_log)
        self.Dsc = nn.Parameter(torch.ones(2 * width))

    def replace_mixer(self, name: str) -> None:
        self.exchanged = PathMixers(name, self.dim, 4, d_state=STATES, expand=1)
        self.exchanged_channels = PathMixers(name, self.width, 2, d_state=STATES, expand=1)
        self.remove_modules("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")
        self.remove_modules("xc_proj_weight", "dtc_projs_weight", "dtc_projs_bias", "Ac_logs", "Dsc")

    def scan(self, u: Tensor) -> Tensor:
        """Rows and columns of (B, H, W, C), both ways, summed."""
        if self.exchanged is not None:
            return self.exchanged(u.flatten(1, 2), scan_order("ss2d", tuple(u.shape[1:3]))).view(u.shape)
        y = project_and_scan(
            u.flatten(1, 2),
            self.x_proj_weight,
            self.dt_projs_weight,
            self.dt_projs_bias,
            self.A_logs.view(4, -1, STATES),
            self.Ds.view(4, -1),
            scan_order("ss2d", tuple(u.shape[1:3])),
        )
        return y.view(u.shape)

    def scan_channels(self, means: Tensor) -> Tensor:
        """The channels' means (B, C) as a sequence, both ways: (B, C), normalised."""
        tokens = self.conv_cin(means[:, None, :, None]).squeeze(3).transpose(1, 2)
        with placed(lambda: None):
            return self._normalised(self._scan_both_ways(tokens, scan_order("bidirectional", (means.shape[1],))))

    def _scan_both_ways(self, tokens: Tensor, both: ScanOrder) -> Tensor:
        if self.exchanged_channels is not None:
            return self.exchanged_channels(tokens, both)
        return project_and_scan(
            tokens,
            self.xc_proj_weight,
            self.dtc_projs_weight,
            self.dtc_projs_bias,
            self.Ac_logs.view(2, -1, STATES),
            self.Dsc.view(2, -1),
            both,
        )

    def _normalised(self, y: Tensor) -> Tensor:
        return self.channel_norm(self.conv_cout(y.transpose(1, 2).unsqueeze(3)).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H, W, C), in float32 also under autocast."""
        with without_autocast(x):
            u, z = self.in_conv(x.to(self.in_conv.weight.dtype).movedim(-1, 1)).chunk(2, dim=1)
            u = F.silu(self.conv2d(u)).movedim(1, -1)
            y = self.out_norm(self.scan(u)) * F.silu(z.movedim(1, -1))
            channels = self.scan_channels(y.mean((1, 2)))[:, None, None]
            y = y * channels + y if self.multiplicative else y + channels
            return self.out_conv(y.movedim(-1, 1)).movedim(1, -1).to(x.dtype)


class OSSBlock(nn.Module):
    """`OSS` and the gated feed-forward, each normalised first and added; (B, H, W, C)."""

    def __init__(self, dim: int, kind: ChannelScan, expansion: float, bias: bool, norm: str) -> None:
        super().__init__()
        self.norm1 = RestormerNorm(dim, norm)
        self.attn = OSS(dim, kind)
        self.norm2 = RestormerNorm(dim, norm)
        self.ffn = GatedFeedForward(dim, expansion, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a VmambaIR state_dict, and which of its networks."""
    attn = "encoder_level1.0.attn"
    if not has(shapes, f"{attn}.xc_proj_weight", "patch_embed.proj.weight", "refinement.0.ffn.project_out.weight"):
        return None
    width = shapes[f"{attn}.conv_cin.weight"][0] if f"{attn}.conv_cin.weight" in shapes else 0
    enlarges = "tail.1.weight" in shapes
    found = [name for name, kind in NETWORKS.items() if (kind.width, kind.enlarges) == (width, enlarges)]
    if not found:
        return None
    parts = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
    arguments: dict[str, Any] = {
        "inp_channels": shapes["patch_embed.proj.weight"][1],
        "out_channels": shapes["tail.1.weight" if enlarges else "output.weight"][0],
        "dim": shapes["patch_embed.proj.weight"][0],
        "num_blocks": [count(shapes, f"{part}.") for part in parts],
        "num_refinement_blocks": count(shapes, "refinement."),
        "ffn_expansion_factor": factor(shapes[f"{part}.0.ffn.project_out.weight"][:2] for part in parts),
        "bias": "encoder_level1.0.ffn.project_in.bias" in shapes,
        "LayerNorm_type": "WithBias" if "encoder_level1.0.norm1.body.bias" in shapes else "BiasFree",
        "network": found[0],
    }
    if not enlarges:
        arguments["dual_pixel_task"] = "skip_conv.weight" in shapes
    return Identification("vmambair", found[0], arguments)


@register(
    name="vmambair",
    title="VmambaIR",
    task="restoration",
    spatial_dims=(2,),
    paper="arXiv:2403.11423",
    repository="github.com/AlphacatPlus/VmambaIR",
    licence="none stated; Deraining/ is under Restormer's academic, non-commercial one",
    scan_order="ss2d; bidirectional over channels",
    vectors={"VmambaIR_SISR": {}},
    identify=identify,
)
class VmambaIR(RestormerUNet):
    """VmambaIR.

    Parameters
    ----------
    inp_channels, out_channels : int
        Input and output channels; equal, except with `dual_pixel_task`.
    scale : int
        Of the super-resolution networks: 4, the only one their upsampler makes.
    dim : int
        Channels of the first level, a multiple of 2.
    num_blocks : sequence of 4 int
        Blocks of the levels, the latent one last. The deraining networks' own are `DERAINING`.
    num_refinement_blocks : int
        Blocks after the decoder.
    ffn_expansion_factor : float
        Hidden channels per channel in the feed-forwards.
    bias : bool
        Whether those and the 1-convolutions after the skips have a bias.
    LayerNorm_type : {"WithBias", "BiasFree"}
        Norm of the blocks.
    network : {"MambaSISR6", "MambaRealSR11", "Mamber32", "Mamber33"}
        Which of the authors' networks.
    dual_pixel_task : bool
        Of the deraining networks: for dual-pixel deblurring, without adding the input.
    heads
        The authors' argument that changes nothing.

    Raises
    ------
    InputError
        If the arguments do not describe a network, or an image's sides are no multiples of 8.

    Examples
    --------
    >>> VmambaIR(dim=8, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1)(torch.zeros(1, 3, 8, 16)).shape
    torch.Size([1, 3, 32, 64])
    """

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        scale: int = SCALE,
        dim: int = 48,
        num_blocks: Sequence[int] = (6, 2, 2, 1),
        num_refinement_blocks: int = 6,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: str = "WithBias",
        network: str = "MambaSISR6",
        dual_pixel_task: bool = False,
    ) -> None:
        kind = NETWORKS.get(network)
        if kind is None:
            raise InputError(f"VmambaIR's network must be one of {', '.join(NETWORKS)}, not {network!r}")
        if kind.enlarges and (scale != SCALE or dual_pixel_task):
            raise InputError(f"{network} enlarges {SCALE} times and has no dual_pixel_task; use scale={SCALE}")

        def block(width: int, level: int) -> nn.Module:
            return OSSBlock(width, kind, ffn_expansion_factor, bias, LayerNorm_type)

        super().__init__(inp_channels, dim, num_blocks, num_refinement_blocks, block, bias)
        self.scale = scale if kind.enlarges else 1
        width = 2 * dim
        if kind.enlarges:
            twice = [nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2)]
            again = [nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2)]
            self.tail = nn.Sequential(nn.Sequential(*twice, *again), nn.Conv2d(width, out_channels, 3, padding=1))
        else:
            self.end_at_the_same_size(dim, out_channels, bias, dual_pixel_task)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inp_channels, H, W), sides divisible by 8, to (B, out_channels, scale H, scale W)."""
        if self.scale == 1:
            return self.answer(x)
        features, _ = self.features(x)
        return self.tail(features.movedim(-1, 1)) + F.interpolate(x, scale_factor=self.scale, mode="nearest")
