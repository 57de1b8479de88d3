"""What smaller tiles cost, for each bundle with a sample: `python -m benchmarks.bundles.cost.smaller_tiles [NAME ...]`.

A run that is short of memory goes back to tiles of half the length, one side after the other. Each of these is run on
the bundle's sample and compared with the bundle's own tile: the share of voxels labelled by either whose label stays,
or for an image, of those that change by less than 1% of its range (99th percentile). `--write` keeps the shares in the
bundle, from which the plan of a run takes them (`napari_mamba.engine.plan`). In float32: which device computes does not
matter to the share. `--json FILE` keeps the shares in a file instead, for a machine that has the device but not the
repository, and `--apply FILE` writes those into the bundles. Bundles without a sample in the repository are measured
where `--data` names the folder of the images that are listed here.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_mamba import bundles, engine, io
from napari_mamba.bundles.bundle import SHIPPED
from napari_mamba.bundles.spec import SmallerTile
from napari_mamba.engine.plan import halved_tiles, plan_run
from napari_mamba.engine.result import Result

SAMPLES = {
    "brain-structures-mr": "icbm2009a_t1.nii.gz",
    "hippocampus-mr": "hippocampus_left.nii.gz",
    "mr-denoise": "icbm2009a_t1.nii.gz",
    "mr-superres": "icbm2009a_t1.nii.gz",
}
DATA = {
    "heart-mr": "heart_mr/stacks/SC-HF-I-01_ED_image.nii.gz",
    "organs-headneck-ct": "headneck_rt/validation/pt_201/ct.nii.gz",
}
"""Below the folder `--data`: Sunnybrook's and OpenKBP's images, which are not in the repository."""

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


def measure(name: str, image: Path, where: str = "cpu") -> tuple[SmallerTile, ...]:
    """Run every tile and print its row."""
    bundle, volume = bundles.load(SHIPPED / name), io.read(image)
    options = engine.RunOptions(device=where, precision="float32")
    device = engine.device.choose_device(where).torch_device
    plan, dims = plan_run(bundle, options, device), len(bundle.tile.size)
    whole, found = engine.run_to_end(volume, bundle, options), []
    for tile in halved_tiles(plan.tile, plan.divisor):
        size = tile[3 - dims :]
        kept = share_kept(whole, engine.run_to_end(volume, bundle, replace(options, tile=size)))
        print(f"| {name} | {plan.shown(tile)} | {100 * kept:.2f}% |", flush=True)
        found.append(SmallerTile(size, round(kept, 4)))
    return tuple(found)


def write(name: str, found: tuple[SmallerTile, ...]) -> None:
    """Keep the shares in a bundle."""
    bundle = bundles.load(SHIPPED / name)
    bundles.update(bundle, replace(bundle.spec, tile=replace(bundle.tile, smaller=found)))


def images(samples: Path, data: Path | None) -> dict[str, Path]:
    """Each bundle's image, of those that are there."""
    named = {name: samples / file for name, file in SAMPLES.items()}
    if data is not None:
        named |= {name: data / file for name, file in DATA.items()}
    return named


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="bundles; all that have an image if left out")
    parser.add_argument("--samples", type=Path, default=Path("sample_data"))
    parser.add_argument("--data", type=Path, help="folder of the images that are not in the repository")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the shares there, too")
    parser.add_argument("--apply", type=Path, metavar="FILE", help="write the shares of a file into the bundles")
    options = parser.parse_args()
    if options.apply is not None:
        for name, rows in json.loads(options.apply.read_text(encoding="utf-8")).items():
            write(name, tuple(SmallerTile(tuple(size), kept) for size, kept in rows))
        return
    print("| bundle | tile | stays the same |\n| --- | --- | --- |")
    known, kept = images(options.samples, options.data), {}
    for name in options.names or known:
        found = measure(name, known[name], options.device)
        kept[name] = [[list(one.size), one.kept] for one in found]
        if options.json is not None:
            options.json.write_text(json.dumps(kept), encoding="utf-8")
        if options.write:
            write(name, found)


if __name__ == "__main__":
    main()
