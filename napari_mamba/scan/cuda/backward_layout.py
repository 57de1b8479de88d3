"""All of a backward pass but its addresses: what is launched, on what numbers, in how much memory.

It depends on shapes, strides, types and options alone, so one is made for each combination and kept: a short sequence
takes the GPU less time than Python takes to work this out.
"""

from __future__ import annotations

import struct
from functools import cache, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from napari_mamba.scan.arguments import ScanArguments
from napari_mamba.scan.cuda.backward_plan import (
    BLOCK,
    LONGEST,
    MAX_SEGMENTS,
    RESERVED,
    ROOMY,
    TUNING,
    Shared,
    Tuning,
    plan_for,
    segments_for,
    warps_for,
    whole_sequences_fill,
)
from napari_mamba.scan.cuda.forward import multiprocessors
from napari_mamba.scan.cuda.runtime import Launch, kernel

SOURCE, FEW_SOURCE = "scan_backward.cu", "scan_backward_few.cu"
POINTERS, NUMBERS = 23, 34  # the struct Backward
LAYOUT = f"{POINTERS}Q{NUMBERS}q"
HEAD, REST = struct.Struct(f"@{POINTERS}Q"), struct.Struct(f"@{NUMBERS}q")
TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
WARP = 32
ALIGNED = 32  # floats at whose multiples a part of the scratch memory begins
Strides = tuple[int, ...]


class Facts(NamedTuple):
    """What a layout depends on: sizes, strides, types and options.

    shape is (B, K, L, D); chunk the spacing of the states that the forward pass kept.
    """

    shape: tuple[int, int, int, int]
    u_paths: int
    states: int
    groups: int
    dtype: torch.dtype
    device: torch.device
    u: Strides
    delta: Strides
    B: Strides
    C: Strides
    z: Strides | None
    grad: Strides
    softplus: bool
    ordered: bool
    merged: bool
    chunk: int


def facts_of(args: ScanArguments, chunk: int, grad: Tensor) -> Facts:
    """The facts of arguments as the kernels read them."""
    batch, paths, length, width = args.delta.shape
    return Facts(
        (batch, paths, length, width),
        *(args.u.shape[1], args.A.shape[-1], args.B.shape[3], args.delta.dtype, args.delta.device),
        *(args.u.stride(), args.delta.stride(), args.B.stride(), args.C.stride()),
        *(None if args.z is None else args.z.stride(), grad.stride()),
        args.delta_softplus,
        args.table is not None,
        args.merge == "sum",
        chunk,
    )


@cache
def _shared(device: torch.device) -> Shared:
    """Shared memory of a device; an H100's for the CPU, where only the tests' emulator runs."""
    if device.type != "cuda":
        return Shared(227 * 1024, 228 * 1024)
    properties = torch.cuda.get_device_properties(device)
    block = getattr(properties, "shared_memory_per_block_optin", 48 * 1024)  # what every device has
    return Shared(block, getattr(properties, "shared_memory_per_multiprocessor", block + RESERVED))


class Scratch(NamedTuple):
    """Where the parts of the memory lie that a pass needs for itself, in bytes from its start; None: not needed."""

    starts: int | None
    adjoints: int
    sums: int
    du_sum: int | None
    dz_sum: int | None
    dB: int | None
    dC: int | None
    floats: int


