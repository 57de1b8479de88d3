"""Instance norm with leaky ReLU on NVIDIA GPUs, forward and backward: callers of `kernels/instance_norm.cu`.

PyTorch gives each channel one block of threads, so that 16 channels leave most of a large GPU idle at the resolutions
where the time is; here every channel is cut into as many runs as fill it. Sums have one order, so a program gives the
same bits every time. Nothing waits for the device, so a CUDA graph may record it.
"""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from napari_mamba.scan.cuda.forward import MAX_BATCH, multiprocessors
from napari_mamba.scan.cuda.runtime import Kernel, Launch, kernel, on_device

TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
THREADS, ITEMS = 256, 16
TILE = THREADS * ITEMS
MAX_SPLITS = THREADS  # a thread of the second launch takes each run's sums
BLOCKS_EACH = 32  # of a multiprocessor, which holds 4 to 8 at a time: the last ones to end then cost little
LAYOUTS = {
    "norm_statistics": "7Qq4i2f",
    "norm_apply": "7Qq4i2f",
    "norm_sums": "10Qq5if",
    "norm_gradient": "10Qq5if",
    "norm_last_statistics": "7Qq3i2f",
    "norm_last_merge": "7Qq3i2f",
    "norm_last_apply": "7Qq3i2f",
}
HEAD, TAIL = struct.Struct("@7Q"), struct.Struct("@q3i2f")  # of the layouts of channels-last maps
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of axes
RUNS_EACH = 8  # of a multiprocessor, of a channels-last map
MIN_RUN = 8  # voxels that a thread has at least, where there are so many


class Cut(NamedTuple):
    """How rows are cut: runs of a row, tiles of a run."""

    splits: int
    tiles: int


