"""The Mamba-2 mixer: state-space duality (SSD), a scan whose decay is one number for each head and step.

Source: Dao and Gu, Transformers are SSMs (arXiv:2405.21060), sections 6 and 7; parameter names, shapes and
initialisation are those of `mamba_ssm.Mamba2` (github.com/state-spaces/mamba).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.nn.mixers.along import along_paths
from napari_mamba.nn.mixers.registry import register_mixer
from napari_mamba.scan import ScanOrder, causal_conv1d, listening
from napari_mamba.scan.arguments import ScanArguments, order_table


def ssd(x: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, chunk: int = 64) -> Tensor:
    """Run h[t] = exp(log_decay[t]) h[t-1] + x[t] B[t]ᵀ, y[t] = h[t] C[t] by products of matrices.

    Within a chunk every pair of steps is weighed at once, as attention is; between chunks the states are carried.

    Parameters
    ----------
    x : (B, L, H, P) inputs of H heads of P channels
    log_decay : (B, L, H), not positive
    B, C : (B, L, G, N), G groups of heads dividing H
    chunk : int

    Returns
    -------
    (B, L, H, P)
    """
    parts: list[Tensor] = []
    state: Tensor | None = None
    pieces = (t.split(chunk * _TOGETHER, dim=1) for t in (x, log_decay, B, C))
    for u, decay, b, c in zip(*pieces, strict=True):
        y, state = ssd_from(u, decay, b, c, state, chunk)
        parts.append(y)
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


_TOGETHER = 64
"""Chunks that are weighed at once: those of a slide's hundred thousand patches would take gigabytes."""


