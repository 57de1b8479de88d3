"""The gradients of Mamba-2's scan: those of x and the step sizes, head by head, then those of B and C.

With S the state before a chunk and G the gradient of the state after it, all sums over steps are products of matrices
again. The gradient of a step's logarithmic decay is the sum over pairs (i, j) of what step j adds to output i, where i
is that step or later, j before it; each of the four kinds of pairs (both within the chunk, one of them, none) is summed
by itself, since differences of sums over the whole sequence would lose the small ones.

Source: Dao and Gu, Transformers are SSMs (arXiv:2405.21060), for the forward, from which the backward is derived.
"""

from __future__ import annotations

import triton
import triton.language as tl

from napari_mamba.scan.ssd.kernels.common import PLAIN, decays, head_of, put, rows_of, steps_of, tile


@triton.jit(do_not_specialize=PLAIN)
def input_gradients(
    xBC, dt, A_log, D, table, dy, befores, starts, afters, dx, ddt, sums,
    L, segments, span, chunks, paths, heads, x_b, x_k, x_l, dt_b, dt_k, dt_l, dy_b, dy_k, dy_l, D_h, D_p,
    dx_b, dx_k, dx_l, ddt_p, ddt_b, ddt_k, ddt_l,
    PARTS: tl.constexpr, GROUPS: tl.constexpr, N: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, W: tl.constexpr,
    BN: tl.constexpr, BP: tl.constexpr, ORDERED: tl.constexpr, FAR: tl.constexpr,
    SPLIT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Carry G backwards through a head's segment; write dx, ddt, each chunk's G, and the segment's dD and dA_log."""
    segment, virtual, sequence = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    batch, path = (sequence // paths).to(tl.int64), sequence % paths
    head, part = virtual // PARTS, virtual % PARTS
    n, p, i = tl.arange(0, BN), tl.arange(0, BP), tl.arange(0, Q)
    width = P - part * BP
    x_of, B_of, C_of = head_of(xBC, x_b, x_k, batch, path, head, heads, part * BP, P, N, GROUPS)
    dt += batch * dt_b + path.to(tl.int64) * dt_k + head
    dy += batch * dy_b + path.to(tl.int64) * dy_k + head * P + part * BP
    dx += batch * dx_b + path.to(tl.int64) * dx_k + head * P + part * BP
    ddt += part * ddt_p + batch * ddt_b + path.to(tl.int64) * ddt_k + head
    log_rate = tl.load(A_log + head).to(tl.float32)
    rate = -tl.exp(log_rate)
    skip = tl.load(D + head * D_h + (part * BP + p) * D_p, mask=p < width, other=0.0).to(tl.float32)
    own = (sequence * heads + head).to(tl.int64)
    cell = n[:, None] * W + (part * BP + p)[None, :]
    after = tl.zeros((BN, BP), tl.float32)
    if SPLIT:
        after = tl.load(starts + (own * segments + segment) * (BN * W) + cell)
    of_skip = tl.zeros((BP,), tl.float32)
    of_rate = 0.0
    begin = segment * (span // Q)
    count = tl.minimum(begin + span // Q, chunks) - begin
    for back in range(0, count):
        chunk = begin + count - 1 - back
        state = (own * chunks + chunk) * (BN * W) + cell
        S = tl.load(befores + state)
        G = after.to(S.dtype)
        tl.store(afters + state, G)
        valid, row, step, since, total = steps_of(dt, dt_l, log_rate, table, path, chunk, i, L, ORDERED, FAR)
        x = tile(x_of, row, x_l, p, valid, width)
        g = tile(dy, row, dy_l, p, valid, width).to(x.dtype)
        B = tile(B_of, row, x_l, n, valid, N)
        C = tile(C_of, row, x_l, n, valid, N)
        # Rows are the earlier steps j, columns the later ones i, as the first product needs them.
        decay = tl.where(i[None, :] >= i[:, None], tl.exp2(since[None, :] - since[:, None]), 0.0)
        scores = tl.dot(B, tl.trans(C), input_precision=PRECISION) * decay
        pairs = tl.dot(x, tl.trans(g), input_precision=PRECISION) * scores * step[:, None]
        within = tl.sum(pairs, axis=0) - tl.sum(pairs, axis=1)
        later = tl.dot(B, G, input_precision=PRECISION) * tl.exp2(total - since)[:, None]
        passed = tl.sum(later * x.to(tl.float32), axis=1) * step
        later = tl.dot(scores.to(x.dtype), g, acc=later, input_precision=PRECISION)
        direct = tl.sum(later * x.to(tl.float32), axis=1)
        put(dx, row, dx_l, p, valid, width, later * step[:, None] + g.to(tl.float32) * skip[None, :])
        earlier = tl.dot(C, S, input_precision=PRECISION) * tl.exp2(since)[:, None]
        read = within + tl.sum(earlier * g.to(tl.float32), axis=1)
        across = tl.exp2(total) * tl.sum(tl.sum(S.to(tl.float32) * after, axis=1), axis=0)
        of_decay = tl.cumsum(read, axis=0, reverse=True) + (tl.cumsum(passed, axis=0) - passed) + across
        tl.store(ddt + row * ddt_l, direct + rate * of_decay, mask=valid)
        of_rate += rate * tl.sum(step * of_decay, axis=0)
        of_skip += tl.sum(g.to(tl.float32) * x.to(tl.float32), axis=0)
        from_start = (g.to(tl.float32) * tl.exp2(since)[:, None]).to(x.dtype)
        after = tl.dot(tl.trans(C), from_start, acc=after * tl.exp2(total), input_precision=PRECISION)
    found = sums + ((sequence * segments + segment).to(tl.int64) * (heads * PARTS) + virtual) * (BP + 1)
    tl.store(found + p, of_skip)
    tl.store(found + BP, of_rate)


@triton.jit(do_not_specialize=PLAIN)
def matrix_gradients(
    xBC, dt, A_log, table, dy, befores, afters, dBC,
    L, chunks, paths, heads, shares, x_b, x_k, x_l, dt_b, dt_k, dt_l, dy_b, dy_k, dy_l, dBC_s, dBC_b, dBC_k, dBC_l,
    PARTS: tl.constexpr, GROUPS: tl.constexpr, N: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, W: tl.constexpr,
    BN: tl.constexpr, BP: tl.constexpr, STATES: tl.constexpr, ORDERED: tl.constexpr,
    FAR: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write a chunk's dB and dC of STATES states, summed over a share of the heads that read them."""
    chunk, sequence = tl.program_id(0), tl.program_id(2)
    share, first_state = tl.program_id(1) // (BN // STATES), tl.program_id(1) % (BN // STATES) * STATES
    group, share = share // shares, share % shares
    batch, path = (sequence // paths).to(tl.int64), sequence % paths
    n, p, i = first_state + tl.arange(0, STATES), tl.arange(0, BP), tl.arange(0, Q)
    xBC += batch * x_b + path.to(tl.int64) * x_k
    B_of = xBC + heads * P + group * N
    dt += batch * dt_b + path.to(tl.int64) * dt_k
    dy += batch * dy_b + path.to(tl.int64) * dy_k
    t = chunk * Q + i
    valid = t < L
    row = rows_of(table, path, t, L, ORDERED, FAR)
    B = tile(B_of, row, x_l, n, valid, N)
    C = tile(B_of + GROUPS * N, row, x_l, n, valid, N)
    dB = tl.zeros((Q, STATES), tl.float32)
    dC = tl.zeros((Q, STATES), tl.float32)
    of_group = heads // GROUPS * PARTS
    of_share = (of_group + shares - 1) // shares
    first = group * of_group + share * of_share
    for virtual in range(first, tl.minimum(first + of_share, (group + 1) * of_group)):
        head, part = virtual // PARTS, virtual % PARTS
        width = P - part * BP
        log_rate = tl.load(A_log + head).to(tl.float32)
        step = tl.load(dt + row * dt_l + head, mask=valid, other=0.0).to(tl.float32)
        since, total = decays(step, log_rate)
        x = tile(xBC + head * P + part * BP, row, x_l, p, valid, width)
        g = tile(dy + head * P + part * BP, row, dy_l, p, valid, width).to(x.dtype)
        state = ((sequence * heads + head).to(tl.int64) * chunks + chunk) * (BN * W)
        S = tl.load(befores + state + (n[:, None] * W + (part * BP + p)[None, :]))
        G = tl.load(afters + state + (n[:, None] * W + (part * BP + p)[None, :]))
        decay = tl.where(i[:, None] >= i[None, :], tl.exp2(since[:, None] - since[None, :]), 0.0)
        pairs = tl.dot(g, tl.trans(x), input_precision=PRECISION) * decay * step[None, :]
        pairs = pairs.to(x.dtype)
        from_start = (g.to(tl.float32) * tl.exp2(since)[:, None]).to(x.dtype)
        to_end = (x.to(tl.float32) * (step * tl.exp2(total - since))[:, None]).to(x.dtype)
        dC = tl.dot(pairs, B, acc=dC, input_precision=PRECISION)
        dC = tl.dot(from_start, tl.trans(S), acc=dC, input_precision=PRECISION)
        dB = tl.dot(tl.trans(pairs), C, acc=dB, input_precision=PRECISION)
        dB = tl.dot(to_end, tl.trans(G), acc=dB, input_precision=PRECISION)
    dBC += share * dBC_s + batch * dBC_b + path.to(tl.int64) * dBC_k + group * N
    put(dBC, row, dBC_l, n, valid, N, dB)
    put(dBC + GROUPS * N, row, dBC_l, n, valid, N, dC)
