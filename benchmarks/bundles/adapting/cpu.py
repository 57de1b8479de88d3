"""What `napari-mamba adapt` reaches on two CPU cores in some minutes, and how much memory it takes.

The command itself runs, in a process of its own bound to two cores; its bundle then runs on other people, as anybody's
would. Minutes are of the whole command, from its start to the bundle.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.bundles.adapting.data import BUNDLE, groups

CORES = 2
PARTS = {1: "anterior", 2: "posterior"}
_START = 0.5
"""Minutes that are left for the start, the preparation and the writing."""
_MOST_GB = 6.0


def measure(data: Path, minutes: float, people: int, tested: int, patch: str, output: Path | None) -> None:
    """Adapt, test, and print both; `data` is a folder with images/ and labels/ of Task04."""
    owners = {path: _person(path) for path in sorted((data / "images").glob("*.nii.gz"))}
    if not owners:
        raise SystemExit(f"{data}/images holds no *.nii.gz")
    chosen = groups(owners.values())
    with contextlib.ExitStack() as stack:
        folder = output or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        learnt = [path for path, person in owners.items() if person in chosen["labelled"][:people]]
        pairs = _write_list(learnt, owners, folder / "pairs.csv")
        bundle = folder / "parts"
        seconds, facts = _adapt(pairs, bundle, minutes, patch)
        voxels = patch.replace(",", " x ")
        print(
            f"{people} people ({len(learnt)} images), patches of {voxels}: {facts['steps']} steps in "
            f"{seconds / 60:.1f} minutes on {CORES} cores, peak memory {facts['peak_memory_bytes'] / 1e9:.2f} GB "
            f"(asked: at most {_MOST_GB:g})",
            flush=True,
        )
        test = [path for path, person in owners.items() if person in chosen["test"][:tested]]
        _tell(_dice(bundle, test, owners))


def _person(path: Path) -> int:
    """Volumes 2k-1 and 2k are one person's two sides."""
    return (int(path.name.split(".")[0].rpartition("_")[2]) + 1) // 2


def _write_list(images: Sequence[Path], owners: dict[Path, int], place: Path) -> Path:
    rows = [(path.resolve(), path.resolve().parents[1] / "labels" / path.name, owners[path]) for path in images]
    with place.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label", "person"), *rows])
    return place


def _adapt(pairs: Path, bundle: Path, minutes: float, patch: str) -> tuple[float, dict]:
    """Seconds of the command, and what it says of the training."""
    words = ["adapt", BUNDLE, pairs, "-o", bundle, "--classes", "other", "--no-validation", "--device", "cpu"]
    words += ["--minutes", f"{max(0.5 * minutes, minutes - _START):.3f}", "--patch", patch, "--overwrite"]
    command = [sys.executable, "-m", "napari_mamba", *map(str, words), "--events", "jsonl"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(CORES), "NUMBA_NUM_THREADS": str(CORES)}
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if len(before) > CORES:
        os.sched_setaffinity(0, sorted(before)[:CORES])
    began = time.monotonic()
    try:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    finally:
        if before:
            os.sched_setaffinity(0, before)
    seconds = time.monotonic() - began
    last = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
    if last.get("event") != "result":
        raise SystemExit(f"the command ended with {done.returncode}: {last.get('message', 'no message')}")
    return seconds, last["adapted"]


def _dice(bundle: Path, images: Sequence[Path], owners: dict[Path, int]) -> np.ndarray:
    """Dice by person (a mean over their images) and part, on the images' own grid."""
    from napari_mamba import bundles, engine, io
    from napari_mamba.measure.agreement import label_agreement

    loaded = bundles.load(bundle)
    found: dict[int, list[list[float]]] = {}
    for path in images:
        answer = engine.run_to_end(io.read(path), loaded, options=engine.RunOptions(device="cpu")).labels
        truth = io.read_labels(path.parents[1] / "labels" / path.name).volume
        assert answer is not None
        rows = label_agreement(truth, answer, classes=list(PARTS))
        found.setdefault(owners[path], []).append([row.dice for row in rows])
    return np.array([np.mean(scans, axis=0) for scans in found.values()])


def _tell(dice: np.ndarray) -> None:
    means = dice.mean(1)
    parts = ", ".join(f"{name} {dice[:, at].mean():.3f}" for at, name in enumerate(PARTS.values()))
    spread = f" ± {means.std(ddof=1):.3f}" if len(means) > 1 else ""
    print(f"Dice on {len(means)} other people, through the bundle: {means.mean():.3f}{spread} ({parts})")
