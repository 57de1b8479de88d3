"""Other cuts of Mamba-2's scan than the plan's, on a GPU: `python -m benchmarks.scan.ssd_tune`.

For each shape and cut the microseconds of every kernel, forward and backward, as PyTorch's profiler sees them on the
GPU. `--warm I/N` only compiles every Nth cut from the Ith, for processes side by side before.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.common.gpu import Report, reason
from benchmarks.scan.ssd import SHAPES, SHORT, Shape, inputs
from napari_mamba.scan.ssd import launching
from napari_mamba.scan.ssd.plan import Tuning

RESULTS = Path(__file__).with_name("results")
KERNELS = ("carry", "pass_on", "outputs", "input_gradients", "matrix_gradients")
ROUNDS = 5
CUTS: dict[str, tuple[Tuning, dict[str, int]]] = {
    "chunk 64, 4 warps, 2 stages": (Tuning(64, 4, 2), {}),
    "1 stage": (Tuning(64, 4, 1), {}),
    "chunk 32": (Tuning(32, 4, 2), {}),
    "chunk 128, 8 warps": (Tuning(128, 8, 1), {}),
    "part 32": (Tuning(64, 4, 2), {"part": 32}),
    "part 32, 1 stage, together 64": (Tuning(64, 4, 1), {"part": 32, "together": 64}),
    "part 16": (Tuning(64, 4, 2), {"part": 16}),
    "together 64": (Tuning(64, 4, 2), {"together": 64}),
    "together 32, 1 stage": (Tuning(64, 4, 1), {"together": 32}),
    "2 programs": (Tuning(64, 4, 2), {"programs": 2}),
    "8 programs": (Tuning(64, 4, 2), {"programs": 8}),
    "8 programs, part 32, 1 stage": (Tuning(64, 4, 1), {"programs": 8, "part": 32}),
}
FULL_CUTS: dict[str, tuple[Tuning, dict[str, int]]] = {
    "chunk 32, 4 warps, 2 stages": (Tuning(32, 4, 2), {}),
    "part 32, together 64": (Tuning(32, 4, 1), {"part": 32, "together": 64}),
    "8 warps, part 32, together 64": (Tuning(32, 8, 1), {"part": 32, "together": 64}),
    "chunk 16, part 32, together 64": (Tuning(16, 4, 1), {"part": 32, "together": 64}),
    "chunk 16, part 16, together 32": (Tuning(16, 4, 1), {"part": 16, "together": 32}),
    "chunk 16, 2 warps, part 32, together 64": (Tuning(16, 2, 1), {"part": 32, "together": 64}),
}
"""For float32, whose tiles are larger."""

Case = tuple[Shape, torch.dtype, str]
CASES: list[Case] = [
    *((shape, torch.bfloat16, cut) for cut in CUTS for shape in SHAPES),
    *((shape, torch.float32, cut) for cut in FULL_CUTS for shape in SHAPES),
]


def both(shape: Shape, dtype: torch.dtype, cut: str) -> Callable[[], None]:
    """Forward and backward with a cut, as a call."""
    tuning, changes = (CUTS if dtype == torch.bfloat16 else FULL_CUTS)[cut]
    given = inputs(shape, dtype)
    args = launching.Arguments(given.xBC, given.dt, given.A_log, given.D[:, None].expand(-1, shape.width), None)
    plan = replace(launching.plan_of(args, shape.states, 1), **changes)

    def call() -> None:
        _, starts = launching.forward(args, plan, tuning)
        launching.backward(args, plan, tuning, starts, given.dy[:, None])

    return call


def line(shape: Shape, dtype: torch.dtype, cut: str) -> list[str]:
    """Microseconds of each kernel, of everything else on the GPU, and of all."""
    call = both(shape, dtype, cut)
    call()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(ROUNDS):
            call()
        torch.cuda.synchronize()
    spent = dict.fromkeys((*KERNELS, "rest"), 0.0)
    for event in profile.key_averages():
        spent[event.key if event.key in spent else "rest"] += event.self_device_time_total / ROUNDS
    times = list(spent.values())
    return [str(shape), SHORT[dtype], cut, *(f"{time:.0f}" for time in times), f"{sum(times):.0f}"]


def warm(which: str) -> None:
    """Compile every Nth case from the Ith on, by running it."""
    first, step = (int(number) for number in which.split("/"))
    for case in CASES[first::step]:
        try:
            both(*case)()
            torch.cuda.synchronize()
        except Exception as error:  # a cut that does not fit this GPU
            print(*case, reason(error), flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", default="", metavar="NAME", help="save as results/NAME.md")
    parser.add_argument("--warm", default="", metavar="I/N", help="compile a share of the cuts, and no more")
    options = parser.parse_args()
    if options.warm:
        warm(options.warm)
        return
    report = Report("Cuts of Mamba-2's scan", options.write, RESULTS)

    def rows(dtype: torch.dtype):
        for case in CASES:
            if case[1] == dtype:
                try:
                    yield line(*case)
                except Exception as error:  # a cut that does not fit this GPU
                    yield [str(case[0]), SHORT[dtype], case[2], reason(error)]

    for dtype in (torch.bfloat16, torch.float32):
        with report.section(f"Microseconds in {SHORT[dtype]}"):
            report.table(["B × L, H × P, N", "type", "cut", *KERNELS, "rest", "all"], rows(dtype))


if __name__ == "__main__":
    main()
