"""What the kernels share: where the steps of a chunk lie, and how a state decays along them."""

from __future__ import annotations

import triton
import triton.language as tl

PLAIN = [
    "L", "segments", "span", "first_segment", "chunks", "paths", "heads", "shares", "dt_b", "dt_k", "dt_l", "D_h",
    "D_p", "ddt_p", "ddt_b", "ddt_k", "ddt_l",
]  # fmt: skip
"""Numbers whose divisors make no kernel faster: one compiled kernel serves them all."""


@triton.jit
def rows_of(table, path, t, L, ORDERED: tl.constexpr, FAR: tl.constexpr):
    """The rows in which steps t of a path lie; beyond the end any row, which masks leave out.

    FAR: a sequence takes 2³¹ numbers or more, so that places in it need 64 bits.
    """
    row = tl.load(table + path.to(tl.int64) * L + t, mask=t < L, other=0) if ORDERED else t
    return row.to(tl.int64) if FAR else row.to(tl.int32)


@triton.jit
def decays(dt, A_log):
    """Powers of 2 by which a state has decayed at each step since before the chunk, and over all of it."""
    rate = -tl.exp(A_log) * 1.4426950408889634
    step = dt * rate
    return tl.cumsum(step, axis=0), tl.sum(step, axis=0)


@triton.jit
def steps_of(dt, dt_l, log_rate, table, path, chunk, i, L, ORDERED: tl.constexpr, FAR: tl.constexpr):
    """A chunk's steps: which there are, their rows, sizes, and `decays` up to each and over all of them."""
    t = chunk * i.shape[0] + i
    valid = t < L
    row = rows_of(table, path, t, L, ORDERED, FAR)
    step = tl.load(dt + row * dt_l, mask=valid, other=0.0).to(tl.float32)
    since, total = decays(step, log_rate)
    return valid, row, step, since, total


@triton.jit
def head_of(xBC, x_b, x_k, batch, path, head, heads, first, P: tl.constexpr, N: tl.constexpr, GROUPS: tl.constexpr):
    """Where a head's x (from its channel `first` on), B and C begin in a sequence."""
    xBC += batch * x_b + path.to(tl.int64) * x_k
    B_of = xBC + heads * P + head // (heads // GROUPS) * N
    return xBC + head * P + first, B_of, B_of + GROUPS * N


@triton.jit
def tile(pointer, row, stride, columns, valid, width):
    """A tile of rows; zero where a row is not valid or a column beyond the width."""
    inside = valid[:, None] & (columns < width)[None, :]
    return tl.load(pointer + (row[:, None] * stride + columns[None, :]), mask=inside, other=0.0)


@triton.jit
def put(pointer, row, stride, columns, valid, width, value):
    """Write a tile where `tile` reads one."""
    inside = valid[:, None] & (columns < width)[None, :]
    tl.store(pointer + (row[:, None] * stride + columns[None, :]), value.to(pointer.dtype.element_ty), mask=inside)
