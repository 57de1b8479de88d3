"""Layer norm between a feature map and its tokens: one kernel on NVIDIA GPUs, PyTorch's operators everywhere else."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.nn.blocks.tokens import to_tokens
from napari_mamba.nn.norms.instance_norm import device_kernels, wants_kernels
from napari_mamba.scan.cuda import token_norm as device


def normed_tokens(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Layer norm over the channels of a map (B, C, *spatial), as tokens (B, L, C) in the norm's type.

    Examples
    --------
    >>> normed_tokens(torch.zeros(1, 8, 4, 4, 4), nn.LayerNorm(8)).shape
    torch.Size([1, 64, 8])
    """
    if _has_kernel(x, norm):
        y = device_kernels(lambda: device.token_norm(x, norm.weight, norm.bias, norm.eps))
        if y is not None:
            return y
    weight = norm.weight
    # One pass makes both the type and the layout that the norm reads.
    tokens = to_tokens(x).to(weight.dtype, memory_format=torch.contiguous_format)
    return F.layer_norm(tokens, norm.normalized_shape, weight, norm.bias, norm.eps)


def _has_kernel(x: Tensor, norm: nn.LayerNorm) -> bool:
    """Whether the kernel computes this: on a GPU, where no gradient is asked for, with float32 weights."""
    if not wants_kernels(x):
        return False
    weights = (norm.weight, norm.bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, *weights)):
        return False
    whole = all(t is not None and t.dtype == torch.float32 and t.is_contiguous() for t in weights)
    return whole and tuple(norm.normalized_shape) == (x.shape[1],) and device.takes(x)
