"""Whole runs: shipped bundles in a warm process, and one in new processes, to the file."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.bundles.cost import restoration, speed
from benchmarks.gpu.rows import HIGHER, LOWER, Found, Row
from napari_mamba import bundles, engine, io
from napari_mamba.bundles.bundle import SHIPPED
from napari_mamba.engine.result import Result
from napari_mamba.engine.tiling import passes
from napari_mamba.volume import Volume

ROOT = Path(__file__).parents[2]
HEAD = ROOT / "sample_data" / "icbm2009a_t1.nii.gz"
BRAIN = "brain-structures-mr"
SECONDS, MOST = 4.0, 9
"""A warm run is repeated for so long, and so often at most; three times at least."""


@contextmanager
def graphs(wanted: bool) -> Iterator[None]:
    """Passes replayed from CUDA graphs, or as written."""
    before = os.environ.get(passes.SWITCH)
    os.environ[passes.SWITCH] = "1" if wanted else "0"
    try:
        yield
    finally:
        os.environ.pop(passes.SWITCH)
        if before is not None:
            os.environ[passes.SWITCH] = before


def answer(result: Result) -> np.ndarray:
    """The voxels of a run's labels or image."""
    found = result.labels or result.image
    assert found is not None
    return np.asarray(found.data)


def repeated(volume: Volume, bundle: bundles.Bundle, options: engine.RunOptions) -> tuple[float, float, Result]:
    """Seconds of the first run, median of those after the second, and the last one's result.

    The second is apart, since a graph is captured in it.
    """
    times: list[float] = []
    while len(times) < 5 or (sum(times[2:]) < SECONDS and len(times) < MOST + 2):
        began = time.perf_counter()
        result = engine.run_to_end(volume, bundle, options)
        times.append(time.perf_counter() - began)
    return times[0], statistics.median(times[2:]), result


def warm(name: str, volume: Callable[[], Volume], precision: str, device: str) -> tuple[float, dict[str, Any], Result]:
    """Seconds as a user has them, what else was seen, and the answer."""
    image, bundle = volume(), bundles.load(SHIPPED / name)
    options = engine.RunOptions(device=device, precision=precision)
    default, times, results = passes.wanted(), {}, {}
    details: dict[str, Any] = {}
    for on in (False, True) if device == "cuda" else (False,):
        with graphs(on):
            first, times[on], results[on] = repeated(image, bundle, options)
        if not on:
            details["first run"] = first
    default = default and default in times
    details["stages"] = results[default].provenance["seconds"]
    if device == "cuda":
        details["without graphs"], details["with graphs"] = times[False], times[True]
        details["same bytes"] = bool(np.array_equal(answer(results[False]), answer(results[True])))
        details["peak MiB"] = results[default].provenance["memory"]["device_bytes"] >> 20
        details["kept after the run, MiB"] = torch.cuda.memory_reserved() >> 20
    return times[default], details, results[default]


def warm_row(key: str, name: str, volume: Callable[[], Volume], goal: float) -> Row:
    """A bundle in a warm process."""

    def measure(device: str) -> Found:
        seconds, details, _ = warm(name, volume, "float32", device)
        return Found(seconds, details)

    return Row(key, "runs", f"`{name}`, warm", "s", goal, LOWER, measure)


def halved(device: str) -> Found:
    """float32's time over float16's, and how many labels stay."""
    whole, _, exact = warm(BRAIN, head, "float32", device)
    half, details, found = warm(BRAIN, head, "float16", device)
    a, b = answer(exact), answer(found)
    labelled = (a > 0) | (b > 0)
    details = {"float32 s": whole, "float16 s": half, **details}
    details["labels that stay, %"] = 100 * float((a == b)[labelled].mean())
    return Found(whole / half, details)


def head() -> Volume:
    """The ICBM template."""
    return io.read(HEAD)


CHILD = ("-m", "benchmarks.gpu.child")
COMMAND = ("-m", "napari_mamba", "run")


def environment(cache: Path, byte_code: Path | None) -> dict[str, str]:
    """A new process's environment: where it keeps compiled kernels, and Python's byte code, if it keeps that.

    pip writes byte code where it installs a package, so that a user has it; a machine that measures may not let it be
    written there, and then every start compiles 1,600 modules.
    """
    given = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    python = {"PYTHONPYCACHEPREFIX": str(byte_code or cache / "none")}
    python |= {} if byte_code else {"PYTHONDONTWRITEBYTECODE": "1"}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return given | python | {"NAPARI_MAMBA_CACHE": str(cache), "PYTHONPATH": path}


def new_process(
    device: str,
    cache: Path,
    target: Path,
    name: str = BRAIN,
    image: Path = HEAD,
    *,
    byte_code: Path | None = None,
    program: tuple[str, ...] = CHILD,
) -> tuple[float, dict]:
    """Seconds of a process from its start to its end, and what it says of its steps; the command says nothing."""
    what = [str(SHIPPED / name), str(image), *(["-o"] if program == COMMAND else []), str(target), "--device", device]
    command = [sys.executable, *program, *what, *(["--overwrite"] if program == COMMAND else [])]
    began = time.perf_counter()
    done = subprocess.run(
        command, env=environment(cache, byte_code), cwd=ROOT, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"the new process failed: {done.stderr[-1500:]}")
    if program == COMMAND:
        return seconds, {}
    said = json.loads(done.stdout.splitlines()[-1])
    said["steps"]["Python's start and end"] = seconds - sum(said["steps"].values())
    return seconds, said


NOTE = "a process that reads the NIfTI, runs and writes it; Python's byte code is there, as pip leaves it"


def processes(device: str, cached: bool, repeats: int, **what: Any) -> Found:
    """The median of new processes, with kernels compiled before or not; beside it one that finds no byte code."""
    with tempfile.TemporaryDirectory() as folder:
        target, byte_code = Path(folder) / "labels.nii.gz", Path(folder) / "pyc"

        def one(name: str, byte_code: Path | None = byte_code) -> tuple[float, dict]:
            return new_process(device, Path(folder) / name, target, **what, byte_code=byte_code)

        one("first")  # it compiles all there is
        found = [one("first" if cached else f"cache{number}") for number in range(repeats)]
        bare, _ = one("first" if cached else "bare", None)
    times = sorted(seconds for seconds, _ in found)
    seconds, details = sorted(found, key=lambda one: one[0])[len(found) // 2]
    return Found(seconds, details | {"no byte code at all": bare, "fastest": times[0], "slowest": times[-1]}, NOTE)


ROWS = (
    warm_row("brain-warm", BRAIN, head, 0.45),
    Row("brain-half", "runs", f"`{BRAIN}`, warm: float32 over float16", "times", 1.0, HIGHER, halved),
    Row("brain-new-cached", "runs", f"`{BRAIN}`, new process, kernels cached, to the file", "s", 3.5, LOWER,
        lambda device: processes(device, True, 5)),
    Row("brain-new", "runs", f"`{BRAIN}`, new process, no kernel cache, to the file", "s", 5.0, LOWER,
        lambda device: processes(device, False, 3)),
    Row("brain-command", "runs", f"`napari-mamba run {BRAIN}`, new process, kernels cached", "s", 3.5, LOWER,
        lambda device: processes(device, True, 3, program=COMMAND)),
    warm_row("hippocampus-warm", "hippocampus-mr", speed.crop, 0.1),
    warm_row("denoise-warm", "mr-denoise", lambda: restoration.cube("mr-denoise"), 0.25),
    warm_row("superres-warm", "mr-superres", lambda: restoration.cube("mr-superres"), 0.45),
)  # fmt: skip
