"""Time and memory of a radiotherapy bundle on the phantom's CT, from CT and structures to Gy, or from CT to organs.

    python -m benchmarks.bundles.dose                           128³ voxels, as the OpenKBP challenge's plans
    python -m benchmarks.bundles.dose --ct                      512×512×150 voxels, as a planning CT is
    python -m benchmarks.bundles.dose organs-headneck-ct --ct
    python -m benchmarks.bundles.dose --device cuda --repeats 3   the first one loads and compiles

Prints wall-clock and processor seconds of each run: on a machine that others use, the latter over the number of threads
is what an idle one would need at least. "channels" is the time of making a plan's channels of CT and structures,
"engine" that of the run, with its stages below. The peak of memory is the process's, its libraries and the CT included.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import numpy as np
import torch
from scipy import ndimage

from napari_mamba import bundles
from napari_mamba.bundles import Bundle
from napari_mamba.engine import Result, RunOptions, run_to_end
from napari_mamba.radiotherapy.phantom import phantom
from napari_mamba.radiotherapy.planning import planned
from napari_mamba.radiotherapy.structures import Structure, StructureSet
from napari_mamba.volume import Volume

PLAN = (128, 128, 128), (2.5, 3.9, 3.9)
"""As the plans of the OpenKBP challenge: voxels and their sides in mm, (z, y, x)."""

CT = (150, 512, 512), (3.0, 0.98, 0.98)
"""As a planning CT."""


def made(shape: tuple[int, ...], sides: tuple[float, ...]) -> tuple[Volume, StructureSet]:
    """The phantom's CT and structures in other voxels about the same middle."""
    model = phantom()
    affine = model.ct.affine @ np.diag([*(np.array(sides) / model.ct.spacing), 1.0])
    middle = model.ct.affine @ [*((np.array(model.ct.shape) - 1) / 2), 1.0]
    affine[:3, 3] = middle[:3] - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    back = np.linalg.inv(model.ct.affine) @ affine

    def moved(values: np.ndarray, outside: float, order: int) -> np.ndarray:
        return ndimage.affine_transform(
            values, back[:3, :3], back[:3, 3], output_shape=shape, order=order, cval=outside
        )

    ct = moved(model.ct.data[0].astype(np.float32), -1000, 1).astype(np.int16)
    structures = tuple(
        Structure(s.name, moved(s.mask.astype(np.uint8), 0, 0) > 0, s.color, s.kind, s.prescription)
        for s in model.structures
    )
    return Volume(ct[np.newaxis], affine, ("CT",), name="phantom"), StructureSet(structures, affine)


def run(bundle: Bundle, ct: Volume, structures: StructureSet, options: RunOptions) -> tuple[float, float, Result]:
    """What the command does between reading and writing: seconds of the channels, those of the engine, its result."""
    began = time.perf_counter()
    image = ct if bundle.planning is None else planned(ct, structures, bundle.planning).volume
    made = time.perf_counter()
    result = run_to_end(image, bundle, options)
    return made - began, time.perf_counter() - made, result


def peak() -> float:
    """GB of main memory that the process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", nargs="?", default="dose-headneck-ct")
    parser.add_argument("--ct", action="store_true", help="512×512×150 voxels")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bundle = bundles.load(options.bundle)
    shape, sides = CT if options.ct else PLAN
    ct, structures = made(shape, sides)
    print(f"PyTorch {torch.__version__}, {options.threads} CPU threads, {'×'.join(map(str, shape))} voxels\n")
    print("| run | channels, s | engine, s | processor, s | processor / threads, s | peak of memory, GB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    told = []
    for number in range(options.repeats):
        own = time.process_time()
        channels, engine, result = run(bundle, ct, structures, RunOptions(device=options.device))
        own = time.process_time() - own
        per_thread = own / options.threads
        row = f"| {number + 1} | {channels:.2f} | {engine:.2f} | {own:.1f} | {per_thread:.1f} | {peak():.2f} |"
        print(row, flush=True)
        told.append(result)
    for number, result in enumerate(told, 1):
        facts = result.provenance
        stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in facts["seconds"].items())
        print(f"run {number}: {stages} s; {facts['device']}, {facts['memory']}; {' '.join(result.warnings)}")


if __name__ == "__main__":
    main()
