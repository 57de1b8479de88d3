"""Numba kernels of the maps: a row and a column of the implicit attention, the states' norms and projections.

A block of WIDTH channels at a time, like those of the scan (`napari_mamba.scan.cpu.kernels`); inputs are float32 arrays
in the path's order. The step sizes between two tokens are summed with compensation (Kahan, 1965), so that a decay over
a quarter of a million steps is as right as one over ten.
"""

from __future__ import annotations

import numpy as np

from napari_mamba.scan.cpu.simd import WIDTH, compiled, exp2, load, load_part, splat, store, total, zeros

# simd.py, sha256: d8a3ac15
f4 = np.float32
GONE = f4(-125.0)  # an exponent of two below which nothing is left of a float32


@compiled
def attention_block(delta, u, A2, B, C, weight, out, L, D, N, G, group, block, d0, size, target, step):
    """What steps from `target` on (step -1: backwards, +1: onwards) have of channels d0 … d0 + size, weighed.

    delta, u (L · D); A2 (D · N), A · log2(e); B, C (L · G · N); weight (D). Backwards: how `target` draws from each
    earlier step; onwards: how each later one draws from `target`. Writes out[block, t, 0 … 2]: the sums over the
    channels of the attention, of its absolute value, and of the attention times u.
    """
    span = WIDTH
    a = zeros(N * span)
    slowest = f4(-1e30)
    for n in range(N):
        for d in range(size):
            value = A2[(d0 + d) * N + n]
            a[n * span + d] = value
            slowest = max(slowest, value)
        for d in range(size, span):
            a[n * span + d] = f4(-1.0)
    w = load_part(weight, d0, size)
    sums, lost = splat(f4(0.0)), splat(f4(0.0))
    absolute = zeros(span)
    row = target
    while 0 <= row < L:
        if step > 0 and row > target:  # the decays from the target's next step to this one
            y = load_part(delta, row * D + d0, size) - lost
            more = sums + y
            lost = (more - sums) - y
            sums = more
        iC = ((target if step < 0 else row) * G + group) * N
        iB = ((row if step < 0 else target) * G + group) * N
        acc = splat(f4(0.0))
        for n in range(N):
            acc = acc + exp2(sums * load(a, n * span)) * splat(C[iC + n] * B[iB + n])
        source = row if step < 0 else target
        acc = acc * load_part(delta, source * D + d0, size) * w
        store(absolute, 0, acc)
        magnitude, signed, given = f4(0.0), f4(0.0), f4(0.0)
        for d in range(size):
            magnitude += abs(absolute[d])
        signed = total(acc)
        given = total(acc * load_part(u, source * D + d0, size))
        o = (block * L + row) * 3
        out[o] = signed
        out[o + 1] = magnitude
        out[o + 2] = given
        if step < 0:
            y = load_part(delta, row * D + d0, size) - lost
            more = sums + y
            lost = (more - sums) - y
            sums = more
        if (row - target) % 64 == 0:  # all decayed: nothing further away is left
            store(absolute, 0, sums)
            least = f4(1e30)
            for d in range(size):
                least = min(least, absolute[d])
            if least * slowest < GONE:
                break
        row += step


@compiled
def states_block(delta, u, A2, B, mean, basis, norms, parts, kept, at, L, D, N, G, P, S, group, block, d0, size):
    """Run the states of channels d0 … d0 + size along a path and keep sums over them.

    Writes norms[block, t], the sum of the squared states; parts[block, t, p], the product of the states, less `mean`
    (D · N), with basis (P · D · N); kept[s, d, n], the states at the steps `at` (S, rising).
    """
    span = WIDTH
    a, h, m = zeros(N * span), zeros(N * span), zeros(N * span)
    b = zeros(max(P, 1) * N * span)
    for n in range(N):
        for d in range(size):
            a[n * span + d] = A2[(d0 + d) * N + n]
            m[n * span + d] = mean[(d0 + d) * N + n]
            for p in range(P):
                b[(p * N + n) * span + d] = basis[(p * D + d0 + d) * N + n]
    s = 0
    for t in range(L):
        dt = load_part(delta, t * D + d0, size)
        du = dt * load_part(u, t * D + d0, size)
        iB = (t * G + group) * N
        norm = splat(f4(0.0))
        for n in range(N):
            value = exp2(dt * load(a, n * span)) * load(h, n * span) + du * splat(B[iB + n])
            store(h, n * span, value)
            norm = norm + value * value
        norms[block * L + t] = total(norm)
        for p in range(P):
            part = splat(f4(0.0))
            for n in range(N):
                part = part + (load(h, n * span) - load(m, n * span)) * load(b, (p * N + n) * span)
            parts[(block * L + t) * P + p] = total(part)
        if s < S and at[s] == t:
            for d in range(size):
                for n in range(N):
                    kept[(s * D + d0 + d) * N + n] = h[n * span + d]
            s += 1


@compiled
def influence_block(delta, A2, B, out, L, D, N, G, group, block, d0, size):
    """Backwards through channels d0 … d0 + size: out[block, t] = Σ (delta B)² Σ_{s ≥ t} Π_{t < r ≤ s} exp(delta A)²."""
    span = WIDTH
    a, g = zeros(N * span), zeros(N * span)
    one = splat(f4(1.0))
    for n in range(N):
        for d in range(size):
            a[n * span + d] = f4(2.0) * A2[(d0 + d) * N + n]
    decay = zeros(span)
    for t in range(L - 1, -1, -1):
        dt = load_part(delta, t * D + d0, size)
        later = load(decay, 0)  # the step sizes of the step after this one
        iB = (t * G + group) * N
        acc = splat(f4(0.0))
        for n in range(N):
            value = one + exp2(later * load(a, n * span)) * load(g, n * span)
            store(g, n * span, value)
            acc = acc + value * splat(B[iB + n] * B[iB + n])
        out[block * L + t] = total(acc * dt * dt)
        store(decay, 0, dt)


@compiled
def memory_channel(sums, rates, out, L, N, d):
    """Add to out[t] the logarithms of the steps after which each state of channel d has decayed to 1/e.

    sums (L + 1), float64: the step sizes before each step; rates (N): |A|. Between two steps time is interpolated, and
    after the last one the step sizes are taken to stay as there.
    """
    last = max(sums[L] - sums[L - 1], 1e-12)
    ends = np.ones(N, np.int64)
    for t in range(L):
        product = 1.0  # of the steps of all states: one logarithm does
        for n in range(N):
            goal = sums[t + 1] + 1.0 / rates[n]
            end = max(ends[n], t + 1)
            while end < L and sums[end + 1] < goal:
                end += 1
            ends[n] = end
            if end >= L:
                steps = L - 1 - t + (goal - sums[L]) / last
            else:
                steps = end - 1 - t + (goal - sums[end]) / max(sums[end + 1] - sums[end], 1e-12)
            product *= min(max(steps, 1e-6), 1e9)
            if product > 1e250 or product < 1e-250:
                out[t] += np.log(product)
                product = 1.0
        out[t] += np.log(product)
