"""SS2D: the two-dimensional selective scan along four directions (VMamba, arXiv:2401.10166)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_mamba.nn.blocks.tokens import Float32Module
from napari_mamba.nn.mixers.exchange import PathMixers, ReplaceableMixer
from napari_mamba.nn.mixers.mamba import s4d_real_log
from napari_mamba.nn.mixers.selective import initial_projection, initial_step, project_and_scan, rank_of
from napari_mamba.nn.norms.norm import LayerNorm, at_least_float32
from napari_mamba.scan import scan_order


class SS2D(Float32Module, ReplaceableMixer):
    """Gated mixer of an image's tokens: depth-wise convolution, then S6 along rows and columns, both ways, summed.

    Parameter names are those of github.com/MzeroMiko/VMamba, which its medical descendants share.

    Parameters
    ----------
    d_model : int
        Channels in and out.
    d_state : int
        States per channel.
    d_conv : int
        Side of the depth-wise kernel; below 2 there is none.
    expand : float
        Inner channels per channel.
    dt_rank : int or "auto"
        Rank of the step size; "auto" is one sixteenth of `d_model`, rounded up.
    dropout : float
        After the output projection.
    order : str
        Name of a scan order over (H, W); its number of paths is the number of directions.
    dt_min, dt_max, dt_init, dt_scale, dt_init_floor, conv_bias, bias
        As in `mamba_ssm.Mamba`.
    act : type
        Activation class, of the convolution and of the gate.
    paths : int, optional
        Directions, where they are not those of the order.

    Examples
    --------
    >>> SS2D(8)(torch.zeros(1, 6, 5, 8)).shape
    torch.Size([1, 6, 5, 8])
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 3,
        expand: float = 2.0,
        dt_rank: int | str = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        dropout: float = 0.0,
        conv_bias: bool = True,
        bias: bool = False,
        order: str = "ss2d",
        act: type[nn.Module] = nn.SiLU,
        paths: int | None = None,
    ) -> None:
        super().__init__()
        self.order = order
        self.d_state = d_state
        self.paths = paths = paths or scan_order(order, (2, 2)).paths
        self.d_inner = d_inner = int(expand * d_model)
        rank = rank_of(dt_rank, d_model)
        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=bias)
        self.act = act()
        if d_conv > 1:
            self.conv2d = nn.Conv2d(d_inner, d_inner, d_conv, padding=(d_conv - 1) // 2, groups=d_inner, bias=conv_bias)
        weight, step_bias = initial_step(paths, d_inner, rank, dt_min, dt_max, dt_init, dt_scale, dt_init_floor)
        self.x_proj_weight = nn.Parameter(initial_projection(paths, rank + 2 * d_state, d_inner))
        self.dt_projs_weight = nn.Parameter(weight)
        self.dt_projs_bias = nn.Parameter(step_bias)
        self.A_logs = nn.Parameter(s4d_real_log(paths * d_inner, d_state))
        self.Ds = nn.Parameter(torch.ones(paths * d_inner))
        self.out_norm = LayerNorm(d_inner)
        self.out_proj = nn.Linear(d_inner, d_model, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def replace_mixer(self, name: str) -> None:
        self.exchanged = PathMixers(name, self.d_inner, self.paths, d_state=self.d_state, expand=1)
        self.remove_modules("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")

    def scan(self, u: Tensor) -> Tensor:
        """The four-directional scan of (B, H, W, D) tokens: (B, H, W, D), summed, at least float32."""
        if self.exchanged is not None:
            order = scan_order(self.order, tuple(u.shape[1:3]))
            return self.exchanged(at_least_float32(u).flatten(1, 2), order).view(u.shape)
        shape = (self.paths, self.d_inner)
        y = project_and_scan(
            u.flatten(1, 2),
            self.x_proj_weight,
            self.dt_projs_weight,
            self.dt_projs_bias,
            self.A_logs.view(*shape, self.d_state),
            self.Ds.view(shape),
            scan_order(self.order, tuple(u.shape[1:3])),
        )
        return y.view(u.shape)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H, W, C)."""
        u, z = self.in_proj(x.to(self.in_proj.weight.dtype)).chunk(2, dim=-1)
        u = self.conv2d(u.movedim(-1, 1)).movedim(1, -1) if hasattr(self, "conv2d") else u
        y = self.out_norm(self.scan(self.act(u))).to(z.dtype)
        return self.dropout(self.out_proj(y * self.act(z))).to(x.dtype)
