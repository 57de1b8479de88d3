"""Time and memory of the restoration bundles on a cube of voxels on the CPU.

    python -m benchmarks.bundles.cost.restoration [--bundle mr-denoise]

`mr-superres` is given slices three times as thick, and answers the cube. What the voxels hold does not change the time.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import torch

from napari_mamba import bundles, engine
from napari_mamba.volume import Volume

THICK = {"mr-denoise": 1, "mr-superres": 3}


def cube(name: str, side: int = 171) -> Volume:
    """What a bundle is given for an answer of side³ voxels."""
    thick = THICK[name]
    noise = np.random.RandomState(0).standard_normal((1, side // thick, side, side))
    return Volume(np.abs(300 * noise).astype(np.float32), np.diag([thick, 1.0, 1.0, 1.0]))


def main() -> None:
    """Print a row for one bundle: memory is that of the whole process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="mr-denoise", choices=list(THICK))
    parser.add_argument("--side", type=int, default=171, help="voxels along each side of the answer; 171 are 5 million")
    options = parser.parse_args()
    volume = cube(options.bundle, options.side)
    began = time.perf_counter()
    result = engine.run_to_end(volume, bundles.load(options.bundle), engine.RunOptions(device="cpu"))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    shape = "×".join(map(str, result.image.shape))
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} CPU threads\n")
    print("| bundle | voxels of the answer | s | GiB |\n| --- | --- | ---: | ---: |")
    print(f"| {options.bundle} | {shape} | {seconds:.0f} | {peak:.1f} |")


if __name__ == "__main__":
    main()
