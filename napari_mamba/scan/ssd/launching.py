"""Launching the Triton kernels of Mamba-2's scan: buffers, grids and arguments. Importing it needs Triton."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from napari_mamba.scan.cuda.runtime import compiled_instead
from napari_mamba.scan.ssd.kernels.gradients import input_gradients, matrix_gradients
from napari_mamba.scan.ssd.kernels.output import outputs
from napari_mamba.scan.ssd.kernels.states import carry, pass_on
from napari_mamba.scan.ssd.plan import Layout, Plan, Tuning

CPU_UNITS = 2  # the interpreter's, so that small tests have several segments


class Arguments(NamedTuple):
    """xBC (B, K, L, H · P + 2 · G · N), its last axis dense; dt (B, K, L, H) float32, likewise; A_log (H,);
    D (H, P); table (K, L) int64 or None."""

    xBC: Tensor
    dt: Tensor
    A_log: Tensor
    D: Tensor
    table: Tensor | None


@cache
def units_of(device: torch.device) -> int:
    """Multiprocessors of a device."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else CPU_UNITS


def plan_of(args: Arguments, d_state: int, groups: int) -> Plan:
    """Sizes of a scan, cut for the device where it lies."""
    return _plan(*args.xBC.shape[:3], args.D.shape[0], groups, d_state, args.D.shape[1], units_of(args.xBC.device))


@lru_cache(256)
def _plan(*sizes: int) -> Plan:
    return Plan(*sizes)


def precision_of(dtype: torch.dtype) -> str:
    """How tensor cores multiply: float32 in three products, so as to stay float32, unless PyTorch may use TF32."""
    return "tf32x3" if dtype == torch.float32 and not torch.backends.cuda.matmul.allow_tf32 else "tf32"


def _fixed(args: Arguments, plan: Plan, layout: Layout, chunk: int) -> dict:
    """What a kernel is compiled for."""
    far = plan.length * max(args.xBC.stride(2), args.dt.stride(2), args.xBC.shape[-1]) >= 2**31
    return _constants(plan, layout, chunk, args.table is not None, far, precision_of(args.xBC.dtype))


@lru_cache(256)
def _constants(plan: Plan, layout: Layout, chunk: int, ordered: bool, far: bool, precision: str) -> dict:
    return {
        **plan.sizes(layout), "Q": chunk, "ORDERED": ordered, "FAR": far, "PRECISION": precision,
        "num_warps": layout.warps, "num_stages": layout.stages,
    }  # fmt: skip


def _operands(args: Arguments, plan: Plan, dy: Tensor | None) -> tuple:
    """Left and right of `carry`, then what else it reads, then their strides."""
    inner = plan.heads * plan.width
    left = args.xBC[..., inner + (0 if dy is None else plan.groups * plan.states) :]
    right = args.xBC if dy is None else dy
    strides = (*left.stride()[:3], *right.stride()[:3], *args.dt.stride()[:3])
    return (left, right, args.dt, args.A_log, args.table), strides


