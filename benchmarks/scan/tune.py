"""Other ways to cut the gradients of a scan with 1 to 4 states, beside the package's own: checked, then timed.

    python -m benchmarks.scan.tune [--compile] [--seconds 110] [--write scan-tune]

Kernels are compiled in threads, those of a case at once, or all of them before with --compile. The results of a way
must be those of the package's own but for rounding; each table gives the largest difference, relative to the largest
value. Where it is built (`build_vmamba.sh`), VMamba's kernel for one state is timed beside them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.common.gpu import Report, milliseconds, reason
from benchmarks.scan import peers
from benchmarks.scan.peers import vmamba
from benchmarks.scan.tables import inputs, name
from napari_mamba.scan.arguments import ScanArguments, scan_arguments
from napari_mamba.scan.cuda import backward_layout
from napari_mamba.scan.cuda.backward import NAMES, Written, launch_backward, written_for
from napari_mamba.scan.cuda.backward_layout import Layout, facts_of
from napari_mamba.scan.cuda.backward_plan import TUNING, Tuning
from napari_mamba.scan.cuda.forward import multiprocessors, prepare, selective_scan_forward
from napari_mamba.scan.cuda.plan import KEPT
from napari_mamba.scan.cuda.rehearsal import Rehearsal

RESULTS = Path(__file__).parent / "results"
Shape = tuple[int, int, int]


class Way(NamedTuple):
    """A way to do the same thing: its name, calls on sets of inputs, and what the first gives."""

    title: str
    calls: list[Callable[[], object]]
    results: Callable[[], tuple[Tensor, ...]]


class Case(NamedTuple):
    """A problem and the ways to solve it, the package's own first."""

    title: str
    ways: list[Way]


LARGE, MANY = (8, 384, 32**3), (128, 384, 56**2)
ALWAYS = replace(TUNING, few_gated=4, whole=0)  # chunks, also of what the package has another way for
WAYS = {
    "today": TUNING,
    "scan_gradients": replace(TUNING, few=0, few_gated=0),
    "few, 16 warps": replace(ALWAYS, narrow=4, roomy=16),
    "few, 12 warps": replace(ALWAYS, resident=12),
    "few, blocks of 4 warps": replace(ALWAYS, warps=4),
}
WHOLE = {"few, whole sequences": replace(TUNING, whole=4, full=0.0)}


def backward_case(shape: Shape, dtype: torch.dtype, states: int, gated: bool) -> Case:
    """The backward pass with each tuning."""
    x = inputs(shape, dtype, states=states)
    if not gated:
        x["z"] = None  # type: ignore[assignment]
    args = prepare(scan_arguments(**x, delta_softplus=True, order=None, merge="sum")[0])
    made = selective_scan_forward(args, keep=True)
    grad = torch.randn_like(x["u"])
    assert made.starts is not None
    facts, starts = facts_of(args, made.chunk, grad), made.starts
    tunings = WAYS if gated else WAYS | WHOLE
    ways = [backward_way(title, args, starts, grad, facts, tuning) for title, tuning in tunings.items()]
    if made.chunk < KEPT:
        ways.append(
            backward_way("pieces of 32", args, starts[:, :, ::2].contiguous(), grad, facts._replace(chunk=KEPT), TUNING)
        )
    if states == 1 and not gated and not vmamba.unavailable():
        ways.append(vmamba_way(x, grad))
    kind = "with z" if gated else "without z"
    return Case(f"backward ({name(shape)}), {str(dtype)[6:]}, N = {states}, {kind}", ways)


def backward_way(
    title: str, args: ScanArguments, starts: Tensor, grad: Tensor, facts: backward_layout.Facts, tuning: Tuning
) -> Way:
    """One tuning of the backward pass."""
    memory = backward_layout._shared(args.u.device)
    layout = Layout(facts, memory, multiprocessors(args.u.device), tuning)
    read = [0 if (x := getattr(args, each)) is None else x.data_ptr() for each in NAMES]

    def run() -> Written:
        written = written_for(args)
        launch_backward(layout, read, starts.data_ptr(), grad.data_ptr(), written)
        return written

    cut = f"{layout.chunks} chunks, blocks of {layout.warps}"
    return Way(f"{title} ({cut})", [run], lambda: tuple(x for x in run() if x is not None))


