"""Whole networks on a GPU: `python -m benchmarks.networks.speed [--authors DIR]`.

Beside the authors' code on mamba-ssm's kernels (a folder with clones of their repositories, see authors.py), with the
same weights in the same process; and beside MONAI's SwinUNETR and UNETR at growing tiles. A tile is a batch of one.
bfloat16 is PyTorch's autocast for everybody: each code decides for itself what stays in float32. Convolutions in
float32 may use TF32, PyTorch's default, for everybody.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.common.gpu import DEVICE, Report, milliseconds, reason, relative_l2
from benchmarks.networks import authors
from napari_mamba import models
from napari_mamba.nn.blocks import layout

NAMES = {"umamba_enc": "U-Mamba Enc 3D", "segmamba": "SegMamba"}
AIMS = {"umamba_enc": 2.5, "segmamba": 2.0}
SIZES = (96, 128, 192, 256)
RESULTS = Path(__file__).with_name("results")
BUDGET = 0.5  # seconds of timed calls
STREAM = 3
"""Calls of a network back to back, as an image's tiles are: what the host asks for, a GPU works off meanwhile."""


def precision(dtype: torch.dtype) -> contextlib.AbstractContextManager:
    """No gradients, and autocast where the type is not float32."""
    stack = contextlib.ExitStack()
    stack.enter_context(torch.no_grad())
    stack.enter_context(torch.autocast("cuda", dtype, enabled=dtype != torch.float32))
    return stack


def measure(network: nn.Module, x: Tensor, dtype: torch.dtype) -> tuple[float, float, Tensor]:
    """Milliseconds of a forward pass, its peak GiB (weights and input included), and the output on the CPU."""
    network.to(DEVICE)
    try:
        with precision(dtype):
            y = network(x).float().cpu()
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            network(x)
            torch.cuda.synchronize()
            peak = torch.cuda.max_memory_allocated() / 2**30
            time = milliseconds([lambda: network(x)] * STREAM, BUDGET, rounds=15)
        return time, peak, y
    finally:
        network.cpu()
        free()


def host_part(network: nn.Module, x: Tensor, dtype: torch.dtype) -> float:
    """Milliseconds until a forward pass is asked for, on a GPU that has nothing else to do; a median of nine."""
    network.to(DEVICE)
    times = []
    try:
        with precision(dtype):
            for _ in range(10):
                torch.cuda.synchronize()
                began = perf_counter()
                network(x)
                times.append(1e3 * (perf_counter() - began))
            torch.cuda.synchronize()
        return statistics.median(times[1:])
    finally:
        network.cpu()
        free()


def free() -> None:
    """Give cached memory back."""
    gc.collect()
    torch.cuda.empty_cache()


def graphed(network: nn.Module, x: Tensor, dtype: torch.dtype) -> float:
    """Milliseconds of a forward pass replayed from a CUDA graph."""
    network.to(DEVICE)
    try:
        with precision(dtype):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(2):
                    network(x)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Autocast would keep weights that it cast outside the capture.
            torch.clear_autocast_cache()
            with torch.cuda.graph(graph):
                network(x)
            time = milliseconds([graph.replay], BUDGET, rounds=15)
            del graph
        return time
    finally:
        network.cpu()
        free()


def ours_like(name: str, size: int, theirs: nn.Module | None) -> nn.Module:
    """Our network, with the authors' weights where they are there."""
    torch.manual_seed(0)
    network = models.create(name, **authors.arguments(name, size))
    if theirs is not None:
        network.load_state_dict(theirs.state_dict(), strict=True)
    return network.eval()


def agreement(theirs: nn.Module, ours: nn.Module, x: Tensor) -> float:
    """Relative L2 of the outputs in float32 without TF32."""
    saved = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    outputs = []
    try:
        with torch.no_grad():
            for network in (theirs, ours):
                outputs.append(network.to(DEVICE)(x).cpu())
                network.cpu()
                free()
    finally:
        torch.backends.cudnn.allow_tf32 = saved
    return relative_l2(outputs[1], outputs[0])


def variants(network: nn.Module, x: Tensor, dtype: torch.dtype, compiled: bool) -> list[tuple[str, Callable]]:
    """(what, function giving time, peak, output) of the ways to run our network."""

    def channels_first() -> tuple[float, float, Tensor]:
        with mock.patch.object(layout, "_wanted", False):
            return measure(network, x, dtype)

    ways: list[tuple[str, Callable]] = [
        ("ours", lambda: measure(network, x, dtype)),
        ("ours, maps channels-first", channels_first),
        ("ours in a CUDA graph", lambda: (graphed(network, x, dtype), math.nan, None)),
    ]
    if compiled:
        ways.append(("ours, torch.compile", lambda: measure(torch.compile(network), x, dtype)))
    return ways


