"""The S4 mixer: a state space whose matrix is diagonal plus low rank (DPLR), applied as one long convolution.

Source: Gu, Goel and Re, Efficiently Modeling Long Sequences with Structured State Spaces (arXiv:2111.00396), section 3
and appendix C; parameter names are those of github.com/state-spaces/s4, `models/s4/s4.py`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.nn.blocks.tokens import Float32Module
from napari_mamba.nn.mixers.along import along_paths
from napari_mamba.nn.mixers.linear.s5 import hippo_normal
from napari_mamba.nn.mixers.registry import register_mixer
from napari_mamba.scan import ScanOrder

ACTIVATIONS: dict[str, type[nn.Module]] = {
    **dict.fromkeys(("id", "identity", "linear"), nn.Identity),
    **{"tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU, "elu": nn.ELU, "swish": nn.SiLU, "silu": nn.SiLU},
    **{"sigmoid": nn.Sigmoid, "softplus": nn.Softplus, "glu": nn.GLU},
}


def long_convolution(u: Tensor, kernel: Tensor) -> Tensor:
    """Causal convolution along the second axis of u (B, L, C) with a kernel (C, at most L), by FFT."""
    length = u.shape[1]
    spectrum = torch.fft.rfft(kernel.T, n=2 * length, dim=0)
    return torch.fft.irfft(torch.fft.rfft(u, n=2 * length, dim=1) * spectrum, n=2 * length, dim=1)[:, :length]


class DPLRKernel(Float32Module):
    """The convolutions' kernels: Cauchy products at the roots of unity, corrected for the low rank (Woodbury).

    `C` is kept as published: times (I - dA^l), where `l_kernel` is l; 0 is a fresh layer, whose C is C itself.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int,
        dt_min: float,
        dt_max: float,
        channels: int = 1,
        rank: int = 1,
        n_ssm: int | None = None,
        dt_tie: bool = True,
        l_max: int | None = None,
    ) -> None:
        super().__init__()
        half, own = max(d_state // 2, 1), d_model if n_ssm is None else n_ssm
        if d_model % own or rank < 1 or channels < 1:
            raise InputError("S4 takes an n_ssm that divides d_model, and at least one rank and channel.")
        A, P, B = hippo_legs(2 * half)
        self.l_max = l_max
        steps = torch.empty(d_model, 1 if dt_tie else half)
        self.inv_dt = nn.Parameter(steps.uniform_(math.log(dt_min), math.log(dt_max)))
        self.C = nn.Parameter(torch.view_as_real(torch.randn(channels, d_model, half, dtype=torch.cfloat)))
        ranks = F.pad(P[None], (0, 0, 0, rank - 1))
        self.B, self.P = (nn.Parameter(torch.view_as_real(x[:, None].repeat(1, own, 1))) for x in (B[None], ranks))
        self.A_real = nn.Parameter((-A.real).log().repeat(own, 1))
        self.A_imag = nn.Parameter((-A.imag).repeat(own, 1))
        self.register_buffer("l_kernel", torch.tensor(0))

    def _parameters_of(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """dt (H, 1) or (H, N), A (H, N), and B (1, H, N), C (channels, H, N), P (rank, H, N), complex."""
        copies = len(self.inv_dt) // len(self.A_real)
        B, C, P = (torch.view_as_complex(p.contiguous()) for p in (self.B, self.C, self.P))
        A = torch.complex(-self.A_real.exp(), -self.A_imag)
        return self.inv_dt.exp(), A.repeat(copies, 1), B.repeat(1, copies, 1), C, P.repeat(1, copies, 1)

    def _transformed(self, C: Tensor, stored: int, length: int) -> tuple[Tensor, int]:
        """C times (I - dA^l), and l, at least `length`: as stored, made so, or doubled until it is long enough."""
        if stored >= length:
            return C, stored
        dt, A, _, _, P = (x.to(torch.cdouble) for x in self._parameters_of())
        rate = 2 / dt.expand_as(A)
        A, P, rate = (torch.cat([x, x.conj()], -1) for x in (A, P, rate))
        matrix = torch.diag_embed(A) - torch.einsum("rhm,rhn->hmn", P, P.conj())
        dA = torch.linalg.solve(torch.diag_embed(rate) - matrix, torch.diag_embed(rate) + matrix)
        half = C.shape[-1]

        def times(C: Tensor, power: int, sign: int) -> Tensor:
            whole = torch.cat([C, C.conj()], -1).to(dA.dtype)
            moved = torch.einsum("hmn,chm->chn", torch.linalg.matrix_power(dA, power), whole)
            return (whole + sign * moved)[..., :half].to(C.dtype)

        if stored == 0:
            C, stored = times(C, whole_length := self.l_max or length, -1), whole_length
        while stored < length:
            C, stored = times(C, stored, 1), 2 * stored
        return C, stored

    def forward(self, length: int) -> Tensor:
        """The kernels (channels, H, length)."""
        dt, A, B, C, P = self._parameters_of()
        C, whole = self._transformed(C, int(self.l_kernel), length)
        root = torch.arange(whole // 2 + 1, device=A.device) * (-2 * math.pi / whole)
        omega = torch.polar(torch.ones_like(root), root)
        z = 2 * (1 - omega) / (1 + omega)
        left, right = torch.cat([B, P]), torch.cat([C, P.conj()])
        v = left[:, None] * right[None] * dt  # (1 + rank, channels + rank, H, N)
        poles = (A * dt)[..., None]
        r = torch.stack([torch.stack([_cauchy(one, z, poles) for one in row]) for row in v])
        kept = len(C)
        direct, sees, told, among = r[0, :kept], r[0, kept:], r[1:, :kept], r[1:, kept:]
        if len(P) == 1:
            spectrum = direct - sees * told[0] / (1 + among[0])
        else:
            matrix = among.permute(2, 3, 0, 1) + torch.eye(len(P), device=r.device)
            spectrum = direct - torch.einsum("jhf,hfjk,kchf->chf", sees, torch.linalg.inv(matrix), told)
        return torch.fft.irfft(spectrum * 2 / (1 + omega), n=whole)[..., :length]


def _cauchy(v: Tensor, z: Tensor, poles: Tensor) -> Tensor:
    """Sum over conjugate pairs of v / (z - pole), (H, frequencies); a few frequencies at a time."""
    parts = [
        (v[..., None] / (some - poles) + v.conj()[..., None] / (some - poles.conj())).sum(-2) for some in z.split(1024)
    ]
    return torch.cat(parts, dim=-1)


def hippo_legs(states: int) -> tuple[Tensor, Tensor, Tensor]:
    """HiPPO-LegS, a normal matrix less rank one, diagonalised (arXiv:2206.12037): A, P and B of half its states."""
    A, vectors = hippo_normal(states)
    n = torch.arange(states, dtype=torch.double)
    inverse = vectors.to(torch.cdouble).conj().T
    P, B = ((inverse @ part.to(torch.cdouble)).to(torch.cfloat) for part in ((n + 0.5).sqrt(), (2 * n + 1).sqrt()))
    return A.to(torch.cfloat), P, B


class _Layer(nn.Module):
    """The convolutions and their skips, under the authors' names."""

    def __init__(
        self,
        d_model: int,
        d_state: int,
        dt_min: float,
        dt_max: float,
        l_max: int | None = None,
        channels: int = 1,
        swap_channels: bool = False,
        bidirectional: bool = False,
        **kernel: Any,
    ) -> None:
        super().__init__()
        self.l_max, self.swap_channels, self.bidirectional = l_max, swap_channels, bidirectional
        self.D = nn.Parameter(torch.randn(channels, d_model))
        ways = 2 if bidirectional else 1
        self.kernel = DPLRKernel(d_model, d_state, dt_min, dt_max, ways * channels, l_max=l_max, **kernel)

    def forward(self, u: Tensor) -> Tensor:
        """(B, L, H) to (B, L, channels · H)."""
        length = u.shape[1]
        reach = min(length, self.l_max or length)
        kernel = self.kernel(reach)
        if self.bidirectional:  # what comes back begins one step ahead, as published
            forth, back = kernel.chunk(2)
            kernel = F.pad(forth, (0, length)) + F.pad(back.flip(-1), (length, 0))
        size = reach + length
        spectrum = torch.fft.rfft(kernel, n=size) * torch.fft.rfft(u.transpose(1, 2), n=size)[:, None]
        y = torch.fft.irfft(spectrum, n=size)[..., :length] + u.transpose(1, 2)[:, None] * self.D.float()[..., None]
        return (y.transpose(1, 2) if self.swap_channels else y).flatten(1, 2).transpose(1, 2)


@register_mixer("s4")
class S4(nn.Module):
    """Mix the tokens of a sequence, channel by channel, with a diagonal plus low-rank linear state space.

    Parameters
    ----------
    d_model : int
        Channels of the tokens.
    d_state : int
        Real states of each channel; half as many complex ones are kept.
    dt_min, dt_max : float
        Range of the initial step sizes, log-uniform over the channels.
    l_max : int, optional
        Taps of the kernel at most; None: as many as there are tokens.
    channels, swap_channels : int, bool
        State spaces of each channel, and whether they lie beside each other in what is projected.
    bidirectional : bool
        Convolve with a second kernel backwards.
    activation, final_act : str, optional
        After the convolution ("glu" halves twice as many state spaces) and after the projection; without
        `final_act` there is no projection.
    rank : int
        Of what is subtracted from the diagonal matrix.
    n_ssm : int, optional
        Matrices of their own, shared by the channels in turn; None: each channel has its own.
    dt_tie : bool
        Whether the states of a channel have one step size.

    Examples
    --------
    >>> S4(32)(torch.randn(1, 100, 32)).shape
    torch.Size([1, 100, 32])
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        l_max: int | None = None,
        channels: int = 1,
        swap_channels: bool = False,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        final_act: str | None = "glu",
        rank: int = 1,
        n_ssm: int | None = None,
        dt_tie: bool = True,
    ) -> None:
        super().__init__()
        inner = channels * (2 if activation == "glu" else 1)
        own = {"rank": rank, "n_ssm": n_ssm, "dt_tie": dt_tie}
        self.layer = _Layer(d_model, d_state, dt_min, dt_max, l_max, inner, swap_channels, bidirectional, **own)
        self.activation = _activation(activation)
        if final_act is None:
            self.output_linear: nn.Module = nn.Identity()
        else:
            width = d_model * (2 if final_act == "glu" else 1)
            self.output_linear = nn.Sequential(nn.Linear(d_model * channels, width), _activation(final_act))

    def forward(self, x: Tensor, order: ScanOrder | Tensor | None = None) -> Tensor:
        """Mix x (B, L, C), rows in grid order, along an order; returns (B, L, C). Several paths are summed."""
        with torch.autocast(x.device.type, enabled=False):
            y = along_paths(self.layer, order, x.float())
        return self.output_linear(self.activation(y).to(x.dtype))


def _activation(name: str | None) -> nn.Module:
    """The function called so; of channels the last axis."""
    if (name or "id") not in ACTIVATIONS:
        raise InputError(f"S4 has no activation {name!r}; it has {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name or "id"]()
