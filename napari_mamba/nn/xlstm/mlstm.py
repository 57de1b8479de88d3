"""mLSTM: an LSTM whose memory is a matrix and whose gates are exponential, in its parallel form.

Beck et al., xLSTM: Extended Long Short-Term Memory (arXiv:2405.04517), section 2.3 and appendix; parameter names and
rounding are those of github.com/NX-AI/vision-lstm, which its descendants share.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.nn.blocks.tokens import Float32Module
from napari_mamba.nn.norms.norm import at_least_float32

ROWS = 1024
"""Tokens whose weights over all before them are in memory at once."""
EPS = 1e-6


def mlstm(q: Tensor, k: Tensor, v: Tensor, input_gate: Tensor, forget_gate: Tensor, rows: int = ROWS) -> Tensor:
    """What each token reads from a memory that decays by forget gates and takes in by exponential input gates.

    With F the running sum of log-sigmoids of the forget gates, token t weighs token s ≤ t by
    exp(F_t − F_s + i_s) q_t·k_s / √P, divided by the larger of the weights' absolute sum and 1, all of it scaled by
    the largest exponent of the row.

    Parameters
    ----------
    q, k, v : (B, H, L, P)
    input_gate, forget_gate : (B, H, L), before the exponential and the sigmoid
    rows : int
        Tokens at once; it changes memory, not the result.

    Returns
    -------
    (B, H, L, P)
    """
    total = F.logsigmoid(forget_gate).cumsum(-1)
    k = k / math.sqrt(k.shape[-1])
    place = torch.arange(q.shape[2], device=q.device)
    parts = []
    for start in range(0, q.shape[2], rows):
        end = min(start + rows, q.shape[2])
        exponent = total[..., start:end, None] - total[..., None, :end] + input_gate[..., None, :end]
        exponent = exponent.masked_fill(place[start:end, None] < place[:end], -torch.inf)
        largest = exponent.amax(-1, keepdim=True)
        weights = (q[:, :, start:end] @ k[:, :, :end].transpose(-2, -1)) * (exponent - largest).exp()
        scale = torch.maximum(weights.sum(-1, keepdim=True).abs(), (-largest).exp())
        parts.append((weights / (scale + EPS)) @ v[:, :, :end])
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


class ResidualNorm(Float32Module):
    """Layer norm over the last axis whose weight is stored less one; with `heads` each head by itself.

    Parameters
    ----------
    dim : int
    bias : bool
    eps : float
    heads : int
        Groups of channels that are normalised apart.
    """

    def __init__(self, dim: int, bias: bool = False, eps: float = 1e-5, heads: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None
        self.eps, self.heads = eps, heads

    def forward(self, x: Tensor) -> Tensor:
        rows = at_least_float32(x)
        if self.heads == 1:
            y = F.layer_norm(rows, rows.shape[-1:], 1 + self.weight, self.bias, self.eps)
        else:
            y = F.group_norm(rows.flatten(0, -2), self.heads, 1 + self.weight, self.bias, self.eps).view(x.shape)
        return y.to(x.dtype)


class MLSTMCell(Float32Module):
    """Gates from queries, keys and values together, the memory, and a norm of each head."""

    def __init__(self, dim: int, heads: int, norm_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.igate, self.fgate = nn.Linear(3 * dim, heads), nn.Linear(3 * dim, heads)
        self.outnorm = ResidualNorm(dim, norm_bias, heads=heads)
        with torch.no_grad():
            for gate in (self.igate, self.fgate):
                gate.weight.zero_()
            self.fgate.bias.copy_(torch.linspace(3.0, 6.0, heads))
            self.igate.bias.normal_(std=0.1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, L, dim) each to (B, L, dim)."""
        gates = torch.cat([q, k, v], dim=-1)
        i, f = (gate(gates).transpose(1, 2) for gate in (self.igate, self.fgate))
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        return self.outnorm(mlstm(q, k, v, i, f).transpose(1, 2).flatten(2))
