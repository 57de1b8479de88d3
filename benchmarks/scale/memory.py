"""Memory and time of runs out of core while the volume grows.

    python -m benchmarks.scale.memory --plane 2048 --depths 256 512 1024 2048 --write

makes volumes of 1 to 8 GiB. Each run is a process of its own, whose peak of resident memory the system tells. Times are
the processor's, which other work on the machine lengthens little; the exponent is that of the time over the voxels.
A volume as deep as one tile is no start for it: at 64, 128 and 256 slices, tiles of 64 that overlap by an eighth lie in
1, 3 and 5 rows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scale import material, results
from benchmarks.scale.growth import exponent

_CHILD = "import sys; from benchmarks.scale.memory import child; child(*sys.argv[1:])"


def child(source: str, bundle: str, target: str) -> None:
    """One run; prints what it took as JSON."""
    from time import perf_counter, process_time

    import torch

    from napari_mamba import bundles, io
    from napari_mamba.engine import RunOptions
    from napari_mamba.engine.memory import keep_one_heap, peak_memory
    from napari_mamba.engine.stored.run import run_into

    keep_one_heap()  # as the command does
    began, used, passes = perf_counter(), process_time(), 0
    events = run_into(io.Opener((source,)), bundles.load(bundle), target, RunOptions(device="cpu", mirror=False))
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            result = end.value
            break
        if event.stage == "network":
            passes = event.total
    facts = {
        **result.provenance["stored"],
        "passes": passes,
        "seconds": perf_counter() - began,
        "cpu": process_time() - used,
        "peak": peak_memory(torch.device("cpu"))["process_bytes"],
    }
    print(json.dumps(facts))


def measured(source: Path, bundle: Path, target: Path) -> dict[str, Any]:
    """What a run in a process of its own took."""
    line = [sys.executable, "-c", _CHILD, str(source), str(bundle), str(target)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print a row for each depth; with --write they go into docs/scale_measured.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plane", type=int, default=256)
    parser.add_argument("--depths", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--task", choices=("segmentation", "restoration"), default="segmentation")
    parser.add_argument("--network", choices=material.NETWORKS, default="ultralight_vm_unet")
    parser.add_argument("--folder", type=Path, help="where volumes are made and kept")
    parser.add_argument("--write", action="store_true", help="keep the rows, and write the page of results")
    parser.add_argument("--note", default="", help="a sentence for the page, such as what else the machine did")
    chosen = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        bundle = material.bundle(folder, chosen.task, chosen.network)
        print("| volume | GiB | peak, GiB | CPU, s | wall, s | passes | computed | bounded by |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for depth in chosen.depths:
            shape = (depth, chosen.plane, chosen.plane)
            source = material.volume(folder / f"{depth}x{chosen.plane}.zarr", shape)
            found = measured(source, bundle, Path(temporary) / f"{depth}-out.zarr")
            rows.append({"shape": shape, "gib": float(np.prod(shape)) / 2**30, **found})
            print(
                f"| {'×'.join(map(str, shape))} | {rows[-1]['gib']:.3f} | {found['peak'] / 2**30:.2f} "
                f"| {found['cpu']:.0f} | {found['seconds']:.0f} | {found['passes']} | {found['share_computed']:.0%} "
                f"| {found['bounded_by']} |",
                flush=True,
            )
            if chosen.write:
                name = f"{chosen.task} by {chosen.network}, slices of {chosen.plane}²"
                results.keep("growth", name, rows, chosen.note)
    if len(rows) > 1:
        grows = exponent([row["gib"] for row in rows], [row["cpu"] for row in rows])
        print(f"\nTime grows with the voxels to the power of {grows:.3f}.")


if __name__ == "__main__":
    main()
