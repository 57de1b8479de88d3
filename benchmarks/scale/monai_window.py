"""Time and memory beside MONAI's `sliding_window_inference` on a volume that fits, in processes of their own.

    python -m benchmarks.scale.monai_window --size 512

Both read the same store, run the same network over tiles of the same size and overlap on the CPU, and write labels into
a store. MONAI's takes the volume and all classes in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.scale import material, results
from benchmarks.scale.memory import measured

_CHILD = "import sys; from benchmarks.scale.monai_window import child; child(*sys.argv[1:])"


def child(source: str, bundle: str, target: str) -> None:
    """The run with MONAI; prints what it took as JSON."""
    from time import perf_counter, process_time

    import numpy as np
    import torch
    from monai.inferers import sliding_window_inference

    from napari_mamba import bundles, io
    from napari_mamba.engine.memory import peak_memory

    began, used = perf_counter(), process_time()
    volume = io.read(source)
    data = np.asarray(volume.data).astype(np.float32)
    data = (data - data.mean(dtype=np.float64).astype(np.float32)) / np.float32(data.std(dtype=np.float64))
    spec = bundles.load(bundle)
    network = spec.networks()[0]
    with torch.inference_mode():
        logits = sliding_window_inference(
            torch.from_numpy(data)[None], spec.tile.size, 1, network, overlap=spec.tile.overlap, mode="gaussian"
        )
        labels = logits.argmax(1).numpy().astype(np.uint8)
    io.write(volume.with_data(labels), target, classes=spec.classes)
    peak = peak_memory(torch.device("cpu"))["process_bytes"]
    print(json.dumps({"seconds": perf_counter() - began, "cpu": process_time() - used, "peak": peak}))


def main() -> None:
    """Print a row each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--write", action="store_true", help="keep what was measured, and write the page of results")
    parser.add_argument("--note", default="", help="a sentence for the page")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = material.volume(folder / "source.zarr", (arguments.size,) * 3)
        bundle = material.bundle(folder, "segmentation")
        line = [sys.executable, "-c", _CHILD, str(source), str(bundle), str(folder / "monai.zarr")]
        done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
        if done.returncode:
            raise SystemExit(done.stderr)
        found = {"MONAI": json.loads(done.stdout.splitlines()[-1])}
        found["napari-mamba"] = measured(source, bundle, folder / "ours.zarr")
        print("| | wall, s | CPU, s | peak, GiB |\n| --- | --- | --- | --- |")
        if arguments.write:
            results.keep("monai", f"{arguments.size}³ by umamba_bot", found, arguments.note)
        for name, one in found.items():
            print(f"| {name} | {one['seconds']:.0f} | {one['cpu']:.0f} | {one['peak'] / 2**30:.2f} |")


if __name__ == "__main__":
    main()
