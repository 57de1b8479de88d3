"""Small calls of the scan through autograd, where the host is the limit."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.common.gpu import graph_milliseconds, milliseconds
from benchmarks.gpu.rows import LOWER, Found, Row
from benchmarks.gpu.scan import host_bound
from benchmarks.scan.cuda_backward import GRADIENTS
from benchmarks.scan.tables import attempt, inputs, name
from napari_mamba.nn import Mamba
from napari_mamba.scan import scan_order, selective_scan

Shape = tuple[int, int, int]


class Operators(TorchDispatchMode):
    """Counts PyTorch's operators by name: each costs the host some microseconds."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.__name__.partition(".")[0]] += 1
        return func(*args, **(kwargs or {}))


def timed(call: Callable[[], object], device: str) -> Found:
    """A call's milliseconds, in a CUDA graph too, and how many operators of PyTorch it runs."""
    call()
    with Operators() as seen:
        call()
    details: dict[str, Any] = {"operators of PyTorch": seen.counts.total(), "most": dict(seen.counts.most_common(4))}
    if device != "cuda":
        began = time.perf_counter()
        call()
        return Found(1e3 * (time.perf_counter() - began), details)
    found, graph = milliseconds([call]), attempt(graph_milliseconds, [call])
    with torch.autograd.set_multithreading_enabled(False):  # PyTorch hands the backward pass to a thread of the device
        alone = milliseconds([call])
    details = {"backward in the caller's thread ms": alone, "in a CUDA graph ms": graph, **details}
    return Found(found, details, host_bound(found, graph))


def scan_row(shape: Shape, dtype: torch.dtype, goal: float | None, paths: int | None = None) -> Row:
    """Forward and backward of one scan, all gradients asked for."""
    label = str(dtype).removeprefix("torch.")

    def measure(device: str) -> Found:
        x = {key: value.requires_grad_() for key, value in inputs(shape, dtype, paths=paths, device=device).items()}
        dout, wanted = torch.randn_like(x["u"]), [x[key] for key in GRADIENTS]
        side = round(shape[2] ** (1 / 3))
        order = scan_order("axis", (side,) * 3, axes=(2, 0), reverse=True) if paths else None

        def call() -> tuple[Tensor, ...]:
            y = selective_scan(**x, delta_softplus=True, order=order)
            assert isinstance(y, Tensor)
            return torch.autograd.grad(y, wanted, dout)

        return timed(call, device)

    what = f"scan ({name(shape)}), {label}{f', {paths} directions' if paths else ''}: forward and backward"
    key = f"autograd-{'x'.join(map(str, shape))}-{label}{f'-{paths}' if paths else ''}"
    return Row(key, "autograd", what, "ms", goal, LOWER, measure)


def layer(device: str) -> Found:
    """A Mamba layer of 32 channels (64 inner) on 32³ tokens."""
    network, x = Mamba(32).to(device), torch.randn(1, 32**3, 32, device=device, requires_grad=True)
    dout, wanted = torch.randn_like(x), [x, *network.parameters()]
    return timed(lambda: torch.autograd.grad(network(x), wanted, dout), device)


ROWS = (
    scan_row((1, 64, 32**3), torch.float32, 0.4),
    scan_row((1, 64, 32**3), torch.bfloat16, None),
    scan_row((1, 64, 512), torch.float32, None),
    scan_row((1, 64, 16**3), torch.float32, None, paths=4),
    Row("autograd-layer", "autograd", "`nn.Mamba(32)` on 32³ tokens: forward and backward", "ms", None, LOWER, layer),
)
