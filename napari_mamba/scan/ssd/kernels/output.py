"""The output of Mamba-2's scan: within a chunk as attention is, from chunk to chunk by the carried state.

Source: Dao and Gu, Transformers are SSMs (arXiv:2405.21060), section 6.
"""

from __future__ import annotations

import triton
import triton.language as tl

from napari_mamba.scan.ssd.kernels.common import PLAIN, head_of, put, steps_of, tile


@triton.jit(do_not_specialize=PLAIN)
def outputs(
    xBC, dt, A_log, D, table, starts, y,
    L, segments, span, chunks, paths, heads,
    x_b, x_k, x_l, dt_b, dt_k, dt_l, y_b, y_k, y_l, D_h, D_p,
    PARTS: tl.constexpr, GROUPS: tl.constexpr, N: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, W: tl.constexpr,
    BN: tl.constexpr, BP: tl.constexpr, ORDERED: tl.constexpr, FAR: tl.constexpr,
    SPLIT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y = (C Bᵀ ∘ decays) (dt x) + C S · decay + D x of one head's segment; S (N, P) stays in registers."""
    segment, virtual, sequence = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    batch, path = (sequence // paths).to(tl.int64), sequence % paths
    head, part = virtual // PARTS, virtual % PARTS
    n, p, i = tl.arange(0, BN), tl.arange(0, BP), tl.arange(0, Q)
    width = P - part * BP
    x_of, B_of, C_of = head_of(xBC, x_b, x_k, batch, path, head, heads, part * BP, P, N, GROUPS)
    dt += batch * dt_b + path.to(tl.int64) * dt_k + head
    y += batch * y_b + path.to(tl.int64) * y_k + head * P + part * BP
    log_rate = tl.load(A_log + head).to(tl.float32)
    skip = tl.load(D + head * D_h + (part * BP + p) * D_p, mask=p < width, other=0.0).to(tl.float32)
    state = tl.zeros((BN, BP), tl.float32)
    if SPLIT:
        own = (sequence * heads + head).to(tl.int64)
        state = tl.load(starts + (own * segments + segment) * (BN * W) + (n[:, None] * W + (part * BP + p)[None, :]))
    begin = segment * (span // Q)
    for chunk in range(begin, tl.minimum(begin + span // Q, chunks)):
        valid, row, step, since, total = steps_of(dt, dt_l, log_rate, table, path, chunk, i, L, ORDERED, FAR)
        x = tile(x_of, row, x_l, p, valid, width)
        B = tile(B_of, row, x_l, n, valid, N)
        C = tile(C_of, row, x_l, n, valid, N)
        scores = tl.dot(C, tl.trans(B), input_precision=PRECISION)
        decay = tl.where(i[:, None] >= i[None, :], tl.exp2(since[:, None] - since[None, :]), 0.0)
        scores = (scores * decay * step[None, :]).to(x.dtype)
        before = tl.dot(C, state.to(x.dtype), input_precision=PRECISION) * tl.exp2(since)[:, None]
        result = tl.dot(scores, x, acc=before, input_precision=PRECISION) + x.to(tl.float32) * skip[None, :]
        put(y, row, y_l, p, valid, width, result)
        into = (x.to(tl.float32) * (step * tl.exp2(total - since))[:, None]).to(x.dtype)
        state = tl.dot(tl.trans(B), into, acc=state * tl.exp2(total), input_precision=PRECISION)
