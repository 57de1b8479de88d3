"""EfficientVMamba: SS2D on four half-resolution lattices beside convolutions (Pei et al., arXiv:2403.09977).

Read in github.com/TerryPei/EfficientVMamba, `classification/lib/models/mamba/efficient_mamba.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.bi_attn import BiAttn
from napari_mamba.nn.blocks.drop import DropPath, drop_path_rates
from napari_mamba.nn.blocks.tokens import without_autocast
from napari_mamba.nn.blocks.transformers.mlp import Mlp
from napari_mamba.nn.blocks.vmamba import PatchMerge, ToRows, downsample, patch_embed
from napari_mamba.nn.blocks.vss import grey_to_rgb, init_vss_weights, stage_dims
from napari_mamba.nn.mixers.images.ss2d import SS2D
from napari_mamba.nn.mixers.selective import project_and_scan
from napari_mamba.nn.norms.norm import LayerNorm, at_least_float32
from napari_mamba.scan import placed

TINY = {"dims": 48, "depths": [2, 2, 4, 2], "mlp_ratio": 0.0, "downsample_version": "v1"}
SCANNED = 2  # stages with a scan; the others are convolutions
EXPANSION, SQUEEZE = 4, 0.125  # of the inverted residuals


@lru_cache(maxsize=32)
def lattices(height: int, width: int) -> Tensor:
    """Cells of the four lattices of an even map, (4, L / 4), in the order of their scans.

    Those that begin in an even row run along rows, the others along columns.
    """
    with torch.inference_mode(False):  # made under inference, it must still serve a training
        grid = torch.arange(height * width).view(height, width)
        corners = (grid[::2, ::2], grid[1::2, ::2].T, grid[::2, 1::2], grid[1::2, 1::2].T)
        return torch.stack([cells.flatten() for cells in corners])


class EfficientSS2D(SS2D):
    """SS2D whose four paths are scans of four lattices, each of every second cell, with parameters of its own.

    An odd map is padded with zeros on the right and below; the padding is scanned and then cut off.
    """

    def scan(self, u: Tensor) -> Tensor:
        """(B, H, W, D) to (B, H, W, D), at least float32."""
        height, width = u.shape[1:3]
        u = at_least_float32(F.pad(u, (0, 0, 0, width % 2, 0, height % 2)))
        table = lattices(*u.shape[1:3]).to(u.device)
        tokens = u.flatten(1, 2)
        parts = []
        for path, cells in enumerate(table):
            with placed(partial(self._places, cells, u.shape[2], (height, width))):
                parts.append(self._path(path, tokens.index_select(1, cells)))
        y = torch.cat(parts, dim=1).index_select(1, table.flatten().argsort())
        return y.view(u.shape)[:, :height, :width]

    def _path(self, path: int, tokens: Tensor) -> Tensor:
        """One lattice's tokens (B, L, D), in the order of its scan, through its scan."""
        if self.exchanged is not None:
            with without_autocast(tokens):
                return self.exchanged.mixers[path](tokens)
        one = slice(path, path + 1)
        A = self.A_logs.view(self.paths, self.d_inner, self.d_state)
        weights = self.x_proj_weight, self.dt_projs_weight, self.dt_projs_bias, A, self.Ds.view(self.paths, -1)
        return project_and_scan(tokens, *(weight[one] for weight in weights), order=None)

    @staticmethod
    def _places(cells: Tensor, padded: int, grid: tuple[int, int]) -> tuple[tuple[int, ...], Tensor]:
        """Where on the unpadded map the tokens of a lattice are, -1 for padding."""
        row, column = cells // padded, cells % padded
        inside = (row < grid[0]) & (column < grid[1])
        return grid, torch.where(inside, row * grid[1] + column, -1)


