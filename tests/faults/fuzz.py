"""Mutated files against every reader: `python tests/faults/fuzz.py --inputs 100000` for a night, 500 a target in CI.

Each input must be read, or refused in one sentence; never a crash, a traceback, 5 seconds, or 1 GiB. Inputs are made
from seeds, so that a failure is repeated by its number: `--target nifti --first 4711 --inputs 1`.
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
from collections.abc import Callable
from pathlib import Path

import numpy as np

SECONDS, MEMORY, LONGEST = 5, 2**30, 600
_NUMBERS = (b"0", b"-1", b"1e400", b"nan", b"4294967296", b"99999999999999999999", b"1.5", b"", b"x", b"65536")
_BYTES = (0, 1, 0x7F, 0x80, 0xFF)


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """A file with one to four changes of random kinds."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        data = _CHANGES[rng.integers(len(_CHANGES))](data, rng)
    return bytes(data)


def _place(data: bytearray, rng: np.random.Generator) -> int:
    """A place, in the first 400 bytes, where headers are, half of the time."""
    return int(rng.integers(max(1, min(len(data), 400) if rng.random() < 0.5 else len(data))))


def _flip(data, rng):
    if data:
        data[_place(data, rng)] ^= 1 << int(rng.integers(8))
    return data


def _overwrite(data, rng):
    at, size = _place(data, rng), int(rng.choice([1, 2, 4, 8]))
    data[at : at + size] = bytes([_BYTES[rng.integers(len(_BYTES))]]) * size
    return data


def _noise(data, rng):
    at = _place(data, rng)
    data[at : at + 8] = rng.bytes(8)
    return data


def _cut(data, rng):
    return data[: _place(data, rng)]


def _remove(data, rng):
    at = _place(data, rng)
    return data[:at] + data[at + int(rng.integers(1, 40)) :]


def _repeat(data, rng):
    at = _place(data, rng)
    part = data[at : at + int(rng.integers(1, 40))]
    return data[:at] + part * int(rng.integers(2, 20)) + data[at:]


def _number(data, rng):
    """Another number in a text: headers of NRRD and MetaImage, JSON, XML."""
    import re

    found = list(re.finditer(rb"-?\d+(\.\d+)?", bytes(data[:20000])))
    if not found:
        return data
    match = found[rng.integers(len(found))]
    return data[: match.start()] + _NUMBERS[rng.integers(len(_NUMBERS))] + data[match.end() :]


def _line(data, rng):
    """A line doubled, moved or removed."""
    lines = bytes(data).split(b"\n")
    at = int(rng.integers(len(lines)))
    line = lines.pop(at)
    for _ in range(int(rng.integers(3))):
        lines.insert(int(rng.integers(len(lines) + 1)), line)
    return bytearray(b"\n".join(lines))


_CHANGES: tuple[Callable, ...] = (_flip, _flip, _overwrite, _noise, _cut, _remove, _repeat, _number, _number, _line)


def mutated_json(text: bytes, rng: np.random.Generator) -> bytes:
    """JSON with a few of its values replaced by odd ones; one time in four its bytes are changed instead."""
    if rng.random() < 0.25:
        return mutated(text, rng)
    values = json.loads(text)
    for _ in range(rng.integers(1, 4)):
        parents = list(_containers(values))
        parent = parents[rng.integers(len(parents))]
        keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        if not keys:
            continue
        key = keys[rng.integers(len(keys))]
        kind = rng.integers(5)
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[str(_odd(rng))[:20]] = parent.pop(key)
        else:
            parent[key] = _odd(rng)
    return json.dumps(values).encode()


def _containers(value):
    if isinstance(value, dict | list):
        yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from _containers(part)


def _odd(rng):
    odd = [None, True, 0, -1, 1, 3, 2**31, 10**9, 10**18, 0.5, -1e300, "", "x", "../x", "$1+1", "@a", "é" * 300, [], {}]
    odd += [[[]], [0, 0, 0], [2, 2, 2], [10**6] * 3, {"step": []}, [None], ["a", 1], [1] * 50]
    return odd[rng.integers(len(odd))]


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


