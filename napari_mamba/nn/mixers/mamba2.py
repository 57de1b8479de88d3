"""The Mamba-2 mixer: state-space duality (SSD), a scan whose decay is one number for each head and step.

Source: Dao and Gu, Transformers are SSMs (arXiv:2405.21060), sections 6 and 7; parameter names, shapes and
initialisation are those of `mamba_ssm.Mamba2` (github.com/state-spaces/mamba).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.nn.mixers.along import along_paths
from napari_mamba.nn.mixers.registry import register_mixer
from napari_mamba.scan import ScanOrder, causal_conv1d, listening
from napari_mamba.scan.arguments import ScanArguments, order_table
from napari_mamba.scan.ssd import choose_ssd, ssd, triton_backend


def scan_heads(
    xBC: Tensor,
    dt: Tensor,
    A_log: Tensor,
    D: Tensor,
    d_state: int,
    ngroups: int = 1,
    order: ScanOrder | Tensor | None = None,
    chunk: int = 64,
    backend: str = "auto",
) -> Tensor:
    """Mamba-2's scan along an order, with its skip; listeners are told of it as the selective scan that it is.

    Parameters
    ----------
    xBC : (B, K, L, inner + 2 · ngroups · d_state), what K paths read, rows in grid order
        Half precisions stay what they are in the kernels; plain PyTorch computes in float32.
    dt : (B, K, L, H), positive step sizes of H heads
    A_log : (H,)
    D : (H,), or (H, P) of each of a head's channels
    d_state, ngroups : int
        States; groups of heads with their own B and C.
    order : ScanOrder, (K, L) or None
    chunk : int
        See `ssd`; the kernels choose their own.
    backend : {"auto", "torch", "triton"}
        "auto" is Triton kernels on a CUDA device where they were checked (`NAPARI_MAMBA_SSD_KERNELS`), else plain
        PyTorch; the kernels read along any order without a copy.

    Returns
    -------
    (B, L, inner) of xBC's type, or float32 where plain PyTorch computed; the paths summed
    """
    states, heads = ngroups * d_state, dt.shape[-1]
    inner = xBC.shape[-1] - 2 * states
    A_log, D = A_log.float(), D.float()
    if listening.ACTIVE:
        paths, headdim = xBC.shape[1], inner // heads
        x, B, C = _wide(xBC).split([inner, states, states], dim=-1)
        B, C = (t.unflatten(-1, (ngroups, d_state)) for t in (B, C))
        A = -A_log.exp().repeat_interleave(headdim).expand(paths, -1)
        wide_D = (D if D.ndim == 2 else D[:, None].expand(-1, headdim)).flatten().expand(paths, -1)
        table = order_table(order, paths, x.shape[2], x.device)
        step = dt.repeat_interleave(headdim, dim=-1)
        args = ScanArguments(
            x, step, A[..., None].expand(-1, -1, d_state), B, C, wide_D, None, None, False, table, "sum"
        )
        told = listening.tell("scan", args, order, "ssd")
        if told is not None:
            return told
    if choose_ssd(xBC, d_state, backend) == "triton":
        table = order_table(order, xBC.shape[1], xBC.shape[2], xBC.device)
        return triton_backend.scan(xBC, dt, A_log, D, d_state, ngroups, table)

    def mix(xBC: Tensor, dt: Tensor) -> Tensor:
        x, B, C = xBC.split([inner, states, states], dim=-1)
        x = x.unflatten(-1, (heads, -1))
        B, C = (t.unflatten(-1, (ngroups, d_state)) for t in (B, C))
        y = ssd(x * dt[..., None], -torch.exp(A_log) * dt, B, C, chunk)
        return (y + (D if D.ndim == 2 else D[:, None]) * x).flatten(2)

    return along_paths(mix, order, _wide(xBC), dt, paths=True)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class GatedRMSNorm(nn.Module):
    """RMS norm of x · silu(z) over the channels of each of some groups; `norm_before_gate`: of x, then · silu(z)."""

    def __init__(self, channels: int, groups: int = 1, eps: float = 1e-5, norm_before_gate: bool = False) -> None:
        super().__init__()
        self.weight, self.groups, self.eps = nn.Parameter(torch.ones(channels)), groups, eps
        self.norm_before_gate = norm_before_gate

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Normalise x (…, C) gated by z (…, C), in float32."""
        gate = F.silu(z.float())
        gated = (x.float() if self.norm_before_gate else x.float() * gate).unflatten(-1, (self.groups, -1))
        scale = torch.rsqrt(gated.square().mean(-1, keepdim=True) + self.eps)
        y = (gated * scale).flatten(-2) * self.weight
        return (y * gate if self.norm_before_gate else y).to(z.dtype)