def segment_starts(args: Arguments, plan: Plan, tuning: Tuning, dy: Tensor | None = None) -> Tensor | None:
    """What each segment's state starts from, or with dy, backwards, its gradient; None if there is one segment."""
    if plan.segments == 1:
        return None
    segments, reverse, rows = plan.segments, dy is not None, plan.sequences * plan.heads
    tensors, strides = _operands(args, plan, dy)
    ends = args.dt.new_empty(rows, segments, *plan.tile)
    totals = args.dt.new_empty(rows, segments)
    starts = torch.empty_like(ends)
    _launch(carry, (segments - 1, plan.heads * plan.parts(tuning.carry), plan.sequences), args.dt.device,
        *tensors, None, ends, totals, plan.length, segments, plan.span, int(reverse), plan.chunks(tuning.chunk),
        plan.paths, plan.heads, *strides, REVERSE=reverse, STORE=False, SPLIT=True,
        **_fixed(args, plan, tuning.carry, tuning.chunk),
    )  # fmt: skip
    size = plan.tile[0] * plan.tile[1]
    _launch(
        pass_on,
        (size // 256, rows),
        args.dt.device,
        ends,
        totals,
        starts,
        segments,
        SIZE=size,
        BLOCK=256,
        REVERSE=reverse,
        STAGES=4,
        num_warps=2,
    )
    return starts


def chunk_starts(args: Arguments, plan: Plan, tuning: Tuning, starts: Tensor | None) -> Tensor:
    """The state before each chunk, (B · K · H, chunks, N, P) in xBC's type, given those before the segments."""
    tensors, strides = _operands(args, plan, None)
    chunks = plan.chunks(tuning.chunk)
    out = args.xBC.new_empty(plan.sequences * plan.heads, chunks, *plan.tile)
    _launch(carry, (plan.segments, plan.heads * plan.parts(tuning.carry), plan.sequences), args.dt.device,
        *tensors, starts, out, None, plan.length, plan.segments, plan.span, 0, chunks, plan.paths, plan.heads,
        *strides, REVERSE=False, STORE=True, SPLIT=starts is not None,
        **_fixed(args, plan, tuning.carry, tuning.chunk),
    )  # fmt: skip
    return out


def forward(args: Arguments, plan: Plan, tuning: Tuning) -> tuple[Tensor, Tensor | None]:
    """The outputs (B, K, L, H · P), rows in grid order, and what each segment started from, for the backward.

    Outputs of several paths are float32, since they will be added up.
    """
    starts = segment_starts(args, plan, tuning)
    y = args.xBC.new_empty(
        *args.xBC.shape[:3], plan.heads * plan.width, dtype=args.xBC.dtype if plan.paths == 1 else torch.float32
    )
    _launch(outputs, (plan.segments, plan.heads * plan.parts(tuning.outputs), plan.sequences), args.dt.device,
        args.xBC, args.dt, args.A_log, args.D, args.table, starts, y,
        plan.length, plan.segments, plan.span, plan.chunks(tuning.chunk), plan.paths, plan.heads,
        *args.xBC.stride()[:3], *args.dt.stride()[:3], *y.stride()[:3], *args.D.stride(),
        SPLIT=starts is not None, **_fixed(args, plan, tuning.outputs, tuning.chunk),
    )  # fmt: skip
    return y, starts


_READY: dict[tuple, tuple[Any, tuple[str, ...]]] = {}
"""Kernels that have run, by all that they were compiled for, and the names of their constants in their order."""


def _launch(kernel: Any, grid: tuple[int, ...], device: torch.device, *args: Any, **meta: Any) -> None:
    """Launch a kernel; where a network's first pass is only rehearsed, have it compiled instead.

    Triton looks anew at every argument of every launch, for longer than a GPU takes for a short sequence: what it found
    out is kept here, and a kernel that fits is launched as it is.
    """
    key = (id(kernel), device.index, *_facts(args), *meta.items())

    def compile() -> None:
        with torch.cuda.device(device):
            kernel.warmup(*args, grid=grid, **meta)

    if compiled_instead(key, compile):
        return
    ready = _READY.get(key)
    if ready is not None:
        compiled, names = ready
        compiled[(*grid, 1, 1)[:3]](*args, *[meta[name] for name in names])
        return
    compiled = kernel[grid](*args, **meta)
    if hasattr(compiled, "packed_metadata"):  # not of the interpreter, nor of a Triton that gives nothing back
        _READY[key] = compiled, tuple(kernel.arg_names[len(args) :])


def _facts(args: tuple) -> list[Hashable]:
    """What a kernel is compiled for of its arguments, as Triton tells them apart, or finer."""
    return [
        (x.dtype, x.data_ptr() % 16 == 0)
        if isinstance(x, Tensor)
        else (x == 1, x % 16 == 0, x.bit_length() > 31)
        if isinstance(x, int)
        else x
        for x in args
    ]


class Gradients(NamedTuple):
    """Of xBC in its type; of dt, A_log and D (H, P) in float32."""

    xBC: Tensor
    dt: Tensor
    A_log: Tensor
    D: Tensor


def backward(args: Arguments, plan: Plan, tuning: Tuning, starts: Tensor | None, dy: Tensor) -> Gradients:
    """The gradients, given that of the output, dy (B, K, L, H · P), whose path axis may be expanded."""
    chunks, sequences, shape = plan.chunks(tuning.chunk), plan.sequences, args.xBC.shape[:3]
    parts = plan.parts(tuning.inputs)
    befores = chunk_starts(args, plan, tuning, starts)
    afters = torch.empty_like(befores)
    ends = segment_starts(args, plan, tuning, dy)
    found = torch.empty(args.xBC.shape, dtype=args.xBC.dtype, device=args.xBC.device)
    ddt = args.dt.new_empty(parts, *shape, plan.heads)
    sums = args.dt.new_empty(sequences * plan.segments, plan.heads, parts, plan.part(tuning.inputs) + 1)
    read = (*args.xBC.stride()[:3], *args.dt.stride()[:3], *dy.stride()[:3])
    _launch(input_gradients, (plan.segments, plan.heads * parts, sequences), args.dt.device,
        args.xBC, args.dt, args.A_log, args.D, args.table, dy, befores, ends, afters, found, ddt, sums,
        plan.length, plan.segments, plan.span, chunks, plan.paths, plan.heads, *read, *args.D.stride(),
        *found.stride()[:3], *ddt.stride()[:4],
        SPLIT=ends is not None, **_fixed(args, plan, tuning.inputs, tuning.chunk),
    )  # fmt: skip
    inner, states, shares = plan.heads * plan.width, min(plan.tile[0], tuning.together), plan.shares(tuning)
    dBC = found[None, ..., inner:] if shares == 1 else args.dt.new_empty(shares, *shape, found.shape[-1] - inner)
    _launch(matrix_gradients, (chunks, plan.groups * shares * (plan.tile[0] // states), sequences), args.dt.device,
        args.xBC, args.dt, args.A_log, args.table, dy, befores, afters, dBC,
        plan.length, chunks, plan.paths, plan.heads, shares, *read, *dBC.stride()[:4], STATES=states,
        **_fixed(args, plan, tuning.matrices, tuning.chunk),
    )  # fmt: skip
    if shares > 1:
        found[..., inner:] = dBC.sum(0)
    total = sums.sum(0)
    return Gradients(
        found, ddt[0] if parts == 1 else ddt.sum(0), total[..., -1].sum(-1),
        total[..., :-1].flatten(1)[:, : plan.width],
    )  # fmt: skip
