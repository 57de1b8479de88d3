"""The largest sums that convolutions and products of a segmentation bundle make: float16 ends at 65,504.

    python -m benchmarks.bundles.sums brain-structures-mr sample_data/icbm2009a_t1.nii.gz

One tile in the middle of the prepared image, in float32, through each of the bundle's networks.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

from napari_mamba import bundles, io
from napari_mamba.engine.preparation.prepare import prepare


def largest(network: nn.Module, tile: torch.Tensor) -> dict[str, float]:
    """The largest magnitude of what each convolution and linear layer answers, the largest first."""
    found: dict[str, float] = {}

    def look(name: str) -> None:
        def keep(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            found[name] = max(found.get(name, 0.0), float(output.abs().max()))

        network.get_submodule(name).register_forward_hook(keep)

    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv3d | nn.ConvTranspose3d):
            look(name)
    with torch.inference_mode():
        network(tile)
    return dict(sorted(found.items(), key=lambda one: -one[1]))


def middle(image: np.ndarray, size: tuple[int, ...]) -> torch.Tensor:
    """The middle (1, C, *size) of an image (C, Z, Y, X), zeros where it is smaller."""
    short = [max(want - have, 0) for want, have in zip(size, image.shape[1:], strict=True)]
    padded = np.pad(image, [(0, 0), *((n // 2, n - n // 2) for n in short)])
    starts = [(have - want) // 2 for want, have in zip(size, padded.shape[1:], strict=True)]
    box = tuple(slice(start, start + want) for start, want in zip(starts, size, strict=True))
    return torch.from_numpy(np.ascontiguousarray(padded[(slice(None), *box)]))[None]


def main() -> None:
    """The three largest of each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("image", type=Path)
    asked = parser.parse_args()
    bundle = bundles.load(asked.bundle)
    tile = middle(prepare(io.read(asked.image), bundle.preparation).data, bundle.tile.size)
    for network in bundle.networks():
        for name, value in list(largest(network, tile).items())[:3]:
            print(f"{value:10.0f}  {name}")


if __name__ == "__main__":
    main()
