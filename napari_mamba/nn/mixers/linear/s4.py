"""The S4 mixer: a state space whose matrix is diagonal plus low rank (DPLR), applied as one long convolution.

Source: Gu, Goel and Re, Efficiently Modeling Long Sequences with Structured State Spaces (arXiv:2111.00396), section 3
and appendix C; parameter names are those of github.com/state-spaces/s4, `models/s4/s4.py`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.nn.blocks.tokens import Float32Module
from napari_mamba.nn.mixers.along import along_paths
from napari_mamba.nn.mixers.linear.s5 import hippo_normal
from napari_mamba.nn.mixers.registry import register_mixer
from napari_mamba.scan import ScanOrder


def long_convolution(u: Tensor, kernel: Tensor) -> Tensor:
    """Causal convolution along the second axis of u (B, L, C) with a kernel (C, L), by FFT."""
    length = u.shape[1]
    spectrum = torch.fft.rfft(kernel.T, n=2 * length, dim=0)
    return torch.fft.irfft(torch.fft.rfft(u, n=2 * length, dim=1) * spectrum, n=2 * length, dim=1)[:, :length]


class DPLRKernel(Float32Module):
    """The convolution's kernel: Cauchy products at the roots of unity, corrected for the low rank (Woodbury).

    `C` is kept as published: times (I - dA^l), where `l_kernel` is l; 0 is a fresh layer, whose C is C itself.
    """

    def __init__(self, d_model: int, d_state: int, dt_min: float, dt_max: float) -> None:
        super().__init__()
        half = max(d_state // 2, 1)
        A, P, B = hippo_legs(2 * half)
        self.inv_dt = nn.Parameter(torch.empty(d_model, 1).uniform_(math.log(dt_min), math.log(dt_max)))
        self.C = nn.Parameter(torch.view_as_real(torch.randn(1, d_model, half, dtype=torch.cfloat)))
        for name, value in (("B", B), ("P", P)):
            self.register_parameter(name, nn.Parameter(torch.view_as_real(value).repeat(1, d_model, 1, 1)))
        self.A_real = nn.Parameter((-A.real).log().repeat(d_model, 1))
        self.A_imag = nn.Parameter((-A.imag).repeat(d_model, 1))
        self.register_buffer("l_kernel", torch.tensor(0))

    def _parameters_of(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """dt (H, 1) and A, B, C, P (H, N), complex."""
        B, C, P = (torch.view_as_complex(p.contiguous())[0] for p in (self.B, self.C, self.P))
        return self.inv_dt.exp(), torch.complex(-self.A_real.exp(), -self.A_imag), B, C, P

    def _transformed(self, C: Tensor, stored: int, length: int) -> tuple[Tensor, int]:
        """C times (I - dA^l), and l, at least `length`: as stored, made so, or doubled until it is long enough."""
        if stored >= length:
            return C, stored
        dt, A, _, _, P = (x.to(torch.cdouble) for x in self._parameters_of())
        A, P = torch.cat([A, A.conj()], -1), torch.cat([P, P.conj()], -1)
        matrix = torch.diag_embed(A) - P[..., :, None] * P.conj()[..., None, :]
        eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
        step = dt[..., None] / 2 * matrix
        dA = torch.linalg.solve(eye - step, eye + step)
        half = C.shape[-1]

        def times(C: Tensor, power: int, sign: int) -> Tensor:
            whole = torch.cat([C, C.conj()], -1).to(dA.dtype)
            moved = torch.einsum("hmn,hm->hn", torch.linalg.matrix_power(dA, power), whole)
            return (whole + sign * moved)[..., :half].to(C.dtype)

        if stored == 0:
            return times(C, length, -1), length
        while stored < length:
            C, stored = times(C, stored, 1), 2 * stored
        return C, stored

    def forward(self, length: int) -> Tensor:
        """The kernel (H, length)."""
        dt, A, B, C, P = self._parameters_of()
        C, whole = self._transformed(C, int(self.l_kernel), length)
        root = torch.arange(whole // 2 + 1, device=A.device) * (-2 * math.pi / whole)
        omega = torch.polar(torch.ones_like(root), root)
        z = 2 * (1 - omega) / (1 + omega)
        left, right = torch.stack([B, P]), torch.stack([C, P.conj()])
        v = left[:, None] * right[None] * dt  # (2, 2, H, N)
        poles = (A * dt)[..., None]
        r = torch.stack([torch.stack([_cauchy(one, z, poles) for one in row]) for row in v])
        spectrum = r[0, 0] - r[0, 1] * r[1, 0] / (1 + r[1, 1])
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
    """The convolution and its skip, under the authors' names."""

    def __init__(self, d_model: int, d_state: int, dt_min: float, dt_max: float) -> None:
        super().__init__()
        self.D = nn.Parameter(torch.randn(1, d_model))
        self.kernel = DPLRKernel(d_model, d_state, dt_min, dt_max)

    def forward(self, u: Tensor) -> Tensor:
        return long_convolution(u, self.kernel(u.shape[1])) + self.D[0].float() * u


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

    Examples
    --------
    >>> S4(32)(torch.randn(1, 100, 32)).shape
    torch.Size([1, 100, 32])
    """

    def __init__(self, d_model: int, d_state: int = 64, dt_min: float = 0.001, dt_max: float = 0.1) -> None:
        super().__init__()
        self.layer = _Layer(d_model, d_state, dt_min, dt_max)
        self.output_linear = nn.Sequential(nn.Linear(d_model, 2 * d_model), nn.GLU(dim=-1))

    def forward(self, x: Tensor, order: ScanOrder | Tensor | None = None) -> Tensor:
        """Mix x (B, L, C), rows in grid order, along an order; returns (B, L, C). Several paths are summed."""
        with torch.autocast(x.device.type, enabled=False):
            y = along_paths(self.layer, order, x.float())
        return self.output_linear(F.gelu(y).to(x.dtype))
