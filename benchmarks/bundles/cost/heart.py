"""Time a whole cine from memory to the beat on the CPU: `python -m benchmarks.bundles.cost.heart [CINE]`.

Without CINE, 12 slices of 144 x 144 pixels of 1.4 mm at 20 phases, of noise and a bright ball: a run takes as long
whatever is shown. Seconds of the clock count on an idle machine alone; those of the CPU, all threads together, on any.
`--profile` prints where they go.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_mamba import bundles
from napari_mamba.engine.frames.over_time import follow
from napari_mamba.engine.options import RunOptions
from napari_mamba.heart.cine import Cine
from napari_mamba.heart.files import read

SHAPE, SPACING = (20, 12, 144, 144), (8.0, 1.4, 1.4)


def made_up() -> Cine:
    """A bright ball in a dark shell that beats, in noise."""
    axes = [(np.arange(count) - (count - 1) / 2) * side for count, side in zip(SHAPE[1:], SPACING, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    distance, noise = np.sqrt((z / 2) ** 2 + y**2 + x**2), np.random.default_rng(0)
    phases = []
    for t in range(SHAPE[0]):
        radius = 25 - 6 * np.sin(np.pi * t / SHAPE[0])
        phases.append(np.select([distance < radius, distance < 35], [230, 60], 110) + noise.normal(0, 8, SHAPE[1:]))
    return Cine(np.array(phases, np.float32), np.diag([*SPACING, 1.0])[[2, 1, 0, 3]])


def follow_to_end(cine: Cine, bundle: Any) -> Any:
    """Drive it."""
    steps = follow(cine, bundle, RunOptions(device="cpu"))
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cine", nargs="?", type=Path)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    cine = made_up() if options.cine is None else read(options.cine)
    bundle = bundles.kept(bundles.load("heart-mr"))
    profile = cProfile.Profile(time.process_time) if options.profile else None
    began, spent = time.perf_counter(), time.process_time()
    if profile is not None:
        profile.enable()
    follow_to_end(cine, bundle)
    if profile is not None:
        profile.disable()
    began, spent = time.perf_counter() - began, time.process_time() - spent
    phases, slices, rows, columns = cine.data.shape
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} CPU threads\n")
    print("| phases × slices × pixels | clock, s | CPU, all threads, s |\n| --- | ---: | ---: |")
    print(f"| {phases} × {slices} × {rows} × {columns} | {began:.1f} | {spent:.1f} |")
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
