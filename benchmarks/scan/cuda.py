"""The scan on a GPU beside mamba-ssm's kernel and a Triton kernel: `python -m benchmarks.scan.cuda`.

Times are medians of rounds of calls, back to back, over as many input sets as exceed the L2 cache three times; both
sides run in one process, each in its own layout (ours (B, L, D), mamba-ssm (B, D, L)), without autograd. Errors are
against the float64 recurrence: whole sequences up to 4096 steps, else four windows of 512 steps behind 2048 steps of
history each, after which nothing is left of what was before (the slowest state has lost 30 powers of e).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch

from benchmarks.common.gpu import (
    DEVICE,
    Report,
    clock,
    copy_bandwidth,
    graph_milliseconds,
    milliseconds,
    peak_bytes,
    relative_l2,
    sets_needed,
)
from benchmarks.scan import peers, triton_kernel
from benchmarks.scan.cuda_backward import backward_tables
from benchmarks.scan.inputs import STATES
from benchmarks.scan.tables import attempt, cell, inputs, name, size
from napari_mamba.scan import scan_order, selective_scan

SHAPES = {
    (1, 64, 64**3): 8.0,
    (1, 128, 64**3): 8.0,
    (1, 64, 128**3): 8.0,
    (2, 96, 64**3): 4.0,
    (1, 64, 32**3): 4.0,
    (1, 384, 32**3): 2.0,
    (4, 768, 16**3): 2.0,
    (8, 384, 32**3): 2.0,
    (1, 64, 512): 1.0,
    (1, 1024, 512): 1.0,
}
"""(B, D, L) and how many times mamba-ssm's speed is aimed at."""

HISTORY, WINDOW = 2048, 512
RESULTS = Path(__file__).with_name("results")


