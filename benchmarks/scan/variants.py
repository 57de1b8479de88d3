"""Every way to run the CUDA forward scan: checked against float64 on the device, then timed, shape by shape.

    python -m benchmarks.scan.variants [--seconds 55] [--dtype float32] [--shapes 1,64,262144 8,384,32768] [--slow]

The heads of chunks are corrected until their start states have died out, so the steps' sizes matter: by default they
are about 0.15, and with --slow those of cuda.py, from 0.001 to 0.1 as Mamba's initialisation has them.

Times are medians of CUDA-event times around one call, each on the next of several sets of inputs, so that nothing is
left in the cache from the call before; `graph` is the same call replayed from a CUDA graph on one set.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import torch

from napari_mamba.scan import selective_scan
from napari_mamba.scan.arguments import scan_arguments
from napari_mamba.scan.cuda.forward import multiprocessors, prepare, selective_scan_forward, stages
from napari_mamba.scan.cuda.plan import Plan, chunk_plan, make_plan, short_plan

SHAPES = [
    "1,64,512",
    "1,1024,512",
    "1,64,32768",
    "4,768,4096",
    "1,384,32768",
    "1,64,262144",
    "2,96,262144",
    "8,384,32768",
]
SETS_BYTES = 200e6  # more than any cache


def inputs(
    batch: int, width: int, length: int, dtype: torch.dtype, seed: int, states: int = 16, slow: bool = False
) -> dict:
    torch.manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, device="cuda").to(dtype)

    rows = (batch, length)
    delta = normal(*rows, width) * (1.0 if slow else 0.5) - (0.0 if slow else 2.0)
    made = {"u": normal(*rows, width), "delta": delta, "z": normal(*rows, width)}
    made |= {"B": normal(*rows, states), "C": normal(*rows, states), "D": torch.ones(width, device="cuda")}
    A = -torch.arange(1.0, states + 1, device="cuda").repeat(width, 1)
    return made | {"A": A, "delta_bias": torch.full((width,), -4.6 if slow else 0.0, device="cuda")}


def variants(batch: int, width: int, length: int) -> dict[str, Plan]:
    """Return the plans to compare, the planner's own first."""
    device = torch.device("cuda", 0)
    processors = multiprocessors(device)
    found = {"planned": make_plan(batch, 1, length, width, 1, 16, processors, False, stages(device))}
    if length <= 2048:
        base = short_plan(batch, length, width, 16, processors)
        for split in (4, 8, 16):
            for warps in (8, 16, 32):
                chunk = -(-length // warps // split) * split
                plan = replace(base, split=split, warps=warps, chunk=chunk, chunks=-(-length // chunk))
                found[f"short split {split} warps {warps}"] = plan
    return found | chunked(batch, width, length, processors)


def chunked(batch: int, width: int, length: int, processors: int) -> dict[str, Plan]:
    """Return the plans with chunks to compare."""
    found: dict[str, Plan] = {}
    base = chunk_plan(batch, length, width, 16, processors, False)
    paired = chunk_plan(batch, length, width, 16, processors, False, paired=True)

    def cut(plan: Plan, factor: float, **changed: int) -> Plan:
        chunk = max(16, -(-int(plan.chunk * factor) // 16) * 16)
        return replace(plan, chunk=chunk, chunks=-(-length // chunk), kind="chunks", **changed)

    if paired.channels == 2:
        for blocks, ahead in ((8, 4), (10, 4), (12, 2), (16, 2)):
            name = f"two channels, blocks {blocks} ahead {ahead}"
            found[name] = cut(paired, paired.blocks / blocks, blocks=blocks, ahead=ahead)
    for ahead in (2, 8):
        found[f"ahead {ahead}"] = replace(base, ahead=ahead)
    for warps in (12, 16, 24):
        blocks = 32 * warps // base.threads
        name = f"rows by way of shared memory, {warps} warps"
        found[name] = cut(base, base.blocks / blocks, blocks=blocks, ahead=8, staged=True)
    blocks = base.blocks * 5 // 4
    found[f"blocks {blocks}"] = cut(base, base.blocks / blocks, blocks=blocks)
    found["poly 8"] = replace(base, poly=8)
    for factor in (2, 0.5, 0.25):
        found[f"chunk {factor:g}"] = cut(base, factor)
    return found


def median_ms(calls: list, budget: float) -> float:
    """Return the median time of a call, over the calls in turn, for a budget in seconds."""
    for call in calls[:2]:
        call()
    torch.cuda.synchronize()
    times, until, i = [], time.perf_counter() + budget, 0
    while len(times) < 5 or (time.perf_counter() < until and len(times) < 100):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        calls[i % len(calls)]()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
        i += 1
    return statistics.median(times)


def graph_ms(call, repeats: int = 20) -> float:
    """Return the time of a call inside a CUDA graph of several."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            call()
    return median_ms([graph.replay], 0.05) / repeats


def run_shape(shape: tuple[int, int, int], dtype: torch.dtype, until: float, slow: bool) -> None:
    batch, width, length = shape
    # what one call reads and writes: u, delta, z and y
    size = 4 * batch * width * length * torch.finfo(dtype).bits // 8
    sets = [inputs(*shape, dtype, seed, slow=slow) for seed in range(max(1, min(64, int(SETS_BYTES / size) + 1)))]
    prepared = [prepare(scan_arguments(**x, delta_softplus=True, order=None, merge="sum")[0]) for x in sets]
    exact = None
    if 16 * size <= 8e9:
        exact = selective_scan(**{k: v.double() for k, v in sets[0].items()}, delta_softplus=True, backend="torch")
    rate = batch * width * length
    for name, plan in variants(*shape).items():
        if time.perf_counter() > until:
            print(f"| {shape} | (out of time) | | | | |")
            return
        try:
            y = selective_scan_forward(prepared[0], plan=plan).y
            error = "" if exact is None else f"{float((y.double() - exact).norm() / exact.norm()):.1e}"
            calls = [lambda a=a, plan=plan: selective_scan_forward(a, plan=plan) for a in prepared]
            ms, graph = median_ms(calls, 0.05), graph_ms(calls[0])
            cut = f"{plan.chunks}x{plan.chunk}"
            print(
                f"| {shape} | {name} | {cut} | {error} | {ms:.4f} | {graph:.4f} | {rate / graph / 1e6:.0f} |",
                flush=True,
            )
        except Exception as failure:  # one variant that fails must not hide the others
            print(f"| {shape} | {name} | | {type(failure).__name__}: {str(failure)[:120]} | | | |", flush=True)
            torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=55)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--slow", action="store_true", help="small steps: start states live long")
    parser.add_argument("--shapes", nargs="*", default=SHAPES)
    options = parser.parse_args()
    begin, dtype = time.perf_counter(), getattr(torch, options.dtype)
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, {options.dtype}\n")
    print("| B, D, L | variant | chunks | relative L2 | ms | in a graph, ms | G positions·channels/s |")
    print("| --- | --- | --- | --- | ---: | ---: | ---: |")
    with torch.inference_mode():
        for i, text in enumerate(options.shapes):
            shape = tuple(int(part) for part in text.split(","))
            left = begin + options.seconds - time.perf_counter()
            run_shape(shape, dtype, time.perf_counter() + left / (len(options.shapes) - i), options.slow)  # type: ignore[arg-type]
    print(f"\n{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
