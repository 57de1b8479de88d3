"""Instance norm of large 3D maps for training on a GPU, in Triton.

PyTorch computes it with the kernels of batch norm, one block of threads for each channel of each sample: of two windows
of 16 channels that is 32 blocks, on cards that run hundreds at once. Half of the brain recipe's step went there (54 of
111 ms on an NVIDIA H100). Here many blocks share a channel, and each adds up the others' sums before it goes on.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

BLOCK = 4096
"""Voxels that a block of threads reads at once."""
WARPS = 8
"""Of 32 threads each, in a block of threads."""
PARTS = 64
"""Most blocks of threads for one channel."""


@cache
def kernels() -> dict[str, Any] | None:
    """The compiled kernels; None where Triton is not installed."""
    try:
        from napari_mamba.training import instance_norm_kernels
    except ImportError:
        return None
    names = ("sums", "normalise", "gradient_sums", "gradient")
    return {name: getattr(instance_norm_kernels, name) for name in names}


def _plan(rows: int, length: int) -> tuple[tuple[int, int], dict[str, int]]:
    """The grid (rows, parts), and the kernels' constants: how many blocks of voxels a part has, and so on."""
    blocks = -(-length // BLOCK)
    steps = -(-blocks // min(PARTS, blocks))
    return (rows, -(-blocks // steps)), {"STEPS": steps, "BLOCK": BLOCK, "num_warps": WARPS}


class _InstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        run = kernels()
        assert run is not None
        x = x.contiguous()
        rows, channels, length = x.shape[0] * x.shape[1], x.shape[1], x[0, 0].numel()
        grid, how = _plan(rows, length)
        partial = torch.empty((rows, grid[1], 2), device=x.device)
        moments = torch.empty((rows, 2), device=x.device)
        y = torch.empty_like(x)
        run["sums"][grid](x, partial, length, grid[1], **how)
        run["normalise"][grid](x, y, partial, moments, weight, bias, channels, length, grid[1], eps, PARTS=PARTS, **how)
        ctx.save_for_backward(x, weight, moments)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        run = kernels()
        assert run is not None
        x, weight, moments = ctx.saved_tensors
        g = g.contiguous()
        rows, channels, length = x.shape[0] * x.shape[1], x.shape[1], x[0, 0].numel()
        grid, how = _plan(rows, length)
        partial = torch.empty((rows, grid[1], 2), device=x.device)
        whole = torch.empty((rows, 2), device=x.device)
        dx = torch.empty_like(x)
        run["gradient_sums"][grid](x, g, partial, moments, length, grid[1], **how)
        run["gradient"][grid](x, g, dx, partial, moments, whole, weight, channels, length, grid[1], PARTS=PARTS, **how)
        of_bias, of_weight = whole.view(x.shape[0], channels, 2).sum(0).to(weight.dtype).unbind(1)
        return dx, of_weight, of_bias, None


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Normalise each channel of each sample of x (B, C, *spatial) to mean 0 and variance 1; then scale and shift.

    Sums are in float32; the answer has x's type. Needs Triton and a GPU.
    """
    return _InstanceNorm.apply(x, weight, bias, eps)


def use_fast_norms(network: nn.Module) -> int:
    """Let the 3D instance norms of a network on a GPU run on these kernels; returns how many do.

    The layers stay, with their weights under their own keys.
    """
    if kernels() is None or not next(network.parameters()).is_cuda:
        return 0
    found = [
        m for m in network.modules() if isinstance(m, nn.InstanceNorm3d) and m.affine and not m.track_running_stats
    ]
    for layer in found:
        layer.forward = _forward_of(layer)  # type: ignore[method-assign]
    return len(found)


def _forward_of(layer: nn.InstanceNorm3d):
    def forward(x: Tensor) -> Tensor:
        return instance_norm(x, layer.weight, layer.bias, layer.eps)

    return forward
