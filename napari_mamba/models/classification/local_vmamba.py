"""LocalVMamba: VMamba's first version with scans of rows, columns and windows (LocalMamba, arXiv:2403.09338).

Read in github.com/hunto/LocalMamba, `classification/lib/models/local_vmamba.py`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from napari_mamba.errors import InputError
from napari_mamba.models.classification.efficient_vmamba import PatchMerging
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import depths as depths_of
from napari_mamba.models.shapes import has
from napari_mamba.nn.blocks.bi_attn import BiAttn
from napari_mamba.nn.blocks.drop import DropPath, drop_path_rates
from napari_mamba.nn.blocks.tokens import without_autocast
from napari_mamba.nn.blocks.vmamba import ACTIVATIONS, patch_embed
from napari_mamba.nn.blocks.vss import grey_to_rgb, init_vss_weights, stage_dims
from napari_mamba.nn.mixers.images.local_paths import LocalPath, local_path
from napari_mamba.nn.mixers.images.multi_mamba import ALL, searched
from napari_mamba.nn.mixers.images.ss2d import SS2D
from napari_mamba.nn.mixers.selective import project_and_scan, rank_of
from napari_mamba.nn.norms.norm import LayerNorm, at_least_float32
from napari_mamba.scan import placed

Directions = Sequence[Sequence[str]]
TINY_SCANS = (
    "h h_flip w7 w7_flip, h_flip v_flip w2 w2_flip, h_flip v_flip w2_flip w7, h_flip v v_flip w2, "
    "h h_flip v_flip w2_flip, h_flip v_flip w2 w2_flip, h w2_flip w7 w7_flip, h h_flip v v_flip, h v_flip w7 w7_flip, "
    "h_flip v w2 w7_flip, v v_flip w2 w7_flip, h h_flip v_flip w2_flip, v_flip w2_flip w7 w7_flip, "
    "h_flip v_flip w2_flip w7_flip, h_flip v w7 w7_flip"
)
SMALL_SCANS = (
    "h v v_flip w7_flip, h h_flip v w7, h_flip v v_flip w7, h_flip v w2_flip w7, h_flip v w2_flip w7, "
    "h_flip v_flip w2 w7_flip, h_flip v v_flip w7, h v v_flip w7, h v v_flip w7, h v v_flip w7_flip, "
    "h h_flip v v_flip, h v v_flip w2, v v_flip w2_flip w7, h h_flip v w2, h_flip v v_flip w7_flip, "
    "h h_flip v v_flip, h v v_flip w7_flip, h v v_flip w7_flip, h h_flip v_flip w7, h_flip v_flip w2_flip w7, "
    "h_flip v v_flip w7_flip, v v_flip w7 w7_flip, h v v_flip w7_flip, h_flip v v_flip w2, h v v_flip w2_flip, "
    "h h_flip v w7, h h_flip w7 w7_flip, h v_flip w2 w2_flip, h v_flip w2 w7, h v v_flip w7_flip, "
    "h_flip v w2_flip w7, h_flip v_flip w7 w7_flip, h v w7 w7_flip"
)
PUBLISHED = {name: [one.split() for one in text.split(", ")] for name, text in (("T", TINY_SCANS), ("S", SMALL_SCANS))}
"""What the authors' search chose for each block of LocalVMamba-T and LocalVMamba-S."""
TINY = {"depths": [2, 2, 9, 2], "dims": 96, "directions": "T"}