class PatchMerging(nn.Module):
    """Each 2 x 2 pixels to one, normalised and projected."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, out_dim, bias=False)
        self.norm = LayerNorm(4 * dim)
        self.merge = PatchMerge()

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(self.norm(self.merge(x)))


class EfficientBlock(nn.Module):
    """Scan and convolutions of the same normalised map, both through one channel gate, added to the input."""

    def __init__(self, dim: int, drop_path: float, ssm_ratio: float, mlp_ratio: float, use_checkpoint: bool) -> None:
        super().__init__()
        self.use_checkpoint = use_checkpoint
        self.norm = LayerNorm(dim)
        self.op = EfficientSS2D(dim, expand=ssm_ratio)
        self.conv_branch = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1, groups=dim), nn.BatchNorm2d(dim), nn.GELU(), nn.Conv2d(dim, dim, 1)
        )
        self.se = BiAttn(dim)
        self.drop_path = DropPath(drop_path)
        self.norm2 = LayerNorm(dim) if mlp_ratio > 0 else None
        self.mlp = Mlp(dim, int(dim * mlp_ratio)) if mlp_ratio > 0 else None

    def _forward(self, x: Tensor) -> Tensor:
        rows = self.norm(x)
        convolved = self.conv_branch(rows.movedim(-1, 1)).movedim(1, -1)
        x = x + self.drop_path(self.se(self.op(rows)) + self.se(convolved))
        return x if self.mlp is None else x + self.drop_path(self.mlp(self.norm2(x)))

    def forward(self, x: Tensor) -> Tensor:
        if self.use_checkpoint and self.training:
            return checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)


class SqueezeExcite(nn.Module):
    """Multiplies each channel by a weight that the map's mean gives it (Hu et al., arXiv:1709.01507)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(dim, hidden, 1)
        self.conv_expand = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv_expand(F.relu(self.conv_reduce(x.mean(dim=(2, 3), keepdim=True)))).sigmoid()


class InvertedResidual(nn.Module):
    """Widen, convolve each channel, gate, narrow, add (Sandler et al., arXiv:1801.04381)."""

    def __init__(self, dim: int, drop_path: float) -> None:
        super().__init__()
        wide = EXPANSION * dim

        def unit(inputs: int, outputs: int, kernel: int, groups: int = 1) -> list[nn.Module]:
            conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
            return [conv, nn.BatchNorm2d(outputs)]

        self.conv_pw = nn.Sequential(*unit(dim, wide, 1), nn.ReLU())
        self.conv_dw = nn.Sequential(*unit(wide, wide, 3, groups=wide), nn.ReLU())
        self.se = SqueezeExcite(wide, max(1, int(wide * SQUEEZE)))
        self.conv_pw2 = nn.Sequential(*unit(wide, dim, 1))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.conv_pw2(self.se(self.conv_dw(self.conv_pw(x)))))