def beside_authors(report: Report, name: str, folder: Path | None, size: int, compiled: bool) -> None:
    """The table of one network at one tile, float32 and bfloat16."""
    theirs = None
    if folder is None:
        report.say("Without --authors: ours alone.")
    else:
        try:
            theirs = authors.load(name, folder, size)
        except Exception as error:  # ours is still worth timing
            report.say(f"The authors' code did not load ({reason(error)}): ours alone.")
    torch.manual_seed(1)
    x = torch.randn(1, authors.channels(name), *(size,) * 3, device=DEVICE)
    ours = ours_like(name, size, theirs)
    rows = []
    if theirs is not None:
        report.say(f"Outputs in float32 without TF32 differ by {agreement(theirs, ours, x):.1e} (relative L2).")
    for dtype in (torch.float32, torch.bfloat16):
        label = str(dtype).removeprefix("torch.")
        base: tuple[float, float, Tensor | None] = (math.nan, math.nan, None)
        ways = variants(ours, x, dtype, compiled)
        if theirs is not None:
            ways.insert(0, ("authors", lambda dtype=dtype: measure(theirs, x, dtype)))
        for what, run in ways:
            try:
                time, peak, y = run()
            except Exception as error:
                free()
                rows.append([f"{label}: {what}", reason(error)[:80], *["–"] * 4])
                continue
            if what == "authors":
                base = (time, peak, y)
            apart = "–" if y is None or base[2] is None or what == "authors" else f"{relative_l2(y, base[2]):.1e}"
            ratios = [f"{base[0] / time:.2f}", f"{peak:.2f}", f"{peak / base[1]:.2f}"]
            rows.append([f"{label}: {what}", f"{time:.1f}", *(r.replace("nan", "–") for r in ratios), apart])
    report.table(["", "ms", "times the authors'", "peak GiB", "of the authors'", "relative L2 to the authors'"], rows)
    report.say(f"\nAims: {AIMS[name]:g} times, 0.70 of the memory.")


def monai_network(name: str, size: int) -> nn.Module:
    """MONAI's network with its published arguments, one channel in, three classes out."""
    from monai.networks.nets import UNETR, SwinUNETR

    if name == "UNETR":
        return UNETR(in_channels=1, out_channels=3, img_size=(size,) * 3).eval()
    return SwinUNETR(in_channels=1, out_channels=3, feature_size=48).eval()


def exponent(sizes: list[int], times: list[float]) -> float:
    """Slope of log time against log voxels."""
    points = [(3 * math.log(s), math.log(t)) for s, t in zip(sizes, times, strict=True) if not math.isnan(t)]
    if len(points) < 2:
        return math.nan
    mean_x, mean_y = (sum(p[i] for p in points) / len(points) for i in (0, 1))
    above = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return above / sum((x - mean_x) ** 2 for x, _ in points)


def beside_monai(report: Report, sizes: list[int], dtype: torch.dtype) -> None:
    """Time and peak memory at growing tiles, and the fitted exponent of the time in the number of voxels."""
    makers: dict[str, Callable[[int], nn.Module]] = {
        "U-Mamba Enc 3D (ours)": lambda size: ours_like("umamba_enc", size, None),
        "SegMamba (ours)": lambda size: ours_like("segmamba", size, None),
        "SwinUNETR (MONAI)": lambda size: monai_network("SwinUNETR", size),
        "UNETR (MONAI)": lambda size: monai_network("UNETR", size),
    }
    rows = []
    for what, make in makers.items():
        times, cells = [], []
        for size in sizes:
            time = math.nan
            try:
                network = make(size)
                channels = 4 if what.startswith("SegMamba") else 1
                x = torch.randn(1, channels, *(size,) * 3, device=DEVICE)
                time, peak, _ = measure(network, x, dtype)
                cells.append(f"{time:.1f} / {peak:.2f}")
            except Exception as error:
                cells.append("–")
                print(f"    {what} at {size}³ failed: {reason(error)}", flush=True)
            times.append(time)
            network = x = None  # type: ignore[assignment]
            free()
        rows.append([what, *cells, f"{exponent(sizes, times):.2f}"])
    report.table(["ms / peak GiB", *(f"{s}³" for s in sizes), "exponent"], rows)


def main() -> None:
    """Print the tables, and save them where --write names a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--authors", type=Path, help="folder with clones of U-Mamba and SegMamba")
    parser.add_argument("--size", type=int, default=128, help="tile beside the authors' code")
    parser.add_argument("--networks", nargs="*", choices=NAMES, default=list(NAMES))
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES), help="tiles beside MONAI; none: no table")
    parser.add_argument("--write", default="", metavar="NAME", help="also save as results/NAME.md")
    parser.add_argument("--compile", action="store_true", help="time torch.compile too (minutes)")
    parser.add_argument("--profile", action="store_true", help="print our kernels at --size, nothing else")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device here")
    if options.profile:
        from benchmarks.networks.profile import profile

        for name in options.networks:
            for dtype in (torch.float32, torch.bfloat16):
                profile(name, ours_like(name, options.size, None), options.size, dtype)
        return
    report = Report("Whole networks on a GPU", options.write, RESULTS)
    torch.backends.cudnn.benchmark = True
    for name in options.networks:
        with report.section(f"{NAMES[name]}, a tile of {options.size}³, beside the authors' code"):
            beside_authors(report, name, options.authors, options.size, options.compile)
        free()
    torch.backends.cudnn.benchmark = False  # its trials would take longer than the table
    for dtype in (torch.float32, torch.bfloat16) if options.sizes else ():
        with report.section(f"Beside MONAI's transformers, {str(dtype).removeprefix('torch.')}"):
            beside_monai(report, options.sizes, dtype)


if __name__ == "__main__":
    main()
