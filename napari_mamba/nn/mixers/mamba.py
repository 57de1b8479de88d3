"""The S6 mixer: Mamba's block without its norm and residual.

Source: Gu and Dao, Mamba (arXiv:2312.00752), section 3.4; parameter names, shapes and initialisation are those of
`mamba_ssm.Mamba` (github.com/state-spaces/mamba), so that its checkpoints load with strict=True.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.nn.mixers.exchange import PathMixers, ReplaceableMixer
from napari_mamba.nn.mixers.registry import register_mixer
from napari_mamba.scan import ScanOrder, causal_conv1d, selective_scan


@register_mixer("mamba")
class Mamba(ReplaceableMixer):
    """Mix the tokens of a sequence with a selective state space.

    Parameters
    ----------
    d_model : int
        Channels of the tokens.
    d_state : int
        States of each inner channel.
    d_conv : int
        Taps of the causal convolution.
    expand : int
        Inner channels are expand · d_model.
    dt_rank : int or "auto"
        Rank of the step-size projection; "auto" is ceil(d_model / 16).
    dt_min, dt_max, dt_init, dt_scale, dt_init_floor
        Initialisation of the step sizes.
    conv_bias, bias : bool
        Whether the convolution, and the two outer projections, have a bias.
    backend : str
        The scan's backend.

    Examples
    --------
    >>> Mamba(32)(torch.randn(1, 100, 32)).shape
    torch.Size([1, 100, 32])
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int | float = 2,
        dt_rank: int | str = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.d_model, self.d_state, self.d_conv, self.expand = d_model, d_state, d_conv, expand
        self.d_inner = int(expand * d_model)
        self.dt_rank = math.ceil(d_model / 16) if dt_rank == "auto" else int(dt_rank)
        self.backend = backend
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=bias)
        self.conv1d = nn.Conv1d(
            self.d_inner, self.d_inner, d_conv, groups=self.d_inner, padding=d_conv - 1, bias=conv_bias
        )
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, self.d_inner, bias=True)
        init_dt_(self.dt_proj, dt_min, dt_max, dt_init, dt_scale, dt_init_floor)
        self.A_log = nn.Parameter(s4d_real_log(self.d_inner, d_state))
        self.D = nn.Parameter(torch.ones(self.d_inner))
        self.A_log._no_weight_decay = self.D._no_weight_decay = True  # type: ignore[attr-defined]
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias)

    def replace_mixer(self, name: str) -> None:
        self.exchanged = PathMixers(
            name, self.d_model, d_state=self.d_state, d_conv=self.d_conv, expand=self.expand, backend=self.backend
        )
        self.remove_modules("in_proj", "conv1d", "x_proj", "dt_proj", "A_log", "D", "out_proj")

    def forward(self, x: Tensor, order: ScanOrder | Tensor | None = None, channels_first: bool = False) -> Tensor:
        """Mix x (B, L, C), rows in grid order, along an order of one path; returns (B, L, C).

        With an order of K paths the same parameters run along each, and the outputs are summed before the gate.
        `channels_first` returns (B, C, L), contiguous: the last product writes it, so nothing is transposed.
        """
        if self.exchanged is not None:
            y = self.exchanged(x, order)
            return y.transpose(1, 2).contiguous() if channels_first else y
        y = self._scan(x, order)
        return channels_first_product(self.out_proj, y) if channels_first else self.out_proj(y)

    def _scan(self, tokens: Tensor, order: ScanOrder | Tensor | None) -> Tensor:
        """What out_proj takes; all else that it needs is freed on return, half of a large volume's memory."""
        x = self._project(tokens, slice(None, self.d_inner))
        x = causal_conv1d(x, self.conv1d.weight.squeeze(1), self.conv1d.bias, order, backend=self.backend)
        delta, B, C = self.x_proj(x).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        delta = F.linear(delta, self.dt_proj.weight)
        A, D, delta_bias = -torch.exp(self.A_log.float()), self.D.float(), self.dt_proj.bias.float()
        if x.ndim == 4:
            paths = x.shape[1]
            A, D, delta_bias = (p.expand(paths, *p.shape) for p in (A, D, delta_bias))
        # Only now: beside the convolution, the gate would be a fifth of the peak memory of a large volume.
        z = self._project(tokens, slice(self.d_inner, None))
        arguments = (x, delta, A, B, C, D, z, delta_bias, True, order)
        y = selective_scan(*arguments, backend=self.backend, overwrite_delta=True)
        assert isinstance(y, Tensor)  # no last state was asked for
        return y

    def _project(self, tokens: Tensor, rows: slice) -> Tensor:
        """Some of in_proj's outputs."""
        bias = self.in_proj.bias
        return F.linear(tokens, self.in_proj.weight[rows], None if bias is None else bias[rows])


def channels_first_product(layer: nn.Linear, x: Tensor) -> Tensor:
    """A linear layer on tokens (B, L, D) whose output is (B, C, L), contiguous."""
    # torch.matmul would multiply the other way round and copy where the weight is a parameter.
    y = torch.bmm(layer.weight.expand(x.shape[0], -1, -1), x.transpose(1, 2))
    return y if layer.bias is None else y + layer.bias[:, None]


def s4d_real_log(channels: int, states: int) -> Tensor:
    """Return log(1 … N) for every channel, (channels, states): the S4D-real initialisation of A_log."""
    return torch.log(torch.arange(1, states + 1, dtype=torch.float32)).repeat(channels, 1)


def init_dt_(
    projection: nn.Linear, dt_min: float, dt_max: float, mode: str = "random", scale: float = 1.0, floor: float = 1e-4
) -> None:
    """Initialise a step-size projection so that softplus(bias) is log-uniform in [dt_min, dt_max]."""
    std = projection.in_features**-0.5 * scale
    with torch.no_grad():
        if mode == "constant":
            projection.weight.fill_(std)
        else:
            projection.weight.uniform_(-std, std)
        dt = torch.exp(torch.rand(projection.out_features) * math.log(dt_max / dt_min) + math.log(dt_min))
        dt = dt.clamp(min=floor)
        projection.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
