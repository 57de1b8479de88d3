"""The oracle of Mamba-2's scan: the recurrence as the paper writes it, in float64, one step at a time.

Source: Dao and Gu, Transformers are SSMs (arXiv:2405.21060), section 2 and 3 (A a number for each head and step).
"""

from __future__ import annotations

import torch
from torch import Tensor


def scan(xBC: Tensor, dt: Tensor, A_log: Tensor, D: Tensor, d_state: int, groups: int, table: Tensor | None) -> Tensor:
    """As `triton_backend.scan`, in float64; slow and differentiable."""
    xBC, dt, A, D = xBC.double(), dt.double(), -A_log.double().exp(), D.double()
    batch, paths, length, heads = dt.shape
    x, B, C = xBC.split([xBC.shape[-1] - 2 * groups * d_state, groups * d_state, groups * d_state], dim=-1)
    x = x.unflatten(-1, (heads, -1))
    B, C = (t.unflatten(-1, (groups, d_state)).repeat_interleave(heads // groups, dim=-2) for t in (B, C))
    D = D if D.ndim == 2 else D[:, None]
    total: Tensor | None = None
    for k in range(paths):
        h = xBC.new_zeros(batch, heads, x.shape[-1], d_state)
        rows: list[Tensor] = [xBC] * length
        for t in range(length):
            row = t if table is None else int(table[k, t])
            step, now = dt[:, k, row], x[:, k, row]
            h = torch.exp(step * A)[..., None, None] * h + (step[..., None] * now)[..., None] * B[:, k, row, :, None]
            rows[row] = ((h * C[:, k, row, :, None]).sum(-1) + D * now).flatten(1)
        y = torch.stack(rows, dim=1)
        total = y if total is None else total + y
    assert total is not None
    return total
