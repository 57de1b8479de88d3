"""Layer norm from a channels-first map to tokens on NVIDIA GPUs: the caller of `kernels/token_norm.cu`."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_mamba.scan.cuda.forward import MOST_BATCH, TYPES
from napari_mamba.scan.cuda.runtime import kernel, on_device

LAYOUT = "4Qqif"  # the struct TokenNorm
VOXELS, THREADS = 32, 256
MOST_CHANNELS = 1024  # 132 KiB of shared memory, which a block may have from compute capability 8.0 on
SURE_CHANNELS = 320  # ... what any may have


def takes(x: Tensor) -> bool:
    """Whether the kernel takes a map (B, C, *spatial): its type, layout and number of channels."""
    if x.dtype not in TYPES or not x.is_contiguous() or not 0 < x.shape[0] <= MOST_BATCH or x.numel() == 0:
        return False
    most = MOST_CHANNELS if torch.cuda.get_device_capability(x.device) >= (8, 0) else SURE_CHANNELS
    return x.shape[1] <= most


def token_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Return the layer norm over the channels of x as tokens.

    Parameters
    ----------
    x : (B, C, *spatial), contiguous, as `takes` says
    weight, bias : (C,) float32, contiguous
    eps : added to the variance

    Returns
    -------
    (B, L, C) float32, contiguous; L counts the voxels in raster order. No gradients.
    """
    batch, channels, voxels = x.shape[0], x.shape[1], x[0, 0].numel()
    y = torch.empty(batch, voxels, channels, dtype=torch.float32, device=x.device)
    values = (x.data_ptr(), weight.data_ptr(), bias.data_ptr(), y.data_ptr(), voxels, channels, eps)
    call = kernel("token_norm.cu", "token_norm", LAYOUT, IO=TYPES[x.dtype])
    with on_device(x.device):
        grid = (-(-voxels // VOXELS), batch, 1)
        call(x.device.index or 0, grid, THREADS, values, 4 * channels * (VOXELS + 1))
    return y
