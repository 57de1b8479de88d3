"""Time a dose bundle on a plan of 128³ voxels, from CT and structures to Gy.

    python -m benchmarks.bundles.dose BUNDLE

Prints wall-clock and processor seconds of each run: on a machine that others use, the latter over the number of threads
is what an idle one would need at least.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from napari_mamba import bundles
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.radiotherapy.phantom import phantom
from napari_mamba.radiotherapy.planning import Plan, planned
from napari_mamba.radiotherapy.structures import Structure, StructureSet
from napari_mamba.volume import Volume

SHAPE, SIDES = (128, 128, 128), (2.5, 3.9, 3.9)
"""As the plans of the OpenKBP challenge."""


def plan_of(inputs: Any) -> Plan:
    """The phantom's plan in as many voxels as the challenge's."""
    made = phantom()
    affine = made.ct.affine @ np.diag([*(np.array(SIDES) / made.ct.spacing), 1.0])
    middle = made.ct.affine @ [*((np.array(made.ct.shape) - 1) / 2), 1.0]
    affine[:3, 3] = middle[:3] - affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    back = np.linalg.inv(made.ct.affine) @ affine

    def moved(values: np.ndarray, outside: float, order: int) -> np.ndarray:
        return ndimage.affine_transform(
            values, back[:3, :3], back[:3, 3], output_shape=SHAPE, order=order, cval=outside
        )

    ct = Volume(moved(made.ct.data[0].astype(np.float32), -1000, 1)[np.newaxis], affine, ("CT",), name="phantom")
    structures = StructureSet(
        tuple(
            Structure(s.name, moved(s.mask.astype(np.uint8), 0, 0) > 0, s.color, s.kind, s.prescription)
            for s in made.structures
        ),
        affine,
    )
    return planned(ct, structures, inputs)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", nargs="?", default="dose-headneck-ct")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bundle = bundles.load(options.bundle)
    assert bundle.planning is not None, f"{bundle.name} predicts no dose"
    plan = plan_of(bundle.planning)
    print(f"PyTorch {torch.__version__}, {options.threads} CPU threads, {'×'.join(map(str, SHAPE))} voxels\n")
    print("| run | wall-clock, s | processor, s | processor / threads, s |\n| --- | ---: | ---: | ---: |")
    for number in range(options.repeats):
        wall, own = time.perf_counter(), time.process_time()
        run_to_end(plan.volume, bundle, RunOptions(device=options.device))
        wall, own = time.perf_counter() - wall, time.process_time() - own
        print(f"| {number + 1} | {wall:.1f} | {own:.1f} | {own / options.threads:.1f} |", flush=True)


if __name__ == "__main__":
    main()
