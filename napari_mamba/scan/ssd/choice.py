"""Which form of Mamba-2's scan computes: Triton kernels on NVIDIA GPUs that take it, else plain PyTorch."""

from __future__ import annotations

import logging
import os
from functools import cache

import torch
from torch import Tensor

from napari_mamba.errors import InputError
from napari_mamba.scan.ssd import triton_backend

SSD_BACKENDS = ("auto", "torch", "triton")
SWITCH = "NAPARI_MAMBA_SSD_KERNELS"
"""Environment variable: "0" keeps "auto" from the kernels, "1" has it take them on every GPU that can run them.

Without it they are taken where they were checked: on GPUs of compute capability 9.0 (`docs/scan_cuda.md`)."""
CHECKED = ((9, 0),)

_log = logging.getLogger(__name__)


def ssd_backend_on(device: torch.device) -> tuple[str, str]:
    """Which form "auto" takes on a device, and where it is not the fastest there, a sentence that says why.

    Examples
    --------
    >>> ssd_backend_on(torch.device("cpu"))
    ('torch', '')
    """
    if device.type != "cuda" or not _wanted_on(device):
        return "torch", ""
    reason = triton_backend.unavailable()
    return ("torch", reason) if reason else ("triton", "")


def choose_ssd(xBC: Tensor, d_state: int, backend: str = "auto") -> str:
    """Return "triton" or "torch" for a scan of xBC; why "auto" passes the kernels by on a GPU is logged, once.

    Raises InputError for an unknown name, or where "triton" was asked for and cannot be used.
    """
    if backend not in SSD_BACKENDS:
        raise InputError(f"The backend {backend!r} of Mamba-2's scan is unknown; use one of {', '.join(SSD_BACKENDS)}.")
    if backend == "torch" or (backend == "auto" and (xBC.device.type != "cuda" or not _wanted_on(xBC.device))):
        return "torch"
    if xBC.device.type != "cuda":
        raise InputError(f"Mamba-2's Triton kernels compute on CUDA devices, and x is on {xBC.device}; use 'auto'.")
    reason = triton_backend.unavailable() or triton_backend.refused(xBC, d_state)
    if reason and backend == "triton":
        raise InputError(f"{reason} Use backend='auto'.")
    if reason:
        _say(reason)
    return "torch" if reason else "triton"


def _wanted_on(device: torch.device) -> bool:
    said = os.environ.get(SWITCH, "")
    return said == "1" or (said != "0" and _capability(device) in CHECKED)


@cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


@cache
def _say(reason: str) -> None:
    _log.warning("Mamba-2's scan runs in plain PyTorch, several times slower than its kernels. %s", reason)
