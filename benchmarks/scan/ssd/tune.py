"""Other cuts of Mamba-2's scan than the plan's, on a GPU: `python -m benchmarks.scan.ssd.tune`.

For each shape and cut the microseconds of every kernel, forward and backward, as PyTorch's profiler sees them on the
GPU. `--warm I/N` only compiles every Nth cut from the Ith, for processes side by side before.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.common.gpu import Report, milliseconds, reason
from benchmarks.scan.ssd.inputs import SHAPES, SHORT, Shape, inputs
from napari_mamba.scan.ssd import launching
from napari_mamba.scan.ssd.plan import Layout, Tuning

RESULTS = Path(__file__).parents[1] / "results"
KERNELS = ("carry", "pass_on", "outputs", "input_gradients", "matrix_gradients")
ROUNDS = 5


def same(chunk: int, warps: int, stages: int, part: int = 64, together: int = 128) -> Tuning:
    """All kernels laid out alike: their times stand apart, so that each can be given its best."""
    layout = Layout(warps, stages, part)
    return Tuning(chunk, layout, layout, layout, layout, together)


CUTS: dict[str, tuple[Tuning, int]] = {
    "chunk 64, 4 warps, 2 stages": (same(64, 4, 2), 4),
    "part 32": (same(64, 4, 2, 32), 4),
    "2 programs": (same(64, 4, 2), 2),
    "8 programs": (same(64, 4, 2), 8),
    "3 stages": (same(64, 4, 3), 4),
    "part 32, 3 stages": (same(64, 4, 3, 32), 4),
    "8 warps": (same(64, 8, 2), 4),
    "chunk 32": (same(32, 4, 2), 4),
    "2 warps": (same(64, 2, 2), 4),
    "2 warps, part 32": (same(64, 2, 2, 32), 4),
}
"""With two warps Triton multiplies without warp groups (wgmma), in which its compiled code has faulted on Hopper."""

FULL_CUTS: dict[str, tuple[Tuning, int]] = {
    "part 32, together 64": (same(32, 4, 1, 32, 64), 4),
    "2 stages, part 32, together 64": (same(32, 4, 2, 32, 64), 4),
    "8 warps, part 32, together 64": (same(32, 8, 1, 32, 64), 4),
    "8 warps, part 64": (same(32, 8, 1, 64, 64), 4),
}
"""For float32, whose tiles are larger. A cut is a tuning and the programs of a multiprocessor."""

Case = tuple[Shape, torch.dtype, str]
CASES: list[Case] = [
    *((shape, torch.bfloat16, cut) for cut in CUTS for shape in SHAPES),
    *((shape, torch.float32, cut) for cut in FULL_CUTS for shape in SHAPES),
]


def both(shape: Shape, dtype: torch.dtype, cut: str) -> Callable[[], None]:
    """Forward and backward with a cut, as a call."""
    tuning, programs = (CUTS if dtype == torch.bfloat16 else FULL_CUTS)[cut]
    given = inputs(shape, dtype)
    args = launching.Arguments(given.xBC, given.dt, given.A_log, given.D[:, None].expand(-1, shape.width), None)
    plan = replace(launching.plan_of(args, shape.states, 1), programs=programs)

    def call() -> None:
        _, starts = launching.forward(args, plan, tuning)
        launching.backward(args, plan, tuning, starts, given.dy[:, None])

    return call


def line(shape: Shape, dtype: torch.dtype, cut: str) -> list[str]:
    """Microseconds of each kernel, of everything else on the GPU, and of all by the clock."""
    call = both(shape, dtype, cut)
    clock = 1e3 * milliseconds([call], budget=0.1)
    spent = dict.fromkeys((*KERNELS, "rest"), 0.0)
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            for _ in range(ROUNDS):
                call()
            torch.cuda.synchronize()
        for event in profile.key_averages():
            spent[event.key if event.key in spent else "rest"] += event.self_device_time_total / ROUNDS
    except Exception as error:  # without the profiler there is still the clock
        print(f"    {reason(error)}", flush=True)
    return [str(shape), SHORT[dtype], cut, *(f"{time:.0f}" for time in spent.values()), f"{clock:.0f}"]


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
            report.table(["B × L, H × P, N", "type", "cut", *KERNELS, "rest", "by the clock"], rows(dtype))


if __name__ == "__main__":
    main()
