"""Convolutions of small maps in float32, where PyTorch on a CPU gets them wrong in bfloat16."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd


@cache
def bfloat16_is_fast(device: str) -> bool:
    """Whether a kind of device ("cpu", "cuda", ...) has instructions for bfloat16; older CPUs imitate it slowly."""
    if device != "cpu":
        return device == "cuda"
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # PyTorch 2.9's
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def float32_small_convolutions(network: nn.Module) -> nn.Module:
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
    >>> network = float32_small_convolutions(nn.Conv3d(1, 4, 3, padding=1))
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     network(torch.ones(1, 1, 2, 8, 8)).dtype, network(torch.ones(1, 1, 3, 8, 8)).dtype
    (torch.float32, torch.bfloat16)
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and not isinstance(module, _Float32WhereSmall):
            # Not its `forward`, which a copy of the module would share.
            module.__class__ = _float32_class(type(module))  # type: ignore[assignment, arg-type]  # mypy: no class is hashable
    return network


class _Float32WhereSmall(_ConvNd):
    """A convolution in the precision that its input allows."""

    def forward(self, x: Tensor) -> Tensor:
        reach = [(size - 1) * step + 1 for size, step in zip(self.kernel_size, self.dilation, strict=True)]
        if max(reach) == 1 or all(have >= need for have, need in zip(x.shape[-len(reach) :], reach, strict=True)):
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


@cache
def _float32_class(kind: type[nn.Module]) -> type[nn.Module]:
    return type(kind.__name__, (_Float32WhereSmall, kind), {})
