"""SS2D with Mamba-2's scan, as VMamba's "m0" has it: heads with one decay each, a step size for each head.

Read in github.com/MzeroMiko/VMamba, `classification/models/vmamba.py: SS2Dm0`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.nn.blocks.tokens import Float32Module, without_autocast
from napari_mamba.nn.mixers.exchange import PathMixers, ReplaceableMixer
from napari_mamba.nn.mixers.images.ss2d_v2 import PATHS, MapConv, output_norm
from napari_mamba.nn.mixers.mamba2 import scan_heads
from napari_mamba.nn.mixers.selective import initial_projection, rank_of
from napari_mamba.scan import scan_order

OPTIONS = ("noz", "oact", "no32", "onnone", "ondwconv3", "oncnorm", "onsoftmax", "onsigmoid")


class SS2Dm0(Float32Module, ReplaceableMixer):
    """Rows and columns both ways through Mamba-2's scan, summed.

    Parameters
    ----------
    d_model, d_state, ssm_ratio : int, int, float
        Channels, states per channel, inner channels per channel.
    dt_rank : int or "auto"
        Heads, which divide the inner channels.
    act : type
        Activation class.
    d_conv : int
        Side of the depth-wise kernel; below 2 there is none.
    conv_bias : bool
        Whether it has a bias.
    dropout : float
        After the output projection.
    initialize : {"v1", "v2"}
        Initial values of A and the step size.
    forward_type : str
        "m0_noz", with suffixes as in `SS2Dv2`: with a gate the authors' code fails.

    Examples
    --------
    >>> SS2Dm0(8, d_state=4, dt_rank=2)(torch.zeros(1, 6, 5, 8)).shape
    torch.Size([1, 6, 5, 8])
    """

    uses_ssd = True

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        ssm_ratio: float = 2.0,
        dt_rank: int | str = "auto",
        act: type[nn.Module] = nn.GELU,
        d_conv: int = 3,
        conv_bias: bool = True,
        dropout: float = 0.0,
        initialize: str = "v2",
        forward_type: str = "m0_noz",
    ) -> None:
        super().__init__()
        version, *options = forward_type.split("_")
        if version != "m0" or "noz" not in options or not set(options) <= set(OPTIONS):
            raise InputError(f'VMamba with Mamba-2 has the forward_type "m0_noz", not {forward_type!r}')
        if initialize not in ("v1", "v2"):
            raise InputError(f'with Mamba-2 ssm_init must be "v1" or "v2", not {initialize!r}')
        self.d_inner, self.d_state, self.heads = int(ssm_ratio * d_model), d_state, rank_of(dt_rank, d_model)
        if self.d_inner % self.heads:
            raise InputError(f"{self.d_inner} inner channels do not divide into {self.heads} heads: choose ssm_dt_rank")
        self.in_proj = nn.Linear(d_model, self.d_inner, bias=False)
        self.act = act()
        if d_conv > 1:
            conv = MapConv(
                self.d_inner, self.d_inner, d_conv, padding=(d_conv - 1) // 2, groups=self.d_inner, bias=conv_bias
            )
            self.conv2d = nn.Sequential(nn.Identity(), conv, nn.Identity())
        self.x_proj_weight = nn.Parameter(initial_projection(PATHS, self.heads + 2 * d_state, self.d_inner))
        first = initialize == "v1"
        self.Ds = nn.Parameter(torch.ones(PATHS, self.heads, self.d_inner // self.heads))
        self.A_logs = nn.Parameter((torch.randn if first else torch.zeros)(PATHS, self.heads))
        self.dt_projs_bias = nn.Parameter(0.1 * (torch.randn if first else torch.rand)(PATHS, self.heads))
        self.out_norm = output_norm(options, self.d_inner)
        self.out_act = nn.GELU() if "oact" in options else nn.Identity()
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)
        self.dropout = nn.Dropout(dropout)

    def replace_mixer(self, name: str) -> None:
        self.exchanged = PathMixers(name, self.d_inner, PATHS, d_state=self.d_state, expand=1)
        self.remove_modules("x_proj_weight", "Ds", "A_logs", "dt_projs_bias")

    def scan(self, u: Tensor) -> Tensor:
        """Four paths over (B, H, W, D) in float32, summed."""
        order, rows = scan_order("ss2d", tuple(u.shape[1:3])), u.flatten(1, 2)
        if self.exchanged is not None:
            return self.exchanged(rows, order).view(u.shape)
        total = torch.zeros_like(rows)
        for path, table in enumerate(order.tensor(u.device).split(1)):
            step, BC = F.linear(rows, self.x_proj_weight[path]).split([self.heads, 2 * self.d_state], dim=-1)
            step = F.softplus(step + self.dt_projs_bias[path])[:, None]
            mixed = torch.cat([rows, BC], dim=-1)[:, None]
            total = total + scan_heads(mixed, step, self.A_logs[path], self.Ds[path], self.d_state, order=table)
        return total.view(u.shape)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H, W, C)."""
        u = self.in_proj(x.to(self.in_proj.weight.dtype))
        if hasattr(self, "conv2d"):
            u = self.conv2d(u)
        u = self.act(u)
        with without_autocast(u):
            y = self.scan(u.to(self.in_proj.weight.dtype))
        return self.dropout(self.out_proj(self.out_act(self.out_norm(y).to(u.dtype)))).to(x.dtype)
