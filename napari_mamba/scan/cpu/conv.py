"""The causal depth-wise convolution on the CPU: Numba kernels fused with SiLU that read along the order.

Positions are split between the threads; a convolution carries nothing from one to the next.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from napari_mamba.scan.arguments import ConvArguments
from napari_mamba.scan.cpu.arrays import NOTHING, flat, rows
from napari_mamba.scan.cpu.simd import WIDTH, compiled, load_part, sigmoid, splat, store_part
from napari_mamba.scan.cpu.threads import run_tasks, worker_count

# simd.py, sha256: d8a3ac15
_ROWS = 512  # positions of a task at least
_f4 = np.float32


class _Conv(NamedTuple):
    """Flat arrays (float32, table int64), strides in elements, sizes and flags."""

    x: np.ndarray
    weight: np.ndarray  # (K, W, D) contiguous
    bias: np.ndarray  # (K, D) contiguous
    table: np.ndarray  # (K, L) contiguous
    x_b: int
    x_l: int
    paths: int
    length: int
    width: int
    taps: int
    has_bias: int
    has_table: int
    silu: int


@compiled
def _forward(c, out, b, k, t0, t1):
    """Write out (B, K, L, D) for steps t0 … t1 of a path."""
    for t in range(t0, t1):
        row = c.table[k * c.length + t] if c.has_table else t
        io = ((b * c.paths + k) * c.length + row) * c.width
        first = max(0, c.taps - 1 - t)
        for d in range(0, c.width, WIDTH):
            size = min(WIDTH, c.width - d)
            y = splat(_f4(0.0))
            if c.has_bias:
                y = load_part(c.bias, k * c.width + d, size)
            for w in range(first, c.taps):
                s = t - c.taps + 1 + w
                source = c.table[k * c.length + s] if c.has_table else s
                x = load_part(c.x, b * c.x_b + source * c.x_l + d, size)
                y = y + x * load_part(c.weight, (k * c.taps + w) * c.width + d, size)
            if c.silu:
                y = y * sigmoid(y)
            store_part(out, io + d, size, y)


@compiled
def _slopes(c, grad, slope, dweight, dbias, b, k, t0, t1, worker):
    """Write the gradient before SiLU, slope (B, K, L, D); add to dweight (workers, K, W, D) and dbias."""
    one = splat(_f4(1.0))
    for t in range(t0, t1):
        row = c.table[k * c.length + t] if c.has_table else t
        io = ((b * c.paths + k) * c.length + row) * c.width
        first = max(0, c.taps - 1 - t)
        iw = (worker * c.paths + k) * c.width
        for d in range(0, c.width, WIDTH):
            size = min(WIDTH, c.width - d)
            y = splat(_f4(0.0))
            if c.has_bias:
                y = load_part(c.bias, k * c.width + d, size)
            g = load_part(grad, io + d, size)
            if c.silu:
                for w in range(first, c.taps):
                    s = t - c.taps + 1 + w
                    source = c.table[k * c.length + s] if c.has_table else s
                    x = load_part(c.x, b * c.x_b + source * c.x_l + d, size)
                    y = y + x * load_part(c.weight, (k * c.taps + w) * c.width + d, size)
                gate = sigmoid(y)
                g = g * (gate * (one + y * (one - gate)))
            store_part(slope, io + d, size, g)
            store_part(dbias, iw + d, size, load_part(dbias, iw + d, size) + g)
            for w in range(first, c.taps):
                s = t - c.taps + 1 + w
                source = c.table[k * c.length + s] if c.has_table else s
                x = load_part(c.x, b * c.x_b + source * c.x_l + d, size)
                i = iw * c.taps + w * c.width + d
                store_part(dweight, i, size, load_part(dweight, i, size) + g * x)


@compiled
def _inputs(c, slope, dx, b, k, t0, t1):
    """Add path k's gradient of the input to dx (B, L, D) for steps t0 … t1."""
    for t in range(t0, t1):
        row = c.table[k * c.length + t] if c.has_table else t
        for d in range(0, c.width, WIDTH):
            size = min(WIDTH, c.width - d)
            i = (b * c.length + row) * c.width + d
            g = load_part(dx, i, size)
            for later in range(min(c.taps, c.length - t)):
                s = t + later
                target = c.table[k * c.length + s] if c.has_table else s
                io = ((b * c.paths + k) * c.length + target) * c.width + d
                weight = load_part(c.weight, (k * c.taps + c.taps - 1 - later) * c.width + d, size)
                g = g + load_part(slope, io, size) * weight
            store_part(dx, i, size, g)


