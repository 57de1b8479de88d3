"""The S4D mixer: a diagonal, time-invariant state space for each channel, applied as one long convolution.

Source: Gu, Gupta, Goel and Re, On the Parameterization and Initialization of Diagonal State Space Models
(arXiv:2206.11893), S4D-Lin with zero-order hold; the output is mixed by GELU and a gated linear unit as there.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.nn.blocks.tokens import Float32Module
from napari_mamba.nn.mixers.along import along_paths, tell_linear
from napari_mamba.nn.mixers.registry import register_mixer
from napari_mamba.scan import ScanOrder, listening


class S4DKernel(Float32Module):
    """The convolution's kernel: poles, their residues and step sizes, under the authors' names."""

    def __init__(self, d_model: int, d_state: int, dt_min: float, dt_max: float) -> None:
        super().__init__()
        half = max(1, d_state // 2)
        self.C = nn.Parameter(torch.randn(d_model, half, 2) * 0.5**0.5)
        self.log_dt = nn.Parameter(torch.empty(d_model).uniform_(math.log(dt_min), math.log(dt_max)))
        self.log_A_real = nn.Parameter(torch.full((d_model, half), math.log(0.5)))
        self.A_imag = nn.Parameter(math.pi * torch.arange(half, dtype=torch.float32).repeat(d_model, 1))

    def discretise(self) -> tuple[Tensor, Tensor]:
        """Return dt·A and C·(exp(dt·A) - 1)/A, complex (channels, states): the kernel is 2 Re Σ_n C_n exp(dt·A_n·l)."""
        A = torch.complex(-torch.exp(self.log_A_real), self.A_imag)
        dtA = A * torch.exp(self.log_dt)[:, None]
        return dtA, torch.view_as_complex(self.C) * (torch.exp(dtA) - 1) / A

    def forward(self, length: int) -> Tensor:
        """Return the convolution's kernel, (channels, length).

        With l = q·Q + r the exponentials are products of two tables of about √length columns, so that no
        (channels, states, length) tensor is made.
        """
        dtA, C = self.discretise()
        size = math.isqrt(length - 1) + 1
        steps = torch.arange(size, device=dtA.device)
        coarse = C[..., None] * torch.exp(dtA[..., None] * (size * steps))
        fine = torch.exp(dtA[..., None] * steps)
        return 2 * torch.einsum("hnq,hnr->hqr", coarse, fine).real.flatten(1)[:, :length]


@register_mixer("s4d")
class S4D(nn.Module):
    """Mix the tokens of a sequence, channel by channel, with a diagonal linear state space.

    Parameter names are those of github.com/state-spaces/s4, `models/s4/s4d.py`.

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
    >>> S4D(32)(torch.randn(1, 100, 32)).shape
    torch.Size([1, 100, 32])
    """

    def __init__(self, d_model: int, d_state: int = 64, dt_min: float = 0.001, dt_max: float = 0.1) -> None:
        super().__init__()
        self.D = nn.Parameter(torch.randn(d_model))
        self.kernel = S4DKernel(d_model, d_state, dt_min, dt_max)
        self.output_linear = nn.Sequential(nn.Conv1d(d_model, 2 * d_model, 1), nn.GLU(dim=-2))
        self.register_load_state_dict_pre_hook(_rename)

    def convolve(self, u: Tensor) -> Tensor:
        """Return the state space's output for u (B, L, C) in path order, in float32."""
        length = u.shape[1]
        spectrum = torch.fft.rfft(self.kernel(length).T, n=2 * length, dim=0)
        return torch.fft.irfft(torch.fft.rfft(u, n=2 * length, dim=1) * spectrum, n=2 * length, dim=1)[:, :length]

    def _tell(self, u: Tensor, order: ScanOrder | Tensor | None) -> Tensor | None:
        log_decay, C = self.kernel.discretise()
        return tell_linear(u, log_decay, None, C, order)

    def forward(self, x: Tensor, order: ScanOrder | Tensor | None = None) -> Tensor:
        """Mix x (B, L, C), rows in grid order, along an order; returns (B, L, C). Several paths are summed."""
        with torch.autocast(x.device.type, enabled=False):
            u = x.float()
            told = self._tell(u, order) if listening.ACTIVE else None
            y = (along_paths(self.convolve, order, u) if told is None else told) + self.D.float() * u
        return self.output_linear(F.gelu(y).to(x.dtype).transpose(1, 2)).transpose(1, 2)


def _rename(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Weights that were saved when this layer had names of its own take its authors' names."""
    for name in ("C", "log_dt", "log_A_real", "A_imag"):
        if prefix + name in state_dict:
            state_dict[f"{prefix}kernel.{name}"] = state_dict.pop(prefix + name)
    for name in ("weight", "bias"):
        if (old := f"{prefix}out_proj.{name}") in state_dict:
            value = state_dict.pop(old)
            state_dict[f"{prefix}output_linear.0.{name}"] = value[..., None] if name == "weight" else value
