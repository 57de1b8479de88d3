"""SS2D of VMamba's later versions: projections in grouped layers, gate and output norm by name (arXiv:2401.10166).

Read in github.com/MzeroMiko/VMamba, `vmamba.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.nn.blocks.tokens import Float32Module
from napari_mamba.nn.mixers.exchange import PathMixers, ReplaceableMixer
from napari_mamba.nn.mixers.mamba import s4d_real_log
from napari_mamba.nn.mixers.selective import initial_step, project_and_scan, rank_of
from napari_mamba.nn.norms.norm import LayerNorm, at_least_float32
from napari_mamba.scan import scan_order

PATHS = 4
CROSS = ("v01", "v02", "v03", "v04", "v05", "v2", "v3")
"""Versions that scan rows and columns both ways: they differ in how the authors computed it, not in what."""
KINDS = {
    **{"v051d": "one way", "v052d": "two ways", "v052d3": "rotations", "v052dc": "rows, then columns"},
    **dict.fromkeys(CROSS, "cross"),
}


class MapConv(nn.Conv2d):
    """Convolution of (B, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(-1, 1)).movedim(1, -1)


@lru_cache(maxsize=32)
def ablation_paths(kind: str, height: int, width: int) -> Tensor:
    """(4, L) paths of the authors' ablations: one way, two ways, or the image turned by quarters."""
    with torch.inference_mode(False):  # a table first made under inference must still serve a training
        image = torch.arange(height * width).view(height, width)
        if kind == "rotations":
            return torch.stack([image.rot90(turn).flatten() for turn in range(PATHS)])
        path = image.flatten()
        return torch.stack([path, path, path, path] if kind == "one way" else [path, path, path.flip(0), path.flip(0)])