def _worker(name: str, seed: int, first: int, count: int, folder: str, connection) -> None:
    """Try inputs `first` to `first + count`; sends ("begin", number) before each, then what came of it."""
    from fuzz_targets import TARGETS

    def too_long(number, frame):
        raise Hang

    signal.signal(signal.SIGALRM, too_long)
    target = TARGETS[name](Path(folder))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries' noise is another test's business
    have = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (have + MEMORY + 2**28, have + MEMORY + 2**28))
    for number in range(first, first + count):
        connection.send(("begin", number))
        rng = np.random.default_rng([seed, number])
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            connection.send(("end", allowed(lambda rng=rng: target(rng))))
        except Hang:
            connection.send(("end", "hang"))
        except BaseException:
            lines = traceback.format_exc().strip().splitlines()
            ours = [line.strip() for line in lines if "napari_mamba" in line and "File" in line]
            connection.send(("end", f"traceback: {lines[-1][:200]} at {ours[-1] if ours else '?'}"))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    connection.send(("done", None))


def fuzz(name: str, count: int, seed: int = 1, first: int = 0) -> tuple[Counter, list[tuple[int, str]]]:
    """Try `count` inputs on a target, in a process of its own that is started again where it dies.

    Returns
    -------
    Counter, list of (number, what)
        How many were read and refused, and each failure.
    """
    outcomes: Counter = Counter()
    failures: list[tuple[int, str]] = []
    at, end = first, first + count
    context = multiprocessing.get_context("forkserver")  # one process imports PyTorch, the others are forks of it
    context.set_forkserver_preload(
        ["napari_mamba.bundles.importers", "napari_mamba.models", "pydicom", "zarr", "tifffile"]
    )
    while at < end:
        with tempfile.TemporaryDirectory() as folder:
            ours, theirs = context.Pipe()
            process = context.Process(target=_worker, args=(name, seed, at, end - at, folder, theirs))
            process.start()
            theirs.close()
            begun = None
            try:
                while True:
                    if not ours.poll(120 if begun is None else 4 * SECONDS):
                        raise EOFError
                    what, value = ours.recv()
                    if what == "begin":
                        begun = value
                    elif what == "done":
                        at = end
                        break
                    else:
                        at = begun + 1
                        outcomes[value if value in ("read", "refused") else "failed"] += 1
                        if value not in ("read", "refused"):
                            failures.append((begun, value))
            except EOFError as error:
                process.kill()
                process.join()
                if begun is None:
                    raise RuntimeError(f"the target {name} could not be set up") from error
                failures.append((begun, f"the process died or hung (exit code {process.exitcode})"))
                outcomes["failed"] += 1
                at = begun + 1
            process.join()
    return outcomes, failures


def main() -> int:
    """Run the targets, print a table, and return 1 where something failed."""
    from fuzz_targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=500, help="for each target")
    parser.add_argument("--target", choices=sorted(TARGETS), action="append")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the outcome to this file")
    given = parser.parse_args()
    table = {}
    for name in given.target or sorted(TARGETS):
        began = time.perf_counter()
        outcomes, failures = fuzz(name, given.inputs, given.seed, given.first)
        table[name] = {"inputs": given.inputs, **outcomes, "failures": failures[:50]}
        seconds = time.perf_counter() - began
        print(f"{name:12} {outcomes['read']:7} read {outcomes['refused']:7} refused {outcomes['failed']:5} failed "
              f"{seconds:7.1f} s", flush=True)  # fmt: skip
        for number, what in failures[:20]:
            print(f"    input {number}: {what}", flush=True)
    if given.json:
        given.json.write_text(json.dumps({"seed": given.seed, "targets": table}, indent=2) + "\n")
    return 1 if any(entry["failures"] for entry in table.values()) else 0


if __name__ == "__main__":
    _tests = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(_tests), str(_tests / "bundles"), str(_tests / "engine")]
    sys.exit(main())
