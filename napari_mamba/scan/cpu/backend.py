"""The scan on the CPU: Numba kernels over blocks of channels on a pool of threads, float32, forward and backward."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_mamba.scan.arguments import ScanArguments
from napari_mamba.scan.cpu.arrays import NOTHING, flat, rows
from napari_mamba.scan.cpu.conv import causal_conv1d
from napari_mamba.scan.cpu.kernels import Geometry, Gradients, Tensors, scan_backward, scan_forward
from napari_mamba.scan.cpu.simd import WIDTH
from napari_mamba.scan.cpu.threads import run_tasks, worker_count

__all__ = ["causal_conv1d", "selective_scan"]

CHUNK = 64  # steps between kept states: N·D/CHUNK floats a step are kept, CHUNK·N·WIDTH·8 bytes are recomputed


def _blocks(width: int, groups: int) -> list[tuple[int, int, int, int]]:
    """Return (block, group, first channel, number of channels): no block crosses a group."""
    each = width // groups
    starts = [(g, d) for g in range(groups) for d in range(g * each, (g + 1) * each, WIDTH)]
    return [(i, g, d, min(WIDTH, (g + 1) * each - d)) for i, (g, d) in enumerate(starts)]


class _Problem:
    """A scan laid out for the kernels; holds the tensors whose memory they read."""

    def __init__(self, args: ScanArguments, save: bool) -> None:
        u, delta, B, C = (rows(x) for x in (args.u, args.delta, args.B, args.C))
        z = None if args.merge == "none" else args.z
        self.batch, paths, length, width = delta.shape
        states, groups = args.A.shape[-1], B.shape[3]
        self.blocks = _blocks(width, groups)
        self.chunks = -(-length // CHUNK)
        shape = (self.batch, paths, self.chunks, len(self.blocks), states, WIDTH)
        self.starts = torch.empty(shape) if save else NOTHING
        self.plain = torch.empty(self.batch, length, width) if save and z is not None else NOTHING
        zr = rows(z)
        self.out_shape = (self.batch, length, width) if args.merge == "sum" else (self.batch, paths, length, width)
        self.last_shape = (self.batch, paths, width, states)
        self.uk = u.shape[1]
        A2 = args.A.detach().float() * math.log2(math.e)
        D, bias = (NOTHING if p is None else p.detach().float().contiguous() for p in (args.D, args.delta_bias))
        table = torch.zeros(1, dtype=torch.int64) if args.table is None else args.table.contiguous()
        summed = args.merge == "sum"
        self.geometry = Geometry(
            *(paths, length, width, states, groups, CHUNK, self.chunks, len(self.blocks)),
            *(u.stride(0), 0 if u.shape[1] == 1 else u.stride(1), u.stride(2)),
            *delta.stride()[:3],
            *B.stride()[:4],
            *C.stride()[:4],
            *(zr.stride()[:2] if z is not None else (0, 0)),
            *((length if summed else paths * length) * width, 0 if summed else length * width, width),
            *(int(args.delta_softplus), int(args.D is not None), int(z is not None)),
            *(int(args.delta_bias is not None), int(args.table is not None), int(summed), int(save)),
        )
        held = (u, delta, A2.contiguous(), B, C, D, zr, bias, table, self.starts, self.plain)
        self.tensors = Tensors(*(flat(x) for x in held))
        tasks = [(b, *block) for block in self.blocks for b in range(self.batch)]
        self.tasks = tasks
        self.workers = worker_count(len(tasks))

    def forward(self) -> tuple[Tensor, Tensor]:
        out, last = torch.empty(self.out_shape), torch.empty(self.last_shape)
        flat_out, flat_last = flat(out), flat(last)

        def work(worker: int, b: int, block: int, group: int, d0: int, size: int) -> None:
            scan_forward(self.tensors, self.geometry, flat_out, flat_last, b, block, group, d0, size)

        run_tasks(self.tasks, work, self.workers)
        return out, last

    def backward(self, grad_out: Tensor) -> dict[str, Tensor]:
        g, batch = self.geometry, self.batch
        grads = {
            "out": grad_out.detach().float().contiguous(),
            "u": torch.empty(batch, self.uk, g.length, g.width),
            "delta": torch.empty(batch, g.paths, g.length, g.width),
            "B": torch.zeros(self.workers, batch, g.paths, g.length, g.groups, g.states),
            "C": torch.zeros(self.workers, batch, g.paths, g.length, g.groups, g.states),
            "z": torch.empty(batch, g.length, g.width) if g.has_z else NOTHING,
            "A": torch.empty(batch, g.paths, g.width, g.states),
            "D": torch.empty(batch, g.paths, g.width),
            "bias": torch.empty(batch, g.paths, g.width),
        }
        arrays = Gradients(**{name: flat(x) for name, x in grads.items()})

        def work(worker: int, b: int, block: int, group: int, d0: int, size: int) -> None:
            scan_backward(self.tensors, g, arrays, worker, batch, b, block, group, d0, size)

        run_tasks(self.tasks, work, self.workers)
        return grads | {name: grads[name].sum(0) for name in ("A", "B", "C", "D", "bias")}


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, delta, A, B, C, D, z, bias, softplus, table, merge):
        args = ScanArguments(u, delta, A, B, C, D, z, bias, softplus, table, merge)
        problem = _Problem(args, save=True)
        out, last = problem.forward()
        ctx.save_for_backward(u, delta, A, B, C, D, z, bias, problem.starts, problem.plain)
        ctx.rest = (softplus, table, merge)
        ctx.mark_non_differentiable(last)
        return out, last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_out, _):
        *inputs, starts, plain = ctx.saved_tensors
        u, delta, A, B, C, D, z, bias = inputs
        problem = _Problem(ScanArguments(*inputs, *ctx.rest), save=False)
        problem.tensors = problem.tensors._replace(starts=flat(starts), plain=flat(plain))
        grads = problem.backward(grad_out)
        named = (("u", u), ("delta", delta), ("A", A), ("B", B), ("C", C), ("D", D), ("z", z), ("bias", bias))
        return (*(None if x is None else grads[name].to(x.dtype) for name, x in named), None, None, None)


def selective_scan(args: ScanArguments) -> tuple[Tensor, Tensor]:
    """Run the scan on the CPU with a float32 state."""
    gate = None
    if args.merge == "none" and args.z is not None:  # the kernels gate merged rows only
        gate = F.silu(args.z.float())[:, None]
    z = None if gate is not None else args.z
    tensors = (args.u, args.delta, args.A, args.B, args.C, args.D, z, args.delta_bias)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors):
        y, last = _SelectiveScan.apply(*tensors, args.delta_softplus, args.table, args.merge)
    else:
        y, last = _Problem(ScanArguments(*tensors, args.delta_softplus, args.table, args.merge), save=False).forward()
    if gate is not None:
        y = y * gate
    return y.to(args.u.dtype), last
