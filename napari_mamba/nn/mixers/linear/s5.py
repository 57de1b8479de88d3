"""The S5 mixer: one diagonal, time-invariant state space that all channels share (multi-input, multi-output).

Source: Smith, Warrington and Linderman, Simplified State Space Layers for Sequence Modeling (arXiv:2208.04933), with
HiPPO-N initialisation, conjugate pairs, zero-order hold and the half-gated output. There the linear recurrence is run
as an associative scan; its coefficients do not change with time, so here it is one convolution for each state.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.nn.mixers.along import along_paths, tell_linear
from napari_mamba.nn.mixers.registry import register_mixer
from napari_mamba.scan import ScanOrder, listening


def hippo_normal(states: int) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors of the normal part of HiPPO-LegS: complex (N/2,) and (N, N/2).

    Only one of each conjugate pair is returned (the one with the negative imaginary part).
    """
    n = torch.arange(states, dtype=torch.float64)
    root = torch.sqrt(2 * n + 1)
    legs = -torch.tril(torch.outer(root, root), -1) - torch.diag(n + 1)
    rank_one = torch.sqrt(n + 0.5)
    normal = legs + torch.outer(rank_one, rank_one)
    skew = normal - torch.diag(torch.diagonal(normal))  # antisymmetric; the diagonal is -1/2
    imaginary, vectors = torch.linalg.eigh(-1j * skew.to(torch.complex128))
    half = states // 2
    return torch.complex(torch.full((half,), -0.5, dtype=torch.float64), imaginary[:half]), vectors[:, :half]


@register_mixer("s5")
class S5(nn.Module):
    """Mix the tokens of a sequence, all channels together, with a diagonal linear state space.

    Parameters
    ----------
    d_model : int
        Channels of the tokens.
    d_state : int
        Real states, shared by all channels; half as many complex ones are kept.
    dt_min, dt_max : float
        Range of the initial step sizes, log-uniform over the states.

    Examples
    --------
    >>> S5(32)(torch.randn(1, 100, 32)).shape
    torch.Size([1, 100, 32])
    """

    def __init__(self, d_model: int, d_state: int = 64, dt_min: float = 0.001, dt_max: float = 0.1) -> None:
        super().__init__()
        d_state = 2 * max(1, d_state // 2)
        eigenvalues, vectors = hippo_normal(d_state)
        B = vectors.conj().T @ (torch.randn(d_state, d_model, dtype=torch.float64) / d_model**0.5).to(vectors.dtype)
        C = (torch.randn(d_model, d_state, dtype=torch.float64) / d_state**0.5).to(vectors.dtype) @ vectors
        self.Lambda_re = nn.Parameter(eigenvalues.real.float())
        self.Lambda_im = nn.Parameter(eigenvalues.imag.float())
        self.B = nn.Parameter(torch.view_as_real(B).float())
        self.C = nn.Parameter(torch.view_as_real(C.contiguous()).float())
        self.D = nn.Parameter(torch.randn(d_model))
        self.log_step = nn.Parameter(torch.empty(d_state // 2).uniform_(math.log(dt_min), math.log(dt_max)))
        self.out_gate = nn.Linear(d_model, d_model)

    def discretise(self) -> tuple[Tensor, Tensor]:
        """Return Λ·dt, complex (states,), and the input matrix (exp(Λ·dt) - 1)/Λ·B, complex (states, channels)."""
        # The real part is kept negative, as the authors' `clip_eigs`: a positive one grows without bound.
        eigenvalues = torch.complex(self.Lambda_re.clamp(max=-1e-4), self.Lambda_im)
        scaled = eigenvalues * torch.exp(self.log_step)
        return scaled, ((torch.exp(scaled) - 1) / eigenvalues)[:, None] * torch.view_as_complex(self.B)

    def recur(self, u: Tensor) -> Tensor:
        """Return the state space's output for u (B, L, C) in path order, in float32."""
        scaled, B = self.discretise()
        length = u.shape[1]
        decay = torch.exp(scaled * torch.arange(length, device=u.device)[:, None])
        inputs = u.to(B.dtype) @ B.T
        states = torch.fft.ifft(
            torch.fft.fft(inputs, n=2 * length, dim=1) * torch.fft.fft(decay, n=2 * length, dim=0), dim=1
        )[:, :length]
        return 2 * (states @ torch.view_as_complex(self.C).T).real

    def _tell(self, u: Tensor, order: ScanOrder | Tensor | None) -> Tensor | None:
        return tell_linear(u, *self.discretise(), torch.view_as_complex(self.C), order)

    def forward(self, x: Tensor, order: ScanOrder | Tensor | None = None) -> Tensor:
        """Mix x (B, L, C), rows in grid order, along an order; returns (B, L, C). Several paths are summed."""
        with torch.autocast(x.device.type, enabled=False):
            u = x.float()
            told = (
                tell_linear(u, *self.discretise(), torch.view_as_complex(self.C), order) if listening.ACTIVE else None
            )
            y = (along_paths(self.recur, order, u) if told is None else told) + self.D.float() * u
        y = F.gelu(y).to(x.dtype)
        return y * torch.sigmoid(self.out_gate(y))
