"""Mutated files against every reader: `python tests/faults/fuzz.py --inputs 100000` for a night, 500 a target in CI.

Each input must be read, or refused in one sentence; never a crash, a traceback, 5 seconds, or 1 GiB. Inputs are made
from seeds, so that a failure is repeated by its number: `--target nifti --first 4711 --inputs 1`.

`--results FILE` goes on where the file says that the last run with this seed ended, ten thousand inputs of each target
in turn, and adds to its counts: a run may end at any time. `--minutes` ends it; `--again` tries only what failed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

SECONDS, MEMORY, LONGEST = 5, 2**30, 600
PATIENCE = 60  # of the clock, where something waits rather than works
OUTCOMES = ("read", "refused", "failed")
TURN = 10_000
MEMORY_DISK = "/dev/shm"  # where there is one: a file that is written anew waits for a disk longer than for its reader


def allowed(function: Callable[[], object]) -> str:
    """ "read" or "refused"; anything else that happens is raised."""
    from napari_mamba.errors import NapariMambaError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", ResourceWarning)
            function()
    except NapariMambaError as error:
        text = str(error)
        if len(text) > LONGEST or "\n" in text or not text.isprintable():
            raise AssertionError(f"a sentence of {len(text)} characters: {text[:200]!r}") from error
        return "refused"
    return "read"


class Hang(BaseException):
    """An input took longer than `SECONDS`."""


BEGUN, READ, REFUSED, SPENT = range(4)


def _worker(name: str, seed: int, first: int, count: int, folder: str, connection, told) -> None:
    """Try inputs `first` to `first + count`.

    `told` is memory of both processes: the number begun, how many were read and refused, and the processor's
    milliseconds that they took. Only what failed, and (None, "done"), goes through the connection: two messages an
    input would take longer than many an input.
    """
    from fuzz_targets import TARGETS

    def too_long(number, frame):
        raise Hang

    signal.signal(signal.SIGPROF, too_long)  # of the processor's time: others' work stretches the clock's
    target = TARGETS[name](Path(folder))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries' noise is another test's business
    have = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (have + MEMORY + 2**28, have + MEMORY + 2**28))
    began = time.process_time()
    for number in range(first, first + count):
        told[BEGUN], told[SPENT] = number, int(1000 * (time.process_time() - began))
        rng = np.random.default_rng([seed, number])
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            told[READ if allowed(lambda rng=rng: target(rng)) == "read" else REFUSED] += 1
        except Hang:
            connection.send((number, "hang"))
        except BaseException:
            lines = traceback.format_exc().strip().splitlines()
            ours = [line.strip() for line in lines if "napari_mamba" in line and "File" in line]
            connection.send((number, f"traceback: {lines[-1][:200]} at {ours[-1] if ours else '?'}"))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    told[SPENT] = int(1000 * (time.process_time() - began))
    connection.send((None, "done"))


def fuzz(name: str, count: int, seed: int = 1, first: int = 0) -> tuple[Counter, list[tuple[int, str]]]:
    """Try `count` inputs on a target, in a process of its own, started again where it dies and after `TURN` inputs.

    Returns
    -------
    Counter, list of (number, what)
        How many were read and refused, the processor's milliseconds, and each failure.
    """
    outcomes: Counter = Counter()
    failures: list[tuple[int, str]] = []
    at, end = first, first + count
    context = multiprocessing.get_context("forkserver")  # one process imports PyTorch, the others are forks of it
    context.set_forkserver_preload(
        ["napari_mamba.bundles.importers", "napari_mamba.models", "pydicom", "zarr", "tifffile"]
    )
    while at < end:
        piece = min(TURN, end - at)
        with tempfile.TemporaryDirectory(dir=MEMORY_DISK if os.access(MEMORY_DISK, os.W_OK) else None) as folder:
            ours, theirs = context.Pipe()
            told = context.RawArray("q", [-1, 0, 0, 0])
            process = context.Process(target=_worker, args=(name, seed, at, piece, folder, theirs, told))
            process.start()
            theirs.close()
            try:
                for number, what in _failures(ours, told):
                    failures.append((number, what))
                    outcomes["failed"] += 1
                at += piece
            except EOFError as error:
                process.kill()
                process.join()
                if told[BEGUN] < 0:
                    raise RuntimeError(f"the target {name} could not be set up") from error
                failures.append((told[BEGUN], f"the process died or hung (exit code {process.exitcode})"))
                outcomes["failed"] += 1
                at = told[BEGUN] + 1
            process.join()
            outcomes.update(read=told[READ], refused=told[REFUSED], milliseconds=told[SPENT])
    return outcomes, failures


def _failures(connection, told) -> Iterator[tuple[int, str]]:
    """What failed, as it is told, until the process is done; EOFError where it died, or one input takes too long."""
    seen, since = -1, time.monotonic()
    while True:
        if connection.poll(1):
            number, what = connection.recv()
            if number is None:
                return
            yield number, what
        if told[BEGUN] != seen:
            seen, since = told[BEGUN], time.monotonic()
        elif time.monotonic() - since > (600 if seen < 0 else PATIENCE):
            raise EOFError


def tried_on(results: Path, names: list[str], seed: int, until: float, at_most: int) -> int:
    """Go on with the inputs of a seed after the last that the file counts, in turns, and count them there.

    Parameters
    ----------
    results : Path
        Per target: how many inputs, of them read, refused and failed; the seeds' next numbers; what failed.
    until : float
        Of `time.monotonic`: no turn begins after it.
    at_most : int
        Inputs of each target in this call.

    Returns
    -------
    int
        How many inputs failed in this call.
    """
    failed, turns = 0, range(0, at_most, TURN)
    for done in turns:
        for name in names:
            if time.monotonic() >= until:
                return failed
            table = json.loads(results.read_text()) if results.exists() else {}
            entry = table.setdefault(name, {})
            nexts = entry.setdefault("next", {})
            first, count = nexts.get(str(seed), 0), min(TURN, at_most - done)
            outcomes, failures = fuzz(name, count, seed, first)
            nexts[str(seed)] = first + count
            for what in OUTCOMES:
                entry[what] = entry.get(what, 0) + outcomes[what]
            entry["inputs"] = entry.get("inputs", 0) + count
            entry.setdefault("failures", []).extend([seed, number, what] for number, what in failures)
            failed += len(failures)
            _save(results, table)
            print(f"{name:12} {first:7} to {first + count:7}: {dict(outcomes)}", flush=True)
            for number, what in failures:
                print(f"    input {number}: {what}", flush=True)
    return failed


def tried_again(results: Path) -> int:
    """Try what the file lists as failed, count it as what it is now, and return how many still fail."""
    table = json.loads(results.read_text())
    for name, entry in table.items():
        still = []
        for seed, number, _ in entry.get("failures", []):
            outcomes, failures = fuzz(name, 1, seed, number)
            still += [[seed, number, what] for _, what in failures]
            entry["failed"] -= 1
            for what in OUTCOMES:
                entry[what] += outcomes[what]
        if "failures" in entry:
            entry["failures"] = still
            for seed, number, what in still:
                print(f"{name:12} seed {seed} input {number}: {what}", flush=True)
    _save(results, table)
    return sum(len(entry.get("failures", [])) for entry in table.values())


def _save(results: Path, table: dict) -> None:
    beside = results.with_suffix(".part")
    beside.write_text(json.dumps(table, indent=2, sort_keys=True) + "\n")
    beside.replace(results)


def main() -> int:
    """Run the targets, print a table, and return 1 where something failed."""
    from fuzz_targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=500, help="for each target")
    parser.add_argument("--target", choices=sorted(TARGETS), action="append")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the outcome to this file")
    parser.add_argument("--results", type=Path, help="go on where this file says, and add to its counts")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="with --results: begin no turn after these")
    parser.add_argument("--again", action="store_true", help="with --results: only what failed")
    given = parser.parse_args()
    names = given.target or sorted(TARGETS)
    if given.results is not None:
        until = time.monotonic() + 60 * given.minutes
        failed = (
            tried_again(given.results)
            if given.again
            else tried_on(given.results, names, given.seed, until, given.inputs)
        )
        return 1 if failed else 0
    table = {}
    for name in names:
        outcomes, failures = fuzz(name, given.inputs, given.seed, given.first)
        table[name] = {"inputs": given.inputs, **outcomes, "failures": failures[:50]}
        rate = 1000 * given.inputs / max(outcomes["milliseconds"], 1)
        print(f"{name:12} {outcomes['read']:7} read {outcomes['refused']:7} refused {outcomes['failed']:5} failed "
              f"{rate:6.0f} a second of the processor", flush=True)  # fmt: skip
        for number, what in failures[:20]:
            print(f"    input {number}: {what}", flush=True)
    if given.json:
        given.json.write_text(json.dumps({"seed": given.seed, "targets": table}, indent=2) + "\n")
    return 1 if any(entry["failures"] for entry in table.values()) else 0


if __name__ == "__main__":
    _tests = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(_tests), str(_tests / "bundles"), str(_tests / "engine")]
    sys.exit(main())
