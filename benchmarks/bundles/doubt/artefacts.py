"""Whether `mr-quality` takes a head with an artefact for something else: a line each scan of the test people.

    python -m benchmarks.bundles.doubt.artefacts --data DIR

Each artefact of the bundle's classes twice in each scan, of random strength, in-plane at half the resolution.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks.bundles.doubt.kinds.heads import PEOPLE
from benchmarks.bundles.doubt.kinds.images import TEST, read
from napari_mamba import bundles
from napari_mamba.engine.familiarity.judge import judge_image
from napari_mamba.recipes.quality.artefacts import ARTEFACTS, RandomSource, add
from napari_mamba.volume import Volume

CPU = torch.device("cpu")


def coarse(volume: Volume) -> Volume:
    """White is 1; every second voxel in-plane where slices are thick."""
    step = 2 if max(volume.spacing) > 2 * min(volume.spacing) else 1
    values = np.asarray(volume.data[0], np.float32)[:, ::step, ::step]
    return Volume((values / np.percentile(values, 99.9))[None], volume.affine @ np.diag([1, step, step, 1]))


def main() -> None:
    """Distances over their limits, the farthest of each scan, and how many images are doubted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    asked = parser.parse_args()
    bundle, count, doubted = bundles.load("mr-quality"), 0, 0
    for person in (who for who, part in PEOPLE.items() if part == TEST):
        for path in sorted((asked.data / person).glob("*.nii.gz")):
            volume, farthest = coarse(read(path)), ("", 0.0)
            sides = tuple(float(side) for side in volume.spacing)
            for name in ARTEFACTS:
                for seed in range(2):
                    image = torch.from_numpy(np.asarray(volume.data[0]).copy())
                    made = add(image, sides, [name], RandomSource(seed, CPU)).numpy()
                    far = max(one.distance / one.limit for one in judge_image(volume.with_data(made[None]), bundle))
                    count, doubted = count + 1, doubted + int(far > 1)
                    farthest = max(farthest, (name, far), key=lambda one: one[1])
            print(f"{person}/{path.name}: at most {farthest[1]:.2f} of a limit, {farthest[0]}", flush=True)
    print(f"{doubted} of {count} images with an artefact are doubted")


if __name__ == "__main__":
    main()
