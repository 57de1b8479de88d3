"""The forward scan on a GPU: arguments made ready, a plan, and its launches. The kernels say how they work."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from napari_mamba.errors import InputError
from napari_mamba.scan.arguments import ScanArguments
from napari_mamba.scan.cuda.plan import PARALLEL_BYTES, Plan, make_plan, piece_of
from napari_mamba.scan.cuda.runtime import Kernel, Launch, kernel

TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
MAX_STATES = 64
PIPELINED = 64  # lanes of a channel and warps, multiplied, up to which scan_short has the registers to load ahead
STAGED_BYTES = 184 * 1024  # of shared memory on a multiprocessor, for the rows of 16 warps under way
ROW_BYTES = 16  # to which rows are aligned that are copied to shared memory
FAR = 2**29  # elements between rows, whose bytes the kernels keep in 32 bits
MAX_BATCH = 65535  # a grid's third axis
POINTERS = 15
LAYOUT = f"{POINTERS}Q23q14i"  # the struct Scan of scan_forward.cuh
HEAD = struct.Struct(f"@{POINTERS}Q")  # its addresses
REST = struct.Struct("@" + LAYOUT.removeprefix(f"{POINTERS}Q"))
MAX_LAYOUTS = 1024  # kept; a program sees few shapes
_COUNTED = "_napari_mamba_int32"


class Scanned(NamedTuple):
    """What a forward scan gives: y, last (B, K, D, N), and for a backward pass the start states and their spacing."""

    y: Tensor
    last: Tensor
    starts: Tensor | None
    chunk: int


@cache
def multiprocessors(device: torch.device) -> int:
    """Return how many multiprocessors a device has; 4 for the CPU, where only the tests' emulator runs."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4


@cache
def stages(device: torch.device) -> bool:
    """Whether rows go by way of shared memory on a device, as an H200 decided; so they do in the tests' emulator."""
    if device.type != "cuda":
        return True
    shared = getattr(torch.cuda.get_device_properties(device), "shared_memory_per_multiprocessor", 0)
    return torch.cuda.get_device_capability(device) >= (9, 0) and shared >= STAGED_BYTES


def device_table(table: Tensor) -> Tensor:
    """Return an order's (K, L) table as contiguous int32, made once for each tensor while that is not written to."""
    if table.dtype == torch.int32:
        return table.contiguous()
    version = 0 if table.is_inference() else table._version
    found = getattr(table, _COUNTED, None)
    if found is not None and found[0] == version:
        return found[1]
    with torch.inference_mode(False):
        small = table.to(torch.int32).contiguous()
    # What is made while a graph is captured holds its values only after a replay.
    if not (table.is_cuda and torch.cuda.is_current_stream_capturing()):
        setattr(table, _COUNTED, (version, small))
    return small


def _rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    # Each of these calls costs a microsecond, also where it changes nothing.
    x = x.detach() if x.requires_grad else x
    x = x if x.dtype == dtype else x.to(dtype)
    near = x.stride(2 if x.ndim > 3 else 1) < FAR
    return x if near and (x.stride(-1) == 1 or x.shape[-1] == 1) else x.contiguous()


def _parameter(x: Tensor | None) -> Tensor | None:
    if x is None or (x.dtype == torch.float32 and x.is_contiguous() and not x.requires_grad):
        return x
    return x.detach().float().contiguous()


def prepare(args: ScanArguments) -> ScanArguments:
    """Return the arguments as the kernels read them: one type, float32 parameters, an int32 table, no gradients.

    Tensors that already are so are not copied, slices of wider rows included.

    Raises
    ------
    InputError
        For a type or a number of states that the kernels do not have.
    """
    dtype = args.u.dtype
    if dtype not in TYPES:
        raise InputError(f"The CUDA scan does not take {dtype}; convert u to float32, or use backend='torch'.")
    if args.A.shape[-1] > MAX_STATES:
        raise InputError(f"A has {args.A.shape[-1]} states; the CUDA scan takes {MAX_STATES}, use backend='torch'.")
    return ScanArguments(
        u=_rows(args.u, dtype),
        delta=_rows(args.delta, dtype),
        A=_parameter(args.A),  # type: ignore[arg-type]
        B=_rows(args.B, dtype),
        C=_rows(args.C, dtype),
        D=_parameter(args.D),
        z=None if args.z is None else _rows(args.z, dtype),
        delta_bias=_parameter(args.delta_bias),
        delta_softplus=args.delta_softplus,
        table=None if args.table is None else device_table(args.table),
        merge=args.merge,
    )


