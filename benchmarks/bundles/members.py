"""Which bundles are worth an ensemble: validation scores of each, and of their mean, with and without mirrored copies.

"round_robin": each copy is answered by one member in turn (`napari-mamba join --round-robin`), in no more time than
one takes.

    python -m benchmarks.bundles.members hippocampus-mr --data DIR runs/a/hippocampus-mr runs/b/hippocampus-mr

Choose by these numbers, `napari-mamba join` the best, and measure that on the held-out people once.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from napari_mamba import bundles, recipes
from napari_mamba.engine.device import Device, choose_device
from napari_mamba.engine.tiling.infer import Ensemble


class Mean(nn.Module):
    """The mean answer of networks over the copies of (B, C, Z, Y, X) that a run would make, mirrored along `axes`."""

    def __init__(self, networks: Sequence[nn.Module], device: Device, axes: Sequence[int], round_robin: bool) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.pass_schedule = Ensemble(networks, device, axes, round_robin=round_robin).pass_schedule

    def forward(self, x: Tensor) -> Tensor:
        pass_schedule = [(network, [2 + axis for axis in flips]) for network, flips in self.pass_schedule]
        return torch.stack([network(x.flip(f)).flip(f) for network, f in pass_schedule]).mean(0)


def main() -> None:
    """Score every combination; a line each as it is found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="of the recipe")
    parser.add_argument("members", nargs="+", help="bundles of one network each, by name or path")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    device = choose_device(asked.device)
    on = device.torch_device
    recipe, loaded = recipes.recipe(asked.name, asked.data), [bundles.load(member) for member in asked.members]
    if any(bundle.tile.left_right_pairs for bundle in loaded):
        parser.error("left and right are classes of these bundles: their mirrored copies are not measured here")
    networks = [network.eval().to(on) for bundle in loaded for network in bundle.networks()]
    print("| members | mirrored copies | scores |\n| --- | --- | --- |")
    for size in range(1, len(networks) + 1):
        for some in itertools.combinations(range(len(networks)), size):
            mirrored = loaded[0].tile.mirror_axes
            ways = [
                ("no", (), False),
                ("yes", mirrored, False),
                *([("round_robin", mirrored, True)] if size > 1 else []),
            ]
            for way, axes, round_robin in ways:
                scores = recipe.validate(Mean([networks[i] for i in some], device, axes, round_robin).eval(), on)
                told = ", ".join(f"{key} {value:.4f}" for key, value in scores.items())
                print(f"| {' + '.join(str(i + 1) for i in some)} | {way} | {told} |", flush=True)


if __name__ == "__main__":
    main()
