"""MHS-VM: VM-UNet whose channels are split into heads, each scanning by its own routes (Ji, arXiv:2406.05992).

Read in github.com/PixDeep/MHS-VM, `models/vmunet/mhsm.py`, `routegen.py` and `scanutils.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.segmentation.images.vm_unet import PAPER_DEPTHS, VSSUNet
from napari_mamba.models.shapes import depths as depths_of
from napari_mamba.models.shapes import has
from napari_mamba.nn.blocks.drop import DropPath
from napari_mamba.nn.blocks.probability import Probability
from napari_mamba.nn.blocks.tokens import Float32Module, without_autocast
from napari_mamba.nn.blocks.vss import grey_to_rgb, init_vss_weights
from napari_mamba.nn.mixers.exchange import PathMixers, ReplaceableMixer
from napari_mamba.nn.mixers.mamba import s4d_real_log
from napari_mamba.nn.mixers.selective import initial_projection, initial_step, project_and_scan, rank_of
from napari_mamba.nn.norms.norm import LayerNorm
from napari_mamba.scan import ScanOrder, scan_order

PATHS = 4
"""Of each head: two routes, each both ways."""

HEADS = "CXSZ"
"""Consecutive (serpentine), diagonal, spiral, and Z-shaped (raster); three heads are the first three."""


@lru_cache(maxsize=64)
def head_order(pattern: str, shape: tuple[int, int]) -> ScanOrder:
    """The four paths of a head over a map (H, W): a route, the same backwards, its counterpart, that backwards.

    Examples
    --------
    >>> head_order("X", (2, 2)).table.tolist()
    [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1]]
    """
    height, width = shape
    if pattern in "CZ":
        first, second = scan_order({"C": "continuous", "Z": "ss2d"}[pattern], shape).table[:2]
    else:
        first = scan_order({"X": "diagonal", "S": "spiral"}[pattern], shape).table[0]
        row, column = first // width, first % width
        mirrored = (row, width - 1 - column) if pattern == "X" else (height - 1 - row, column)
        second = mirrored[0] * width + mirrored[1]
    table = np.stack([first, first[::-1], second, second[::-1]])
    return ScanOrder(f"head {pattern}", shape, table, np.argsort(table, axis=1))


class MambaEngine(ReplaceableMixer):
    """S6 along each of four paths with parameters of its own, not merged."""

    def __init__(self, dim: int, d_state: int) -> None:
        super().__init__()
        self.dim, self.d_state = dim, d_state
        rank = rank_of("auto", dim)
        weight, bias = initial_step(PATHS, dim, rank)
        self.x_proj_weight = nn.Parameter(initial_projection(PATHS, rank + 2 * d_state, dim))
        self.dt_projs_weight = nn.Parameter(weight)
        self.dt_projs_bias = nn.Parameter(bias)
        self.A_logs = nn.Parameter(s4d_real_log(PATHS * dim, d_state))
        self.Ds = nn.Parameter(torch.ones(PATHS * dim))

    def replace_mixer(self, name: str) -> None:
        self.exchanged = PathMixers(name, self.dim, PATHS, d_state=self.d_state, expand=1)
        self.remove_modules("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")

    def forward(self, x: Tensor, order: ScanOrder) -> Tensor:
        """(B, L, D) in grid order to (B, 4, L, D)."""
        if self.exchanged is not None:
            paths = zip(self.exchanged.mixers, order.tensor(x.device).split(1), strict=True)
            return torch.stack([mix(x, path) for mix, path in paths], dim=1)
        shape = (PATHS, self.dim)
        A_log, D = self.A_logs.view(*shape, self.d_state), self.Ds.view(shape)
        step = (self.dt_projs_weight, self.dt_projs_bias)
        return project_and_scan(x, self.x_proj_weight, *step, A_log, D, order, merge="none")


class ScanPattern(nn.Module):
    """Holds the engine under the second name by which the authors store it."""

    def __init__(self, engine: MambaEngine) -> None:
        super().__init__()
        self.seq2seq_engine = engine


class ScanHead(nn.Module):
    """Scan along a head's four paths, and fuse them by how much they differ."""

    def __init__(self, dim: int, d_state: int, gfu_t: float, pattern: str) -> None:
        super().__init__()
        self.pattern, self.gfu_t = pattern, gfu_t
        self.mambaeng = MambaEngine(dim, d_state)
        self.scanning = ScanPattern(self.mambaeng)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, D) to the same shape."""
        order = head_order(self.pattern, (x.shape[1], x.shape[2]))
        y = self.mambaeng(x.flatten(1, 2), order)
        return fuse(y, self.gfu_t).view(x.shape)


def fuse(y: Tensor, threshold: float) -> Tensor:
    """The sum of K paths (B, K, …), gated by their coefficient of variation beyond a threshold (the authors' GFU)."""
    spread = (y - y.amin(dim=1, keepdim=True)).mean(dim=1) + 1e-5
    return y.sum(dim=1) * F.relu(y.std(dim=1) / spread - threshold)


class MHSM(Float32Module):
    """Multi-head scan: project, scan each share of the channels by a head, normalise and project; in float32."""

    def __init__(self, dim: int, d_state: int, head_num: int, gfu_t: float, with_proj: bool) -> None:
        super().__init__()
        share = dim // head_num
        self.x_ssproj = nn.Linear(dim, share * head_num, bias=False)
        self.x_ssproj_W = self.x_ssproj.weight
        self.heads = HEADS[:head_num]
        for pattern in self.heads:
            setattr(self, f"scanhead_{pattern}", ScanHead(share, d_state, gfu_t, pattern))
        self.with_proj = with_proj
        if with_proj:
            self.cat_norm = nn.LayerNorm(share * head_num)
            self.y_proj = nn.Linear(share * head_num, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        with without_autocast(x):
            shares = self.x_ssproj(x.to(self.x_ssproj.weight.dtype)).chunk(len(self.heads), dim=-1)
            heads = [self.get_submodule(f"scanhead_{pattern}") for pattern in self.heads]
            y = torch.cat([head(share) for head, share in zip(heads, shares, strict=True)], dim=-1)
            return (self.y_proj(self.cat_norm(y)) if self.with_proj else y).to(x.dtype)


class VSSGate(nn.Module):
    """Depth-wise convolution and multi-head scan, gated; as `SS2D`, without expansion and output projection."""

    def __init__(self, dim: int, dropout: float, d_state: int, head_num: int, gfu_t: float, with_proj: bool) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, 2 * dim, bias=False)
        self.conv2d = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.mhs = MHSM(dim, d_state, head_num, gfu_t, with_proj)
        self.out_norm = LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        u, z = self.in_proj(x).chunk(2, dim=-1)
        u = F.silu(self.conv2d(u.movedim(-1, 1)).movedim(1, -1))
        return self.dropout(self.out_norm(self.mhs(u)) * F.silu(z))


class MHSBlock(nn.Module):
    """`x + drop_path(VSSGate(norm(x)))` on (B, H, W, C)."""

    def __init__(
        self,
        hidden_dim: int,
        drop_path: float = 0.0,
        attn_drop_rate: float = 0.0,
        d_state: int = 16,
        head_num: int = 3,
        gfu_t: float = 0.0,
        with_proj: bool = True,
    ) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(hidden_dim)
        self.self_attention = VSSGate(hidden_dim, attn_drop_rate, d_state, head_num, gfu_t, with_proj)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.self_attention(self.ln_1(x)))


