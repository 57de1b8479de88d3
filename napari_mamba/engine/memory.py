"""Running out of memory: how to recognise it, and how much was used."""

from __future__ import annotations

import math
import sys
import threading
from typing import Any

import numpy as np
import torch

# PyTorch's CPU allocator and several CUDA libraries report a lack of memory as a plain RuntimeError.
_MESSAGES = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "failed to allocate",
)

LOCK = threading.RLock()
"""Held while memory is given back to a GPU, and while a CUDA graph is captured, which that would spoil."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that host or device memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MESSAGES)


def host_array(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array in main memory, not initialised.

    Raises
    ------
    MemoryError
        If it does not fit into what is free. Linux would hand it out all the same and kill the process later.
    """
    require(math.prod(shape) * np.dtype(dtype).itemsize)
    return np.empty(shape, dtype)


def require(needed: int) -> None:
    """Raise `MemoryError` if `needed` bytes are more than what main memory has free."""
    free = available_bytes()
    if free is not None and needed > free:
        raise MemoryError(f"{needed / 2**30:.1f} GiB needed, {free / 2**30:.1f} GiB free")


def release(device: torch.device) -> None:
    """Give back what a failed attempt held; call it after the `except` block, which keeps the frames alive."""
    if device.type == "cuda":
        with LOCK:
            torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def available_bytes() -> int | None:
    """Host memory that can still be taken, None where the system does not say (only Linux does without psutil)."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def start_measuring(device: torch.device) -> None:
    """Forget the device's earlier peak. The host's belongs to the whole process and cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> dict[str, Any]:
    """Peak of the process in host memory, and of this run on the device, in bytes; None where unknown."""
    on_device = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {"process_bytes": _peak_of_process(), "device_bytes": on_device}


def _peak_of_process() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
