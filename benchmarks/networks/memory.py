"""Peak memory of a network's forward pass without a GPU: `python -m benchmarks.networks.memory [--size 64]`.

PyTorch's profiler sees every allocation of a tensor, so this counts maps, tokens and scans as they live, but not a
GPU's convolution workspaces. Weights are not counted. Use it to compare two versions of the code.
"""

from __future__ import annotations

import argparse

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.networks import authors
from napari_mamba import models

NAMES = ("umamba_enc", "segmamba")


def peak_bytes(network: nn.Module, x: torch.Tensor) -> int:
    """Bytes of the tensors that live at once during a forward pass, beyond those before it."""
    with torch.no_grad():
        network(x)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
            network(x)
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def main() -> None:
    """Print a line for each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64, help="side of the tile")
    size = parser.parse_args().size
    for name in NAMES:
        network = models.create(name, **authors.arguments(name, size)).eval()
        most = peak_bytes(network, torch.randn(1, authors.channels(name), *(size,) * 3))
        print(f"{name} at {size}³: {most / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
