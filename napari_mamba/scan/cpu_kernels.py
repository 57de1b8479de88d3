"""Numba kernels of the selective scan: one block of WIDTH channels of one batch element, all its paths.

Tensors arrive as flat float32 arrays with strides, so that each kernel is compiled once whatever the layout. The
backward keeps the states at the starts of chunks and recomputes those inside (Gu and Dao, arXiv:2312.00752, 3.3.2).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from napari_mamba.scan.cpu_jit import LN2, WIDTH, compiled, exp2, f4, local, sigmoid, softplus


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
    s = np.zeros(g.states * span, f4)  # for each n: the states of the block, then A · log2(e)
    dt, du, y = local(), local(), local()
    for k in range(g.paths):
        for d in range(WIDTH):
            dt[d] = f4(0.0)
            du[d] = f4(0.0)
        for n in range(g.states):
            for d in range(size):
                s[n * span + d] = f4(0.0)
                s[n * span + WIDTH + d] = x.A2[(k * g.width + d0 + d) * g.states + n]
        skip_bias = k * g.width + d0
        for t in range(g.length):
            if g.save and t % g.chunk == 0:
                c = (((b * g.paths + k) * g.chunks + t // g.chunk) * g.blocks + block) * g.states * WIDTH
                for n in range(g.states):
                    for d in range(WIDTH):
                        x.starts[c + n * WIDTH + d] = s[n * span + d]
            row = x.table[k * g.length + t] if g.has_table else t
            iu = b * g.u_b + k * g.u_k + row * g.u_l + d0
            idelta = b * g.delta_b + k * g.delta_k + row * g.delta_l + d0
            for d in range(size):
                dt[d] = x.delta[idelta + d]
            if g.has_bias:
                for d in range(size):
                    dt[d] += x.bias[skip_bias + d]
            if g.softplus:
                for d in range(WIDTH):
                    dt[d] = softplus(dt[d])
            for d in range(size):
                du[d] = dt[d] * x.u[iu + d]
            for d in range(WIDTH):
                y[d] = f4(0.0)
            iB = b * g.B_b + k * g.B_k + row * g.B_l + group * g.B_g
            iC = b * g.C_b + k * g.C_k + row * g.C_l + group * g.C_g
            for n in range(g.states):
                bn, cn, i = x.B[iB + n], x.C[iC + n], n * span
                for d in range(WIDTH):
                    v = exp2(dt[d] * s[i + WIDTH + d]) * s[i + d] + du[d] * bn
                    s[i + d] = v
                    y[d] += v * cn
            if g.has_D:
                for d in range(size):
                    y[d] += x.D[skip_bias + d] * x.u[iu + d]
            io = b * g.out_b + k * g.out_k + row * g.out_l + d0
            if g.summed and k > 0:
                for d in range(size):
                    y[d] += out[io + d]
            if g.has_z and k == g.paths - 1:
                if g.save:
                    for d in range(size):
                        x.plain[(b * g.length + row) * g.width + d0 + d] = y[d]
                iz = b * g.z_b + row * g.z_l + d0
                for d in range(size):
                    y[d] *= x.z[iz + d] * sigmoid(x.z[iz + d])
            for d in range(size):
                out[io + d] = y[d]
        for n in range(g.states):
            for d in range(size):
                last[((b * g.paths + k) * g.width + d0 + d) * g.states + n] = s[n * span + d]


@compiled
def _recompute(x, g, dts, decays, states, a2, b, k, group, d0, size, t0, t1):
    """Fill dts (T, WIDTH), decays (T, N, WIDTH) and states (T + 1, N, WIDTH; [0] is given) for steps t0 … t1."""
    dt, du, h = local(), local(), local()
    for d in range(WIDTH):
        dt[d] = f4(0.0)
        du[d] = f4(0.0)
    block = g.states * WIDTH
    for t in range(t0, t1):
        row = x.table[k * g.length + t] if g.has_table else t
        iu = b * g.u_b + k * g.u_k + row * g.u_l + d0
        idelta = b * g.delta_b + k * g.delta_k + row * g.delta_l + d0
        for d in range(size):
            dt[d] = x.delta[idelta + d]
        if g.has_bias:
            for d in range(size):
                dt[d] += x.bias[k * g.width + d0 + d]
        if g.softplus:
            for d in range(WIDTH):
                dt[d] = softplus(dt[d])
        for d in range(size):
            du[d] = dt[d] * x.u[iu + d]
        for d in range(WIDTH):
            dts[(t - t0) * WIDTH + d] = dt[d]
        iB = b * g.B_b + k * g.B_k + row * g.B_l + group * g.B_g
        for n in range(g.states):
            bn, i = x.B[iB + n], (t - t0) * block + n * WIDTH
            for d in range(WIDTH):
                h[d] = exp2(dt[d] * a2[n * WIDTH + d])
            for d in range(WIDTH):
                decays[i + d] = h[d]
            for d in range(WIDTH):
                h[d] = h[d] * states[i + d] + du[d] * bn
            for d in range(WIDTH):
                states[i + block + d] = h[d]


@compiled
def scan_backward(x, g, grad, worker, batch, b, block, group, d0, size):
    """Differentiate the scan of channels d0 … d0 + size of batch element b; adds to the worker's own part of dB, dC."""
    nblock = g.states * WIDTH
    a2, carry, dA = np.zeros(nblock, f4), np.zeros(nblock, f4), np.zeros(nblock, f4)
    dts = np.zeros(g.chunk * WIDTH, f4)
    decays = np.zeros(g.chunk * nblock, f4)
    states = np.zeros((g.chunk + 1) * nblock, f4)
    dt, u, gy, du, by_B, by_A = local(), local(), local(), local(), local(), local()
    a, g_h, g_a, h0, h1, av = local(), local(), local(), local(), local(), local()
    dD, dbias = local(), local()
    for k in range(g.paths):
        for i in range(nblock):
            carry[i] = f4(0.0)
            dA[i] = f4(0.0)
        for n in range(g.states):
            for d in range(size):
                a2[n * WIDTH + d] = x.A2[(k * g.width + d0 + d) * g.states + n]
        for d in range(WIDTH):
            u[d] = f4(0.0)
            gy[d] = f4(0.0)
            dD[d] = f4(0.0)
            dbias[d] = f4(0.0)
        for c in range(g.chunks - 1, -1, -1):
            t0, t1 = c * g.chunk, min(g.length, (c + 1) * g.chunk)
            start = (((b * g.paths + k) * g.chunks + c) * g.blocks + block) * nblock
            for i in range(nblock):
                states[i] = x.starts[start + i]
            _recompute(x, g, dts, decays, states, a2, b, k, group, d0, size, t0, t1)
            for t in range(t1 - 1, t0 - 1, -1):
                row = x.table[k * g.length + t] if g.has_table else t
                iu = b * g.u_b + k * g.u_k + row * g.u_l + d0
                io = b * g.out_b + k * g.out_k + row * g.out_l + d0
                for d in range(size):
                    u[d] = x.u[iu + d]
                for d in range(size):
                    gy[d] = grad.out[io + d]
                if g.has_z:
                    iz, ip = b * g.z_b + row * g.z_l + d0, (b * g.length + row) * g.width + d0
                    for d in range(size):
                        h0[d] = x.z[iz + d]
                    for d in range(size):
                        h1[d] = sigmoid(h0[d])
                    if k == 0:
                        for d in range(size):
                            av[d] = gy[d] * x.plain[ip + d] * h1[d] * (f4(1.0) + h0[d] * (f4(1.0) - h1[d]))
                        for d in range(size):
                            grad.z[ip + d] = av[d]
                    for d in range(size):
                        gy[d] *= h0[d] * h1[d]
                for d in range(WIDTH):
                    dt[d] = dts[(t - t0) * WIDTH + d]
                for d in range(WIDTH):
                    du[d] = dt[d] * u[d]
                    by_B[d] = f4(0.0)
                    by_A[d] = f4(0.0)
                iB = b * g.B_b + k * g.B_k + row * g.B_l + group * g.B_g
                iC = b * g.C_b + k * g.C_k + row * g.C_l + group * g.C_g
                ig = ((((worker * batch + b) * g.paths + k) * g.length + row) * g.groups + group) * g.states
                for n in range(g.states):
                    bn, cn, i = x.B[iB + n], x.C[iC + n], (t - t0) * nblock + n * WIDTH
                    for d in range(WIDTH):
                        h0[d] = states[i + d]
                    for d in range(WIDTH):
                        h1[d] = states[i + nblock + d]
                    for d in range(WIDTH):
                        a[d] = decays[i + d]
                    for d in range(WIDTH):
                        g_h[d] = gy[d] * cn + carry[n * WIDTH + d]
                    for d in range(WIDTH):
                        av[d] = a2[n * WIDTH + d]
                    dB, dC = f4(0.0), f4(0.0)
                    for d in range(WIDTH):
                        dB += g_h[d] * du[d]
                    for d in range(WIDTH):
                        dC += gy[d] * h1[d]
                    grad.B[ig + n] += dB
                    grad.C[ig + n] += dC
                    for d in range(WIDTH):
                        a[d] *= g_h[d]
                    for d in range(WIDTH):
                        carry[n * WIDTH + d] = a[d]
                    for d in range(WIDTH):
                        g_a[d] = a[d] * h0[d]
                        by_B[d] += g_h[d] * bn
                        by_A[d] += g_a[d] * av[d]
                    for d in range(WIDTH):
                        dA[n * WIDTH + d] += g_a[d] * dt[d]
                idelta = b * g.delta_b + k * g.delta_k + row * g.delta_l + d0
                for d in range(WIDTH):
                    g_a[d] = by_A[d] * LN2 + by_B[d] * u[d]
                if g.softplus:
                    for d in range(size):
                        h0[d] = x.delta[idelta + d]
                    if g.has_bias:
                        for d in range(size):
                            h0[d] += x.bias[k * g.width + d0 + d]
                    for d in range(size):
                        g_a[d] *= sigmoid(h0[d])
                for d in range(size):
                    g_h[d] = by_B[d] * dt[d]
                    dbias[d] += g_a[d]
                    dD[d] += gy[d] * u[d]
                if g.has_D:
                    for d in range(size):
                        g_h[d] += gy[d] * x.D[k * g.width + d0 + d]
                shared = g.u_k == 0
                i = ((b * (1 if shared else g.paths) + (0 if shared else k)) * g.length + row) * g.width + d0
                if shared and k > 0:
                    for d in range(size):
                        g_h[d] += grad.u[i + d]
                for d in range(size):
                    grad.u[i + d] = g_h[d]
                i = ((b * g.paths + k) * g.length + row) * g.width + d0
                for d in range(size):
                    grad.delta[i + d] = g_a[d]
        i = (b * g.paths + k) * g.width + d0
        for d in range(size):
            grad.D[i + d] = dD[d]
            grad.bias[i + d] = dbias[d]
            for n in range(g.states):
                grad.A[(i + d) * g.states + n] = dA[n * WIDTH + d]
