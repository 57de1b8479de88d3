"""Kernels made at first use for a training step: instance norms in Triton, the loss through `torch.compile`.

The network is not handed to `torch.compile` as a whole: on a U-Mamba it compiled for minutes, stage after stage, and
the convolutions, which are not its own kernels, are most of what is left beside the norms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from napari_mamba.training.instance_norm import use_fast_norms


def compile_step(network: nn.Module, loss: Callable[..., Any]) -> Callable[..., Any]:
    """Give a network on a GPU faster norms, and return the loss compiled; the network keeps its keys."""
    use_fast_norms(network)
    return torch.compile(loss, dynamic=False)