class ToMaps(nn.Module):
    """(B, H, W, C) as (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(-1, 1)


def identify(shapes: Shapes) -> Identification | None:
    """Recognise an EfficientVMamba classifier."""
    first = "layers.0.blocks.0."
    required = ("patch_embed.0.weight", "classifier.head.weight", "layers.1.blocks.0.norm.weight")
    if not has(shapes, f"{first}se.norm.weight", f"{first}op.A_logs", f"{first}op.out_proj.weight", *required):
        return None
    stages = count(shapes, "layers.")
    depths = [
        count(shapes, f"layers.{i}.blocks.")
        if i < SCANNED
        else sum(key.startswith(f"layers.{i}.") and key.endswith(".conv_pw.0.weight") for key in shapes)
        for i in range(stages)
    ]
    dims = [shapes[f"layers.{i}.blocks.0.norm.weight"][0] for i in range(SCANNED)]
    dims += [shapes.get(f"layers.{i}.1.conv_pw.0.weight", (0, 0))[1] for i in range(SCANNED, stages)]
    return Identification(
        "efficient_vmamba",
        arguments={
            "patch_size": shapes["patch_embed.0.weight"][2],
            "in_chans": shapes["patch_embed.0.weight"][1],
            "num_classes": shapes["classifier.head.weight"][0],
            "depths": depths,
            "dims": dims,
            "ssm_ratio": shapes[f"{first}op.out_proj.weight"][1] / dims[0],
            "mlp_ratio": shapes.get(f"{first}mlp.fc1.weight", (0,))[0] / dims[0],
            "patch_norm": "patch_embed.2.weight" in shapes,
            "downsample_version": "v1" if "layers.0.downsample.reduction.weight" in shapes else "v2",
        },
    )


@register(
    name="efficient_vmamba",
    title="EfficientVMamba",
    task="classification",
    spatial_dims=(2,),
    paper="arXiv:2403.09977",
    repository="github.com/TerryPei/EfficientVMamba",
    licence="Apache-2.0 (README)",
    scan_order="atrous",
    vectors={"EfficientVMamba_T": TINY},
    identify=identify,
)
class EfficientVMamba(nn.Module):
    """EfficientVMamba: two stages of scans and convolutions, then stages of convolutions alone.

    Parameters
    ----------
    patch_size, in_chans, num_classes : int
        Side of a patch, input channels (where 3, one grey channel is repeated), classes.
    depths, dims : sequence of int
        Blocks and channels of each stage; an integer `dims` doubles. The published T, S and B begin with 48, 64
        and 96 channels.
    ssm_ratio, mlp_ratio : float
        Inner channels of the scan, and hidden channels of the perceptron, per channel; 0: no perceptron.
    drop_path_rate : float
        Of stochastic depth.
    patch_norm : bool
        Whether embedded patches are normalised.
    downsample_version : str
        "v1", patch merging as in the published networks, or "v2", a convolution.
    use_checkpoint : bool
        Recompute the blocks with scans while training, to save memory.
    step_size : int
        Between the cells of a lattice: 2, for which alone four lattices make the map.
    d_state, dt_rank, attn_drop_rate, shared_ssm, softmax_version, drop_rate
        The authors' arguments that their code takes and does not use.
    """

    def __init__(
        self,
        patch_size: int = 4,
        in_chans: int = 3,
        num_classes: int = 1000,
        depths: Sequence[int] = (2, 2, 9, 2),
        dims: int | Sequence[int] = (96, 192, 384, 768),
        d_state: int = 16,
        dt_rank: int | str = "auto",
        ssm_ratio: float = 2.0,
        attn_drop_rate: float = 0.0,
        shared_ssm: bool = False,
        softmax_version: bool = False,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        mlp_ratio: float = 4.0,
        patch_norm: bool = True,
        downsample_version: str = "v2",
        use_checkpoint: bool = False,
        step_size: int = 2,
    ) -> None:
        super().__init__()
        if step_size != 2:
            raise InputError(f"step_size must be 2, not {step_size}: four lattices make no map otherwise")
        if downsample_version not in ("v1", "v2"):
            raise InputError(f'downsample_version must be "v1" or "v2", not {downsample_version!r}')
        dims = stage_dims(dims, len(depths))
        self.in_chans = in_chans
        self.patch_embed = patch_embed("v1", in_chans, dims[0], patch_size, patch_norm)
        self.layers = nn.ModuleList()
        for stage, rates in enumerate(drop_path_rates(drop_path_rate, depths)):
            dim = dims[stage]
            down: nn.Module = nn.Identity()
            if stage < len(dims) - 1:
                pair: tuple[int, int] = (dim, dims[stage + 1])
                down = PatchMerging(*pair) if downsample_version == "v1" else downsample("v2", *pair)
            if stage < SCANNED:
                blocks = [EfficientBlock(dim, rate, ssm_ratio, mlp_ratio, use_checkpoint) for rate in rates]
                parts: Any = OrderedDict(blocks=nn.Sequential(*blocks), downsample=down)
                self.layers.append(nn.Sequential(parts))
            else:
                residuals = [InvertedResidual(dim, rate) for rate in rates]
                self.layers.append(nn.Sequential(ToMaps(), *residuals, ToRows(), down))
        self.classifier = nn.ModuleDict({"norm": LayerNorm(dims[-1]), "head": nn.Linear(dims[-1], num_classes)})
        self.apply(init_vss_weights)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) to logits (B, num_classes)."""
        x = self.patch_embed(grey_to_rgb(x, self.in_chans))
        for layer in self.layers:
            x = layer(x)
        return self.classifier["head"](self.classifier["norm"](x).mean(dim=(1, 2)))