def vmamba_way(x: peers.Inputs, grad: Tensor) -> Way:
    """VMamba's own kernel, and its gradients in our layout."""
    peer = vmamba.Scan(x)
    peer.t["dy"].copy_(grad.transpose(1, 2))
    peer.forward()

    def results() -> tuple[Tensor, ...]:
        t = peer.backward()
        both = torch.stack([t["dB"], t["dC"]]).transpose(2, 3)[:, :, None, :, None]
        totals = torch.cat([t["dA"].T, t["dD"][None], t["dbias"][None]])[None]
        return t["du"].transpose(1, 2)[:, None], t["ddelta"].transpose(1, 2)[:, None], both, totals

    return Way("VMamba", [peer.backward], results)


def cases() -> Iterator[Callable[[], Case]]:
    """Makers of the problems, the ones that decide most first."""
    single, half = torch.float32, torch.bfloat16
    for shape, dtype, states, gated in (
        (MANY, single, 1, False),
        (LARGE, single, 1, False),
        (LARGE, half, 1, False),
        (LARGE, half, 2, False),
        (LARGE, half, 4, False),
        (LARGE, single, 1, True),
        (LARGE, half, 2, True),
        (MANY, single, 1, True),
        (MANY, half, 2, False),
        (MANY, half, 4, False),
    ):
        yield partial(backward_case, shape, dtype, states, gated)


def compile_all(found: list[Case]) -> None:
    """Compile what the ways launch, in threads."""
    major, minor = torch.cuda.get_device_capability()
    rehearsal = Rehearsal(10 * major + minor)
    with rehearsal.noting():
        for case in found:
            for way in case.ways:
                way.calls[0]()
    for _ in rehearsal.compiled():
        pass


def difference(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> float:
    """The largest difference of any result, relative to the largest value of it."""
    pairs = zip(ours, theirs, strict=True)
    return max(float((a.float() - b.float()).abs().max() / b.float().abs().max().clamp_min(1e-30)) for a, b in pairs)


def measure(report: Report, case: Case, until: float) -> None:
    """Time the ways of a case in turn, twice, and keep the lesser time."""
    times: dict[str, float] = {}
    notes: dict[str, str] = {}
    right = case.ways[0].results()
    for _ in range(2):
        for way in case.ways:
            if time.perf_counter() > until and way.title in times:
                break
            try:
                if way.title not in notes:
                    notes[way.title] = f"{difference(way.results(), right):.1e}"
                spent = milliseconds(way.calls, budget=0.06, rounds=9)
                times[way.title] = min(spent, times.get(way.title, spent))
            except Exception as failure:  # one way that fails must not hide the others
                notes[way.title] = reason(failure)
    first = times.get(case.ways[0].title, float("nan"))
    rows = [
        (title, f"{times[title]:.4f}" if title in times else "–", f"{first / times.get(title, float('nan')):.2f}", note)
        for title, note in notes.items()
    ]
    report.table(("way", "ms", "times today's", "largest difference"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=110)
    parser.add_argument("--write", default="")
    parser.add_argument("--compile", action="store_true", help="only compile, into the cache on disk")
    options = parser.parse_args()
    if options.compile:
        begin = time.perf_counter()
        compile_all([make() for make in cases()])
        print(f"compiled in {time.perf_counter() - begin:.0f} s")
        return
    until = time.perf_counter() + options.seconds
    report = Report("Ways to cut the gradients of a scan with few states", options.write, RESULTS)
    for make in cases():
        if time.perf_counter() > until:
            report.say("\nOut of time.")
            break
        case = make()
        with report.section(case.title):
            begin = time.perf_counter()
            compile_all([case])
            report.say(f"compiled in {time.perf_counter() - begin:.1f} s")
            measure(report, case, until)
    report.say(f"\n{options.seconds - (until - time.perf_counter()):.0f} s")
    report.save()


if __name__ == "__main__":
    with torch.no_grad():
        main()
