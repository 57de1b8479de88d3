"""What a network's own layers make of an image: mean and spread of each channel, over the tiles that a run computes.

Hooks listen to the layers that the bundle names; nothing is computed twice, and copies mirrored for averaging are left
out, so that the numbers do not depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

_SMALLEST = 1e-4


class Heard(NamedTuple):
    """What one layer made of one batch: mean and spread of each channel (2, C), on the layer's device."""

    name: str
    values: torch.Tensor
    tiles: int


class ChannelStatistics:
    """Sums over the outputs of a network's layers: those of the passes within `listening`, once they are `add`ed.

    They stay on the device until `features` asks, so that no pass waits for the one before.

    Parameters
    ----------
    network : nn.Module
    layers : sequence of str
        Names of modules whose output is (B, C, *spatial), or (B, L, C) of tokens. Those it has not are left away:
        `features` is then None.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str]):
        self.network = network
        self.layers = tuple(layers)
        self.modules = dict(network.named_modules())
        self.reset()

    def reset(self) -> None:
        """Forget what was heard: an attempt failed."""
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}

    @contextmanager
    def listening(self) -> Iterator[list[Heard]]:
        """Hear the passes of the network within: the list grows with them."""
        heard: list[Heard] = []
        known = [(name, self.modules[name]) for name in self.layers if name in self.modules]
        hooks = [module.register_forward_hook(_hook(name, heard)) for name, module in known]
        try:
            yield heard
        finally:
            for hook in hooks:
                hook.remove()

    def add(self, heard: Sequence[Heard]) -> None:
        """Add what was heard in a pass. Each tile counts alike: its own means and spreads are averaged."""
        for name, values, tiles in heard:
            both = (values.cpu() if values.device.type == "mps" else values).double() * tiles
            self.sums[name] = self.sums[name] + both if name in self.sums else both
            self.counts[name] = self.counts.get(name, 0) + tiles

    def features(self) -> np.ndarray | None:
        """Of each layer in order: its channels' means, and logarithms of their spreads, (F,); None if a layer lacks."""
        if any(name not in self.sums for name in self.layers) or not self.layers:
            return None
        found = []
        for name in self.layers:
            mean, spread = (self.sums[name].cpu() / self.counts[name]).numpy()
            size = max(float(np.sqrt(np.mean(mean**2 + spread**2))), _SMALLEST)
            found += [mean / size, np.log(np.maximum(spread / size, 1e-3))]
        values = np.concatenate(found)
        return values if np.isfinite(values).all() else None


def _hook(name: str, heard: list[Heard]) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        values = output[0] if isinstance(output, list | tuple) else output
        if not isinstance(values, torch.Tensor) or values.ndim < 2:
            return
        axis = 1 if values.ndim != 3 else 2
        flat = values.detach().movedim(axis, 0).reshape(values.shape[axis], -1).float()
        heard.append(Heard(name, torch.stack([flat.mean(1), flat.std(1, unbiased=False)]), len(values)))

    return hook