@register_mixer("mamba2")
class Mamba2(nn.Module):
    """Mix the tokens of a sequence with state-space duality.

    Parameters
    ----------
    d_model : int
        Channels of the tokens.
    d_state, d_conv, expand
        States of each inner channel, taps of the causal convolution, inner channels over d_model.
    headdim : int, optional
        Channels that share a decay; None is 64, or the greatest divisor of 64 that divides the inner channels.
    ngroups : int
        Groups of heads with their own B and C.
    A_init_range, dt_min, dt_max, dt_init_floor
        Initialisation of decays and step sizes.
    conv_bias, bias : bool
    chunk_size : int
        Steps weighed at once; it changes speed and memory, not the result.
    backend : str
        The convolution's backend; "torch" is the scan's too.
    d_ssm : int, optional
        Inner channels that are scanned; the others are a gated product of two. None: all.
    D_has_hdim : bool
        The skip has a weight for each channel, not for each head.
    rmsnorm, norm_before_gate : bool
        Normalise what is projected (else it is gated alone); before the gate, not after it.
    dt_limit : (float, float)
        Smallest and greatest step size.
    learnable_init_states : bool
        The scan begins in a state that is learned, on every path.
    conv_init : float, optional
        The convolution's weights begin within this of zero.

    Examples
    --------
    >>> Mamba2(32)(torch.randn(1, 100, 32)).shape
    torch.Size([1, 100, 32])
    """

    uses_ssd = True

    def __init__(
        self,
        d_model: int,
        d_state: int = 128,
        d_conv: int = 4,
        expand: int | float = 2,
        headdim: int | None = None,
        ngroups: int = 1,
        A_init_range: tuple[float, float] = (1.0, 16.0),
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        chunk_size: int = 64,
        backend: str = "auto",
        *,
        d_ssm: int | None = None,
        D_has_hdim: bool = False,
        rmsnorm: bool = True,
        norm_before_gate: bool = False,
        dt_limit: tuple[float, float] = (0.0, math.inf),
        learnable_init_states: bool = False,
        conv_init: float | None = None,
    ) -> None:
        super().__init__()
        inner = int(expand * d_model)
        scanned = inner if d_ssm is None else d_ssm
        headdim = math.gcd(scanned, 64) if headdim is None else headdim
        if scanned % headdim or (scanned // headdim) % ngroups or not 0 < scanned <= inner:
            raise InputError(
                f"{scanned} of {inner} inner channels do not divide into heads of {headdim} in {ngroups} groups; "
                "choose a headdim that divides them, and ngroups that divides the number of heads."
            )
        self.d_inner, self.d_ssm, self.d_state, self.headdim, self.ngroups = inner, scanned, d_state, headdim, ngroups
        self.nheads, self.chunk_size, self.backend = scanned // headdim, chunk_size, backend
        self.dt_limit, self.D_has_hdim = tuple(dt_limit), D_has_hdim
        mixed = scanned + 2 * ngroups * d_state
        self.in_proj = nn.Linear(d_model, 2 * inner - scanned + mixed + self.nheads, bias=bias)
        self.conv1d = nn.Conv1d(mixed, mixed, d_conv, groups=mixed, padding=d_conv - 1, bias=conv_bias)
        if conv_init is not None:
            nn.init.uniform_(self.conv1d.weight, -conv_init, conv_init)
        states = nn.Parameter(torch.zeros(self.nheads, headdim, d_state)) if learnable_init_states else None
        self.register_parameter("init_states", states)
        dt = torch.exp(torch.rand(self.nheads) * math.log(dt_max / dt_min) + math.log(dt_min)).clamp(min=dt_init_floor)
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
        self.A_log = nn.Parameter(torch.empty(self.nheads).uniform_(*A_init_range).log())
        self.D = nn.Parameter(torch.ones(scanned if D_has_hdim else self.nheads))
        self.norm = GatedRMSNorm(scanned, ngroups, norm_before_gate=norm_before_gate) if rmsnorm else None
        self.out_proj = nn.Linear(inner, d_model, bias=bias)

    def forward(self, x: Tensor, order: ScanOrder | Tensor | None = None) -> Tensor:
        """Mix x (B, L, C), rows in grid order, along an order; returns (B, L, C). Several paths are summed."""
        mixed, aside = self.d_ssm + 2 * self.ngroups * self.d_state, self.d_inner - self.d_ssm
        parts = self.in_proj(x).split([aside, aside, self.d_ssm, mixed, self.nheads], dim=-1)
        gate, value, z, xBC, dt = parts
        xBC = causal_conv1d(xBC, self.conv1d.weight.squeeze(1), self.conv1d.bias, order, backend=self.backend)
        xBC = xBC[:, None] if xBC.ndim == 3 else xBC
        dt = F.softplus(dt.float() + self.dt_bias.float()).clamp(*self.dt_limit)
        dt = dt[:, None].expand(-1, xBC.shape[1], -1, -1)
        form = "torch" if self.backend == "torch" else "auto"
        D = self.D.unflatten(0, (-1, self.headdim)) if self.D_has_hdim else self.D
        with torch.autocast(x.device.type, enabled=False):
            y = scan_heads(xBC, dt, self.A_log, D, self.d_state, self.ngroups, order, self.chunk_size, backend=form)
            if self.init_states is not None:
                y = y + along_paths(self._from_initial_states, order, _wide(xBC), dt, paths=True)
        y = y.to(x.dtype)
        y = y * F.silu(z) if self.norm is None else self.norm(y, z)
        return self.out_proj(torch.cat([F.silu(gate) * value, y], dim=-1) if aside else y)

    def _from_initial_states(self, xBC: Tensor, dt: Tensor) -> Tensor:
        """What the states that a path begins in add to its outputs: the scan is linear in them. (B, L, inner)."""
        assert self.init_states is not None
        C = xBC[..., -self.ngroups * self.d_state :].unflatten(-1, (self.ngroups, self.d_state))
        states = self.init_states.to(C.dtype).unflatten(0, (self.ngroups, -1))
        kept = (-self.A_log.float().exp() * dt).cumsum(1).exp()
        return (torch.einsum("blgn,ghpn->blghp", C, states).flatten(2, 3) * kept[..., None]).flatten(2)


class Mamba2Simple(Mamba2):
    """`mamba_ssm.modules.mamba2_simple.Mamba2Simple`: the same block, with its defaults.

    Parameters
    ----------
    d_model, d_state, headdim
        As in `Mamba2`.
    use_mem_eff_path : bool
        As in the authors' fused kernel each group of heads is normalised by itself; False: all channels at once, as
        their code does beside it. With one group there is no difference.
    **arguments
        Those of `Mamba2`.

    Examples
    --------
    >>> Mamba2Simple(64, learnable_init_states=True)(torch.randn(1, 100, 64)).shape
    torch.Size([1, 100, 64])
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        headdim: int = 128,
        use_mem_eff_path: bool = True,
        **arguments: Any,
    ) -> None:
        super().__init__(d_model, d_state, headdim=headdim, **arguments)
        if not use_mem_eff_path and self.norm is not None:
            self.norm.groups = 1
