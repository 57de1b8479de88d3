"""The gradients of Mamba-2's scan: one program has a chunk, and goes through the heads that share its B and C.

With S the state before the chunk and G the gradient of the state after it (`states.carry`), all sums over steps are
products of matrices again. The gradient of a step's logarithmic decay is the sum over pairs (i, j) of what j adds to
output i, i at that step or later, j before it; each of the four kinds of pairs (both within the chunk, one of them, none)
is summed by itself, since differences of sums over the whole sequence would lose the small ones.

Source: Dao and Gu, Transformers are SSMs (arXiv:2405.21060), for the forward; the backward is derived from it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from napari_mamba.scan.ssd.kernels.common import decays, rows_of, tile


@triton.jit
def gradients(
    xBC, dt, A_log, D, table, dy, starts, ends, dx, dBC, ddt, sums,
    L, chunks, x_b, x_k, x_l, dt_b, dt_k, dt_l, dy_b, dy_k, dy_l, D_h, D_p,
    dx_b, dx_k, dx_l, dBC_s, dBC_b, dBC_k, dBC_l, ddt_p, ddt_b, ddt_k, ddt_l,
    PATHS: tl.constexpr, HEADS: tl.constexpr, PARTS: tl.constexpr, GROUPS: tl.constexpr,
    N: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, BN: tl.constexpr, BP: tl.constexpr,
    SHARES: tl.constexpr, ORDERED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write dx and ddt of the heads of a share, dB and dC summed over them, and this chunk's part of dA_log and dD."""
    chunk, sequence = tl.program_id(0), tl.program_id(2)
    group, share = tl.program_id(1) // SHARES, tl.program_id(1) % SHARES
    batch, path = (sequence // PATHS).to(tl.int64), sequence % PATHS
    n, p, i = tl.arange(0, BN), tl.arange(0, BP), tl.arange(0, Q)
    xBC += batch * x_b + path * x_k
    dt += batch * dt_b + path * dt_k
    dy += batch * dy_b + path * dy_k
    dx += batch * dx_b + path * dx_k
    ddt += batch * ddt_b + path * ddt_k
    t = chunk * Q + i
    valid = t < L
    row = rows_of(table, path, t, L, ORDERED)
    B = tile(xBC, row, x_l, HEADS * P + group * N, n, valid, N)
    C = tile(xBC, row, x_l, HEADS * P + (GROUPS + group) * N, n, valid, N)
    products = tl.dot(C, tl.trans(B), input_precision=PRECISION)
    dB = tl.zeros((Q, BN), tl.float32)
    dC = tl.zeros((Q, BN), tl.float32)
    of_group: tl.constexpr = HEADS // GROUPS * PARTS
    of_share: tl.constexpr = (of_group + SHARES - 1) // SHARES
    first = group * of_group + share * of_share
    for virtual in range(first, tl.minimum(first + of_share, (group + 1) * of_group)):
        head, part = virtual // PARTS, virtual % PARTS
        width = P - part * BP
        channel = head * P + part * BP
        log_rate = tl.load(A_log + head).to(tl.float32)
        step = tl.load(dt + row * dt_l + head, mask=valid, other=0.0).to(tl.float32)
        since, total = decays(step, log_rate)
        from_start, to_end = tl.exp2(since), tl.exp2(total - since)
        x = tile(xBC, row, x_l, channel, p, valid, width)
        g = tile(dy, row, dy_l, channel, p, valid, width).to(x.dtype)
        at = ((sequence * (HEADS * PARTS) + virtual).to(tl.int64) * chunks + chunk) * (BN * BP)
        S = tl.load(starts + at + n[:, None] * BP + p[None, :])
        G = tl.load(ends + at + n[:, None] * BP + p[None, :])
        wide = x.to(tl.float32)

        decay = tl.where(i[:, None] >= i[None, :], tl.exp2(since[:, None] - since[None, :]), 0.0)
        scores = products * decay
        later = tl.dot(B, G, input_precision=PRECISION) * to_end[:, None]
        passed = tl.sum(later * wide, axis=1) * step
        of_input = tl.dot(tl.trans(scores.to(x.dtype)), g, acc=later, input_precision=PRECISION)
        direct = tl.sum(of_input * wide, axis=1)
        skip = tl.load(D + head * D_h + (part * BP + p) * D_p, mask=p < width, other=0.0).to(tl.float32)
        result = of_input * step[:, None] + g.to(tl.float32) * skip[None, :]
        inside = valid[:, None] & (p < width)[None, :]
        tl.store(dx + row[:, None] * dx_l + (channel + p)[None, :], result.to(dx.dtype.element_ty), mask=inside)

        pairs = tl.dot(g, tl.trans(x), input_precision=PRECISION) * decay * step[None, :]
        earlier = tl.dot(g, tl.trans(S), input_precision=PRECISION) * from_start[:, None]
        read = tl.sum(earlier * C.to(tl.float32), axis=1)
        dC += tl.dot(pairs.to(x.dtype), B, acc=earlier, input_precision=PRECISION)
        dB = tl.dot(tl.trans(pairs.to(x.dtype)), C, acc=dB, input_precision=PRECISION)
        weighed = (wide * (step * to_end)[:, None]).to(x.dtype)
        dB = tl.dot(weighed, tl.trans(G), acc=dB, input_precision=PRECISION)

        pairs *= products
        across = tl.exp2(total) * tl.sum(tl.sum(S.to(tl.float32) * G.to(tl.float32), axis=1), axis=0)
        ends_here = read + tl.sum(pairs, axis=1) - tl.sum(pairs, axis=0)
        of_decay = tl.cumsum(ends_here, axis=0, reverse=True) + (tl.cumsum(passed, axis=0) - passed) + across
        rate = -tl.exp(log_rate)
        tl.store(ddt + part * ddt_p + row * ddt_l + head, direct + rate * of_decay, mask=valid)
        own = sums + ((sequence * chunks + chunk).to(tl.int64) * (HEADS * PARTS) + virtual) * (BP + 1)
        tl.store(own + p, tl.sum(g.to(tl.float32) * wide, axis=0))
        tl.store(own + BP, rate * tl.sum(step * of_decay, axis=0))
    dBC += share * dBC_s + batch * dBC_b + path * dBC_k
    at = dBC + row[:, None] * dBC_l + (group * N + n)[None, :]
    inside = valid[:, None] & (n < N)[None, :]
    tl.store(at, dB.to(dBC.dtype.element_ty), mask=inside)
    tl.store(at + GROUPS * N, dC.to(dBC.dtype.element_ty), mask=inside)