def cut_rows(rows: int, size: int, processors: int) -> Cut:
    """Return how `rows` rows of `size` elements are cut for a device with so many multiprocessors."""
    tiles = -(-size // TILE)
    run = max(1, rows * tiles // (processors * BLOCKS_EACH), -(-tiles // MAX_SPLITS))
    return Cut(-(-tiles // run), run)


def _pointer(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def _aligned(size: int, *tensors: Tensor | None) -> bool:
    """Whether every row of the tensors begins at a multiple of 16 bytes."""
    given = [x for x in tensors if x is not None]
    return not any(x.data_ptr() % 16 or size * x.element_size() % 16 for x in given)


def _kernel(name: str, dtype: torch.dtype, weights: torch.dtype | None) -> Kernel:
    source = "instance_norm_last.cu" if "last" in name else "instance_norm.cu"
    return kernel(source, name, LAYOUTS[name], IO=TYPES[dtype], WIO=TYPES[weights or torch.float32])


def _type(x: Tensor | None) -> torch.dtype | None:
    return None if x is None else x.dtype


def _sizes(x: Tensor) -> tuple[int, int, int]:
    """Rows, channels, elements of a row."""
    rows = x.shape[0] * x.shape[1]
    return rows, x.shape[1], x.numel() // rows


def run_forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    slope: float,
    keep: bool,
    overwrite: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return leaky_relu(instance_norm(x) + residual), and what the backward needs to know where `keep`.

    Parameters
    ----------
    x, residual : (B, C, *spatial), contiguous, or without `keep` as `takes_last` says, both alike; of one of TYPES, not
        empty; the residual may be None
    weight, bias : (C,), contiguous, of one of TYPES, both of the same one; or None, either of them
    eps : added to the variance
    slope : of the activation below 0; 1 for none
    overwrite : write the result over x, of which every thread reads what it writes, and nothing else, beforehand
    """
    y = x if overwrite else torch.empty_like(x)
    if not x.is_contiguous():
        _forward_last(x, (weight, bias), residual, y, eps, slope)
        return y, None
    rows, channels, size = _sizes(x)
    splits, tiles = cut_rows(rows, size, multiprocessors(x.device))
    saved = torch.empty(rows, 2, dtype=torch.float32, device=x.device) if keep else None
    partial = torch.empty(rows * (2 * splits + 1), dtype=torch.float32, device=x.device) if splits > 1 else None
    pointers = [_pointer(t) for t in (x, weight, bias, residual, y, partial, saved)]
    values = (*pointers, size, channels, splits, tiles, int(_aligned(size, x, residual, y)), eps, slope)
    affine = bias if weight is None else weight
    with on_device(x.device):
        for name in ("norm_statistics", "norm_apply")[splits == 1 :]:
            _kernel(name, x.dtype, _type(affine))(x.device.index, (rows * splits, 1, 1), THREADS, values)
    return y, saved


def is_last(x: Tensor) -> bool:
    """Whether a tensor lies in memory channels-last, with no gaps."""
    return x.ndim in LAST and x.is_contiguous(memory_format=LAST[x.ndim])


def takes_last(x: Tensor) -> bool:
    """Whether the forward kernels take a channels-last map: its layout, and channels in whole loads of 16 bytes."""
    each = 16 // x.element_size()
    return (
        x.shape[0] <= MAX_BATCH
        and is_last(x)
        and x.shape[1] % each == 0
        and x.shape[1] <= each * THREADS
        and x.data_ptr() % 16 == 0
    )


class _Last(NamedTuple):
    """What a call on channels-last maps of one shape and type needs but their addresses."""

    launches: tuple[Launch, ...]
    partial: int  # floats of each run's sums; those of the channels follow them
    floats: int  # of both
    sizes: tuple[int, int, int, int]


@lru_cache(maxsize=512)
def _last(shape: torch.Size, dtype: torch.dtype, weights: torch.dtype | None, device: torch.device) -> _Last:
    """How maps of a shape are cut: a small map takes the GPU less time than Python takes to work this out."""
    batch, channels = shape[:2]
    voxels = math.prod(shape[2:])
    rows = THREADS // (channels * dtype.itemsize // 16)
    splits = min(-(-voxels // (rows * MIN_RUN)), max(1, multiprocessors(device) * RUNS_EACH // batch))
    run = -(-voxels // splits)
    splits = -(-voxels // run)
    grids = {"statistics": splits, "merge": -(-channels * 32 // THREADS), "apply": splits}
    launches = tuple(
        (_kernel(f"norm_last_{name}", dtype, weights), (blocks, batch, 1), THREADS, 0) for name, blocks in grids.items()
    )
    partial = batch * splits * channels * 2
    return _Last(launches, partial, partial + batch * 4 * channels, (voxels, channels, splits, run))


def _forward_last(
    x: Tensor, affine: tuple[Tensor | None, Tensor | None], residual: Tensor | None, y: Tensor, eps: float, slope: float
) -> None:
    """Write what `run_forward` returns first to y, of maps that lie channels-last."""
    weights = next((t.dtype for t in affine if t is not None), None)
    plan = _last(x.shape, x.dtype, weights, x.device)
    sums = torch.empty(plan.floats, dtype=torch.float32, device=x.device)
    partial = sums.data_ptr()
    pointers = [*(_pointer(t) for t in (x, *affine, residual, y)), partial, partial + 4 * plan.partial]
    with on_device(x.device):
        Kernel.together(plan.launches, x.device.index, HEAD, pointers, TAIL.pack(*plan.sizes, eps, slope))


def run_backward(
    grad: Tensor,
    x: Tensor,
    y: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    saved: Tensor,
    slope: float,
    needs: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """Return the gradients of x and of the residual, as `needs` asks for them, and float32 sums (2, B, C).

    Added up over B they are the gradients of bias and weight. `y` is the forward's result where it had a residual, else
    None; `grad` is of it, contiguous and of x's type; the rest is as the forward had it.
    """
    rows, channels, size = _sizes(x)
    splits, tiles = cut_rows(rows, size, multiprocessors(x.device))
    dx = torch.empty_like(x) if needs[0] else None
    dresidual = torch.empty_like(x) if needs[1] else None
    sums = torch.empty(2, *x.shape[:2], dtype=torch.float32, device=x.device)
    partial = torch.empty(rows, splits, 2, dtype=torch.float32, device=x.device) if splits > 1 else None
    pointers = [_pointer(t) for t in (x, grad, y, weight, bias, saved, dx, dresidual, partial, sums)]
    aligned = int(_aligned(size, x, grad, y, dx, dresidual))
    values = (*pointers, size, rows, channels, splits, tiles, aligned, slope)
    affine = bias if weight is None else weight
    with on_device(x.device):
        for name in ("norm_sums", "norm_gradient")[splits == 1 :]:
            _kernel(name, x.dtype, _type(affine))(x.device.index, (rows * splits, 1, 1), THREADS, values)
    return dx, dresidual, sums