@lru_cache(maxsize=1024)
def _kernels(plan: Plan, macros: tuple[tuple[str, int], ...]) -> tuple:
    """Return a plan's kernels in the order of their launches."""
    defines = dict(macros)
    if plan.kind == "short":
        short = {"SPLIT": plan.split, "WARPS": plan.warps, "PIPELINE": int(plan.split * plan.warps <= PIPELINED)}
        return (kernel("scan_short.cu", "scan_short", LAYOUT, **short, **defines),)
    chunk = {"THREADS": plan.threads, "BLOCKS": plan.blocks, "AHEAD": plan.ahead, "POLY": plan.poly, **defines}
    chunk |= {"CHANNELS": plan.channels, "STAGED": int(plan.staged)}

    def pass_(mode: int):
        return kernel("scan_chunks.cu", "scan_chunks", LAYOUT, MODE=mode, **chunk)

    if plan.kind == "single":
        return (pass_(2),)
    combine = kernel(
        "scan_combine.cu", "scan_combine", LAYOUT, STATES=defines["STATES"], WARPS=32 if plan.chunks > 64 else 8
    )
    return pass_(0), combine, pass_(2)


class _Layout:
    """All of a forward pass but its addresses: the plan, the kernels and the numbers of the struct Scan.

    One is made for each combination of shapes, strides and options: what is left for a call is short, since a short
    sequence takes the GPU less time than Python takes to work this out.
    """

    def __init__(self, args: ScanArguments, keep: bool, plan: Plan | None, align: int, aligned: bool) -> None:
        delta = args.delta
        self.batch, self.paths, self.length, self.width = delta.shape
        self.states, self.groups, self.keep, self.gated = args.A.shape[-1], args.B.shape[3], keep, args.z is not None
        self.size = delta.element_size()
        self.merging = args.merge == "sum" and self.paths > 1
        self.parallel = not self.merging or 4 * delta.numel() <= PARALLEL_BYTES
        self.together = self.paths if self.parallel else 1
        each = self.width // self.groups
        staged = aligned and each % 32 == 0
        self.plan = plan or make_plan(
            *(self.batch, self.together, self.length, self.width, self.groups, self.states),
            *(multiprocessors(delta.device), keep, staged and stages(delta.device)),
        )
        if self.plan.staged and not staged:
            self.plan = replace(self.plan, staged=False)
        if each % (self.plan.threads * self.plan.channels):
            self.plan = replace(self.plan, channels=1)
        self.macros = {
            "IO": TYPES[delta.dtype],
            "STATES": self.states,
            "SOFTPLUS": int(args.delta_softplus),
            "ORDERED": int(args.table is not None),
            "VEC": align // self.size,
        }
        if self.plan.kind == "short":  # a lane's own states in one load, or in a few
            lane = self.states // self.plan.split if self.states % self.plan.split == 0 else 1
            self.macros["VEC"] = math.gcd(align // self.size, lane)
        # Pieces of chunks whose states are kept: the backward pass would else walk each chunk once more to find them.
        self.piece = piece_of(self.states)
        fine = keep and self.plan.kind != "short" and self.plan.chunk % self.piece == 0
        self.pieces = -(-self.length // self.piece) if fine and self.plan.chunk > self.piece else 0
        if self.pieces:
            self.macros |= {"KEEP": 1, "PIECE": self.piece}
        self.u_k = 0 if args.u.shape[1] == 1 else args.u.stride(1)
        self.path_bytes = tuple(self.size * x for x in (self.u_k, *(y.stride(1) for y in (delta, args.B, args.C))))
        z = (0, 0) if args.z is None else args.z.stride()[:2]
        u = (args.u.stride(0), self.u_k, args.u.stride(2))
        self.strides = (*u, *delta.stride()[:3], *args.B.stride()[:4], *args.C.stride()[:4], *z)
        self.rows = tuple(self.size * x for x in (u[2], delta.stride(2), args.B.stride(2), args.C.stride(2), z[1]))
        self.state_k, row = self.plan.chunks * self.states * self.width, self.length * self.width
        kept = self.paths if keep else self.together
        self.state_shape = (self.batch, kept, self.plan.chunks, self.states, self.width)
        self.state_strides = (kept * self.state_k, self.state_k)
        sums = self.plan.chunks * self.width
        self.rest = (*self.state_strides, self.together * sums, sums, self.paths * self.states * self.width)
        self.beside, self.alone = (self.paths * row, row), (row, 0)
        channels = 32 // self.plan.split if self.plan.kind == "short" else self.plan.threads * self.plan.channels
        self.group_blocks = -(-each // channels)
        self._launches: dict[tuple, tuple] = {}

    def numbers(self, out_strides: tuple[int, int], out_size: int, count: int) -> tuple[int, ...]:
        """Return the struct's numbers; `count` is that of the chunks (of the paths, for merge_paths)."""
        sizes = (self.length, self.width, self.plan.chunk, count, self.width // self.groups, self.group_blocks)
        rows = (*self.rows, self.width * out_size, 4 * self.width)
        return (*self.strides, *out_strides, *self.rest, *sizes, int(self.keep), *rows)

    def launches(self, paths: int, out_strides: tuple[int, int], out_float: bool, add: bool, gate: bool) -> tuple:
        """Return the numbers, packed, and the launches of some paths at once."""
        key = (paths, out_strides, out_float, add, gate)
        if key not in self._launches:
            macros = {**self.macros, "HAS_Z": int(gate), "ADD": int(add), "OUT_FLOAT": int(out_float)}
            numbers = self.numbers(out_strides, 4 if out_float else self.size, self.plan.chunks)
            self._launches[key] = (REST.pack(*numbers), self._grids(_kernels(self.plan, tuple(macros.items())), paths))
        return self._launches[key]

    def _grids(self, kernels: tuple, paths: int) -> tuple[Launch, ...]:
        plan, blocks = self.plan, self.groups * self.group_blocks
        if plan.kind == "short":
            return ((kernels[0], (blocks, paths, self.batch), 32 * plan.warps, 0),)
        whole = (blocks * plan.chunks, paths, self.batch)
        if plan.kind == "single":
            return ((kernels[0], whole, plan.threads, 0),)
        ends = blocks * (plan.chunks - 1)
        tails = ((kernels[0], (ends, paths, self.batch), plan.threads, 0),) if ends else ()
        warps = 32 if plan.chunks > 64 else 8
        combine = (kernels[1], (-(-self.states * self.width // 32), paths, self.batch), 32 * warps, 0)
        return (*tails, combine, (kernels[2], whole, plan.threads, 0))


_LAYOUTS: dict[tuple, _Layout] = {}


def layout_of(args: ScanArguments, keep: bool, plan: Plan | None = None) -> _Layout:
    """Return the layout of a prepared problem, from those made before where it was."""
    a, z = args, args.z
    size = a.delta.element_size()
    bits = a.B.data_ptr() | a.C.data_ptr() | a.A.shape[-1] * size | 16
    for stride in (*a.B.stride()[:4], *a.C.stride()[:4]):
        bits |= stride * size
    align = bits & -bits  # bytes that one load of B or C may take
    shapes = (a.delta.shape, a.u.shape[1], a.A.shape[-1], a.B.shape[3], a.delta.dtype, a.delta.device)
    strides = (a.u.stride(), a.delta.stride(), a.B.stride(), a.C.stride(), None if z is None else z.stride())
    rows = [x for x in (a.u, a.delta, z) if x is not None]
    aligned = not any(x.data_ptr() % ROW_BYTES or any(s * size % ROW_BYTES for s in x.stride()[:-1]) for x in rows)
    options = (a.delta_softplus, a.table is None, a.merge, keep, plan)
    key = (shapes, strides, *options, align, aligned, PARALLEL_BYTES)
    found = _LAYOUTS.get(key)
    if found is None:
        if len(_LAYOUTS) >= MAX_LAYOUTS:
            _LAYOUTS.clear()
        found = _LAYOUTS[key] = _Layout(args, keep, plan, align, aligned)
    return found


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


class _Forward:
    """One forward pass: its buffers and launches."""

    def __init__(self, args: ScanArguments, layout: _Layout) -> None:
        self.args, self.layout, plan = args, layout, layout.plan
        self.dtype, self.device = args.delta.dtype, args.delta.device
        self.last = self._empty(layout.batch, layout.paths, layout.width, layout.states)
        # Chunk states and sums of steps; paths that run in turn share them unless they are kept.
        self.state: Tensor | None = None
        self.sums: Tensor | None = None
        if plan.kind == "chunks" or (layout.keep and plan.kind == "short"):
            self.state = self._empty(*layout.state_shape)
        if plan.kind == "chunks":
            self.sums = self._empty(layout.batch, layout.together, plan.chunks, layout.width)

        self.pieces: Tensor | None = None
        if layout.pieces:
            self.pieces = self._empty(layout.batch, layout.paths, layout.pieces, layout.states, layout.width)

    def _empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

    def _pointers(self, k: int, out: Tensor, total: Tensor | None) -> tuple[int, ...]:
        """Return the struct's addresses, those of path k."""
        a, layout = self.args, self.layout
        width, length, each = layout.width, layout.length, layout.states * layout.width
        u, delta, B, C = (k * step for step in layout.path_bytes)
        kept = 4 * k * layout.state_k if layout.keep else 0
        return (
            a.u.data_ptr() + u,
            a.delta.data_ptr() + delta,
            a.B.data_ptr() + B,
            a.C.data_ptr() + C,
            _address(a.z),
            a.A.data_ptr() + 4 * k * each,
            0 if a.D is None else a.D.data_ptr() + 4 * k * width,
            0 if a.delta_bias is None else a.delta_bias.data_ptr() + 4 * k * width,
            0 if a.table is None else a.table.data_ptr() + 4 * k * length,
            _address(total),
            out.data_ptr(),
            0 if self.state is None else self.state.data_ptr() + kept,
            _address(self.sums),
            self.last.data_ptr() + 4 * k * each,
            0 if self.pieces is None else self.pieces.data_ptr() + 4 * k * layout.pieces * each,
        )

    def _launch(
        self, k: int, paths: int, out: Tensor, out_strides: tuple[int, int], total: Tensor | None, gate: bool
    ) -> None:
        out_float = out.dtype == torch.float32
        numbers, launches = self.layout.launches(paths, out_strides, out_float, total is not None, gate)
        Kernel.together(launches, self.device.index or 0, HEAD, list(self._pointers(k, out, total)), numbers)

    def run(self, before: Callable[[int], None] | None = None) -> Tensor:
        """Launch everything; return the output. `before` is called with each path that runs in its turn."""
        layout = self.layout
        paths = (layout.paths,) if self.args.merge == "none" else ()
        out = self._empty(layout.batch, *paths, layout.length, layout.width, dtype=self.dtype)
        if not layout.merging:
            self._launch(0, layout.paths, out, layout.beside, None, layout.gated)
        elif layout.parallel:
            single = self._empty(layout.batch, layout.paths, layout.length, layout.width)
            self._launch(0, layout.paths, single, layout.beside, None, False)
            self._merge(single, out)
        else:
            total = out if self.dtype == torch.float32 else self._empty(*out.shape)
            for k in range(layout.paths):
                if before is not None:
                    before(k)
                last = k == layout.paths - 1
                target, earlier = (out if last else total), (total if k else None)
                self._launch(k, 1, target, layout.alone, earlier, last and layout.gated)
        return out

    def _merge(self, single: Tensor, out: Tensor) -> None:
        """Add the outputs of the paths, and gate them."""
        layout = self.layout
        call = kernel("scan_combine.cu", "merge_paths", LAYOUT, IO=layout.macros["IO"], HAS_Z=int(layout.gated))
        values = (*self._pointers(0, out, single), *layout.numbers(layout.beside, layout.size, layout.paths))
        call(self.device.index or 0, (-(-layout.length * layout.width // 256), 1, layout.batch), 256, values)


def runs_sequentially(args: ScanArguments) -> bool:
    """Whether the paths of a prepared problem are scanned one after another, each added to those before."""
    if args.delta.shape[0] > MAX_BATCH or args.delta.numel() == 0:
        return False
    layout = layout_of(args, keep=False)
    return layout.merging and not layout.parallel


def selective_scan_forward(
    args: ScanArguments,
    keep: bool = False,
    plan: Plan | None = None,
    before: Callable[[int], None] | None = None,
) -> Scanned:
    """Run the forward scan; the device of the tensors must be the current one.

    Parameters
    ----------
    args : ScanArguments
        From `prepare`.
    keep : bool
        Keep states for the backward pass, (B, K, pieces, N, D) float32: before every 32 positions (16 of one or two
        states) where chunks are a multiple of that, else before every chunk; `Scanned.chunk` says which.
    plan : Plan, optional
        How to cut the sequence; by default `plan.make_plan` says.
    before : callable, optional
        Called with the number of each path before it is scanned, where `runs_sequentially`: `delta` may be a view of
        one path's memory, which it then fills.

    Returns
    -------
    Scanned

    Examples
    --------
    >>> y, last, _, _ = selective_scan_forward(prepare(args))  # doctest: +SKIP
    """
    batch = args.delta.shape[0]
    if batch > MAX_BATCH:
        return _in_parts(args, keep, plan)
    forward = _Forward(args, layout_of(args, keep, plan))
    if args.delta.numel() == 0:
        y = forward._empty(*args.delta.shape, dtype=args.u.dtype)
        return Scanned(y[:, 0] if args.merge == "sum" else y, forward.last.zero_(), None, 1)
    y = forward.run(before)
    if forward.pieces is not None:
        return Scanned(y, forward.last, forward.pieces, forward.layout.piece)
    starts = forward.state if keep else None
    if keep and starts is None:  # a single chunk starts from nothing
        starts = torch.zeros_like(forward.last).transpose(2, 3)[:, :, None].contiguous()
    return Scanned(y, forward.last, starts, forward.layout.plan.chunk)


def _in_parts(args: ScanArguments, keep: bool, plan: Plan | None) -> Scanned:
    """Run a batch larger than a grid in parts."""
    found = []
    for part in (slice(i, i + MAX_BATCH) for i in range(0, args.delta.shape[0], MAX_BATCH)):
        rows = {name: getattr(args, name)[part] for name in ("u", "delta", "B", "C")}
        rest = {name: getattr(args, name) for name in ("A", "D", "delta_bias", "delta_softplus", "table", "merge")}
        z = None if args.z is None else args.z[part]
        plan = plan or make_plan(MAX_BATCH, *args.delta.shape[1:], args.B.shape[3], args.A.shape[-1], 1, keep)
        found.append(selective_scan_forward(ScanArguments(**rows, **rest, z=z), keep, plan))
    starts = torch.cat([part.starts for part in found]) if keep else None  # type: ignore[misc]
    return Scanned(
        torch.cat([part.y for part in found]), torch.cat([part.last for part in found]), starts, found[0].chunk
    )