def error(x: peers.Inputs, y: torch.Tensor) -> float:
    """Relative L2 of (B, L, D) outputs against the float64 recurrence, in windows where the sequence is long."""
    length = y.shape[1]
    if length <= HISTORY * 2:
        starts, span = [0], length
    else:
        span = HISTORY + WINDOW
        starts = [0, *(min(s, length - span) for s in (length // 3 - 7, 2 * length // 3 + 5, length))]

    def cut(value: torch.Tensor) -> torch.Tensor:
        return torch.cat([value[:, s : s + span] for s in starts]).double()

    exact = selective_scan(
        *(cut(x[key]) if key in ("u", "delta", "B", "C") else x[key].double() for key in ("u", "delta", "A", "B", "C")),
        x["D"].double(), cut(x["z"]), x["delta_bias"].double(), True, backend="reference",
    )  # fmt: skip
    got = cut(y)
    batch = y.shape[0]
    kept = [slice(i * batch, (i + 1) * batch) for i in range(len(starts))]
    pairs = [(got[k, 0 if not i else HISTORY :], exact[k, 0 if not i else HISTORY :]) for i, k in enumerate(kept)]
    difference = sum(float((a - b).square().sum()) for a, b in pairs)
    return math.sqrt(difference / sum(float(b.square().sum()) for _, b in pairs))


def floors(shape: tuple[int, int, int], dtype: torch.dtype, bandwidth: float) -> tuple[float, float]:
    """Milliseconds that the least traffic takes at a copy's bandwidth, and the exponentials at 16 a clock and SM."""
    batch, width, length = shape
    moved = batch * length * (4 * width + 2 * STATES) * dtype.itemsize
    units = 16 * torch.cuda.get_device_properties(0).multi_processor_count * clock()
    return 1e3 * moved / bandwidth, 1e3 * batch * width * length * STATES / units


def calls_of(shape, dtype, backend):
    """(input sets, our calls, mamba-ssm's, Triton's) at a shape; a list is empty where that side is not there."""
    first = inputs(shape, dtype)
    count = sets_needed(size(first) * 4 / 3 / 2**20)
    sets = [first, *(inputs(shape, dtype, seed) for seed in range(1, count))]
    theirs = [] if peers.unavailable() else [peers.channels_first(x) for x in sets]
    return (
        sets,
        [lambda x=x: selective_scan(**x, delta_softplus=True, backend=backend) for x in sets],
        [lambda t=t: peers.forward(t) for t in theirs],
        [] if triton_kernel.unavailable() else [lambda x=x: triton_kernel.selective_scan(**x) for x in sets],
    )


def forward_row(shape, dtype, backend, bandwidth, graph=False) -> list[str]:
    """One line of the forward's table."""
    sets, ours, theirs, others = calls_of(shape, dtype, backend)
    timer = graph_milliseconds if graph else milliseconds
    fast = attempt(timer, ours)
    slow = attempt(timer, theirs) if theirs else math.nan
    other = attempt(timer, others) if others else math.nan
    memory, exponentials = floors(shape, dtype, bandwidth)
    row = [name(shape), cell(slow), cell(fast), cell(slow / fast, ".2f"), f"{SHAPES[shape]:g}", cell(other)]
    row += [f"{memory:.4f}", f"{exponentials:.4f}", cell(100 * max(memory, exponentials) / fast, ".0f")]
    if graph:
        return row
    errors = [attempt(lambda: error(sets[0], ours[0]()))]
    errors.append(attempt(lambda: error(sets[0], theirs[0]()[2].transpose(1, 2))) if theirs else math.nan)
    errors.append(attempt(lambda: error(sets[0], others[0]())) if others else math.nan)
    return row + [cell(e, ".1e") for e in errors]


HEADS = ["B, D, L", "mamba-ssm ms", "ours ms", "times", "aim", "Triton ms", "bandwidth floor ms", "exp floor ms",
         "floor reached %"]  # fmt: skip


def forward_tables(report: Report, backend: str, bandwidth: float, dtypes) -> None:
    """The forward at every shape, then the short shapes inside a CUDA graph."""
    for dtype in dtypes:
        label = str(dtype).removeprefix("torch.")
        with report.section(f"Forward, {label}, N = {STATES}, with z, softplus and D"), torch.inference_mode():
            heads = [*HEADS, "error ours", "error mamba-ssm", "error Triton"]
            report.table(heads, (forward_row(shape, dtype, backend, bandwidth) for shape in SHAPES))
        with report.section(f"Forward inside a CUDA graph, {label}"), torch.inference_mode():
            short = [shape for shape in SHAPES if shape[2] <= 4096]
            report.table(HEADS, (forward_row(shape, dtype, backend, bandwidth, graph=True) for shape in short))


def directions(report: Report, backend: str, side: int = 64, width: int = 96) -> None:
    """Four directions of a volume in one call, beside copies, mamba-ssm and merge."""
    grid = (side, side, side)
    order = scan_order("axis", grid, axes=(2, 0), reverse=True)
    table = order.tensor(DEVICE)
    x = inputs((1, width, side**3), torch.float32, paths=4)
    out_bytes = x["u"].numel() * 4

    def ours() -> torch.Tensor:
        return selective_scan(**x, delta_softplus=True, order=order, backend=backend)

    rows = []
    y = ours()
    fast = milliseconds([ours])
    before, peak = peak_bytes(ours)
    ratio = (peak - before + size(x) + table.numel() * 8) / (size(x) + out_bytes)
    rows.append(["ours, one call", f"{fast:.3f}", "1", f"{(peak - before) / 2**20:.0f}", f"{ratio:.2f}"])
    if not peers.unavailable():
        theirs = peers.CrossScan(x, table, grid)
        slow = milliseconds([theirs])
        before, peak = peak_bytes(theirs)
        ratio = (peak - before + theirs.bytes()) / (theirs.bytes() + out_bytes)
        rows.append(["copies, mamba-ssm, merge", f"{slow:.3f}", f"{slow / fast:.2f}",
                     f"{(peak - before) / 2**20:.0f}", f"{ratio:.2f}"])  # fmt: skip
        report.say(f"The two differ by {relative_l2(y, theirs().transpose(1, 2)):.1e} (relative L2).")
    heads = ["", "ms", "times ours", "MiB allocated by the call", "peak / (inputs + output)"]
    report.table(heads, rows)
    report.say("\nThe order's table counts as ours beyond the inputs. Aims: 3 times; 1.10.")


def main() -> None:
    """Print the tables, and save them where --write names a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", default="", metavar="NAME", help="also save as results/NAME.md")
    parser.add_argument("--backend", default="cuda", help="the backend of ours that is timed")
    parser.add_argument("--parts", default="forward,backward,directions", help="which tables")
    options = parser.parse_args()
    backend, parts = options.backend, options.parts
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device here")
    report = Report("The selective scan on a GPU", options.write, RESULTS)
    bandwidth = copy_bandwidth()
    report.say(f"\nCopy bandwidth {bandwidth / 1e12:.2f} TB/s, highest clock {clock() / 1e9:.2f} GHz.")
    for missing in (peers.unavailable(), triton_kernel.unavailable()):
        if missing:
            report.say(f"\n{missing}: its columns are empty.")
    dtypes = (torch.float32, torch.bfloat16)
    if "forward" in parts:
        forward_tables(report, backend, bandwidth, dtypes)
    if "directions" in parts:
        with report.section("Four directions on (1, 96, 64³), float32"), torch.inference_mode():
            directions(report, backend)
    if "backward" in parts:
        backward_tables(report, backend, dtypes)


if __name__ == "__main__":
    main()
