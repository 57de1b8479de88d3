"""Mamba-2's scan in plain PyTorch, by chunks: any device, differentiable, products of matrices.

Source: Dao and Gu, Transformers are SSMs (arXiv:2405.21060), section 6.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_TOGETHER = 64
"""Chunks that are weighed at once: those of a slide's hundred thousand patches would take gigabytes."""


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
