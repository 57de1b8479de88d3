"""Convolutions of small maps in float32, where PyTorch on a CPU gets them wrong in bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def exact_where_small(network: nn.Module) -> nn.Module:
    """Let each convolution leave autocast where its input is smaller than its kernel along some axis.

    There the bfloat16 gradient of the weights, as oneDNN computes it on CPUs (PyTorch 2.13), reads memory that nobody
    wrote, or writes past its own: gradients off by 80%, NaN now and then, a crash at times. Larger maps are right, and
    so is float32. A GPU has kernels of its own.

    Parameters
    ----------
    network : Module
        Changed in place; its state keeps its keys.

    Returns
    -------
    Module
        `network`.

    Examples
    --------
    >>> network = exact_where_small(nn.Conv3d(1, 4, 3, padding=1))
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     network(torch.ones(1, 1, 2, 8, 8)).dtype, network(torch.ones(1, 1, 3, 8, 8)).dtype
    (torch.float32, torch.bfloat16)
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            reach = [(size - 1) * step + 1 for size, step in zip(module.kernel_size, module.dilation, strict=True)]
            if max(reach) > 1:
                module.forward = _guarded(module.forward, reach)  # type: ignore[method-assign, assignment]
    return network


def _guarded(forward: Callable[[Tensor], Tensor], reach: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """A convolution's forward in the precision that its input allows; `reach`: voxels its kernel spans."""

    def guarded(x: Tensor) -> Tensor:
        if all(have >= need for have, need in zip(x.shape[-len(reach) :], reach, strict=True)):
            return forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.float())

    return guarded
