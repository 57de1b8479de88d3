"""Memory and time of the engine itself, on a large volume and many classes with a network that costs nothing.

    python -m benchmarks.engine.memory [--shape 200 240 200] [--classes 33] [--tile 96] [--resample] [--uncertainty]

Each run needs a process of its own, since the peak of memory belongs to the process. Prints a row of the table in
docs/engine.md: time is that of the processor, which other work on the machine does not lengthen.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from time import process_time
from typing import Any

import numpy as np
import torch

from napari_mamba.bundles import BundleSpec, Channel, LabelClass, Network, Tile
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.memory import peak_memory
from napari_mamba.volume import Volume


class Thresholds(torch.nn.Module):
    """One multiply-add a class: the least that a network with so many answers can do."""

    def __init__(self, classes: int):
        super().__init__()
        centre = torch.linspace(0, 1, classes).reshape(1, -1, 1, 1, 1)
        self.slope, self.offset = 20 * centre, -10 * centre.square()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The class whose centre is nearest to the intensity has the largest logit."""
        return torch.addcmul(self.offset, x, self.slope)


@dataclass(frozen=True, eq=False)
class Benchmark(BundleSpec):
    """A bundle in memory."""

    members: Any = ()
    sha256: str = ""

    def networks(self) -> list[torch.nn.Module]:
        """The one network."""
        return list(self.members)


def bundle(classes: int, tile: int, resample: bool) -> Benchmark:
    """`classes` classes on tiles of `tile`³ voxels; `resample` puts 1.25 mm in the place of the image's 1 mm."""
    return Benchmark(
        name="benchmark",
        version="1",
        title="Benchmark",
        task="segmentation",
        network=Network("none"),
        channels=(Channel("intensity"),),
        preparation=({"step": "resample", "spacing": [1.25] * 3, "order": 1},) if resample else (),
        tile=Tile((tile,) * 3),
        classes=tuple(LabelClass(i, f"class {i}") for i in range(classes)),
        members=(Thresholds(classes),),
    )


def main() -> None:
    """Run once and print one row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=[200, 240, 200])
    parser.add_argument("--classes", type=int, default=33)
    parser.add_argument("--tile", type=int, default=96)
    parser.add_argument("--resample", action="store_true")
    parser.add_argument("--uncertainty", action="store_true")
    arguments = parser.parse_args()
    data = np.random.default_rng(0).random((1, *arguments.shape), np.float32)
    before = peak_memory(torch.device("cpu"))["process_bytes"]
    options = RunOptions(device="cpu", uncertainty=arguments.uncertainty)
    since = process_time()
    result = run_to_end(Volume(data), bundle(arguments.classes, arguments.tile, arguments.resample), options)
    seconds = process_time() - since
    nearest = np.rint(data[0] * (arguments.classes - 1))
    if not arguments.resample and np.mean(result.labels.data[0] == nearest) < 0.999:
        raise SystemExit("wrong labels: the figures mean nothing")
    peak = result.provenance["memory"]["process_bytes"]
    shape = "x".join(map(str, arguments.shape))
    print(
        f"| {shape} | {arguments.classes} | {arguments.tile} | {'yes' if arguments.resample else 'no'} "
        f"| {peak / 2**30:.2f} | {before / 2**30:.2f} | {seconds:.0f} |"
    )


if __name__ == "__main__":
    main()
