"""Layer norm from a map to tokens on NVIDIA GPUs: the callers of `kernels/token_norm.cu` and `token_norm_last.cu`."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_mamba.scan.cuda.forward import MAX_BATCH, TYPES
from napari_mamba.scan.cuda.instance_norm import takes_last
from napari_mamba.scan.cuda.runtime import kernel, on_device

LAYOUT = "4Qqif"  # the struct TokenNorm
VOXELS, THREADS = 32, 256
MAX_CHANNELS = 1024  # 132 KiB of shared memory, which a block may have from compute capability 8.0 on
UNCONDITIONAL_CHANNELS = 320  # ... what any may have


def takes(x: Tensor) -> bool:
    """Whether a kernel takes a map (B, C, *spatial): its type, layout and number of channels."""
    if x.dtype not in TYPES or not 0 < x.shape[0] <= MAX_BATCH or x.numel() == 0:
        return False
    if not x.is_contiguous():
        return takes_last(x)
    if x.shape[1] <= UNCONDITIONAL_CHANNELS:
        return True
    return x.shape[1] <= MAX_CHANNELS and torch.cuda.get_device_capability(x.device) >= (8, 0)


def token_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Return the layer norm over the channels of x as tokens.

    Parameters
    ----------
    x : (B, C, *spatial), contiguous or channels-last, as `takes` says
    weight, bias : (C,) float32, contiguous
    eps : added to the variance

    Returns
    -------
    (B, L, C) float32, contiguous; L counts the voxels in raster order. No gradients.
    """
    if not x.is_contiguous():
        return _last(x, weight, bias, eps)
    batch, channels, voxels = x.shape[0], x.shape[1], x[0, 0].numel()
    y = torch.empty(batch, voxels, channels, dtype=torch.float32, device=x.device)
    values = (x.data_ptr(), weight.data_ptr(), bias.data_ptr(), y.data_ptr(), voxels, channels, eps)
    call = kernel("token_norm.cu", "token_norm", LAYOUT, IO=TYPES[x.dtype])
    with on_device(x.device):
        grid = (-(-voxels // VOXELS), batch, 1)
        call(x.device.index or 0, grid, THREADS, values, 4 * channels * (VOXELS + 1))
    return y


def _last(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The same of a channels-last map, whose voxels already are rows."""
    batch, channels, voxels = x.shape[0], x.shape[1], x[0, 0].numel()
    y = torch.empty(batch, voxels, channels, dtype=torch.float32, device=x.device)
    loads = channels * x.element_size() // 16  # of a row
    lanes = min(32, 1 << (loads - 1).bit_length())
    values = (x.data_ptr(), weight.data_ptr(), bias.data_ptr(), y.data_ptr(), batch * voxels, channels, eps)
    macros = {"IO": TYPES[x.dtype], "LANES": lanes, "EACH": -(-loads // lanes)}
    call = kernel("token_norm_last.cu", "token_norm_last", LAYOUT, **macros)
    with on_device(x.device):
        call(x.device.index or 0, (-(-batch * voxels * lanes // THREADS), 1, 1), THREADS, values)
    return y
