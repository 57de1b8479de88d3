"""How much faster two workers are than one, each on a core of its own.

    python -m benchmarks.scale.workers --depth 512

The workers are started, and load the network in runs before the one that is measured. Linux alone pins processes.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.scale import material, results
from napari_mamba import bundles, io
from napari_mamba.cluster import SpreadJobs, connect
from napari_mamba.engine import RunOptions
from napari_mamba.engine.stored.run import run_into

OPTIONS = RunOptions(device="cpu", mirror=False)


def finished(events: Any) -> Any:
    """The result of a run."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


def seconds(source: Path, bundle: Path, target: Path, workers: int) -> float:
    """Of a run on so many workers, each of one thread on a core of its own; without their start."""
    everywhere = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, everywhere[:workers])  # as many threads as cores are seen when they start
    try:
        with connect(workers=workers) as cluster:
            pids = list(cluster.client.run(os.getpid).values())
            for core, pid in zip(everywhere, pids, strict=False):
                for thread in os.listdir(f"/proc/{pid}/task"):
                    os.sched_setaffinity(int(thread), {core})
            os.sched_setaffinity(0, everywhere)
            spread = SpreadJobs(cluster)
            for number in range(2):  # networks are loaded and compiled, by a run of a task a worker
                small = material.volume(target.with_name("small.zarr"), (256, 64, 64))
                warm = target.with_name(f"warm-{workers}-{number}.zarr")
                finished(run_into(io.Opener((str(small),)), bundles.load(bundle), warm, OPTIONS, spread=spread))
            began = perf_counter()
            finished(run_into(io.Opener((str(source),)), bundles.load(bundle), target, OPTIONS, spread=spread))
            return perf_counter() - began
    finally:
        os.sched_setaffinity(0, everywhere)


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, default=512)
    parser.add_argument("--plane", type=int, default=256)
    parser.add_argument("--network", choices=material.NETWORKS, default="umamba_bot")
    parser.add_argument("--write", action="store_true", help="keep the times, and write the page of results")
    parser.add_argument("--note", default="", help="a sentence for the page")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shape = (arguments.depth, arguments.plane, arguments.plane)
        source = material.volume(folder / "source.zarr", shape)
        bundle = material.bundle(folder, "segmentation", arguments.network)
        one, two = (seconds(source, bundle, folder / f"{n}.zarr", n) for n in (1, 2))
        print(f"one worker {one:.1f} s, two {two:.1f} s: {one / two:.2f} times")
        if arguments.write:
            name = f"{'×'.join(map(str, shape))} by {arguments.network}"
            results.keep("workers", name, {"1": one, "2": two}, arguments.note)


if __name__ == "__main__":
    main()
