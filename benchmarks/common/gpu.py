"""What the benchmarks on a GPU share: timing by CUDA events, peak memory, the machine's description, and a report."""

from __future__ import annotations

import os
import statistics
import subprocess
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

DEVICE = "cuda"


class Report:
    """Markdown that is printed as it grows; with a name, saved as NAME.md in the folder `results` after every section.

    The environment variable RESULTS names another folder for it.
    """

    def __init__(self, title: str, name: str, results: Path) -> None:
        self.lines: list[str] = []
        self.name = name
        self.results = Path(os.environ.get("RESULTS", results))
        self.say(f"# {title}\n\n{machine()}")

    def say(self, text: str = "") -> None:
        """Print and keep a paragraph."""
        self.lines.append(text)
        print(text, flush=True)

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print and keep a table, row by row; the first column is left-aligned."""
        self.say(f"\n| {' | '.join(heads)} |\n| {' | '.join(['---'] + ['---:'] * (len(heads) - 1))} |")
        for row in rows:
            self.say(f"| {' | '.join(row)} |")

    @contextmanager
    def section(self, title: str):
        """A heading; what goes wrong below it is written down, and the next section still runs."""
        self.say(f"\n## {title}\n")
        try:
            yield
        except Exception as error:  # a benchmark says why a part is missing, whatever the reason
            self.say(f"\nNot measured: {reason(error)}")
            traceback.print_exc()
        self.save()
        torch.cuda.empty_cache()

    def save(self) -> None:
        """Write what there is so far."""
        if self.name:
            self.results.mkdir(parents=True, exist_ok=True)
            (self.results / f"{self.name}.md").write_text("\n".join(self.lines) + "\n", encoding="utf-8")


def reason(error: Exception) -> str:
    """One line of an exception."""
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0][:300]}"


def query(field: str) -> str:
    """A field of nvidia-smi for the first GPU, or "" where it does not answer."""
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits", "-i", "0"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def machine() -> str:
    """GPU, driver and versions, one line."""
    if not torch.cuda.is_available():
        return f"No GPU, PyTorch {torch.__version__}."
    driver = query("driver_version") or "unknown"
    return (
        f"{torch.cuda.get_device_name()}, driver {driver}, CUDA {torch.version.cuda}, PyTorch {torch.__version__}; "
        f"{torch.cuda.get_device_properties(0).multi_processor_count} multiprocessors."
    )


def clock() -> float:
    """The GPU's highest clock in Hz; an H100's where the driver does not say."""
    megahertz = query("clocks.max.sm")
    return float(megahertz) * 1e6 if megahertz.replace(".", "").isdigit() else 1.98e9


def sets_needed(megabytes: float, most: int = 256) -> int:
    """How many input sets of a size are together three times the L2 cache."""
    cache = getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 50 << 20) / 2**20
    return max(1, min(most, int(3 * cache / max(megabytes, 1e-6)) + 1))


def milliseconds(calls: Sequence[Callable[[], object]], budget: float = 0.25, rounds: int = 25) -> float:
    """Median time of one call. A round runs every call once, back to back between two events; up to three warm up.

    Short calls are repeated within a round until it lasts a millisecond, so what is timed is a stream of calls, with
    the host's part of each where that is the longer.
    """
    for _ in range(3):
        once = _round(calls, 1)
        if once > 200:  # a millisecond's start-up no longer shows
            break
    repeats = 1 if once >= 1 else min(64, int(1 / max(once, 1e-3)) + 1)
    rounds = max(3, min(rounds, int(1e3 * budget / max(once * repeats, 1e-3))))
    return statistics.median(_round(calls, repeats) for _ in range(rounds)) / (repeats * len(calls))


def _round(calls: Sequence[Callable[[], object]], repeats: int) -> float:
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(repeats):
        for call in calls:
            call()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop)


def graph_milliseconds(calls: Sequence[Callable[[], object]]) -> float:
    """Median time of one call inside a CUDA graph that holds all of them."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            for call in calls:
                call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return milliseconds([graph.replay]) / len(calls)


def peak_bytes(call: Callable[[], object]) -> tuple[int, int]:
    """Bytes allocated before a call, and at its peak; its result counts, since it is kept until the peak is read."""
    call()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    kept = call()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated()
    del kept
    return before, peak


def copy_bandwidth() -> float:
    """Bytes a second of a device-to-device copy of 1 GiB, read and written counted."""
    source = torch.randn(1 << 28, device=DEVICE)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / (1e-3 * milliseconds([lambda: target.copy_(source)]))


def relative_l2(value: torch.Tensor, exact: torch.Tensor) -> float:
    """‖value - exact‖ / ‖exact‖ in float64."""
    return float((value.double() - exact.double()).norm() / exact.double().norm())
