"""Other cuts of Mamba-2's scan than the plan's, on a GPU: `python -m benchmarks.scan.ssd_tune`.

For each shape and cut the microseconds of every kernel, forward and backward, as PyTorch's profiler sees them on the
GPU. All cuts are compiled first, in threads.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
    "3 stages": (Tuning(64, 4, 3), {}),
    "chunk 32": (Tuning(32, 4, 2), {}),
    "chunk 32, 2 warps": (Tuning(32, 2, 2), {}),
    "chunk 128, 8 warps": (Tuning(128, 8, 1), {}),
    "part 32": (Tuning(64, 4, 2), {"part": 32}),
    "part 32, 1 stage": (Tuning(64, 4, 1), {"part": 32}),
    "together 64": (Tuning(64, 4, 2), {"together": 64}),
    "together 64, 1 stage": (Tuning(64, 4, 1), {"together": 64}),
    "2 programs": (Tuning(64, 4, 2), {"programs": 2}),
    "8 programs": (Tuning(64, 4, 2), {"programs": 8}),
    "8 programs, 1 stage": (Tuning(64, 4, 1), {"programs": 8}),
}


def both(shape: Shape, dtype: torch.dtype, cut: str) -> Callable[[], None]:
    """Forward and backward with a cut, as a call."""
    tuning, changes = CUTS[cut]
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


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", default="", metavar="NAME", help="save as results/NAME.md")
    options = parser.parse_args()
    report = Report("Cuts of Mamba-2's scan", options.write, RESULTS)
    cases = [(shape, torch.bfloat16, cut) for cut in CUTS for shape in SHAPES]
    cases += [(shape, torch.float32, cut) for cut in CUTS if "part" not in cut for shape in SHAPES]
    failed: dict[tuple, str] = {}

    def compiled(case: tuple[Shape, torch.dtype, str]) -> None:
        try:
            both(*case)()
        except Exception as error:  # a cut that does not fit this GPU
            failed[case] = reason(error)

    with report.section("Compiled"):
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(compiled, cases))
        torch.cuda.synchronize()
        for case, why in failed.items():
            report.say(f"- {case[0]}, {SHORT[case[1]]}, {case[2]}: {why}")
    for dtype in (torch.bfloat16, torch.float32):
        with report.section(f"Microseconds in {SHORT[dtype]}"):
            report.table(
                ["B × L, H × P, N", "type", "cut", *KERNELS, "rest", "all"],
                (line(*case) for case in cases if case[1] == dtype and case not in failed),
            )


if __name__ == "__main__":
    main()
