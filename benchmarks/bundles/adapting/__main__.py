"""`prepare`, `run`, `table` and `cpu`; `job` is what `run` starts."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.bundles.adapting.jobs import JOBS
from benchmarks.bundles.adapting.table import table

UNFINISHED = 4
"""Exit code of a row that has not taken all of its steps."""


def run(asked: argparse.Namespace) -> None:
    """All rows that are not done, `--parallel` at once; rows.json is written whenever one ends."""
    asked.output.mkdir(parents=True, exist_ok=True)
    names = [name for name in asked.jobs or JOBS if not (asked.output / f"{name}.json").exists()]
    names.sort(key=lambda name: -JOBS[name].steps * _weight(name))  # the longest begin first
    end = time.time() + 60 * asked.minutes
    running: dict[str, subprocess.Popen] = {}
    waiting, count = list(names), len(names)
    gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    while waiting or running:
        while waiting and len(running) < asked.parallel and time.time() < end - 30:
            name = waiting.pop(0)
            waves = -(-(len(waiting) + 1) // asked.parallel)
            deadline = min(end, time.time() + (end - time.time()) / waves)
            running[name] = _start(asked, name, deadline, gpus[(count - len(waiting)) % len(gpus)] if gpus else "")
        if waiting and not running:
            print("no time is left for", *waiting, flush=True)
            break
        for name, process in list(running.items()):
            if process.poll() is not None or time.time() > end + 15:
                process.kill()
                process.wait()
                del running[name]
                _told(asked, name, process.returncode)
        time.sleep(0.2)
    for line in table(_gather(asked)):
        print(line)


def _weight(name: str) -> float:
    options = JOBS[name].options or {}
    return {"cross": 3.0, "scribbles": 3.0, "mean-teacher": 1.6}.get(options.get("scheme", ""), 1.0)


def _start(asked: argparse.Namespace, name: str, deadline: float, gpu: str) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    if gpu:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    command = [sys.executable, "-m", "benchmarks.bundles.adapting", "job", str(asked.npz), "-o", str(asked.output)]
    command += ["--name", name, "--deadline", str(deadline), "--device", asked.device]
    command += ["--steps", str(asked.steps)] if asked.steps else []
    command += ["--equal"] if asked.equal else []
    with (asked.output / f"{name}.log").open("w") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)


def _told(asked: argparse.Namespace, name: str, code: int) -> None:
    path = asked.output / f"{name}.json"
    if path.exists():
        row = json.loads(path.read_text())
        print(
            f"{name}: Dice {row['dice']:.4f}, {row['steps']} of {row['planned']} steps, {row['seconds']} s", flush=True
        )
    elif code == UNFINISHED:
        print(f"{name}: no time for all of its steps; the same command goes on", flush=True)
    else:
        last = (asked.output / f"{name}.log").read_text(errors="replace").strip().splitlines()[-3:]
        print(f"{name}: ended with {code}: {' | '.join(last)}", flush=True)
    _gather(asked)


def _gather(asked: argparse.Namespace) -> list[dict]:
    rows = [json.loads((asked.output / f"{name}.json").read_text()) for name in JOBS
            if (asked.output / f"{name}.json").exists()]  # fmt: skip
    for place in (asked.output, *([asked.copy] if asked.copy else [])):
        place.mkdir(parents=True, exist_ok=True)
        (place / "rows.json").write_text(json.dumps(rows))
    return rows


def job(asked: argparse.Namespace) -> None:
    """One row in a process of its own."""
    import torch

    from benchmarks.bundles.adapting import work
    from benchmarks.bundles.adapting.data import Data

    torch.set_num_threads(1)
    data = Data(asked.npz)
    row = work.run(asked.name, data, asked.output, asked.deadline, asked.device, asked.steps, equal=asked.equal)
    if row is None:
        sys.exit(UNFINISHED)


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bundles.adapting")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("prepare")
    one.add_argument("--data", type=Path, required=True)
    one.add_argument("-o", "--output", type=Path, required=True)
    for name in ("run", "job"):
        one = commands.add_parser(name)
        one.add_argument("npz", type=Path)
        one.add_argument("-o", "--output", type=Path, required=True)
        one.add_argument("--device", default="auto")
        one.add_argument("--steps", type=int, help="of a row, instead of its own where these are more")
        one.add_argument(
            "--equal", action="store_true",
            help="every row takes all of its steps: one that has no time for them is gone on with by the same command",
        )  # fmt: skip
        if name == "run":
            one.add_argument("--minutes", type=float, default=8.0)
            one.add_argument("--parallel", type=int, default=len(JOBS))
            one.add_argument("--jobs", nargs="*", choices=JOBS)
            one.add_argument("--copy", type=Path, help="a folder that gets rows.json too")
        else:
            one.add_argument("--name", required=True)
            one.add_argument("--deadline", type=float, required=True)
    one = commands.add_parser("table")
    one.add_argument("rows", type=Path)
    one = commands.add_parser("cpu", help="the command itself on two cores: Dice on other people, and memory")
    one.add_argument("--data", type=Path, required=True)
    one.add_argument("--minutes", type=float, default=10.0, help="of the whole command")
    one.add_argument("--people", type=int, default=5)
    one.add_argument("--test", type=int, default=30, help="people to test on")
    one.add_argument("--patch", default="64,64,64")
    one.add_argument("-o", "--output", type=Path, help="a folder for the bundle; a passing one if not given")
    asked = parser.parse_args()
    if asked.command == "prepare":
        from benchmarks.bundles.adapting.data import prepare

        prepare(asked.data, asked.output)
    elif asked.command == "cpu":
        from benchmarks.bundles.adapting.cpu import measure

        measure(asked.data, asked.minutes, asked.people, asked.test, asked.patch, asked.output)
    elif asked.command == "table":
        print("\n".join(table(json.loads(asked.rows.read_text()))))
    else:
        {"run": run, "job": job}[asked.command](asked)


if __name__ == "__main__":
    main()