class LocalSS2D(SS2D):
    """SS2D along some of LocalMamba's scans, each weighed by channel before they are summed.

    Without names of scans it weighs all eight, as while the authors' search went on.
    """

    def __init__(self, d_model: int, directions: Sequence[str] | None, **arguments: Any) -> None:
        self.directions = tuple(ALL if directions is None else directions)
        super().__init__(d_model, paths=len(self.directions), **arguments)
        self.multi_scan = nn.ModuleDict({"attn": BiAttn(self.d_inner)})
        weights = nn.Parameter(1e-3 * torch.randn(len(ALL), 1, 1, 1)) if directions is None else None
        self.multi_scan.register_parameter("weights", weights)

    def scan(self, u: Tensor) -> Tensor:
        """(B, H, W, D) to (B, H, W, D), at least float32."""
        grid = (u.shape[1], u.shape[2])
        tokens = at_least_float32(u).flatten(1, 2)
        total = torch.zeros_like(tokens)
        for i, direction in enumerate(self.directions):
            path = local_path(direction, grid)
            with placed(partial(self._places, path, grid)):
                y = self._path(i, path.gather(tokens))
            y = self.multi_scan["attn"](path.put_back(y))
            weights = self.multi_scan.weights
            total = total + (y if weights is None else searched(y, weights, i))
        return total.view(u.shape)

    def _path(self, i: int, tokens: Tensor) -> Tensor:
        """One scan of tokens (B, T, D), in its order."""
        if self.exchanged is not None:
            with without_autocast(tokens):
                return self.exchanged.mixers[i](tokens)
        A = self.A_logs.view(self.paths, self.d_inner, self.d_state)
        weights = self.x_proj_weight, self.dt_projs_weight, self.dt_projs_bias, A, self.Ds.view(self.paths, -1)
        return project_and_scan(tokens, *(weight[i : i + 1] for weight in weights), order=None)

    @staticmethod
    def _places(path: LocalPath, grid: tuple[int, int]) -> tuple[tuple[int, int], Tensor]:
        return grid, path.cells


class LocalBlock(nn.Module):
    """`x + drop_path(op(norm(x)))` on (B, H, W, C)."""

    def __init__(self, dim: int, mixer: nn.Module, drop_path: float, use_checkpoint: bool) -> None:
        super().__init__()
        self.use_checkpoint = use_checkpoint
        self.norm = LayerNorm(dim)
        self.op = mixer
        self.drop_path = DropPath(drop_path)

    def _forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.op(self.norm(x)))

    def forward(self, x: Tensor) -> Tensor:
        if self.use_checkpoint and self.training:
            return checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)


