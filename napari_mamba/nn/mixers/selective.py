"""The S6 core every mixer shares: project step size, B and C from the tokens, scan along K paths, merge."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.nn.mixers.mamba import init_dt_
from napari_mamba.nn.norms.norm import at_least_float32
from napari_mamba.scan import LowRank, ScanOrder, selective_scan


def project_and_scan(
    u: Tensor,
    x_proj: Tensor,
    dt_proj: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    order: ScanOrder | None,
    *,
    z: Tensor | None = None,
    merge: str = "sum",
    backend: str = "auto",
) -> Tensor:
    """Selective scan of `u` along K paths whose step size, B and C are linear in `u` (Mamba, arXiv:2312.00752).

    Parameters
    ----------
    u : Tensor
        (B, L, D) shared by the paths, or (B, K, L, D). Rows in grid order.
    x_proj : Tensor
        (K, R + 2N, D): to step size (rank R), B and C.
    dt_proj : Tensor
        (K, D, R): step size to full width.
    dt_bias : Tensor
        (K, D), added before softplus.
    A_log : Tensor
        (K, D, N); A = -exp(A_log).
    D : Tensor
        (K, D), the skip.
    order : ScanOrder or None
        K paths over the L tokens. None: every path in raster order.
    z : Tensor, optional
        (B, L, D) gate, through SiLU.
    merge : {"sum", "none"}
        Whether the paths' outputs are added.
    backend : str
        Backend of the scan.

    Returns
    -------
    Tensor
        (B, L, D), or (B, K, L, D) with `merge="none"`; at least float32.
    """
    rank, state = dt_proj.shape[-1], A_log.shape[-1]
    # One product serves all paths where they share their tokens: rows stay in grid order, so nothing is permuted.
    if u.dim() == 3:
        rows = F.linear(u, x_proj.flatten(0, 1)).unflatten(-1, x_proj.shape[:2]).movedim(2, 1)
    else:
        rows = u @ x_proj.transpose(1, 2)
    dt, B, C = rows.split([rank, state, state], dim=-1)
    A = -torch.exp(at_least_float32(A_log))
    D, dt_bias = at_least_float32(D), at_least_float32(dt_bias)
    delta: Tensor | LowRank
    if u.is_cuda and not torch.is_grad_enabled() and dt.dtype == torch.float32:
        delta = LowRank(dt, dt_proj)  # all paths' step sizes at once are a fourth of a large volume's memory
    else:
        delta = at_least_float32(dt @ dt_proj.transpose(1, 2))
    u, B, C = (at_least_float32(t) for t in (u, B, C))
    if z is not None:
        z = at_least_float32(z)
    y = selective_scan(u, delta, A, B, C, D, z, dt_bias, True, order, backend=backend, merge=merge)
    assert isinstance(y, Tensor)  # no last state was asked for
    return y


def initial_step(paths: int, d_inner: int, dt_rank: int, *init: float | str) -> tuple[Tensor, Tensor]:
    """Initial step-size projections (K, D, R) and biases (K, D); `init` as in `init_dt_`."""
    layers = [nn.Linear(dt_rank, d_inner) for _ in range(paths)]
    for layer in layers:
        init_dt_(layer, *(init or (0.001, 0.1)))
    return torch.stack([x.weight.detach() for x in layers]), torch.stack([x.bias.detach() for x in layers])


def initial_projection(paths: int, d_out: int, d_in: int) -> Tensor:
    """(K, d_out, d_in) weights as K `nn.Linear` layers begin."""
    return torch.stack([nn.Linear(d_in, d_out, bias=False).weight.detach() for _ in range(paths)])


def rank_of(dt_rank: int | str, d_model: int) -> int:
    """The step size's rank: `dt_rank`, or one sixteenth of the channels for "auto"."""
    return math.ceil(d_model / 16) if dt_rank == "auto" else int(dt_rank)
