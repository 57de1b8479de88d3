"""Running out of memory: how to recognise it, and how much was used."""

from __future__ import annotations

import ctypes
import math
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
    "bad_alloc",
)

_M_ARENA_MAX = -8
"""Of glibc's malloc.h: how many heaps there may be."""

LOCK = threading.RLock()
"""Held while memory is given back to a GPU, and while a CUDA graph is captured, which that would spoil."""


LEAST_GROWTH = 2**27
"""Bytes: with none left, threads could not start, nor what went wrong be said."""


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


@contextmanager
def limited(most: int, device_type: str) -> Iterator[None]:
    """Have memory end at `most` bytes while this is on: a run then takes smaller tiles, or says so in a sentence.

    Parameters
    ----------
    most : int
        Of the device's memory; on a CPU of what this process holds in main memory, which only Linux can limit, and
        never less than `LEAST_GROWTH` above what it holds now. 0 is no limit.
    device_type : str
        "cuda" or "cpu"; others have no limit.

    Examples
    --------
    >>> with limited(0, "cpu"):
    ...     pass
    """
    limits = {"cuda": _limit_gpus, "cpu": _limit_process}
    undo = limits[device_type](most) if most > 0 and device_type in limits else None
    try:
        yield
    finally:
        if undo is not None:
            undo()


def _limit_gpus(most: int) -> Callable[[], None]:
    devices = range(torch.cuda.device_count())
    for index in devices:
        total = torch.cuda.get_device_properties(index).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, most / total), index)

    def undo() -> None:
        for index in devices:
            torch.cuda.set_per_process_memory_fraction(1.0, index)

    return undo


def _limit_process(most: int) -> Callable[[], None] | None:
    """By the size of the process's data: from now on it may grow by what is left of `most`."""
    try:
        import resource

        with open("/proc/self/status", encoding="ascii") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        data, held = (1024 * int(fields[name].split()[0]) for name in ("VmData", "VmRSS"))
    except (ImportError, OSError, KeyError, ValueError):
        return None
    before = resource.getrlimit(resource.RLIMIT_DATA)
    soft = data + max(most - held, LEAST_GROWTH)
    if before[1] != resource.RLIM_INFINITY:
        soft = min(soft, before[1])
    resource.setrlimit(resource.RLIMIT_DATA, (soft, before[1]))
    return lambda: resource.setrlimit(resource.RLIMIT_DATA, before)


def keep_one_heap() -> bool:
    """Have all threads of this process take memory from the same heaps from now on; whether that could be asked for.

    The C library of most Linuxes (glibc) else gives threads heaps of their own, each of which keeps what was once
    freed: 0.2 GiB at the peak of a run out of core, whose threads read, compute and write in turn. It cannot be undone,
    so it is for a program that is the process, the command; and early, before many threads have heaps.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1))
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return False


def give_back_freed() -> None:
    """Have the C library give back to the system what was freed, where it can be told to."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def release(device: torch.device) -> None:
    """Give back what a failed attempt held; call it after the `except` block, which keeps the frames alive."""
    if device.type == "cuda":
        with LOCK:
            torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def synchronize(device: torch.device) -> None:
    """Wait for all that was begun on a device, as `torch.cuda.synchronize`, and never while a graph is captured.

    CUDA refuses to wait for a whole device meanwhile, whichever thread asks, and spoils the capture. Runs themselves
    wait for their own events and streams alone.
    """
    if device.type == "cuda":
        with LOCK:
            torch.cuda.synchronize(device)


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