class Layout:
    """One backward pass; see the module's text.

    Parameters
    ----------
    facts : Facts
    shared : Shared
    multiprocessors : int
        Of the device.
    tuning : Tuning, optional

    Attributes
    ----------
    splits : int
        Shares of the gradients of B and C, which are added up at the end.
    resident : int
        Warps of scan_gradients_few on a multiprocessor, where it runs.
    scratch : Scratch
    vectorable : bool
        Strides and groups let rows be read four elements at a time; addresses have to, too.
    """

    def __init__(self, facts: Facts, shared: Shared, multiprocessors: int, tuning: Tuning = TUNING) -> None:
        self.facts, self.tuning = facts, tuning
        self.batch, self.paths, self.length, self.width = facts.shape
        self.each = self.width // facts.groups
        self.plan = plan_for(facts.states)
        gated = facts.z is not None
        self.few = facts.states <= (tuning.few_gated if gated else tuning.few)
        share_u, share_z = facts.u_paths == 1 and self.paths > 1, gated and self.paths > 1
        # Paths that add to one row run one after the other; in float32 the result itself holds the sum so far.
        self.in_turn, self.share_u, self.share_z = share_u or share_z, share_u, share_z
        kept = facts.chunk
        if kept >= self.length:  # one state, and an unused end of any length: one that divides well
            unit = BLOCK if self.length <= LONGEST else LONGEST
            kept = -(-self.length // unit) * unit
        self.segment = self.plan.segment(kept, Shared(ROOMY, ROOMY) if self.few else shared)
        self.ratio = kept // self.segment
        self.segments = -(-self.length // self.segment)
        self.resident = tuning.roomy if gated or facts.states > tuning.narrow else tuning.resident
        if self.few:
            self.warps, self.splits = tuning.warps_gated if gated else tuning.warps, -(-self.each // WARP)
            self.chunk = self.segment * self._few_segments(multiprocessors)
        else:
            self.warps = warps_for(self.plan, self.segment, self.each, shared)
            self.splits = max(1, -(-self.each // (self.plan.tile * self.warps)))
            resident = multiprocessors * self.plan.resident(self.segment, self.warps, shared)
            warps = self.batch * self.paths * facts.groups * self.splits * self.warps
            self.chunk = self.segment * segments_for(self.segments * warps, resident, min(MAX_SEGMENTS, self.segments))
        self.chunks = -(-self.length // self.chunk)
        self.scratch = self._scratch()
        read = [x for x in (facts.u, facts.delta, facts.z, facts.grad) if x is not None]
        # What is written is contiguous, and allocations are aligned.
        self.vectorable = self.each % 4 == 0 and not any(stride % 4 for x in read for stride in x[:-1])
        self.vector_bytes = 4 * facts.dtype.itemsize
        self._rounds: dict[bool, tuple[tuple[tuple[Launch, ...], bytes], ...]] = {}

    def _few_segments(self, multiprocessors: int) -> int:
        """The segments of a chunk of scan_gradients_few; all of them where whole sequences fill the device."""
        facts, tuning = self.facts, self.tuning
        warps = self.batch * facts.groups * self.splits
        at_once = warps * (1 if self.in_turn else self.paths)
        allowed = facts.z is None and facts.states <= tuning.whole
        if allowed and whole_sequences_fill(at_once, multiprocessors * tuning.roomy, tuning.full):
            self.resident = tuning.roomy
            return self.segments
        most = min(tuning.segments, self.segments)
        return segments_for(self.segments * warps * self.paths, multiprocessors * self.resident, most)

    def _scratch(self) -> Scratch:
        facts, end = self.facts, 0
        rows, half = self.batch * self.length * self.width, facts.dtype != torch.float32

        def part(floats: int, wanted: bool = True) -> int | None:
            nonlocal end
            if not wanted:
                return None
            begin, end = end, end + -(-floats // ALIGNED) * ALIGNED
            return 4 * begin

        blocks, states = self.batch * self.paths * self.width, facts.states
        shares = self.splits * self.batch * self.paths * self.length * facts.groups * states
        return Scratch(
            part(blocks * self.segments * states, self.ratio > 1),
            part(blocks * self.chunks * (states + 2)) or 0,
            part(blocks * self.chunks) or 0,
            part(rows, self.share_u and half),
            part(rows, self.share_z and half),
            part(shares, self.splits > 1),
            part(shares, self.splits > 1),
            end,
        )

    def numbers(self, first_path: int, launch_paths: int, vector: bool) -> tuple[int, ...]:
        """The struct's numbers, of a launch of some paths."""
        facts = self.facts
        cut = (self.segment, self.segments, self.chunk, self.chunks, self.splits)
        strides = (
            *(facts.u[0], 0 if facts.u_paths == 1 else facts.u[1], facts.u[2]),
            *facts.delta[:3],
            *facts.B[:4],
            *facts.C[:4],
            *((0, 0) if facts.z is None else facts.z[:2]),
            *((facts.grad[0], 0, facts.grad[1]) if facts.merged else facts.grad[:3]),
        )
        flags = (first_path, launch_paths, int(facts.softplus), self.ratio, int(vector))
        return (self.batch, self.paths, self.length, self.width, facts.groups, *cut, *flags, *strides)

    def rounds(self, vector: bool) -> tuple[tuple[tuple[Launch, ...], bytes], ...]:
        """Launches that share their numbers, with these packed; one after another."""
        if vector not in self._rounds:
            before, gradients, after = self._launches()
            paths = [(k, 1) for k in range(self.paths)] if self.in_turn else [(0, self.paths)]
            found = [(gradients, REST.pack(*self.numbers(first, count, vector))) for first, count in paths]
            whole = REST.pack(*self.numbers(0, self.paths, vector))
            if self.in_turn:
                self._rounds[vector] = ((before, whole), *found, (after, whole))
            else:
                self._rounds[vector] = ((before + gradients + after, whole),)
        return self._rounds[vector]

    def _launches(self) -> tuple[tuple[Launch, ...], tuple[Launch, ...], tuple[Launch, ...]]:
        """What runs before the gradients, the gradients (of one path, where these take turns), and what runs after."""
        facts, plan, both = self.facts, self.plan, self.batch * self.paths

        def launch(name: str, grid: tuple[int, int, int], threads: int, shared: int) -> Launch:
            return kernel(SOURCE, name, LAYOUT, **self._macros()), grid, threads, shared

        walkers = min(128, -(-self.each * plan.walk_lanes // 32) * 32)
        tiles = facts.groups * -(-self.each // (walkers // plan.walk_lanes))
        walk = (walkers, plan.walk_shared)
        refine = launch("scan_refine_starts", (-(-self.segments // self.ratio), tiles, both), *walk)
        later = launch("scan_adjoint_chunks", (self.chunks - 1, tiles, both), *walk)
        before = (
            *((refine,) if self.ratio > 1 else ()),
            *((later,) if self.chunks > 1 else ()),
            launch("scan_adjoint_combine", (-(-self.width // 32), facts.states, both), 1024, 0),
        )
        blocks = -(-(facts.states + 2) * self.width // 32)
        if self.splits > 1:
            blocks += -(-2 * both * self.length * facts.groups * facts.states // 1024)
        after = launch("scan_sum_shares", (blocks, self.paths, 1), 1024, 0)
        return before, (self._gradients(),), (after,)

    def _macros(self) -> dict[str, int]:
        macros = {"IO": TYPES[self.facts.dtype], "STATES": self.facts.states}
        return macros | ({"GRADIENTS": 0} if self.few else {"WARPS": self.warps})

    def _gradients(self) -> Launch:
        """The launch of the gradients: of all paths, or of one where these take turns."""
        facts, plan = self.facts, self.plan
        sequences = self.batch * (1 if self.in_turn else self.paths)
        if self.few:
            macros = {"IO": TYPES[facts.dtype], "STATES": facts.states, "WARPS": self.warps}
            macros |= {"ORDERED": int(facts.ordered), "GATED": int(facts.z is not None), "SHARED": int(self.share_u)}
            macros |= {"SOFTPLUS": int(facts.softplus), "RESIDENT": self.resident}
            grid = (self.chunks, facts.groups * -(-self.splits // self.warps), sequences)
            return kernel(FEW_SOURCE, "scan_gradients_few", LAYOUT, **macros), grid, WARP * self.warps, 0
        name = "scan_gradients" if facts.z is None else "scan_gradients_gated"
        grid = (self.chunks, facts.groups * self.splits, sequences)
        shared = plan.gradients_shared(self.segment, self.warps)
        return kernel(SOURCE, name, LAYOUT, **self._macros()), grid, WARP * self.warps, shared


_made = lru_cache(maxsize=1024)(Layout)


def layout_for(facts: Facts) -> Layout:
    """The layout of a problem, made once."""
    return _made(facts, _shared(facts.device), multiprocessors(facts.device))