def _lay_out(x: Tensor, weight: Tensor, bias: Tensor | None, table: Tensor | None, silu: bool) -> _Conv:
    x = rows(x)
    kernel = weight.detach().float().transpose(1, 2).contiguous()
    offset = NOTHING if bias is None else bias.detach().float().contiguous()
    index = torch.zeros(1, dtype=torch.int64) if table is None else table.contiguous()
    paths, taps, width = kernel.shape
    sizes = (paths, x.shape[1], width, taps, int(bias is not None), int(table is not None), int(silu))
    return _Conv(flat(x), flat(kernel), flat(offset), flat(index), *x.stride()[:2], *sizes)


def _pieces(batch: int, paths: int, length: int) -> tuple[list[tuple[int, int, int, int]], int]:
    """Return (batch element, path, first step, end) for every task, and the number of workers."""
    size = max(_ROWS, -(-length // worker_count(length)))
    tasks = [
        (b, k, t, min(length, t + size)) for k in range(paths) for b in range(batch) for t in range(0, length, size)
    ]
    return tasks, worker_count(len(tasks))


def _run_forward(x: Tensor, weight: Tensor, bias: Tensor | None, table: Tensor | None, silu: bool) -> Tensor:
    conv = _lay_out(x, weight, bias, table, silu)
    out = torch.empty(x.shape[0], conv.paths, conv.length, conv.width)
    target = flat(out)
    tasks, workers = _pieces(x.shape[0], conv.paths, conv.length)
    run_tasks(tasks, lambda worker, *task: _forward(conv, target, *task), workers)
    return out


class _CausalConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, table, silu):
        ctx.save_for_backward(x, weight, bias)
        ctx.rest = (table, silu)
        return _run_forward(x, weight, bias, table, silu)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_out):
        x, weight, bias = ctx.saved_tensors
        conv = _lay_out(x, weight, bias, *ctx.rest)
        batch = x.shape[0]
        tasks, workers = _pieces(batch, conv.paths, conv.length)
        grad = grad_out.detach().float().contiguous()
        slope, dx = torch.empty_like(grad), torch.zeros(batch, conv.length, conv.width)
        dweight = torch.zeros(workers, conv.paths, conv.taps, conv.width)
        dbias = torch.zeros(workers, conv.paths, conv.width)
        arrays = [flat(t) for t in (grad, slope, dweight, dbias)]
        run_tasks(tasks, lambda worker, *task: _slopes(conv, *arrays, *task, worker), workers)
        target = flat(dx)
        for k in range(conv.paths):  # two paths may write one row, two steps of a path may not
            mine = [task for task in tasks if task[1] == k]
            run_tasks(mine, lambda worker, *task: _inputs(conv, arrays[1], target, *task), worker_count(len(mine)))
        dweight = dweight.sum(0).transpose(1, 2).to(weight.dtype)
        return dx.to(x.dtype), dweight, None if bias is None else dbias.sum(0).to(bias.dtype), None, None


def causal_conv1d(args: ConvArguments) -> Tensor:
    """Convolve along every path in float32; returns (B, K, L, D) in x's type."""
    inputs = (args.x, args.weight, args.bias, args.table, args.silu)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs[:3]):
        y = _CausalConv.apply(*inputs)
    else:
        y = _run_forward(*inputs)
    return y.to(args.x.dtype)
