"""The gradients of the selective scan on a GPU; the kernels are `kernels/scan_backward.cu`.

The sequence is cut into chunks, which run in parallel: two launches give the adjoint of the state at every chunk's end,
a third all gradients of every chunk, segment by segment, with the states recomputed from those that the forward pass
kept, and a fourth adds up what the chunks have of the gradients of A, D and the bias. No tensor of L·D·N elements
exists; beside the gradients there are at most 2·N/32 float32 for each position and channel, and 2·N float32 for each
position and the channels of a block.

Results are deterministic: no atomic addition, every sum has a fixed order.

Source: the recurrence is Mamba's (Gu and Dao, arXiv:2312.00752); its adjoint is a scan of the same form backwards in
time (Martin and Cundy, arXiv:1709.04057).
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, cached_property

import torch
from torch import Tensor

from napari_mamba.errors import InputError
from napari_mamba.scan.arguments import ScanArguments
from napari_mamba.scan.cuda.backward_plan import BLOCK, LONGEST, RESERVED, Shared, plan_for, segments_for, warps_for
from napari_mamba.scan.cuda.forward import multiprocessors
from napari_mamba.scan.cuda.runtime import kernel

SOURCE = "scan_backward.cu"
POINTERS, NUMBERS = 23, 34  # the struct Backward
LAYOUT = f"{POINTERS}Q{NUMBERS}q"
TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
MAX_STATES = 64
MAX_SEQUENCES = 65535  # blocks along the last axis of a grid
BATCHED = ("u", "delta", "B", "C", "z")


@cache
def _shared(device: torch.device) -> Shared:
    """Shared memory of a device; an H100's for the CPU, where only the tests' emulator runs."""
    if device.type != "cuda":
        return Shared(227 * 1024, 228 * 1024)
    properties = torch.cuda.get_device_properties(device)
    block = getattr(properties, "shared_memory_per_block_optin", 48 * 1024)  # what every device has
    return Shared(block, getattr(properties, "shared_memory_per_multiprocessor", block + RESERVED))


def _rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor in a type, its last axis contiguous; the same one where it is so."""
    x = x.detach().to(dtype)
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _parameter(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.detach().float().contiguous()


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


class _Backward:
    """One backward pass: tensors brought to the form the kernels read, buffers, launches."""

    def __init__(self, args: ScanArguments, starts: Tensor, chunk: int, grad_output: Tensor) -> None:
        dtype = args.u.dtype
        self.batch, self.paths, self.length, self.width = args.delta.shape
        self.states, self.groups = args.A.shape[-1], args.B.shape[3]
        self.plan = plan_for(self.states)
        if chunk >= self.length:  # one state, and an unused end of any length: one that divides well
            unit = BLOCK if self.length <= LONGEST else LONGEST
            chunk = -(-self.length // unit) * unit
        shared = _shared(args.u.device)
        self.segment = self.plan.segment(chunk, shared)
        self.ratio = chunk // self.segment
        self.segments = -(-self.length // self.segment)
        each = self.width // self.groups
        self.warps = warps_for(self.plan, self.segment, each, shared)
        self.splits = max(1, -(-each // (self.plan.tile * self.warps)))
        warps = self.segments * self.batch * self.paths * self.groups * self.splits * self.warps
        resident = multiprocessors(args.u.device) * self.plan.resident(self.segment, self.warps, shared)
        self.chunk = self.segment * segments_for(warps, resident)
        self.chunks = -(-self.length // self.chunk)
        u, delta, B, C, grad = (_rows(x, dtype) for x in (args.u, args.delta, args.B, args.C, grad_output))
        z = None if args.z is None else _rows(args.z, dtype)
        self.inputs = (u, delta, B, C, z, grad)
        self.parameters = tuple(_parameter(x) for x in (args.A, args.D, args.delta_bias))
        self.table = None if args.table is None else args.table.to(torch.int32).contiguous()
        self.kept = starts.contiguous()
        self.merged, self.softplus, self.gated = args.merge == "sum", args.delta_softplus, z is not None
        self._allocate(u, dtype)

    def _allocate(self, u: Tensor, dtype: torch.dtype) -> None:
        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=u.device)

        batch, paths, length, width = self.batch, self.paths, self.length, self.width
        segments = (batch, paths, self.segments, self.states, width)
        self.starts = self.kept if self.ratio == 1 else empty(*segments)
        self.adjoints = empty(batch, paths, self.chunks, self.states + 2, width)
        self.sums, self.totals = empty(batch, paths, self.chunks, width), empty(paths, self.states + 2, width)
        self.du = empty(batch, u.shape[1], length, width, dtype=dtype)
        self.ddelta = empty(batch, paths, length, width, dtype=dtype)
        self.dz = empty(batch, length, width, dtype=dtype) if self.gated else None
        share_u = u.shape[1] == 1 and paths > 1
        share_z = self.gated and paths > 1
        # Paths that add to one row run one after the other; in float32 the result itself holds the sum so far.
        self.in_turn = share_u or share_z
        self.du_sum = None if not share_u else self.du if dtype == torch.float32 else empty(*self.du.shape)
        self.dz_sum = None
        if share_z and self.dz is not None:
            self.dz_sum = self.dz if dtype == torch.float32 else empty(*self.dz.shape)
        shape = (self.splits, batch, paths, length, self.groups, self.states)
        self.dBC = empty(2, *shape, dtype=dtype if self.splits == 1 else torch.float32)
        self.summed = empty(2, *shape[1:], dtype=dtype) if self.splits > 1 else None

    @cached_property
    def vector(self) -> bool:
        """Whether every row that is read or written begins at a multiple of four elements, and groups end at one."""
        u, delta, _, _, z, grad = self.inputs
        read = [x for x in (u, delta, z, grad) if x is not None]
        # What is written is contiguous, and allocations are aligned.
        return self.width // self.groups % 4 == 0 and all(
            x.data_ptr() % (4 * x.element_size()) == 0 and not any(stride % 4 for stride in x.stride()[:-1])
            for x in read
        )

    def _values(self, first_path: int, launch_paths: int) -> tuple[int, ...]:
        u, delta, B, C, z, grad = self.inputs
        A, D, bias = self.parameters
        read = (u, delta, B, C, z, grad, A, D, bias, self.table, self.kept, self.starts, self.adjoints, self.sums)
        gradients = (self.du, self.ddelta, self.dz, self.du_sum, self.dz_sum, self.dBC[0], self.dBC[1])
        cut = (self.segment, self.segments, self.chunk, self.chunks, self.splits)
        sizes = (self.batch, self.paths, self.length, self.width, self.groups, *cut)
        strides = (
            *(u.stride(0), 0 if u.shape[1] == 1 else u.stride(1), u.stride(2)),
            *delta.stride()[:3],
            *B.stride()[:4],
            *C.stride()[:4],
            *((0, 0) if z is None else z.stride()[:2]),
            *((grad.stride(0), 0, grad.stride(1)) if self.merged else grad.stride()[:3]),
        )
        flags = (first_path, launch_paths, int(self.softplus), self.ratio, int(self.vector))
        return (*(_address(x) for x in (*read, self.totals, self.summed, *gradients)), *sizes, *flags, *strides)

    def _launch(self, name: str, grid: tuple[int, int, int], threads: int, shared: int, values: tuple) -> None:
        macros = {"IO": TYPES[self.du.dtype], "STATES": self.states, "WARPS": self.warps}
        call = kernel(SOURCE, name, LAYOUT, **macros)
        call(self.du.device.index or 0, grid, threads, values, shared)

    def run(self) -> None:
        plan, both = self.plan, self.batch * self.paths
        values = self._values(0, self.paths)
        per_group = self.width // self.groups
        walkers = min(128, -(-per_group * plan.walk_lanes // 32) * 32)
        tiles = self.groups * -(-per_group // (walkers // plan.walk_lanes))
        walk = (walkers, plan.walk_shared, values)
        if self.ratio > 1:
            self._launch("scan_refine_starts", (-(-self.segments // self.ratio), tiles, both), *walk)
        self._launch("scan_adjoint_chunks", (self.chunks, tiles, both), *walk)
        self._launch("scan_adjoint_combine", (-(-self.width // 32), self.states, both), 1024, 0, values)
        name = "scan_gradients_gated" if self.gated else "scan_gradients"
        paths = 1 if self.in_turn else self.paths
        for path in range(0, self.paths, paths):
            grid = (self.chunks, self.groups * self.splits, self.batch * paths)
            shared = plan.gradients_shared(self.segment, self.warps)
            mine = self._values(path, paths) if self.in_turn else values
            self._launch(name, grid, 32 * self.warps, shared, mine)
        blocks = -(-(self.states + 2) * self.width // 32)
        if self.summed is not None:
            blocks += -(-self.summed.numel() // 1024)
        self._launch("scan_sum_shares", (blocks, self.paths, 1), 1024, 0, values)

    def gradients(self) -> dict[str, Tensor | None]:
        """Return the results, those of all chunks in the shapes of the arguments."""
        dB, dC = self.dBC[:, 0] if self.summed is None else self.summed
        n = self.states
        return {
            "u": self.du,
            "delta": self.ddelta,
            "A": self.totals[:, :n].transpose(1, 2),
            "B": dB,
            "C": dC,
            "D": self.totals[:, n],
            "z": self.dz,
            "delta_bias": self.totals[:, n + 1],
        }


def selective_scan_backward(
    args: ScanArguments, chunk_starts: Tensor, chunk_length: int, grad_output: Tensor
) -> dict[str, Tensor | None]:
    """Return the gradients of the selective scan.

    Parameters
    ----------
    args : ScanArguments
        As the forward pass had them; u in float32, float16 or bfloat16, at most 64 states. The device of the tensors
        must be the current one.
    chunk_starts : (B, K, chunks, N, D) float32
        The state before each chunk of `chunk_length` steps, which the forward pass kept.
    chunk_length : int
        Steps of a chunk; 32 saves a pass that makes shorter ones.
    grad_output : (B, L, D) for merge "sum", (B, K, L, D) for "none"
        Any floating type and strides.

    Returns
    -------
    dict
        "u", "delta", "A", "B", "C", "D", "z" and "delta_bias": each of the shape and type of its argument, None where
        that is None. The arithmetic is float32, and the same call gives the same bits.

    Raises
    ------
    InputError
        For a type or a number of states that the kernels do not have.

    Examples
    --------
    >>> gradients = selective_scan_backward(args, chunk_starts, 64, torch.ones_like(y))  # doctest: +SKIP
    >>> gradients["A"].shape == args.A.shape  # doctest: +SKIP
    True
    """
    if args.u.dtype not in TYPES:
        raise InputError(f"u has the type {args.u.dtype}; convert it to float32, float16 or bfloat16.")
    if args.A.shape[-1] > MAX_STATES:
        raise InputError(f"A has {args.A.shape[-1]} states; the CUDA scan takes {MAX_STATES}, use backend='torch'.")
    each = max(1, MAX_SEQUENCES // args.paths)
    if args.delta.shape[0] <= each:
        found = _gradients(args, chunk_starts, chunk_length, grad_output)
    else:
        found = _in_parts(args, chunk_starts, chunk_length, grad_output, each)
    arguments = {name: getattr(args, name) for name in found}
    return {
        name: None if gradient is None or arguments[name] is None else gradient.to(arguments[name].dtype)
        for name, gradient in found.items()
    }


def _gradients(args: ScanArguments, starts: Tensor, chunk: int, grad: Tensor) -> dict[str, Tensor | None]:
    work = _Backward(args, starts, chunk, grad)
    if args.delta.numel() > 0:
        work.run()
    else:
        work.totals.zero_()
    return work.gradients()


def _in_parts(args: ScanArguments, starts: Tensor, chunk: int, grad: Tensor, each: int) -> dict[str, Tensor | None]:
    """Take `each` elements of the batch at a time: a grid has no more blocks along its axis."""
    found = []
    for first in range(0, args.delta.shape[0], each):
        rows = slice(first, first + each)
        some = {n: x[rows] for n in BATCHED if (x := getattr(args, n)) is not None}
        found.append(_gradients(replace(args, **some), starts[rows], chunk, grad[rows]))
    out: dict[str, Tensor | None] = {}
    for name in found[0]:
        parts = [x for part in found if (x := part[name]) is not None]
        out[name] = None if not parts else torch.cat(parts) if name in BATCHED else torch.stack(parts).sum(0)
    return out
