"""What a run on a cluster survives: in each, a worker is killed and the scheduler restarted, at random moments.

    python -m benchmarks.scale.kills --runs 20

The scheduler and its two workers are processes of their own. The labels of each run have to equal those of one that
nobody disturbed, and its table too.
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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import zarr

from benchmarks.scale import material, results
from benchmarks.scale.workers import OPTIONS, finished
from napari_mamba import bundles, io
from napari_mamba.cluster import Cluster, SpreadJobs, connect
from napari_mamba.engine.stored.run import run_into
from napari_mamba.errors import InputError


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

    @contextmanager
    def connected(self) -> Iterator[Cluster]:
        """A connection, once the scheduler answers."""
        with ExitStack() as stack:
            for _ in range(120):
                try:
                    cluster = stack.enter_context(connect(self.address))
                    break
                except InputError:
                    sleep(1)
            else:
                raise SystemExit("the scheduler does not start")
            yield cluster


def disturbed(outside: Outside, source: Path, bundle: Path, target: Path, dice: random.Random) -> tuple[Any, list[str]]:
    """One run with a kill of each kind; returns its result, and what was killed after which part of it.

    The moment is a number of tasks that have ended, and a time after that within which the workers go on.
    """
    killed: list[str] = []
    restarts: list[threading.Timer] = []
    order = ["scheduler", f"worker {dice.randrange(2)}"]
    dice.shuffle(order)
    with outside.connected() as cluster:
        events = run_into(io.Opener((str(source),)), bundles.load(bundle), target, OPTIONS, spread=SpreadJobs(cluster))
        moments: list[int] | None = None
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                result = end.value
                break
            if event.stage != "network" or event.total < 2:
                continue
            if moments is None:
                moments = sorted(dice.randrange(event.total) for _ in order)
            while moments and event.done >= moments[0]:
                for restart in restarts:
                    restart.join()
                moments.pop(0)
                victim = order.pop(0)
                sleep(dice.uniform(0, 2))
                outside.kill(victim)
                killed.append(f"{victim} after {event.done} of {event.total}")
                restarts.append(threading.Timer(dice.uniform(0, 2), outside.start))
                restarts[-1].start()
        for restart in restarts:
            restart.join()
    return result, killed


def runs(count: int, shape: Sequence[int], network: str, seed: int, folder: Path) -> Iterator[tuple[list[str], bool]]:
    """What was killed in each of many runs, and whether its labels and table equal those of the undisturbed one."""
    source = material.volume(folder / "source.zarr", shape)
    bundle = material.bundle(folder, "segmentation", network)
    target = folder / "wanted.zarr"
    undisturbed = finished(run_into(io.Opener((str(source),)), bundles.load(bundle), target, OPTIONS))
    wanted = zarr.open_group(str(target), mode="r")["0"][...]
    assert len(np.unique(wanted)) > 1, "labels of one value would equal anything"
    dice, outside = random.Random(seed), Outside()
    try:
        for number in range(count):
            target = folder / f"{number}.zarr"
            result, killed = disturbed(outside, source, bundle, target, dice)
            found = zarr.open_group(str(target), mode="r")["0"][...]
            counts = [[row.voxels for row in one.table] for one in (result, undisturbed)]
            yield killed, np.array_equal(found, wanted) and counts[0] == counts[1]
    finally:
        for process in outside.processes.values():
            process.kill()


def main() -> None:
    """Print a line a run; ends with 1 where one is not equal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--depth", type=int, default=768)
    parser.add_argument("--plane", type=int, default=256)
    parser.add_argument("--network", choices=material.NETWORKS, default="ultralight_vm_unet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="keep what happened, and write the page of results")
    chosen = parser.parse_args()
    shape = (chosen.depth, chosen.plane, chosen.plane)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for number, (killed, same) in enumerate(
            runs(chosen.runs, shape, chosen.network, chosen.seed, Path(temporary)), 1
        ):
            found.append({"killed": killed, "equal": same})
            print(f"{number}: {'equal' if same else 'NOT EQUAL'}; {', '.join(killed)}", flush=True)
    equal = sum(one["equal"] for one in found)
    print(f"{equal} of {chosen.runs} equal the undisturbed run")
    if chosen.write:
        results.keep("kills", f"{'×'.join(map(str, shape))} by {chosen.network}, seed {chosen.seed}", found)
    if equal < chosen.runs:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
