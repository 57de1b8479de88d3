"""Memory and time of runs out of core while the volume grows.

    python -m benchmarks.scale.memory --plane 2048 --depths 256 512 1024 2048 --task segmentation

makes volumes of 1 to 8 GiB. Each run is a process of its own, whose peak of resident memory the system tells. Times are
the processor's, which other work on the machine does not lengthen; the exponent is that of the time over the voxels.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.scale import material
from napari_mamba.engine.memory import peak_memory

_CHILD = "import sys; from benchmarks.scale.memory import child; child(*sys.argv[1:])"


def child(source: str, bundle: str, target: str) -> None:
    """One run; prints what it took as JSON."""
    from time import perf_counter, process_time

    import torch

    from napari_mamba import bundles, io
    from napari_mamba.engine import RunOptions
    from napari_mamba.engine.stored.run import run_into

    began, used = perf_counter(), process_time()
    events = run_into(io.Opener((source,)), bundles.load(bundle), target, RunOptions(device="cpu", mirror=False))
    while True:
        try:
            next(events)
        except StopIteration as end:
            result = end.value
            break
    facts = {
        **result.provenance["stored"],
        "seconds": perf_counter() - began,
        "cpu": process_time() - used,
        "peak": peak_memory(torch.device("cpu"))["process_bytes"],
    }
    print(json.dumps(facts))


def measured(source: Path, bundle: Path, target: Path) -> dict:
    """What a run in a process of its own took."""
    line = [sys.executable, "-c", _CHILD, str(source), str(bundle), str(target)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def exponent(sizes: list[float], times: list[float]) -> float:
    """The power of the size that the time grows with, by least squares of the logarithms.

    >>> round(exponent([1, 2, 4], [3, 6, 12]), 6)
    1.0
    """
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def main() -> None:
    """Print a row of the table in docs/scale.md for each depth."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plane", type=int, default=256)
    parser.add_argument("--depths", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--task", choices=("segmentation", "restoration"), default="segmentation")
    parser.add_argument("--folder", type=Path, help="where volumes are made and kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        bundle = material.bundle(folder, arguments.task)
        sizes, times = [], []
        print("| volume | GiB | peak, GiB | CPU, s | wall, s | computed | bounded by |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for depth in arguments.depths:
            shape = (depth, arguments.plane, arguments.plane)
            source = material.volume(folder / f"{depth}x{arguments.plane}.zarr", shape)
            found = measured(source, bundle, Path(temporary) / f"{depth}.zarr")
            sizes.append(float(np.prod(shape)))
            times.append(found["cpu"])
            print(
                f"| {'×'.join(map(str, shape))} | {sizes[-1] / 2**30:.3f} | {found['peak'] / 2**30:.2f} "
                f"| {found['cpu']:.0f} | {found['seconds']:.0f} | {found['share_computed']:.0%} "
                f"| {found['bounded_by']} |",
                flush=True,
            )
        if len(sizes) > 1:
            print(f"\nTime grows with the voxels to the power of {exponent(sizes, times):.3f}.")


if __name__ == "__main__":
    main()