def ssd_from(
    x: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """`ssd` that begins in a state (B, G, H / G, P, N), zero if not given: the output, and the state at its end."""
    batch, length, heads, width = x.shape
    groups, states = B.shape[2:]
    short = -length % chunk
    x, log_decay, B, C = (
        F.pad(t, (0, 0) * (t.ndim - 2) + (0, short)).unflatten(1, (-1, chunk)) for t in (x, log_decay, B, C)
    )
    x = x.unflatten(3, (groups, heads // groups))  # (B, chunks, T, G, heads, P)
    total = log_decay.unflatten(3, (groups, heads // groups)).cumsum(2)  # of the decays since the chunk began
    end = total[:, :, -1]

    later = torch.ones(chunk, chunk, dtype=torch.bool, device=x.device).tril()[..., None, None]
    weights = (total[:, :, :, None] - total[:, :, None]).masked_fill(~later, -torch.inf).exp()
    scores = torch.einsum("bcign,bcjgn->bcijg", C, B)[..., None] * weights
    y = torch.einsum("bcijgh,bcjghp->bcighp", scores, x)

    gained = torch.einsum("bcjgn,bcjghp->bcghpn", B, x * (end[:, :, None] - total).exp()[..., None])
    state = x.new_zeros(batch, groups, heads // groups, width, states) if state is None else state
    carried = []
    for gain, decay in zip(gained.unbind(1), end.exp().unbind(1), strict=True):
        carried.append(state)
        state = decay[..., None, None] * state + gain
    before = torch.einsum("bcign,bcghpn->bcighp", C, torch.stack(carried, dim=1))
    return (y + before * total.exp()[..., None]).flatten(1, 2)[:, :length].flatten(2, 3), state


def scan_heads(
    xBC: Tensor,
    dt: Tensor,
    A_log: Tensor,
    D: Tensor,
    d_state: int,
    ngroups: int = 1,
    order: ScanOrder | Tensor | None = None,
    chunk: int = 64,
) -> Tensor:
    """Mamba-2's scan along an order, with its skip; listeners are told of it as the selective scan that it is.

    Parameters
    ----------
    xBC : (B, K, L, inner + 2 · ngroups · d_state), what K paths read, rows in grid order, float32
    dt : (B, K, L, H), positive step sizes of H heads
    A_log : (H,)
    D : (H,), or (H, P) of each of a head's channels
    d_state, ngroups : int
        States; groups of heads with their own B and C.
    order : ScanOrder, (K, L) or None
    chunk : int
        See `ssd`.

    Returns
    -------
    (B, L, inner), the paths summed
    """
    states, heads = ngroups * d_state, dt.shape[-1]
    inner = xBC.shape[-1] - 2 * states
    A_log, D = A_log.float(), D.float()
    if listening.ACTIVE:
        paths, headdim = xBC.shape[1], inner // heads
        x, B, C = xBC.split([inner, states, states], dim=-1)
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

    def mix(xBC: Tensor, dt: Tensor) -> Tensor:
        x, B, C = xBC.split([inner, states, states], dim=-1)
        x = x.unflatten(-1, (heads, -1))
        B, C = (t.unflatten(-1, (ngroups, d_state)) for t in (B, C))
        y = ssd(x * dt[..., None], -torch.exp(A_log) * dt, B, C, chunk)
        return (y + (D if D.ndim == 2 else D[:, None]) * x).flatten(2)

    return along_paths(mix, order, xBC, dt, paths=True)


class GatedRMSNorm(nn.Module):
    """RMS norm of x · silu(z) over the channels of each of some groups."""

    def __init__(self, channels: int, groups: int = 1, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.groups, self.eps = nn.Parameter(torch.ones(channels)), groups, eps

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Normalise x (…, C) gated by z (…, C), in float32."""
        gated = (x.float() * F.silu(z.float())).unflatten(-1, (self.groups, -1))
        scale = torch.rsqrt(gated.square().mean(-1, keepdim=True) + self.eps)
        return ((gated * scale).flatten(-2) * self.weight).to(z.dtype)


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
        The convolution's backend.

    Examples
    --------
    >>> Mamba2(32)(torch.randn(1, 100, 32)).shape
    torch.Size([1, 100, 32])
    """

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
    ) -> None:
        super().__init__()
        inner = int(expand * d_model)
        headdim = math.gcd(inner, 64) if headdim is None else headdim
        if inner % headdim or (inner // headdim) % ngroups:
            raise InputError(
                f"{inner} inner channels do not divide into heads of {headdim} in {ngroups} groups; choose a headdim "
                "that divides them, and ngroups that divides the number of heads."
            )
        self.d_inner, self.d_state, self.headdim, self.ngroups = inner, d_state, headdim, ngroups
        self.nheads, self.chunk_size, self.backend = inner // headdim, chunk_size, backend
        mixed = inner + 2 * ngroups * d_state
        self.in_proj = nn.Linear(d_model, inner + mixed + self.nheads, bias=bias)
        self.conv1d = nn.Conv1d(mixed, mixed, d_conv, groups=mixed, padding=d_conv - 1, bias=conv_bias)
        dt = torch.exp(torch.rand(self.nheads) * math.log(dt_max / dt_min) + math.log(dt_min)).clamp(min=dt_init_floor)
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus
        self.A_log = nn.Parameter(torch.empty(self.nheads).uniform_(*A_init_range).log())
        self.D = nn.Parameter(torch.ones(self.nheads))
        self.norm = GatedRMSNorm(inner, ngroups)
        self.out_proj = nn.Linear(inner, d_model, bias=bias)

    def forward(self, x: Tensor, order: ScanOrder | Tensor | None = None) -> Tensor:
        """Mix x (B, L, C), rows in grid order, along an order; returns (B, L, C). Several paths are summed."""
        mixed = self.d_inner + 2 * self.ngroups * self.d_state
        z, xBC, dt = self.in_proj(x).split([self.d_inner, mixed, self.nheads], dim=-1)
        xBC = causal_conv1d(xBC, self.conv1d.weight.squeeze(1), self.conv1d.bias, order, backend=self.backend)
        xBC = xBC[:, None] if xBC.ndim == 3 else xBC
        dt = F.softplus(dt.float() + self.dt_bias.float())[:, None].expand(-1, xBC.shape[1], -1, -1)
        with torch.autocast(x.device.type, enabled=False):
            y = scan_heads(xBC.float(), dt, self.A_log, self.D, self.d_state, self.ngroups, order, self.chunk_size)
        return self.out_proj(self.norm(y.to(x.dtype), z))
