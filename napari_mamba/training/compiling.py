"""`torch.compile` for a training step: what it fuses, and what it must not look into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from napari_mamba.nn.mamba import Mamba


def compiled_network(network: nn.Module) -> Callable[..., Any]:
    """A compiled function of the network's training step; the network itself keeps its weights under their own keys.

    The mixers stay as they are: their kernels are our own, launched by code that the compiler cannot trace.
    """
    for module in network.modules():
        if isinstance(module, Mamba):
            module.forward = torch.compiler.disable(module.forward)  # type: ignore[method-assign]
    return torch.compile(network)
