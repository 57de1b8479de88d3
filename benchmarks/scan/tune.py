"""Other ways to cut the CUDA scan, forward and backward, beside the package's own: checked, then timed.

    python -m benchmarks.scan.tune [--compile] [--seconds 110] [--only backward1 forward ...] [--write tune]

Kernels are compiled in threads, those of a case at once, or all of them before with --compile. The results of a way
must be those of the package's own but for rounding; each table gives the largest difference, relative to the largest
value.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.common.gpu import DEVICE, Report, milliseconds, reason
from benchmarks.scan import peers, vmamba
from benchmarks.scan.tables import inputs, name
from napari_mamba.scan.arguments import ScanArguments, scan_arguments
from napari_mamba.scan.cuda import backward_layout
from napari_mamba.scan.cuda.backward import NAMES, Written, launch_backward, written_for
from napari_mamba.scan.cuda.backward_layout import Layout, facts_of
from napari_mamba.scan.cuda.backward_plan import TUNING, Tuning
from napari_mamba.scan.cuda.forward import multiprocessors, prepare, selective_scan_forward
from napari_mamba.scan.cuda.plan import Plan, make_plan, short_plan, split_plan, with_rounds
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


ONE_STATE = {
    "today": replace(TUNING, few=0),
    "few": TUNING,
    "few, 12 warps": replace(TUNING, few_resident=12),
    "few, span 32, 8 warps": replace(TUNING, few_span=32, few_resident=8),
    "few, at most 16 segments": replace(TUNING, few_segments=16),
    "few, whole sequences": replace(TUNING, few_whole=0.0, few_resident=12),
    "few, blocks of 4 warps": replace(TUNING, few_warps=4),
}
FEW_STATES = {
    "today": replace(TUNING, few=0),
    "few": TUNING,
    "few, 12 warps": replace(TUNING, few_resident=12),
}
SIXTEEN = {
    "today": TUNING,
    "two channels, 12 warps": replace(TUNING, channels=2, resident=12, warps=(6, 4, 3, 2, 1)),
    "two channels, 12 warps, blocks of 4": replace(TUNING, channels=2, resident=12, warps=(4,)),
    "two channels, 16 warps": replace(TUNING, channels=2, resident=16, warps=(8, 4, 2, 1)),
    "one channel, 16 warps": replace(TUNING, channels=1, resident=16, warps=(8, 4, 2, 1)),
}


def backward_case(shape: Shape, dtype: torch.dtype, states: int, tunings: dict[str, Tuning], gated: bool) -> Case:
    """The backward pass with each tuning."""
    x = inputs(shape, dtype, states=states)
    if not gated:
        x["z"] = None  # type: ignore[assignment]
    args = prepare(scan_arguments(**x, delta_softplus=True, order=None, merge="sum")[0])
    made = selective_scan_forward(args, keep=True)
    grad = torch.randn_like(x["u"])
    assert made.starts is not None
    facts, starts = facts_of(args, made.chunk, grad), made.starts
    ways = [backward_way(title, args, starts, grad, facts, tuning) for title, tuning in tunings.items()]
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


def forward_case(shape: Shape, dtype: torch.dtype, plans: dict[str, Plan]) -> Case:
    """The forward pass with each plan."""
    size = 4 * shape[0] * shape[1] * shape[2] * dtype.itemsize
    sets = []
    with torch.inference_mode():
        for seed in range(max(1, min(16, int(2e8 / size) + 1))):
            x = inputs(shape, dtype, seed=seed)
            sets.append(prepare(scan_arguments(**x, delta_softplus=True, order=None, merge="sum")[0]))

    def way(title: str, plan: Plan) -> Way:
        def results() -> tuple[Tensor, ...]:
            made = selective_scan_forward(sets[0], plan=plan)
            return made.y, made.last

        threads = 32 * plan.warps if plan.kind == "short" else plan.threads
        cut = f"{plan.chunks} chunks of {plan.chunk}, blocks of {threads}"
        calls = [lambda args=args: selective_scan_forward(args, plan=plan) for args in sets]
        return Way(f"{title} ({cut})", calls, results)

    return Case(f"forward ({name(shape)}), {str(dtype)[6:]}", [way(*each) for each in plans.items()])


def chunk_plans(shape: Shape, states: int = 16) -> dict[str, Plan]:
    """Today's plan, and those with lanes that share a channel."""
    batch, width, length = shape
    processors = multiprocessors(torch.device(DEVICE, 0))
    plans = {"today": make_plan(batch, 1, length, width, 1, states, processors, False)}
    for lanes, warps, ahead in ((2, 24, 4), (2, 20, 4), (2, 32, 4), (2, 16, 8), (4, 32, 4)):
        base = split_plan(batch, length, width, states, processors, False, lanes)
        blocks = max(1, 32 * warps // base.threads)
        wanted = max(1, blocks * processors // (batch * -(-width * lanes // base.threads)))
        chunk = -(-max(64, -(-length // wanted)) // 16) * 16
        cut = replace(base, kind="chunks", blocks=blocks, ahead=ahead, chunk=chunk, chunks=-(-length // chunk))
        plans[f"{lanes} lanes, {warps} warps, ahead {ahead}"] = cut
    return plans


def short_plans(shape: Shape, states: int = 16) -> dict[str, Plan]:
    """Today's plan of a short sequence, and those that load everything at once."""
    batch, width, length = shape
    base = short_plan(batch, length, width, states, multiprocessors(torch.device(DEVICE, 0)))
    plans = {"today": base}
    for split, warps in ((4, 16), (4, 32), (8, 16), (8, 32)):
        chunk = -(-length // warps // split) * split
        cut = replace(base, split=split, warps=warps, chunk=chunk, chunks=-(-length // chunk))
        if (made := with_rounds(cut, states)).rounds:
            plans[f"rounds, split {split}, {warps} warps"] = made
    return plans


def cases(only: list[str]) -> Iterator[Callable[[], Case]]:
    """Makers of the problems, the ones that decide most first."""
    half, single = torch.bfloat16, torch.float32
    if "backward1" in only:
        for shape, dtype in (((128, 384, 56**2), single), ((8, 384, 32**3), single), ((8, 384, 32**3), half)):
            yield lambda shape=shape, dtype=dtype: backward_case(shape, dtype, 1, ONE_STATE, False)
    if "backward16" in only:
        yield lambda: backward_case((1, 384, 32**3), single, 16, SIXTEEN, True)
    if "short" in only:
        yield lambda: forward_case((1, 1024, 512), half, short_plans((1, 1024, 512)))
    if "forward" in only:
        for shape, dtype in (((1, 384, 32**3), half), ((4, 768, 16**3), half), ((8, 384, 32**3), single)):
            yield lambda shape=shape, dtype=dtype: forward_case(shape, dtype, chunk_plans(shape))
    if "backward1" in only:
        for states in (2, 4):
            yield lambda states=states: backward_case((8, 384, 32**3), half, states, FEW_STATES, False)
        yield lambda: backward_case((8, 384, 32**3), single, 1, ONE_STATE, True)
    if "backward16" in only:
        yield lambda: backward_case((1, 128, 64**3), single, 16, SIXTEEN, True)
    if "forward" in only:
        yield lambda: forward_case((1, 128, 64**3), half, chunk_plans((1, 128, 64**3)))


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
    parser.add_argument("--only", nargs="*", default=["backward1", "backward16", "forward", "short"])
    parser.add_argument("--write", default="")
    parser.add_argument("--compile", action="store_true", help="only compile, into the cache on disk")
    options = parser.parse_args()
    if options.compile:
        begin = time.perf_counter()
        compile_all([make() for make in cases(options.only)])
        print(f"compiled in {time.perf_counter() - begin:.0f} s")
        return
    until = time.perf_counter() + options.seconds
    report = Report("Ways to cut the scan", options.write, RESULTS)
    for make in cases(options.only):
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