def block_directions(directions: str | Directions | None, blocks: int) -> Sequence[Sequence[str] | None]:
    """The scans of each block; None where it weighs them all."""
    if directions is None:
        return [None] * blocks
    if isinstance(directions, str):
        if directions not in PUBLISHED:
            raise InputError(f'directions must be "T", "S" or the scans of each block, not {directions!r}')
        directions = PUBLISHED[directions]
    if len(directions) < blocks:
        raise InputError(
            f"directions names the scans of {len(directions)} blocks, and there are {blocks}: name them all"
        )
    return directions[:blocks]


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a LocalVMamba classifier; its scans leave no trace but their number."""
    op = "layers.0.blocks.0.op."
    required = ("patch_embed.0.weight", "classifier.head.weight", "classifier.norm.weight", f"{op}out_proj.weight")
    if not has(shapes, f"{op}multi_scan.attn.norm.weight", f"{op}A_logs", *required):
        return None
    depths = depths_of(shapes, "layers.", ".blocks.")
    paths = shapes[f"{op}x_proj_weight"][0]
    published = next((name for name, scans in PUBLISHED.items() if paths == 4 and len(scans) == sum(depths)), None)
    dims = [shapes[f"layers.{i}.blocks.0.norm.weight"][0] for i in range(len(depths))]
    stages = [f"layers.{i}.blocks.0.op." for i in range(len(depths))]
    ranks, states = ([shapes[stage + key][-1] for stage in stages] for key in ("dt_projs_weight", "A_logs"))
    arguments = {
        "patch_size": shapes["patch_embed.0.weight"][2],
        "in_chans": shapes["patch_embed.0.weight"][1],
        "num_classes": shapes["classifier.head.weight"][0],
        "depths": depths,
        "dims": dims,
        "ssm_d_state": states[0] if len(set(states)) == 1 else "auto",
        "ssm_dt_rank": "auto" if ranks == [rank_of("auto", dim) for dim in dims] else ranks[0],
        "ssm_conv": shapes.get(f"{op}conv2d.weight", (1,))[-1],
        "ssm_conv_bias": f"{op}conv2d.bias" in shapes,
        "ssm_ratio": shapes[f"{op}out_proj.weight"][1] / shapes[f"{op}out_proj.weight"][0],
        "patch_norm": "patch_embed.2.weight" in shapes,
    }
    if f"{op}multi_scan.weights" in shapes:
        return Identification("local_vmamba", "search", arguments | {"directions": None})
    unnamed = {} if paths == 4 else {"directions": [["h"] * paths] * sum(depths)}  # as many, until they are named
    return Identification(
        "local_vmamba",
        arguments=arguments | ({"directions": published} if published else unnamed),
        ambiguous=() if published else ("directions",),
        note=f"Taken as the published LocalVMamba-{published} is, with the scans that its search chose."
        if published
        else "The weights do not say along which scans each block runs: name its directions.",
    )


@register(
    name="local_vmamba",
    title="LocalVMamba",
    task="classification",
    spatial_dims=(2,),
    paper="arXiv:2403.09338",
    repository="github.com/hunto/LocalMamba",
    licence="Apache-2.0",
    scan_order="local",
    vectors={"LocalVMamba_T": TINY},
    identify=identify,
)
class LocalVMamba(nn.Module):
    """LocalVMamba, for images of any size.

    Parameters
    ----------
    patch_size, in_chans, num_classes : int
        Side of a patch, input channels (where 3, one grey channel is repeated), classes.
    depths, dims : sequence of int
        Blocks and channels of each stage; an integer `dims` doubles.
    ssm_d_state, ssm_ratio, ssm_dt_rank, ssm_act_layer, ssm_conv, ssm_conv_bias, ssm_drop_rate
        States per channel ("auto": a sixth of the channels), inner channels per channel, rank of the step size,
        activation, side of the depth-wise kernel (below 2: none) and its bias, dropout after the mixers.
    drop_path_rate : float
        Of stochastic depth.
    patch_norm : bool
        Whether embedded patches are normalised.
    use_checkpoint : bool
        Recompute the blocks while training, to save memory.
    directions : sequence of sequences of str, "T", "S" or None
        The scans of each block, as `local_path` names them, or those of a published network's blocks. None: every
        block weighs all eight, as `local_vssm_tiny_search` does.
    ssm_simple_init, norm_layer
        The authors' arguments that change nothing here.
    """

    def __init__(
        self,
        patch_size: int = 4,
        in_chans: int = 3,
        num_classes: int = 1000,
        depths: Sequence[int] = (2, 2, 9, 2),
        dims: int | Sequence[int] = (96, 192, 384, 768),
        ssm_d_state: int | str = 16,
        ssm_ratio: float = 2.0,
        ssm_dt_rank: int | str = "auto",
        ssm_act_layer: str = "silu",
        ssm_conv: int = 3,
        ssm_conv_bias: bool = True,
        ssm_drop_rate: float = 0.0,
        ssm_simple_init: bool = False,
        drop_path_rate: float = 0.1,
        patch_norm: bool = True,
        norm_layer: str = "LN",
        use_checkpoint: bool = False,
        directions: str | Directions | None = "T",
    ) -> None:
        super().__init__()
        mixer = {"expand": ssm_ratio, "dt_rank": ssm_dt_rank, "act": ACTIVATIONS[ssm_act_layer.lower()]}
        mixer |= {"d_conv": ssm_conv, "conv_bias": ssm_conv_bias, "dropout": ssm_drop_rate}
        dims = stage_dims(dims, len(depths))
        self.in_chans = in_chans
        self.patch_embed = patch_embed("v1", in_chans, dims[0], patch_size, patch_norm)
        scans = iter(block_directions(directions, sum(depths)))
        self.layers = nn.ModuleList()
        for stage, rates in enumerate(drop_path_rates(drop_path_rate, depths)):
            dim, last = dims[stage], stage == len(dims) - 1
            state = math.ceil(dim / 6) if isinstance(ssm_d_state, str) else ssm_d_state
            blocks = [
                LocalBlock(dim, LocalSS2D(dim, next(scans), d_state=state, **mixer), rate, use_checkpoint)
                for rate in rates
            ]
            down = nn.Identity() if last else PatchMerging(dim, dims[stage + 1])
            self.layers.append(nn.Sequential(OrderedDict(blocks=nn.Sequential(*blocks), downsample=down)))
        self.classifier = nn.ModuleDict({"norm": LayerNorm(dims[-1]), "head": nn.Linear(dims[-1], num_classes)})
        self.apply(init_vss_weights)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) to logits (B, num_classes)."""
        x = self.patch_embed(grey_to_rgb(x, self.in_chans))
        for layer in self.layers:
            x = layer(x)
        return self.classifier["head"](self.classifier["norm"](x).mean(dim=(1, 2)))
