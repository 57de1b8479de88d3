"""The scan's backends: a name, the module that implements it, and which one "auto" takes.

A backend module has `selective_scan(ScanArguments)` and `causal_conv1d(ConvArguments)` (see `arguments.py`), and
may have `unavailable() -> str`, a sentence saying why it cannot be used here, or "" where it can, and
`selective_scan_cached(tensors, softplus, merge)`, a short way for arguments like those of a call before, or None.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from types import ModuleType

import torch

from napari_mamba.errors import InputError

BACKENDS: dict[str, str] = {
    "reference": "napari_mamba.scan.reference",
    "torch": "napari_mamba.scan.torch_backend",
    "cpu": "napari_mamba.scan.cpu.backend",
    "cuda": "napari_mamba.scan.cuda_backend",
    "mamba_ssm": "napari_mamba.scan.mamba_ssm_backend",
}


@cache
def _load(name: str) -> tuple[ModuleType | None, str]:
    if name not in BACKENDS:
        return None, f"The scan backend {name!r} is unknown; use one of auto, {', '.join(BACKENDS)}."
    if importlib.util.find_spec(BACKENDS[name]) is None:
        return None, f"This installation has no {name!r} scan backend; use backend='auto'."
    try:
        module = importlib.import_module(BACKENDS[name])
    except (ImportError, AttributeError, OSError, SystemError) as error:  # the last three: versions that do not agree
        return None, _unloadable(error)
    reason = module.unavailable() if hasattr(module, "unavailable") else ""
    return (None if reason else module), reason


def _unloadable(error: Exception) -> str:
    """Which package a backend needs cannot be loaded, and what to do."""
    package = (getattr(error, "name", None) or "numba").partition(".")[0]
    said = (str(error).splitlines() or [type(error).__name__])[0][:120]
    anew = f"pip install --force-reinstall {package}"
    return f"The package {package} cannot be loaded here ({said}); install it anew: {anew}."


def available_backends() -> dict[str, str]:
    """Return every backend's name, with the reason it cannot be used here, or an empty text where it can."""
    return {name: _load(name)[1] for name in BACKENDS}


def get_backend(name: str) -> ModuleType:
    """Return a backend's module; raises InputError with the reason where it cannot be used."""
    module, reason = _load(name)
    if module is None:
        raise InputError(reason)
    return module


def choose_backend(tensor: torch.Tensor) -> str:
    """Return the backend "auto" takes for a tensor: the fastest that computes on its device in its type."""
    kind = tensor.device.type
    if tensor.dtype == torch.float64:
        return "torch"
    if kind == "cpu" and _load("cpu")[0] is not None:
        return "cpu"
    if kind == "cuda":
        for name in ("cuda", "mamba_ssm"):
            if _load(name)[0] is not None:
                return name
    return "torch"


def backend_on(device: torch.device) -> tuple[str, str]:
    """Which backend "auto" takes on a device, and where it is not the fastest there, a sentence that says why.

    Examples
    --------
    >>> backend_on(torch.device("cpu"))
    ('cpu', '')
    """
    name = choose_backend(torch.empty(0, device=device))
    fastest = device.type if device.type in ("cpu", "cuda") else name
    reason = "" if name == fastest else _load(fastest)[1]
    for advice in (", or use backend='auto'", "; use backend='auto'", "; use backend='torch'"):
        reason = reason.replace(advice, "")
    return name, reason
