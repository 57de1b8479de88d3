"""float16 convolutions as a GPU makes them, on a processor that has no such type: there PyTorch's take twenty times."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_NAMES = [f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)]
_CONVOLUTIONS = {getattr(place, name) for place in (torch, functional) for name in _NAMES}


class _OnTensorCores(TorchFunctionMode):
    """Halves are multiplied, their products summed in float32, and the sum is rounded to a half, once."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func not in _CONVOLUTIONS or not _is_half(args[0]):
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            return func(*map(_rounded, args), **{name: _rounded(value) for name, value in kwargs.items()}).half()


def _is_half(x: torch.Tensor) -> bool:
    if x.device.type != "cpu":
        return False
    mixed = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.float16
    return mixed or x.dtype == torch.float16


def _rounded(value: Any) -> Any:
    return value.half().float() if isinstance(value, torch.Tensor) else value


def quick_halves() -> AbstractContextManager[object]:
    """Within it convolutions of float16 on the CPU are quick; nothing changes on a processor that has the type."""
    return nullcontext() if torch.ops.mkldnn._is_mkldnn_fp16_supported() else _OnTensorCores()
