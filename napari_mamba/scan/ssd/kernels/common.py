"""What the kernels share: where the steps of a chunk lie, and how a state decays along them."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def rows_of(table, path, t, L, ORDERED: tl.constexpr):
    """The rows in which steps t of a path lie; beyond the end any row, which masks leave out."""
    row = t.to(tl.int64)
    if ORDERED:
        row = tl.load(table + path.to(tl.int64) * L + t, mask=t < L, other=0).to(tl.int64)
    return row


@triton.jit
def decays(dt, A_log):
    """Powers of 2 by which a state has decayed at each step since before the chunk, and over all of it."""
    rate = -tl.exp(A_log) * 1.4426950408889634
    step = dt * rate
    return tl.cumsum(step, axis=0), tl.sum(step, axis=0)


@triton.jit
def tile(pointer, row, stride, first, columns, valid, width):
    """A tile of rows, its columns from `first` on; zero where a row is not valid or a column beyond the width."""
    at = pointer + row[:, None] * stride + (first + columns)[None, :]
    return tl.load(at, mask=valid[:, None] & (columns < width)[None, :], other=0.0)
