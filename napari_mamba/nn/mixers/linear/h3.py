"""The H3 mixer: a state space that shifts, times values, through a diagonal state space, times queries.

Source: Fu, Dao et al., Hungry Hungry Hippos: Towards Language Modeling with State Space Models (arXiv:2212.14052),
section 3; parameter names are those of github.com/HazyResearch/H3, `src/models/ssm/h3.py`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.nn.blocks.tokens import Float32Module
from napari_mamba.nn.mixers.along import along_paths
from napari_mamba.nn.mixers.linear.s4 import long_convolution
from napari_mamba.nn.mixers.registry import register_mixer
from napari_mamba.scan import ScanOrder


class _Shift(Float32Module):
    """A state that remembers the last tokens: a kernel of as many taps as there are states."""

    def __init__(self, d_model: int, d_state: int) -> None:
        super().__init__()
        self.B = nn.Parameter(F.one_hot(torch.zeros(d_model, dtype=torch.long), d_state).float())
        self.C = nn.Parameter(torch.randn(1, d_model, d_state))

    def forward(self, length: int) -> Tensor:
        """k[l] = sum over n of B[n] C[n + l], (H, length)."""
        states = self.B.shape[-1]
        b, c = (torch.fft.rfft(x, n=2 * states) for x in (self.B, self.C[0]))
        taps = torch.fft.irfft(b.conj() * c, n=2 * states)[..., :states]
        return F.pad(taps, (0, max(length - states, 0)))[..., :length]


class _Diagonal(Float32Module):
    """A diagonal state space, discretised by the bilinear rule."""

    def __init__(self, d_model: int, d_state: int, dt_min: float, dt_max: float, n_ssm: int | None = None) -> None:
        super().__init__()
        half, own = max(d_state // 2, 1), d_model if n_ssm is None else n_ssm
        self.C = nn.Parameter(torch.view_as_real(torch.randn(1, d_model, half, dtype=torch.cfloat)))
        self.log_dt = nn.Parameter(torch.empty(d_model).uniform_(math.log(dt_min), math.log(dt_max)))
        self.B = nn.Parameter(torch.view_as_real(torch.ones(own, half, dtype=torch.cfloat)))
        self.inv_A_real = nn.Parameter(torch.full((own, half), math.log(0.5)))
        self.A_imag = nn.Parameter(math.pi * torch.arange(half, dtype=torch.float32).repeat(own, 1))

    def forward(self, length: int) -> Tensor:
        """(H, length)."""
        dt = self.log_dt.exp()[:, None]
        copies = len(dt) // len(self.B)
        dtA = torch.complex(-self.inv_A_real.exp(), self.A_imag).repeat(copies, 1) * dt
        B, C = torch.view_as_complex(self.B).repeat(copies, 1), torch.view_as_complex(self.C)[0]
        gain = B * C * dt / (1 - dtA / 2)
        rate = ((1 + dtA / 2) / (1 - dtA / 2)).log()
        # Two tables of about the length's root, as in S4D: no (channels, states, length) tensor is made.
        size = math.isqrt(length - 1) + 1
        steps = torch.arange(size, device=rate.device)
        coarse = gain[..., None] * (rate[..., None] * (size * steps)).exp()
        fine = (rate[..., None] * steps).exp()
        return 2 * torch.einsum("hnq,hnr->hqr", coarse, fine).real.flatten(1)[:, :length]


class _Kernel(nn.Module):
    """Its authors keep a kernel in a module of its own."""

    def __init__(self, kernel: nn.Module) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, length: int) -> Tensor:
        return self.kernel(length)


@register_mixer("h3")
class H3(nn.Module):
    """Mix the tokens of a sequence with H3.

    Parameters
    ----------
    d_model : int
        Channels of the tokens.
    d_state : int
        States of the shift, and real states of the diagonal state space.
    dt_min, dt_max : float
        Range of the latter's initial step sizes, log-uniform over the heads.
    head_dim : int
        Channels of a head, in which every key meets every value.
    l_max : int, optional
        Taps of both kernels at most; None: as many as there are tokens.
    n_ssm : int, optional
        Diagonal matrices of their own, shared by the heads in turn; None: each head has its own.

    Examples
    --------
    >>> H3(32, head_dim=4)(torch.randn(1, 100, 32)).shape
    torch.Size([1, 100, 32])
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        head_dim: int = 1,
        l_max: int | None = None,
        n_ssm: int | None = None,
    ) -> None:
        super().__init__()
        heads = d_model // head_dim
        if d_model % head_dim or heads % (n_ssm or 1):
            raise InputError(
                f"H3 takes a head_dim that divides its {d_model} channels, and an n_ssm that divides heads."
            )
        self.head_dim, self.l_max = head_dim, l_max
        self.ssm_k_D, self.D = nn.Parameter(torch.randn(d_model)), nn.Parameter(torch.randn(heads))
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(d_model, d_model) for _ in range(3))
        self.ssm_k_kernel = _Kernel(_Shift(d_model, d_state))
        self.kernel = _Kernel(_Diagonal(heads, d_state, dt_min, dt_max, n_ssm))
        self.output_linear = nn.Linear(d_model, d_model)

    def _mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        length = q.shape[1]
        reach = min(length, self.l_max or length)
        k = long_convolution(k, self.ssm_k_kernel(reach)) + self.ssm_k_D.float() * k
        kernel = self.kernel(reach)
        # A head's channels lie beside each other; what comes out has the heads beside each other, as published.
        q, k, v = (x.unflatten(2, (-1, self.head_dim)).transpose(2, 3) for x in (q, k, v))
        values = []
        for value in v.unbind(2):
            kv = k * value[:, :, None]
            kv = long_convolution(kv.flatten(2), kernel.repeat(self.head_dim, 1)).view_as(kv) + self.D.float() * kv
            values.append((kv * q).sum(2))
        return torch.cat(values, dim=2)

    def forward(self, x: Tensor, order: ScanOrder | Tensor | None = None) -> Tensor:
        """Mix x (B, L, C), rows in grid order, along an order; returns (B, L, C). Several paths are summed."""
        with torch.autocast(x.device.type, enabled=False):
            u = x.float()
            q, k, v = (F.linear(u, p.weight.float(), p.bias.float()) for p in (self.q_proj, self.k_proj, self.v_proj))
            y = along_paths(self._mix, order, q, k, v)
        return self.output_linear(y.to(x.dtype))
