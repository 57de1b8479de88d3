"""How maps lie in memory: channels-last through a whole network, where its norms have kernels for that.

cuDNN's convolutions in 3D compute channels-last, and lay channels-first maps out anew before and after each of them:
time, and a copy of the map beside it at the peak of the memory. PyTorch's norms of channels-last maps cost more than
that; with the kernels of `napari_mamba.nn.norms.instance_norm`, which need no gradients, nothing is laid out anew.
NAPARI_MAMBA_LAYOUT=first in the environment leaves maps as they come.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import Tensor

from napari_mamba.nn.norms.instance_norm import wants_kernels
from napari_mamba.scan.cuda.instance_norm import is_last

WHOLE = 8  # channels that every type has in whole loads of 16 bytes, which the norms' kernels want
_wanted = os.environ.get("NAPARI_MAMBA_LAYOUT", "") != "first"


def is_channels_last(x: Tensor) -> bool:
    """Whether a map lies channels-last, and not channels-first at the same time, as one of a single voxel does."""
    return is_last(x) and not x.is_contiguous()


def for_convolutions(x: Tensor, channels: Iterable[int]) -> Tensor:
    """A network's input (B, C, Z, Y, X) as its convolutions compute: channels-last on NVIDIA GPUs without gradients.

    `channels` are those of its norms: with 30, say, the input stays as it is.

    Examples
    --------
    >>> x = torch.zeros(1, 4, 2, 2, 2)
    >>> for_convolutions(x, (32, 64)) is x  # on a CPU it stays as it is
    True
    """
    if not _wanted or x.ndim != 5 or torch.is_grad_enabled() or not wants_kernels(x):
        return x
    if any(count % WHOLE for count in channels):
        return x
    x = x.contiguous(memory_format=torch.channels_last_3d)
    if x.shape[1] == 1 and x.stride(1) != 1:  # of one channel both layouts are the same memory: say which
        depth, height, width = x.shape[2:]
        x = x.as_strided(x.shape, (depth * height * width, 1, height * width, width, 1))
    return x
