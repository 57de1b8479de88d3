"""Which kernels the package asks for: every launch of a range of problems, recorded instead of made."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from unittest import mock

import torch

from napari_mamba.scan.arguments import conv_arguments, scan_arguments
from napari_mamba.scan.cuda import backward, backward_layout, conv, forward, instance_norm, runtime, token_norm
from napari_mamba.scan.cuda.backward_plan import Shared

TYPES = (torch.float32, torch.float16, torch.bfloat16)
STATES = (1, 4, 8, 10, 16, 32, 64)
LARGE_GPU = 132  # multiprocessors
SMALL, LARGE = Shared(99 * 1024, 100 * 1024), Shared(227 * 1024, 228 * 1024)  # an RTX 4090, an H100
# length, width, batch: one block holds the sequence; chunks; chunks of several kept pieces; so many sequences that none
# is cut
SHAPES = ((100, 24, 1), (5000, 40, 1), (2100, 7, 1), (2100, 3072, 1), (70, 96, 4096))


class Launch(NamedTuple):
    kernel: runtime.Kernel
    grid: tuple[int, int, int]
    block: int
    shared: int
    packed: bytes


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Record launches on CPU tensors, planned as for a large GPU; nothing is computed."""
    launches: list[Launch] = []

    def record(kernel, device, grid, block, values, shared=0):
        launches.append(Launch(kernel, grid, block, shared, kernel.pack.pack(*values)))

    def together(calls, device, head, pointers, tail):
        launches.extend(Launch(*call, head.pack(*pointers) + tail) for call in calls)

    with (
        mock.patch.object(runtime.Kernel, "__call__", record),
        mock.patch.object(runtime.Kernel, "together", staticmethod(together)),
        mock.patch.object(forward, "multiprocessors", return_value=LARGE_GPU),
        mock.patch.object(backward_layout, "multiprocessors", return_value=LARGE_GPU),
        mock.patch.object(instance_norm, "multiprocessors", return_value=LARGE_GPU),
    ):
        yield launches


def scan_problem(dtype, states, length, width, batch, paths=1, ordered=False, gated=False, softplus=False, merge="sum"):
    """Return ScanArguments whose values mean nothing and take no memory: every row is the same one."""

    def rows(*shape):
        return torch.zeros(shape[-1], dtype=dtype).expand(shape)

    order = torch.arange(length).expand(paths, length) if ordered else None
    return scan_arguments(
        rows(batch, length, width),
        rows(batch, paths, length, width),
        torch.zeros(paths, width, states),
        rows(batch, paths, length, states),
        rows(batch, paths, length, states),
        torch.zeros(paths, width),
        rows(batch, length, width) if gated else None,
        None,
        softplus,
        order,
        merge,
    )[0]


def scan_launches() -> list[Launch]:
    """Return the launches of scans of every type, number of states, length, and set of options, in both directions."""
    with recorded() as launches:
        cases = itertools.product(TYPES, STATES, SHAPES)
        for i, (dtype, states, (length, width, batch)) in enumerate(cases):
            # The options take all their combinations over the cases, rather than all for each case.
            flags = {"ordered": bool(i & 1), "gated": bool(i & 2), "softplus": bool(i & 4)}
            paths, merge = (1, "sum") if i % 3 else (2, "none" if i % 2 else "sum")
            args = forward.prepare(scan_problem(dtype, states, length, width, batch, paths, **flags, merge=merge))
            if batch > 1:
                forward.selective_scan_forward(args)
                continue
            done = forward.selective_scan_forward(args, keep=True)
            memory = SMALL if i % 7 == 0 else LARGE
            with mock.patch.object(backward_layout, "_shared", return_value=memory):
                backward.selective_scan_backward(args, done.starts, done.chunk, done.y)
    return launches


def conv_launches() -> list[Launch]:
    """Return the launches of convolutions of every type, width of the kernel and alignment, in both directions."""
    with recorded() as launches:
        for dtype, taps, width in itertools.product(TYPES, range(1, 9), (64, 12, 6, 3)):
            x = torch.zeros(1, 20, width, dtype=dtype)
            weight = torch.zeros(1, width, taps, dtype=dtype if taps % 2 else torch.float32)
            args, _ = conv_arguments(x, weight, None, None, "silu")
            y = conv.causal_conv1d(args)
            conv.run_backward(x, weight, None, None, True, y, (True, True, False))
    return launches


def norm_launches() -> list[Launch]:
    """Return the launches of norms of every type; instance norms of rows of one run and of many, in both directions."""
    with recorded() as launches:
        for dtype, weight_type, size in itertools.product(TYPES, TYPES, (500, 50_000)):
            x, weight = torch.zeros(1, 2, size, dtype=dtype), torch.zeros(2, dtype=weight_type)
            y, saved = instance_norm.run_forward(x, weight, weight, x, 1e-5, 0.01, keep=True)
            instance_norm.run_backward(y, x, y, weight, weight, saved, 0.01, (True, True))
        for dtype, weight_type in itertools.product(TYPES, TYPES):
            x, weight = torch.zeros(1, 16, 20, 20, 20, dtype=dtype), torch.zeros(16, dtype=weight_type)
            x = x.contiguous(memory_format=torch.channels_last_3d)
            instance_norm.run_forward(x, weight, weight, x, 1e-5, 0.01, keep=False)
        for dtype, channels in itertools.product(TYPES, (8, 96, 1024)):
            x, weight = torch.zeros(1, channels, 3, 4, 5, dtype=dtype), torch.zeros(channels)
            token_norm.token_norm(x.contiguous(memory_format=torch.channels_last_3d), weight, weight, 1e-5)
        for dtype, channels in itertools.product(TYPES, (3, 1024)):
            x, weight = torch.zeros(2, channels, 33, dtype=dtype), torch.zeros(channels)
            token_norm.token_norm(x, weight, weight, 1e-5)
    return launches


def variants(launches: list[Launch]) -> list[tuple[str, dict[str, int]]]:
    """Return the different (source, macros) of launches, in a fixed order."""
    found = {(launch.kernel.source, launch.kernel.defines) for launch in launches}
    return [(source, dict(defines)) for source, defines in sorted(found)]


def covering(variants: list[tuple[str, dict[str, int]]]) -> list[tuple[str, dict[str, int]]]:
    """Return few variants in which every source meets every value of each of its macros."""
    seen: set[tuple] = set()
    kept = []
    for source, defines in variants:
        facts = {(source, *fact) for fact in defines.items()}
        if facts - seen:
            seen |= facts
            kept.append((source, defines))
    return kept
