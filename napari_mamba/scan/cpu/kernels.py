"""Numba kernels of the selective scan: one block of WIDTH channels of one batch element, all its paths.

Tensors arrive as flat float32 arrays with strides, so that each kernel is compiled once whatever the layout. The
backward keeps the states at the starts of chunks and recomputes those inside (Gu and Dao, arXiv:2312.00752, 3.3.2).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from napari_mamba.scan.cpu.simd import (
    WIDTH,
    compiled,
    exp2,
    load,
    load_part,
    sigmoid,
    softplus,
    splat,
    store,
    store_part,
    total,
    zeros,
)

# simd.py, sha256: d8a3ac15
f4 = np.float32
LN2 = f4(0.6931471805599453)


class Tensors(NamedTuple):
    """Flat float32 arrays (table: int64); an absent one is a dummy of one element, and its flag in Geometry is 0."""

    u: np.ndarray
    delta: np.ndarray
    A2: np.ndarray  # (K, D, N) contiguous: A · log2(e)
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray  # (K, D) contiguous
    z: np.ndarray
    bias: np.ndarray  # (K, D) contiguous
    table: np.ndarray  # (K, L) contiguous
    starts: np.ndarray  # (B, K, chunks, blocks, N, WIDTH): the state before each chunk
    plain: np.ndarray  # (B, L, D) contiguous: the merged output before the gate


class Geometry(NamedTuple):
    """Sizes, strides (in elements) and flags."""

    paths: int
    length: int
    width: int
    states: int
    groups: int
    chunk: int
    chunks: int
    blocks: int
    u_b: int
    u_k: int
    u_l: int
    delta_b: int
    delta_k: int
    delta_l: int
    B_b: int
    B_k: int
    B_l: int
    B_g: int
    C_b: int
    C_k: int
    C_l: int
    C_g: int
    z_b: int
    z_l: int
    out_b: int
    out_k: int
    out_l: int
    softplus: int
    has_D: int
    has_z: int
    has_bias: int
    has_table: int
    summed: int
    save: int


class Gradients(NamedTuple):
    """Flat float32 arrays, contiguous."""

    out: np.ndarray  # given, laid out as the output (out_b, out_k, out_l)
    u: np.ndarray  # (B, K or 1, L, D)
    delta: np.ndarray  # (B, K, L, D)
    B: np.ndarray  # (workers, B, K, L, G, N), zero
    C: np.ndarray  # (workers, B, K, L, G, N), zero
    z: np.ndarray  # (B, L, D)
    A: np.ndarray  # (B, K, D, N)
    D: np.ndarray  # (B, K, D)
    bias: np.ndarray  # (B, K, D)


@compiled
def scan_forward(x, g, out, last, b, block, group, d0, size):
    """Scan channels d0 … d0 + size of batch element b along all paths; writes `out`, `last` (B, K, D, N), `starts`."""
    span = 2 * WIDTH
    zero = splat(f4(0.0))
    s = zeros(g.states * span)  # for each n: the states of the block, then A · log2(e)
    for k in range(g.paths):
        p = k * g.width + d0
        bias, skip = zero, zero
        if g.has_bias:
            bias = load_part(x.bias, p, size)
        if g.has_D:
            skip = load_part(x.D, p, size)
        for n in range(g.states):
            for d in range(size):
                s[n * span + d] = f4(0.0)
                s[n * span + WIDTH + d] = x.A2[(p + d) * g.states + n]
        for t in range(g.length):
            if g.save and t % g.chunk == 0:
                c = (((b * g.paths + k) * g.chunks + t // g.chunk) * g.blocks + block) * g.states * WIDTH
                for n in range(g.states):
                    store(x.starts, c + n * WIDTH, load(s, n * span))
            row = x.table[k * g.length + t] if g.has_table else t
            u = load_part(x.u, b * g.u_b + k * g.u_k + row * g.u_l + d0, size)
            dt = load_part(x.delta, b * g.delta_b + k * g.delta_k + row * g.delta_l + d0, size) + bias
            if g.softplus:
                dt = softplus(dt)
            du = dt * u
            y = skip * u
            iB = b * g.B_b + k * g.B_k + row * g.B_l + group * g.B_g
            iC = b * g.C_b + k * g.C_k + row * g.C_l + group * g.C_g
            for n in range(g.states):
                h = exp2(dt * load(s, n * span + WIDTH)) * load(s, n * span) + du * splat(x.B[iB + n])
                store(s, n * span, h)
                y = y + h * splat(x.C[iC + n])
            io = b * g.out_b + k * g.out_k + row * g.out_l + d0
            if g.summed and k > 0:
                y = y + load_part(out, io, size)
            if g.has_z and k == g.paths - 1:
                if g.save:
                    store_part(x.plain, (b * g.length + row) * g.width + d0, size, y)
                z = load_part(x.z, b * g.z_b + row * g.z_l + d0, size)
                y = y * (z * sigmoid(z))
            store_part(out, io, size, y)
        for n in range(g.states):
            for d in range(size):
                last[((b * g.paths + k) * g.width + d0 + d) * g.states + n] = s[n * span + d]


@compiled
def _recompute(x, g, dts, decays, states, a2, b, k, group, d0, size, t0, t1):
    """Fill dts (T, WIDTH), decays (T, N, WIDTH) and states (T + 1, N, WIDTH; [0] is given) for steps t0 … t1."""
    block = g.states * WIDTH
    bias = splat(f4(0.0))
    if g.has_bias:
        bias = load_part(x.bias, k * g.width + d0, size)
    for t in range(t0, t1):
        row = x.table[k * g.length + t] if g.has_table else t
        u = load_part(x.u, b * g.u_b + k * g.u_k + row * g.u_l + d0, size)
        dt = load_part(x.delta, b * g.delta_b + k * g.delta_k + row * g.delta_l + d0, size) + bias
        if g.softplus:
            dt = softplus(dt)
        store(dts, (t - t0) * WIDTH, dt)
        du = dt * u
        iB = b * g.B_b + k * g.B_k + row * g.B_l + group * g.B_g
        for n in range(g.states):
            i = (t - t0) * block + n * WIDTH
            decay = exp2(dt * load(a2, n * WIDTH))
            store(decays, i, decay)
            store(states, i + block, decay * load(states, i) + du * splat(x.B[iB + n]))


@compiled
def scan_backward(x, g, grad, worker, batch, b, block, group, d0, size):
    """Differentiate the scan of channels d0 … d0 + size of batch element b; adds to the worker's own part of dB, dC."""
    span = g.states * WIDTH
    a2, carry, dA = zeros(span), zeros(span), zeros(span)
    dts = zeros(g.chunk * WIDTH)
    decays = zeros(g.chunk * span)
    states = zeros((g.chunk + 1) * span)
    zero, one, ln2 = splat(f4(0.0)), splat(f4(1.0)), splat(LN2)
    for k in range(g.paths):
        carry[:] = f4(0.0)
        dA[:] = f4(0.0)
        p = k * g.width + d0
        for n in range(g.states):
            for d in range(size):
                a2[n * WIDTH + d] = x.A2[(p + d) * g.states + n]
        dD, dbias, bias, skip = zero, zero, zero, zero
        if g.has_bias:
            bias = load_part(x.bias, p, size)
        if g.has_D:
            skip = load_part(x.D, p, size)
        for c in range(g.chunks - 1, -1, -1):
            t0, t1 = c * g.chunk, min(g.length, (c + 1) * g.chunk)
            start = (((b * g.paths + k) * g.chunks + c) * g.blocks + block) * span
            states[:span] = x.starts[start : start + span]
            _recompute(x, g, dts, decays, states, a2, b, k, group, d0, size, t0, t1)
            for t in range(t1 - 1, t0 - 1, -1):
                row = x.table[k * g.length + t] if g.has_table else t
                u = load_part(x.u, b * g.u_b + k * g.u_k + row * g.u_l + d0, size)
                gy = load_part(grad.out, b * g.out_b + k * g.out_k + row * g.out_l + d0, size)
                if g.has_z:
                    ip = (b * g.length + row) * g.width + d0
                    z = load_part(x.z, b * g.z_b + row * g.z_l + d0, size)
                    gate = sigmoid(z)
                    if k == 0:
                        slope = gate * (one + z * (one - gate))
                        store_part(grad.z, ip, size, gy * load_part(x.plain, ip, size) * slope)
                    gy = gy * (z * gate)
                dt = load(dts, (t - t0) * WIDTH)
                du = dt * u
                iB = b * g.B_b + k * g.B_k + row * g.B_l + group * g.B_g
                iC = b * g.C_b + k * g.C_k + row * g.C_l + group * g.C_g
                ig = ((((worker * batch + b) * g.paths + k) * g.length + row) * g.groups + group) * g.states
                by_du, by_dtA = zero, zero
                for n in range(g.states):
                    i = (t - t0) * span + n * WIDTH
                    gh = gy * splat(x.C[iC + n]) + load(carry, n * WIDTH)
                    grad.B[ig + n] += total(gh * du)
                    grad.C[ig + n] += total(gy * load(states, i + span))
                    through = load(decays, i) * gh
                    store(carry, n * WIDTH, through)
                    ga = through * load(states, i)
                    by_du = by_du + gh * splat(x.B[iB + n])
                    by_dtA = by_dtA + ga * load(a2, n * WIDTH)
                    store(dA, n * WIDTH, load(dA, n * WIDTH) + ga * dt)
                gdelta = by_dtA * ln2 + by_du * u
                if g.softplus:
                    i = b * g.delta_b + k * g.delta_k + row * g.delta_l + d0
                    gdelta = gdelta * sigmoid(load_part(x.delta, i, size) + bias)
                store_part(grad.delta, ((b * g.paths + k) * g.length + row) * g.width + d0, size, gdelta)
                gu = by_du * dt + skip * gy
                if g.u_k:
                    store_part(grad.u, ((b * g.paths + k) * g.length + row) * g.width + d0, size, gu)
                else:
                    i = (b * g.length + row) * g.width + d0
                    if k > 0:
                        gu = gu + load_part(grad.u, i, size)
                    store_part(grad.u, i, size, gu)
                dbias = dbias + gdelta
                dD = dD + gy * u
        i = (b * g.paths + k) * g.width + d0
        store_part(grad.D, i, size, dD)
        store_part(grad.bias, i, size, dbias)
        for n in range(g.states):
            for d in range(size):
                grad.A[(i + d) * g.states + n] = dA[n * WIDTH + d]