def identify(shapes: Shapes) -> Identification | None:
    """Recognise an MHS-VM state_dict by its heads."""
    mixer = "vmunet.layers.0.blocks.0.self_attention.mhs."
    if not has(shapes, f"{mixer}x_ssproj_W", f"{mixer}scanhead_C.mambaeng.A_logs", "vmunet.final_conv.weight"):
        return None
    return Identification(
        "mhs_vm",
        arguments={
            "input_channels": shapes["vmunet.patch_embed.proj.weight"][1],
            "num_classes": shapes["vmunet.final_conv.weight"][0],
            "depths": depths_of(shapes, "vmunet.layers.", ".blocks."),
            "depths_decoder": depths_of(shapes, "vmunet.layers_up.", ".blocks."),
            "head_num": 3 + (f"{mixer}scanhead_Z.mambaeng.A_logs" in shapes),
            "with_proj": f"{mixer}y_proj.weight" in shapes,
        },
        ambiguous=("gfu_t",),
        note="The threshold gfu_t is not among the weights: the authors trained with 0.5 on ISIC 2018 and with 0 on "
        "ISIC 2017, and test with 0.4.",
    )


@register(
    name="mhs_vm",
    title="MHS-VM",
    task="segmentation",
    spatial_dims=(2,),
    paper="arXiv:2406.05992",
    repository="github.com/PixDeep/MHS-VM",
    licence="Apache-2.0",
    scan_order="serpentine, diagonal, spiral and raster, by head",
    vectors={"MHSVM": {"head_num": 4, "gfu_t": 0.4, **PAPER_DEPTHS}},
    identify=identify,
)
class MHSVM(nn.Module):
    """MHS-VM.

    Parameters
    ----------
    input_channels : int
        Input channels; where 3, one grey channel is repeated.
    num_classes : int
        Output channels; one is a probability (sigmoid), more are logits.
    depths, depths_decoder : sequence of int
        Blocks of the four stages; the paper's are [2, 2, 2, 2] and [2, 2, 2, 1].
    drop_path_rate : float
        Of stochastic depth.
    head_num : {3, 4}
        Heads; the fourth scans the raster.
    gfu_t : float
        Threshold of the fusion of paths; no checkpoint holds it.
    with_proj : bool
        Whether the heads are normalised and projected together.
    para_dict : mapping, optional
        These three, as the authors' configurations have them.
    route_dict_path
        Accepted as the authors' configurations name it; routes are computed for any size.

    Examples
    --------
    >>> MHSVM(num_classes=2, depths=[1, 1, 1, 1], depths_decoder=[1, 1, 1, 1])(torch.zeros(1, 1, 64, 32)).shape
    torch.Size([1, 2, 64, 32])
    """

    def __init__(
        self,
        input_channels: int = 3,
        num_classes: int = 1,
        depths: Sequence[int] = (2, 2, 9, 2),
        depths_decoder: Sequence[int] = (2, 9, 2, 2),
        drop_path_rate: float = 0.2,
        head_num: int = 3,
        gfu_t: float = 0.0,
        with_proj: bool = True,
        route_dict_path: str | None = None,
        para_dict: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        head_num, gfu_t, with_proj = (
            (para_dict or {}).get(name, given)
            for name, given in (("head_num", head_num), ("gfu_t", gfu_t), ("with_proj", with_proj))
        )
        if head_num not in (3, 4):
            raise InputError(f"MHS-VM has 3 or 4 heads, not {head_num}; set head_num to one of them")
        self.input_channels = input_channels
        self.num_classes = num_classes
        self.probability = Probability()
        block = partial(MHSBlock, head_num=head_num, gfu_t=gfu_t, with_proj=with_proj)
        self.vmunet = VSSUNet(input_channels, num_classes, depths, depths_decoder, drop_path_rate, block)
        self.apply(init_vss_weights)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), sides divisible by 32, to (B, num_classes, H, W)."""
        logits = self.vmunet(grey_to_rgb(x, self.input_channels))
        return self.probability(logits) if self.num_classes == 1 else logits
