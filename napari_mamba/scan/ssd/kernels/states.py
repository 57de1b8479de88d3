"""The states of Mamba-2's scan at the borders of chunks, or, backwards, their gradients.

A segment is some chunks one after another. One program carries a head's state through a segment by one product of
matrices for each chunk: either from zero, to know what the segment adds (`carry` without STORE, then `pass_on`), or
from the segment's true start, and writes down what each chunk starts from (STORE).

Source: Dao and Gu, Transformers are SSMs (arXiv:2405.21060), section 6; the two levels, of which only the upper one
goes through memory in the forward, are ours.
"""

from __future__ import annotations

import triton
import triton.language as tl

from napari_mamba.scan.ssd.kernels.common import PLAIN, steps_of, tile


@triton.jit(do_not_specialize=PLAIN)
def carry(
    left, right, dt, A_log, table, starts, out, totals,
    L, segments, span, first_segment, chunks, paths, heads,
    left_b, left_k, left_l, right_b, right_k, right_l, dt_b, dt_k, dt_l,
    PARTS: tl.constexpr, GROUPS: tl.constexpr, N: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, W: tl.constexpr,
    BN: tl.constexpr, BP: tl.constexpr, ORDERED: tl.constexpr, FAR: tl.constexpr,
    REVERSE: tl.constexpr, STORE: tl.constexpr, SPLIT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Carry the state through a segment: S = decay · S + leftᵀ · (weights · right), (N, P), chunk by chunk.

    Forwards left is B, right is x. REVERSE: left is C and right the output's gradient, and S the state's gradient.
    """
    segment, virtual, sequence = tl.program_id(0) + first_segment, tl.program_id(1), tl.program_id(2)
    batch, path = (sequence // paths).to(tl.int64), sequence % paths
    head, part = virtual // PARTS, virtual % PARTS
    n, p = tl.arange(0, BN), tl.arange(0, BP)
    left += batch * left_b + path.to(tl.int64) * left_k + (head // (heads // GROUPS)) * N
    right += batch * right_b + path.to(tl.int64) * right_k + head * P + part * BP
    dt += batch * dt_b + path.to(tl.int64) * dt_k + head
    log_rate = tl.load(A_log + head).to(tl.float32)
    own = (sequence * heads + head).to(tl.int64)
    cell = n[:, None] * W + (part * BP + p)[None, :]
    state = tl.zeros((BN, BP), tl.float32)
    if STORE and SPLIT:
        state = tl.load(starts + (own * segments + segment) * (BN * W) + cell)
    lost = 0.0
    begin = segment * (span // Q)
    count = tl.minimum(begin + span // Q, chunks) - begin
    for i in range(0, count):
        chunk = begin + i
        if REVERSE:
            chunk = begin + count - 1 - i
        if STORE:
            tl.store(out + (own * chunks + chunk) * (BN * W) + cell, state.to(out.dtype.element_ty))
        valid, row, step, since, total = steps_of(
            dt, dt_l, log_rate, table, path, chunk, tl.arange(0, Q), L, ORDERED, FAR
        )
        weights = tl.exp2(since) if REVERSE else step * tl.exp2(total - since)
        a = tile(left, row, left_l, n, valid, N)
        b = tile(right, row, right_l, p, valid, P - part * BP)
        b = (b.to(tl.float32) * weights[:, None]).to(a.dtype)
        state = tl.dot(tl.trans(a), b, acc=state * tl.exp2(total), input_precision=PRECISION)
        lost += total
    if not STORE:
        tl.store(out + (own * segments + segment) * (BN * W) + cell, state)
        tl.store(totals + own * segments + segment, lost)


@triton.jit(do_not_specialize=PLAIN)
def pass_on(
    ends, totals, starts, segments, SIZE: tl.constexpr, BLOCK: tl.constexpr, REVERSE: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """Turn what each segment adds to a state into the state that it starts from, for BLOCK of a state's numbers."""
    own = tl.program_id(1).to(tl.int64) * segments
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    state = tl.zeros((BLOCK,), tl.float32)
    for i in tl.range(0, segments, num_stages=STAGES):
        at = own + i
        if REVERSE:
            at = own + segments - 1 - i
        tl.store(starts + at * SIZE + cell, state)
        # The last segment adds to nothing: what stands there was never written, and is not used.
        state = state * tl.exp2(tl.load(totals + at)) + tl.load(ends + at * SIZE + cell)
