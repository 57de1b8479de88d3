"""How much faster two workers are than one, each on a core of its own, and what a run survives.

    python -m benchmarks.scale.workers --size 512            two workers against one
    python -m benchmarks.scale.workers --size 256 --kills 20    workers and the scheduler killed at random

With `--kills` the scheduler and its workers are processes of their own; one of them is killed at random moments, and
started again. The labels have to equal those of an undisturbed run each time.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np
import zarr

from benchmarks.scale import material
from napari_mamba import bundles, io
from napari_mamba.cluster import SpreadJobs, connect
from napari_mamba.engine import RunOptions
from napari_mamba.engine.stored.run import run_into
from napari_mamba.errors import InputError

OPTIONS = RunOptions(device="cpu", mirror=False)


def finished(events: Any) -> Any:
    """The result of a run."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value


def seconds(source: Path, bundle: Path, target: Path, workers: int) -> float:
    """Of a run on so many workers, from the first block on: without their start."""
    with connect(workers=workers) as cluster:
        pids = list(cluster.client.run(os.getpid).values())
        for core, pid in enumerate(pids):
            if hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(pid, {core})
        spread = SpreadJobs(cluster)
        warm = target.with_name("warm.zarr")
        finished(run_into(io.Opener((str(source),)), bundles.load(bundle), warm, OPTIONS, spread=spread))
        began = perf_counter()
        finished(run_into(io.Opener((str(source),)), bundles.load(bundle), target, OPTIONS, spread=spread))
        return perf_counter() - began


class Outside:
    """A scheduler and two workers as processes, of which any is killed and started again."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.start()

    def start(self) -> None:
        """Start what does not run."""
        lines = {"scheduler": ["scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"]}
        for number in range(2):
            lines[f"worker {number}"] = ["worker", self.address, "--nthreads", "1", "--no-dashboard", "--no-nanny"]
        environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
        for name, line in lines.items():
            if name not in self.processes or self.processes[name].poll() is not None:
                self.processes[name] = subprocess.Popen(
                    [sys.executable, "-m", "dask", *line],
                    env=environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )

    def kill(self, name: str) -> None:
        """End a process; the workers of a scheduler that is gone end with it."""
        for one in self.processes if name == "scheduler" else [name]:
            self.processes[one].kill()
            self.processes[one].wait()

    def connected(self) -> Any:
        """A connection, once the scheduler answers."""
        for _ in range(120):
            try:
                return connect(self.address).__enter__()
            except InputError:
                sleep(1)
        raise SystemExit("the scheduler does not start")


def disturbed(outside: Outside, source: Path, bundle: Path, target: Path, dice: random.Random, longest: float) -> str:
    """One run in which a process is killed; returns which."""
    cluster = outside.connected()
    victim = dice.choice(list(outside.processes))
    ended = threading.Event()

    def kill() -> None:
        if not ended.wait(dice.uniform(0.05, 1) * longest):
            outside.kill(victim)
            sleep(dice.uniform(0, 2))
            outside.start()

    thread = threading.Thread(target=kill)
    thread.start()
    finished(run_into(io.Opener((str(source),)), bundles.load(bundle), target, OPTIONS, spread=SpreadJobs(cluster)))
    ended.set()
    thread.join()
    return victim


def main() -> None:
    """Print the ratio, or a line a kill."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = material.volume(folder / "source.zarr", (arguments.size,) * 3)
        bundle = material.bundle(folder, "segmentation")
        if not arguments.kills:
            one, two = (seconds(source, bundle, folder / f"{n}.zarr", n) for n in (1, 2))
            print(f"one worker {one:.1f} s, two {two:.1f} s: {one / two:.2f} times")
            return
        began = perf_counter()
        finished(run_into(io.Opener((str(source),)), bundles.load(bundle), folder / "wanted.zarr", OPTIONS))
        longest = perf_counter() - began
        wanted = zarr.open_group(str(folder / "wanted.zarr"), mode="r")["0"][...]
        dice, outside = random.Random(arguments.seed), Outside()
        try:
            for number in range(arguments.kills):
                target = folder / f"{number}.zarr"
                victim = disturbed(outside, source, bundle, target, dice, longest)
                found = zarr.open_group(str(target), mode="r")["0"][...]
                same = "equal" if np.array_equal(found, wanted) else "NOT EQUAL"
                print(f"{number + 1}: {victim} killed, labels {same}", flush=True)
                if same != "equal":
                    raise SystemExit(1)
        finally:
            for process in outside.processes.values():
                process.kill()


if __name__ == "__main__":
    main()
