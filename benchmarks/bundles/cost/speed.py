"""Time a shipped bundle end to end on the CPU, from memory to labels: `python -m benchmarks.bundles.cost.speed`.

The first run of a process pays for loading the compiled kernels; both are printed.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from napari_mamba import bundles, engine, io
from napari_mamba.volume import Volume

SAMPLE = Path(__file__).parents[3] / "sample_data" / "hippocampus_left.nii.gz"
CROP = (35, 50, 35)


def crop() -> Volume:
    """The sample's corner that is timed."""
    volume = io.read(SAMPLE)
    z, y, x = CROP
    return replace(volume, data=np.asarray(volume.data)[:, :z, :y, :x])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="hippocampus-mr")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    bundle, volume = bundles.load(options.bundle), crop()
    voxels = "×".join(map(str, volume.shape))
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} CPU threads, {voxels} voxels\n")
    print("| bundle | mirrored copies | first run, s | median of the next, s |\n| --- | ---: | ---: | ---: |")
    for mirror in (True, False):
        run = engine.RunOptions(device=options.device, mirror=mirror)
        times = []
        for _ in range(options.repeats + 1):
            began = time.perf_counter()
            engine.run_to_end(volume, bundle, run)
            times.append(time.perf_counter() - began)
        copies = 2 ** len(bundle.tile.mirror_axes) if mirror else 1
        print(f"| {bundle.name} | {copies} | {times[0]:.2f} | {np.median(times[1:]):.2f} |")


if __name__ == "__main__":
    main()
