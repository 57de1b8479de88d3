"""A GPU's start, beside what a first run does before it: the CUDA context, and what PyTorch's libraries set up once.

The host only waits for both. In a thread of its own that time goes to reading and checking the image, and to what is
imported for the run.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def wake(device: str, precision: str = "auto", task: str = "") -> threading.Thread | None:
    """Begin to set a GPU up, once a process; None where the device is no GPU.

    Parameters
    ----------
    device, precision : str
        As in `RunOptions`. What is wrong with them the run says.
    task : str
        The bundle's: after "segmentation" the GPU looks for connected parts, too.

    Returns
    -------
    Thread or None
        No daemon: Python's end in the middle of it could crash. It takes less than a second.

    Examples
    --------
    >>> wake("cpu") is None
    True
    """
    if device not in ("auto", "cuda") and not device.startswith("cuda:"):
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    index = int(device[5:]) if device[5:].isdecimal() else 0
    return _woken(index, precision, task == "segmentation") if index < torch.cuda.device_count() else None


@cache
def _woken(index: int, precision: str, labels: bool) -> threading.Thread:
    thread = threading.Thread(target=_wake, args=(index, precision, labels), name="waking the GPU")
    thread.start()
    return thread


def _wake(index: int, precision: str, labels: bool) -> None:
    import torch

    from napari_mamba.engine import memory

    half = torch.float16 if precision == "auto" else getattr(torch, precision, torch.float32)
    try:
        with memory.LOCK:  # no graph is captured meanwhile
            first_steps(torch.device("cuda", index), half)
            if labels:
                first_parts(f"cuda:{index}")
    except Exception:  # whatever it is, the run meets it again, and says it
        pass


def first_steps(device: torch.device, dtype: torch.dtype) -> None:
    """A convolution on a device, and its end; no product: cuBLAS keeps memory for each thread that asks for one."""
    import torch

    with torch.inference_mode():
        x = torch.ones(1, 8, 8, 8, 8, device=device, dtype=dtype)
        weight = torch.ones(8, 8, 3, 3, 3, device=device, dtype=dtype)
        torch.nn.functional.conv3d(x, weight, padding=1).sum().item()


def first_parts(device: str) -> None:
    """Connected parts of a few labels: some thirty kernels of PyTorch, each of which is loaded at its first launch."""
    from napari_mamba.editing.runs_on_device import run_components, runs_on

    labels = np.array([[[1, 0, 2, 2], [1, 1, 0, 2]], [[2, 0, 1, 0], [0, 2, 0, 1]]], np.uint8)
    run_components(*runs_on(labels, False, device), labels.shape)


def import_beside(names: Iterable[str]) -> threading.Thread | None:
    """Begin to import modules that are not there yet; None where all are. Of one that fails whoever needs it says so.

    Examples
    --------
    >>> import_beside(["sys"]) is None
    True
    """
    missing = [name for name in names if name not in sys.modules]
    if not missing:
        return None

    def go() -> None:
        for name in missing:
            with suppress(Exception):
                importlib.import_module(name)

    thread = threading.Thread(target=go, name="importing")
    thread.start()
    return thread