class SS2Dv2(Float32Module, ReplaceableMixer):
    """SS2D from version 01 on: projections stored as grouped layers, the gate optional, the output norm chosen.

    Parameters
    ----------
    d_model, d_state, ssm_ratio, dt_rank
        Channels, states per channel, inner channels per channel, rank of the step size.
    act : type
        Activation class.
    d_conv : int
        Side of the depth-wise kernel; below 2 there is none.
    conv_bias : bool
        Whether it has a bias.
    dropout : float
        After the output projection.
    initialize : {"v0", "v1", "v2"}
        Initial values of A, D and the step size.
    forward_type : str
        A version, with suffixes: `_noz` no gate, `_nozact` a linear gate, `_oact` GELU before the projection, `_no32`
        nothing here, then one of `_onnone`, `_ondwconv3`, `_oncnorm`, `_onsoftmax`, `_onsigmoid` for the output norm.
    """

    projection_names = ("x_proj", "dt_projs")
    """What `projections` reads."""

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        ssm_ratio: float = 2.0,
        dt_rank: int | str = "auto",
        act: type[nn.Module] = nn.SiLU,
        d_conv: int = 3,
        conv_bias: bool = True,
        dropout: float = 0.0,
        initialize: str = "v0",
        forward_type: str = "v05",
    ) -> None:
        super().__init__()
        version, *options = forward_type.split("_")
        if version not in KINDS:
            raise InputError(f"forward_type {forward_type!r} is not one of VMamba's v0 and v01 to v05; choose one")
        self.kind = KINDS[version]
        self.gate, self.gate_act = "noz" not in options, "nozact" not in options
        d_inner, rank = int(ssm_ratio * d_model), rank_of(dt_rank, d_model)
        self.d_state = d_state
        self.in_proj = nn.Linear(d_model, d_inner * (2 if self.gate else 1), bias=False)
        self.act = act()
        if d_conv > 1:
            self.conv2d = nn.Conv2d(d_inner, d_inner, d_conv, padding=(d_conv - 1) // 2, groups=d_inner, bias=conv_bias)
        # Weights of four projections in one layer each, read by `scan`.
        self.x_proj = nn.Linear(d_inner, PATHS * (rank + 2 * d_state), bias=False)
        self.dt_projs = nn.Linear(rank, PATHS * d_inner, bias=False)
        self.dt_projs_bias = nn.Parameter(torch.empty(PATHS, d_inner))
        self.A_logs = nn.Parameter(s4d_real_log(PATHS * d_inner, d_state))
        self.Ds = nn.Parameter(torch.ones(PATHS * d_inner))
        self._initialise(initialize, rank)
        self.out_norm = output_norm(options, d_inner)
        self.out_act = nn.GELU() if "oact" in options else nn.Identity()
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)
        self.dropout = nn.Dropout(dropout)

    @torch.no_grad()
    def _initialise(self, how: str, rank: int) -> None:
        if how == "v0":
            weight, bias = initial_step(PATHS, self.dt_projs_bias.shape[1], rank)
            self.dt_projs.weight.copy_(weight.flatten(0, 1))
            self.dt_projs_bias.copy_(bias)
            return
        noise = {"v1": torch.randn, "v2": torch.rand}.get(how)
        if noise is None:
            raise InputError(f'ssm_init must be "v0", "v1" or "v2", not {how!r}')
        self.A_logs.copy_(torch.randn(self.A_logs.shape) if how == "v1" else torch.zeros(self.A_logs.shape))
        self.dt_projs.weight.copy_(0.1 * noise(self.dt_projs.weight.shape))
        self.dt_projs_bias.copy_(0.1 * noise(self.dt_projs_bias.shape))

    def replace_mixer(self, name: str) -> None:
        d_inner = self.dt_projs_bias.shape[1]
        self.exchanged = PathMixers(name, d_inner, PATHS, d_state=self.d_state, expand=1)
        self.remove_modules(*self.projection_names, "dt_projs_bias", "A_logs", "Ds")

    def projections(self) -> tuple[Tensor, Tensor]:
        """The four paths' projections to step, B and C (4, rank + 2 d_state, D), and from rank to step (4, D, rank)."""
        d_inner = self.dt_projs_bias.shape[1]
        return self.x_proj.weight.view(PATHS, -1, d_inner), self.dt_projs.weight.view(PATHS, d_inner, -1)

    def scan(self, u: Tensor) -> Tensor:
        """Four paths over (B, H, W, D), summed."""
        if self.kind == "rows, then columns":
            rows = self._sweep(u, 0)
            return self._sweep(rows.transpose(1, 2), 2).transpose(1, 2)
        shape, grid = (PATHS, u.shape[-1], -1), tuple(u.shape[1:3])
        order = scan_order("ss2d", grid) if self.kind == "cross" else ablation_paths(self.kind, *grid)
        if self.exchanged is not None:
            return self.exchanged(at_least_float32(u).flatten(1, 2), order).view(u.shape)
        y = project_and_scan(
            u.flatten(1, 2),
            *self.projections(),
            self.dt_projs_bias,
            self.A_logs.view(shape),
            self.Ds.view(PATHS, -1),
            order,
        )
        return y.view(u.shape)

    def _sweep(self, u: Tensor, first: int) -> Tensor:
        """Each row of (B, H, W, D), normalised, both ways through two paths of its own.

        What comes back is added as it comes, not turned again, as published.
        """
        rows = F.layer_norm(at_least_float32(u), u.shape[-1:]).flatten(0, 1)
        both = torch.stack([rows, rows.flip(1)], dim=1)
        two = slice(first, first + 2)
        if self.exchanged is not None:
            y = torch.stack([mix(way) for mix, way in zip(self.exchanged.mixers[two], both.unbind(1), strict=True)])
            return y.sum(0).view(u.shape)
        A, D = self.A_logs.view(PATHS, -1, self.d_state)[two], self.Ds.view(PATHS, -1)[two]
        weights = [weight[two] for weight in (*self.projections(), self.dt_projs_bias)]
        return project_and_scan(both, *weights, A, D, None).view(u.shape)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H, W, C)."""
        u, z = self.in_proj(x.to(self.in_proj.weight.dtype)), None
        if self.gate:
            u, z = u.chunk(2, dim=-1)
        if hasattr(self, "conv2d"):
            u = self.conv2d(u.movedim(-1, 1)).movedim(1, -1)
        y = self.out_act(self.out_norm(self.scan(self.act(u))).to(u.dtype))
        if z is not None:
            y = y * (self.act(z) if self.gate_act else z)
        return self.dropout(self.out_proj(y)).to(x.dtype)


class SoftmaxSpatial(nn.Module):
    """Softmax over the pixels of each channel of (B, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1, 2).softmax(dim=1).view(x.shape)


def output_norm(options: Sequence[str], dim: int) -> nn.Module:
    """The norm after the scan that `forward_type`'s suffixes name."""
    depthwise = partial(MapConv, dim, dim, 3, padding=1, groups=dim, bias=False)
    if "onnone" in options:
        return nn.Identity()
    if "oncnorm" in options:
        return nn.Sequential(LayerNorm(dim), nn.Identity(), depthwise(), nn.Identity())
    if "ondwconv3" in options:
        return nn.Sequential(nn.Identity(), depthwise(), nn.Identity())
    if "onsoftmax" in options:
        return SoftmaxSpatial()
    return nn.Sigmoid() if "onsigmoid" in options else LayerNorm(dim)
