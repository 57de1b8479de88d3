"""The forward scan on a GPU: arguments made ready, a plan, and its launches. The kernels say how they work."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from napari_mamba.errors import InputError
from napari_mamba.scan.arguments import ScanArguments
from napari_mamba.scan.cuda.plan import PARALLEL_BYTES, Plan, make_plan
from napari_mamba.scan.cuda.runtime import kernel

TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
MOST_STATES = 64
FAR = 2**29  # elements between rows, whose bytes the kernels keep in 32 bits
MOST_BATCH = 65535  # a grid's third axis
LAYOUT = "14Q23q14i"  # the struct Scan of scan_forward.cuh
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
    x = x.detach().to(dtype)
    near = x.stride(2 if x.ndim > 3 else 1) < FAR
    return x if near and (x.stride(-1) == 1 or x.shape[-1] == 1) else x.contiguous()


def _parameter(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.detach().float().contiguous()


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
    if args.A.shape[-1] > MOST_STATES:
        raise InputError(f"A has {args.A.shape[-1]} states; the CUDA scan takes {MOST_STATES}, use backend='torch'.")
    return ScanArguments(
        u=_rows(args.u, dtype),
        delta=_rows(args.delta, dtype),
        A=args.A.detach().float().contiguous(),
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
        return (kernel("scan_short.cu", "scan_short", LAYOUT, SPLIT=plan.split, WARPS=plan.warps, **defines),)
    chunk = {"THREADS": plan.threads, "BLOCKS": plan.blocks, "AHEAD": plan.ahead, "POLY": plan.poly, **defines}

    def pass_(mode: int):
        return kernel("scan_chunks.cu", "scan_chunks", LAYOUT, MODE=mode, **chunk)

    if plan.kind == "single":
        return (pass_(2),)
    combine = kernel(
        "scan_combine.cu", "scan_combine", LAYOUT, STATES=defines["STATES"], WARPS=32 if plan.chunks > 64 else 8
    )
    return (pass_(1), combine, pass_(3)) if plan.fixup else (pass_(0), combine, pass_(2))


def _vector(states: int, size: int, *tensors: Tensor) -> int:
    """Return how many elements of B and C one load can take: their addresses and strides allow up to 16 bytes."""
    bits = states * size | 16
    for x in tensors:
        bits |= x.data_ptr()
        for stride in x.stride()[:-1]:
            bits |= stride * size
    return (bits & -bits) // size


class _Forward:
    """One forward pass: prepared arguments, buffers, and launches of some of the paths."""

    def __init__(self, args: ScanArguments, keep: bool, plan: Plan | None) -> None:
        self.args, self.keep = args, keep
        delta, A = args.delta, args.A
        self.batch, self.paths, self.length, self.width = delta.shape
        self.states, self.groups = A.shape[-1], args.B.shape[3]
        self.device, self.dtype, self.size = delta.device, delta.dtype, delta.element_size()
        merged_bytes = 4 * delta.numel()
        self.merging = args.merge == "sum" and self.paths > 1
        self.parallel = not self.merging or merged_bytes <= PARALLEL_BYTES
        together = self.paths if self.parallel else 1
        self.plan = plan or make_plan(
            *(self.batch, together, self.length, self.width, self.groups, self.states),
            *(multiprocessors(self.device), keep),
        )
        self.macros = {
            "IO": TYPES[self.dtype],
            "STATES": self.states,
            "SOFTPLUS": int(args.delta_softplus),
            "ORDERED": int(args.table is not None),
            "VEC": _vector(self.states, self.size, args.B, args.C) if self.plan.kind != "short" else 1,
        }
        self.last = self._empty(self.batch, self.paths, self.width, self.states)
        self._state_buffers(together)

    def _empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

    def _state_buffers(self, together: int) -> None:
        """Make the chunk states and sums of steps; paths that run in turn share them unless they are kept."""
        plan, self.state, self.sums = self.plan, None, None
        shape = (self.batch, self.paths if self.keep else together, plan.chunks)
        if plan.kind == "chunks" or (self.keep and plan.kind == "short"):
            self.state = self._empty(*shape, self.states, self.width)
        if plan.kind == "chunks":
            self.sums = self._empty(self.batch, together, plan.chunks, self.width)

    def _values(
        self, k: int, out: Tensor, total: Tensor | None, out_strides: tuple[int, int], chunks: int, group_blocks: int
    ) -> tuple:
        """Return the struct Scan with path k as the first."""
        a, size, width = self.args, self.size, self.width
        per_path = self.states * width
        shared_u = 0 if a.u.shape[1] == 1 else a.u.stride(1)
        state_k = self.plan.chunks * per_path
        kept = k if self.keep else 0
        state_b = 0 if self.state is None else self.state.stride(0)
        return (
            a.u.data_ptr() + k * shared_u * size,
            a.delta.data_ptr() + k * a.delta.stride(1) * size,
            a.B.data_ptr() + k * a.B.stride(1) * size,
            a.C.data_ptr() + k * a.C.stride(1) * size,
            0 if a.z is None else a.z.data_ptr(),
            a.A.data_ptr() + 4 * k * per_path,
            0 if a.D is None else a.D.data_ptr() + 4 * k * width,
            0 if a.delta_bias is None else a.delta_bias.data_ptr() + 4 * k * width,
            0 if a.table is None else a.table.data_ptr() + 4 * k * self.length,
            0 if total is None else total.data_ptr(),
            out.data_ptr(),
            0 if self.state is None else self.state.data_ptr() + 4 * kept * state_k,
            0 if self.sums is None else self.sums.data_ptr(),
            self.last.data_ptr() + 4 * k * per_path,
            *(a.u.stride(0), shared_u, a.u.stride(2)),
            *a.delta.stride()[:3],
            *a.B.stride()[:4],
            *a.C.stride()[:4],
            *((0, 0) if a.z is None else a.z.stride()[:2]),
            *out_strides,
            *(state_b, state_k),
            *((0, 0) if self.sums is None else self.sums.stride()[:2]),
            self.paths * per_path,
            *(self.length, width, self.plan.chunk, chunks, width // self.groups, group_blocks, int(self.keep)),
            *(size * x.stride(2) for x in (a.u, a.delta, a.B, a.C)),
            *(0 if a.z is None else size * a.z.stride(1), width * out.element_size(), 4 * width),
        )

    def _launch(self, k: int, paths: int, out: Tensor, out_strides: tuple[int, int], total: Tensor | None, gate: bool):
        plan, index = self.plan, self.device.index or 0
        out_float = int(out.dtype == torch.float32)
        macros = {**self.macros, "HAS_Z": int(gate), "ADD": int(total is not None), "OUT_FLOAT": out_float}
        channels = 32 // plan.split if plan.kind == "short" else plan.threads
        group_blocks = -(-(self.width // self.groups) // channels)
        values = self._values(k, out, total, out_strides, plan.chunks, group_blocks)
        blocks = self.groups * group_blocks
        for step, call in enumerate(_kernels(plan, tuple(macros.items()))):
            if plan.kind == "chunks" and step == 1:
                warps = 32 if plan.chunks > 64 else 8
                call(index, (-(-self.states * self.width // 32), paths, self.batch), 32 * warps, values)
            elif plan.kind == "short":
                call(index, (blocks, paths, self.batch), 32 * plan.warps, values)
            else:
                chunks = plan.chunks - (1 if step == 2 and plan.fixup else 0)
                if chunks:
                    call(index, (blocks * chunks, paths, self.batch), plan.threads, values)

    def run(self) -> Tensor:
        """Launch everything; return the output."""
        row = self.length * self.width
        if not self.merging:
            paths = () if self.args.merge == "sum" else (self.paths,)
            out = self._empty(self.batch, *paths, self.length, self.width, dtype=self.dtype)
            self._launch(0, self.paths, out, (self.paths * row, row), None, self.args.z is not None)
            return out
        out = self._empty(self.batch, self.length, self.width, dtype=self.dtype)
        if self.parallel:
            single = self._empty(self.batch, self.paths, self.length, self.width)
            self._launch(0, self.paths, single, (self.paths * row, row), None, False)
            self._merge(single, out)
            return out
        total = out if self.dtype == torch.float32 else self._empty(*out.shape)
        for k in range(self.paths):
            last = k == self.paths - 1
            target, earlier = (out if last else total), (total if k else None)
            self._launch(k, 1, target, (row, 0), earlier, last and self.args.z is not None)
        return out

    def _merge(self, single: Tensor, out: Tensor) -> None:
        """Add the outputs of the paths, and gate them."""
        gate = int(self.args.z is not None)
        call = kernel("scan_combine.cu", "merge_paths", LAYOUT, IO=self.macros["IO"], HAS_Z=gate)
        values = self._values(0, out, single, (single.stride(0), single.stride(1)), self.paths, 0)
        call(self.device.index or 0, (-(-self.length * self.width // 256), 1, self.batch), 256, values)


def selective_scan_forward(args: ScanArguments, keep: bool = False, plan: Plan | None = None) -> Scanned:
    """Run the forward scan; the device of the tensors must be the current one.

    Parameters
    ----------
    args : ScanArguments
        From `prepare`.
    keep : bool
        Keep the start state of every chunk, (B, K, chunks, N, D) float32, for the backward pass.
    plan : Plan, optional
        How to cut the sequence; by default `plan.make_plan` says.

    Returns
    -------
    Scanned

    Examples
    --------
    >>> y, last, _, _ = selective_scan_forward(prepare(args))  # doctest: +SKIP
    """
    batch = args.delta.shape[0]
    if batch > MOST_BATCH:
        return _in_parts(args, keep, plan)
    forward = _Forward(args, keep, plan)
    if args.delta.numel() == 0:
        y = forward._empty(*args.delta.shape, dtype=args.u.dtype)
        return Scanned(y[:, 0] if args.merge == "sum" else y, forward.last.zero_(), None, 1)
    y = forward.run()
    starts = forward.state if keep else None
    if keep and starts is None:  # a single chunk starts from nothing
        starts = torch.zeros_like(forward.last).transpose(2, 3)[:, :, None].contiguous()
    return Scanned(y, forward.last, starts, forward.plan.chunk)


def _in_parts(args: ScanArguments, keep: bool, plan: Plan | None) -> Scanned:
    """Run a batch larger than a grid in parts."""
    found = []
    for part in (slice(i, i + MOST_BATCH) for i in range(0, args.delta.shape[0], MOST_BATCH)):
        rows = {name: getattr(args, name)[part] for name in ("u", "delta", "B", "C")}
        rest = {name: getattr(args, name) for name in ("A", "D", "delta_bias", "delta_softplus", "table", "merge")}
        z = None if args.z is None else args.z[part]
        plan = plan or make_plan(MOST_BATCH, *args.delta.shape[1:], args.B.shape[3], args.A.shape[-1], 1, keep)
        found.append(selective_scan_forward(ScanArguments(**rows, **rest, z=z), keep, plan))
    starts = torch.cat([part.starts for part in found]) if keep else None  # type: ignore[misc]
    return Scanned(
        torch.cat([part.y for part in found]), torch.cat([part.last for part in found]), starts, found[0].chunk
    )
