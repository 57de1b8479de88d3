"""What a run on a cluster survives: in each, a worker is killed and the scheduler restarted, at random moments.

    python -m benchmarks.scale.kills --runs 20
    python -m benchmarks.scale.kills --runs 20 --depth 384 --side-by-side 5 --write

The scheduler and its two workers are processes of their own, and so is each run, with its own moments: they depend on
the seed and the run's number alone, however many go side by side. The labels of each run have to equal those of one
that nobody disturbed, and its table too. Where the benchmark is cut, the runs that have ended are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np
import zarr

from benchmarks.scale import material, results
from benchmarks.scale.workers import OPTIONS, finished
from napari_mamba import bundles, io
from napari_mamba.cluster import Cluster, SpreadJobs, connect
from napari_mamba.engine.stored.run import run_into
from napari_mamba.errors import InputError

_CHILD = "import sys; from benchmarks.scale.kills import child; child(*sys.argv[1:])"
LONGEST_S = 600
"""Of one run; one that has not ended then counts as not equal."""


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
        environment = {**os.environ, "PYTHONPATH": _path(), "OMP_NUM_THREADS": "1"}
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

    def end(self) -> None:
        """End all of them."""
        for process in self.processes.values():
            process.kill()
            process.wait()

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


def _voxels(result: Any) -> list[int]:
    return [row.voxels for row in result.table]


def child(folder: str, bundle: str, number: str, seed: str) -> None:
    """One disturbed run beside the undisturbed one that lies in `folder`; prints its row as JSON."""
    place, since = Path(folder), perf_counter()
    target, outside = place / f"{number}.zarr", Outside()
    try:
        dice = random.Random(f"{seed} {number}")
        result, killed = disturbed(outside, place / "source.zarr", Path(bundle), target, dice)
    finally:
        outside.end()
    found, wanted = (zarr.open_group(str(one), mode="r")["0"][...] for one in (target, place / "wanted.zarr"))
    counts = json.loads((place / "wanted.json").read_text())
    same = bool(np.array_equal(found, wanted)) and _voxels(result) == counts
    print(json.dumps({"killed": killed, "equal": same, "seconds": round(perf_counter() - since, 1)}))


def _path() -> str:
    return os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])


class _Runs:
    """Children, one run each, with whatever they have started: all of it ends with them."""

    def __init__(self, folder: Path, bundle: Path, seed: int):
        self.folder, self.bundle, self.seed = folder, bundle, seed
        self.running: set[subprocess.Popen[str]] = set()

    def one(self, number: int) -> dict[str, Any]:
        """The row of a run; of one that failed, why."""
        line = [sys.executable, "-c", _CHILD, str(self.folder), str(self.bundle), str(number), str(self.seed)]
        process = subprocess.Popen(
            line,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": _path()},
            start_new_session=True,
        )
        self.running.add(process)
        try:
            said, error = process.communicate(timeout=LONGEST_S)
        except subprocess.TimeoutExpired:
            return self._failed(number, f"not ended within {LONGEST_S} s")
        finally:
            self._end(process)
        if process.returncode:
            return self._failed(number, (error.strip().splitlines() or ["no word"])[-1][:300])
        return {"number": number, **json.loads(said.splitlines()[-1])}

    @staticmethod
    def _failed(number: int, why: str) -> dict[str, Any]:
        return {"number": number, "killed": [], "equal": False, "error": why}

    def _end(self, process: subprocess.Popen[str]) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.running.discard(process)

    def end(self) -> None:
        """End those that still run."""
        for process in list(self.running):
            self._end(process)


def runs(
    count: int, shape: Sequence[int], network: str, seed: int, folder: Path, side_by_side: int = 1
) -> Generator[dict[str, Any], None, None]:
    """A row for each run as it ends: its number, what was killed in it, whether its labels and table are the same."""
    source = material.volume(folder / "source.zarr", shape)
    bundle = material.bundle(folder, "segmentation", network)
    target = folder / "wanted.zarr"
    undisturbed = finished(run_into(io.Opener((str(source),)), bundles.load(bundle), target, OPTIONS))
    wanted = zarr.open_group(str(target), mode="r")["0"][...]
    assert len(np.unique(wanted)) > 1, "labels of one value would equal anything"
    (folder / "wanted.json").write_text(json.dumps(_voxels(undisturbed)))
    children = _Runs(folder, bundle, seed)
    with ThreadPoolExecutor(side_by_side) as pool:
        ended = [pool.submit(children.one, number) for number in range(1, count + 1)]
        try:
            for one in as_completed(ended):
                yield one.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            children.end()


def told(row: dict[str, Any]) -> str:
    """A row in words."""
    how = "equal" if row["equal"] else "NOT EQUAL"
    return f"{row['number']}: {how}; {', '.join(row['killed'])}{row.get('error', '')}"


def main() -> None:
    """Print a line a run; ends with 1 where one is not equal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--depth", type=int, default=768)
    parser.add_argument("--plane", type=int, default=256)
    parser.add_argument("--network", choices=material.NETWORKS, default="ultralight_vm_unet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side-by-side", type=int, default=1, help="runs at a time, of three processes each")
    parser.add_argument("--write", action="store_true", help="keep what happened, and write the page of results")
    parser.add_argument("--note", default="", help="a sentence for the page")
    chosen = parser.parse_args()
    shape = (chosen.depth, chosen.plane, chosen.plane)
    name = f"{'×'.join(map(str, shape))} by {chosen.network}, seed {chosen.seed}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("cut"))  # what `timeout` sends: children end, too
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        every = runs(chosen.runs, shape, chosen.network, chosen.seed, Path(temporary), chosen.side_by_side)
        try:
            for row in every:
                rows.append(row)
                print(f"{told(row)} ({row.get('seconds', LONGEST_S):.0f} s)", flush=True)
                if chosen.write:
                    kept = sorted(rows, key=lambda one: one["number"])
                    results.keep("kills", name, kept, _said(chosen.note, len(rows), chosen.runs))
        finally:
            every.close()
    equal = sum(one["equal"] for one in rows)
    print(f"{equal} of {chosen.runs} equal the undisturbed run")
    if equal < chosen.runs:
        raise SystemExit(1)


def _said(note: str, ended: int, count: int) -> str:
    """The note, and that a benchmark was cut: gone again when the last run has ended."""
    return note if ended == count else " ".join([*([note] if note else []), f"Stopped after these of {count} runs."])


if __name__ == "__main__":
    main()
