"""What smaller tiles cost, for each bundle with a sample: `python -m benchmarks.bundles.smaller_tiles [NAME ...]`.

A run that is short of memory goes back to tiles of half the length, one side after the other. Each of these is run on
the bundle's sample and compared with the bundle's own tile: the share of voxels labelled by either whose label stays,
or for an image, of those that change by less than 1% of its range (99th percentile). `--write` keeps the shares in the
bundle, from which the plan of a run takes them (`napari_mamba.engine.plan`). On the CPU in float32: which device
computes does not matter to the share.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_mamba import bundles, engine, io
from napari_mamba.bundles.spec import SmallerTile
from napari_mamba.engine.plan import halved_tiles, plan_run
from napari_mamba.engine.result import Result

SAMPLES = {
    "brain-structures-mr": "icbm2009a_t1.nii.gz",
    "hippocampus-mr": "hippocampus_left.nii.gz",
    "mr-denoise": "icbm2009a_t1.nii.gz",
    "mr-superres": "icbm2009a_t1.nii.gz",
}
SIMILAR = 0.01


def share_kept(whole: Result, smaller: Result) -> float:
    """The share of the answer that stays."""
    if whole.labels is not None and smaller.labels is not None:
        a, b = whole.labels.data, smaller.labels.data
        found = (a > 0) | (b > 0)
        return float((a == b)[found].mean()) if found.any() else 1.0
    assert whole.image is not None
    assert smaller.image is not None
    a, b = np.asarray(whole.image.data), np.asarray(smaller.image.data)
    near = SIMILAR * np.percentile(a, 99)
    found = a > near
    return float((np.abs(a - b) < near)[found].mean())


def measure(name: str, folder: Path) -> tuple[SmallerTile, ...]:
    """Run every tile and print its row."""
    bundle, volume = bundles.load(name), io.read(folder / SAMPLES[name])
    options = engine.RunOptions(device="cpu")
    device = engine.device.choose_device("cpu").torch_device
    plan, dims = plan_run(bundle, options, device), len(bundle.tile.size)
    whole, found = engine.run_to_end(volume, bundle, options), []
    for tile in halved_tiles(plan.tile, plan.divisor):
        size = tile[3 - dims :]
        kept = share_kept(whole, engine.run_to_end(volume, bundle, replace(options, tile=size)))
        print(f"| {name} | {plan.shown(tile)} | {100 * kept:.2f}% |", flush=True)
        found.append(SmallerTile(size, round(kept, 4)))
    return tuple(found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(SAMPLES))
    parser.add_argument("--samples", type=Path, default=Path("sample_data"))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    print("| bundle | tile | stays the same |\n| --- | --- | --- |")
    for name in options.names:
        found = measure(name, options.samples)
        if options.write:
            bundle = bundles.load(name)
            bundles.update(bundle, replace(bundle.spec, tile=replace(bundle.tile, smaller=found)))


if __name__ == "__main__":
    main()
