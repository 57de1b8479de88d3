"""Networks on the CPU with the same bytes on any number of threads.

PyTorch cuts an operation into as many parts as there are threads, and its libraries add in another order where a part
ends elsewhere. Here the parts are cut by the tensors' shapes alone: each is computed by one thread, and the threads
share the parts. Operations that are not cut run on one thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from napari_mamba.scan.cpu.threads import run_tasks, using_workers, worker_count

PARTS = 16
"""At most so many of one operation."""
SMALLEST = 1 << 15
"""Elements of an output; a smaller one is not worth handing out."""
_ROWS, _SLICES, _CHANNELS = 256, 8, 64
_WORK = 1 << 26
"""Multiplications of a part of a convolution: libraries reorder an image and its weights for each call."""
_ONEDNN = 20480
"""Of an image (B, C, Z, Y, X): PyTorch gives it to oneDNN if B·C·Z·Y is more, else to a slow convolution of its own,
which at 16 channels of 32³ takes twenty times as long. So oneDNN is called here, where it takes the tensors."""

_lock = threading.Lock()
_inside = threading.local()
_entered, _threads = 0, 1


@contextmanager
def fixed_partition() -> Iterator[None]:
    """Context for whatever PyTorch computes on the CPU in this thread; never held across a `yield`.

    Examples
    --------
    >>> with fixed_partition():
    ...     y = torch.nn.functional.linear(torch.ones(2, 3), torch.ones(4, 3))
    """
    global _entered, _threads
    if getattr(_inside, "now", False):
        yield
        return
    with _lock:
        if _entered == 0:
            _threads = torch.get_num_threads()
        _entered, threads = _entered + 1, _threads
    _inside.now = True
    torch.set_num_threads(1)
    try:
        with using_workers(threads), _FixedPartition():
            yield
    finally:
        _inside.now = False
        with _lock:
            _entered -= 1
        torch.set_num_threads(threads)  # of the process, too: a worker's own number of 1 was taken for it


class _FixedPartition(TorchFunctionMode):
    """Hands operations that are worth it to `_HANDLERS`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        handler = _HANDLERS.get(func)
        if handler is not None and not torch.is_grad_enabled() and _plain(args[0] if args else None):
            answer = handler(func, *args, **kwargs)
            if answer is not None:
                return answer
        return func(*args, **kwargs)


def _plain(x: Any) -> bool:
    return type(x) is Tensor and x.device.type == "cpu" and x.is_floating_point()


def _edges(length: int, least: int) -> list[int]:
    """Where the parts of `length` begin and end: at most `PARTS`, none under `least`."""
    count = max(1, min(PARTS, length // least))
    return [length * part // count for part in range(count + 1)]


def _share(function: Callable[[int, int], None], edges: Sequence[int]) -> None:
    """Call function(first, last) for every part, each on one thread."""
    inference, mixed = torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu")

    def work(worker: int, first: int, last: int) -> None:
        if worker and not getattr(_inside, "single", False):
            torch.set_num_threads(1)  # of this worker, for good
            _inside.single = True
        modes = torch.inference_mode() if inference else torch.no_grad()
        with modes, torch.autocast("cpu", dtype=dtype) if mixed else nullcontext():
            function(first, last)

    tasks = list(pairwise(edges))
    run_tasks(tasks, work, worker_count(len(tasks)))


def _like(x: Tensor, shape: Sequence[int]) -> Tensor:
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return torch.empty(tuple(shape), dtype=dtype)


def _linear(func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    rows = input.numel() // max(input.shape[-1], 1) if input.ndim else 0
    if rows * weight.shape[0] < SMALLEST or weight.ndim != 2:
        return None
    flat, out = input.reshape(rows, input.shape[-1]), _like(input, (rows, weight.shape[0]))

    plain = out.dtype == flat.dtype == weight.dtype

    def part(first: int, last: int) -> None:
        if not plain:
            out[first:last] = func(flat[first:last], weight, bias)
        elif bias is None:
            torch.mm(flat[first:last], weight.t(), out=out[first:last])
        else:
            torch.addmm(bias, flat[first:last], weight.t(), out=out[first:last])

    _share(part, _edges(rows, _ROWS))
    return out.reshape(*input.shape[:-1], weight.shape[0])


def _conv(dims: int) -> Callable[..., Tensor | None]:
    def conv(
        func: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor | None:
        if isinstance(padding, str) or input.ndim != dims + 2:
            return None
        strides, paddings, dilations = (_each(value, dims) for value in (stride, padding, dilation))
        reach = [d * (k - 1) + 1 for d, k in zip(dilations, weight.shape[2:], strict=True)]
        sizes = [
            (n + 2 * p - r) // s + 1
            for n, p, r, s in zip(input.shape[2:], paddings, reach, strides, strict=True)
        ]  # fmt: skip
        shape = (input.shape[0], weight.shape[0], *sizes)
        out, direct = _like(input, shape), _takes_onednn(input, weight)
        if direct:
            func = _onednn
        if out.numel() < SMALLEST:
            return func(input, weight, bias, strides, paddings, dilations, groups) if direct else None
        work = max(1, out.numel() * weight[0].numel())
        if sizes[0] < 2 * _SLICES and _by_channels(weight, groups):
            _share_channels(func, input, weight, bias, (strides, paddings, dilations, groups), out)
            return out

        def part(first: int, last: int) -> None:
            begin = first * strides[0] - paddings[0]
            end = (last - 1) * strides[0] - paddings[0] + reach[0]
            rows = input[:, :, max(begin, 0) : end]
            missing = (max(-begin, 0), max(end - input.shape[2], 0))
            if any(missing):
                rows = F.pad(rows, [0, 0] * (dims - 1) + list(missing))
            around = (0, *paddings[1:])
            out[:, :, first:last] = func(rows, weight, bias, strides, around, dilations, groups)

        across = input.shape[0] * input.shape[1] * (input.shape[3] if dims > 1 else 1)
        least = max(_SLICES, -(-sizes[0] * _WORK // work), 0 if direct else _ONEDNN // across + 1)
        _share(part, _edges(sizes[0], least))
        return out

    return conv


def _takes_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether a convolution is one that oneDNN computes faster than PyTorch's own: not that of single voxels."""
    plain = x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    able = torch.backends.mkldnn.is_available()
    return plain and able and x.ndim in (4, 5) and weight[0, 0].numel() > 1 and x.numel() > 0


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    stride, padding, dilation, groups = rest
    return torch.ops.aten.mkldnn_convolution(x.contiguous(), weight, bias, padding, stride, dilation, groups)


def _by_channels(weight: Tensor, groups: int) -> bool:
    return weight.shape[0] >= 2 * _CHANNELS and (groups == 1 or groups == weight.shape[0])


def _share_channels(func: Any, x: Tensor, weight: Tensor, bias: Tensor | None, rest: tuple, out: Tensor) -> None:
    """A convolution by its output channels: where an image is small, and has many."""
    stride, padding, dilation, groups = rest
    per_input = x.shape[1] // weight.shape[0] if groups > 1 else 0

    def part(first: int, last: int) -> None:
        rows = x[:, first * per_input : last * per_input] if groups > 1 else x
        some = bias[first:last] if bias is not None else None
        count = last - first if groups > 1 else 1
        out[:, first:last] = func(rows, weight[first:last], some, stride, padding, dilation, count)

    _share(part, _edges(weight.shape[0], _CHANNELS))


def _conv_transpose(dims: int) -> Callable[..., Tensor | None]:
    def conv(
        func: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Tensor | None:
        strides = _each(stride, dims)
        whole = strides == tuple(weight.shape[2:]) and not any(_each(padding, dims) + _each(output_padding, dims))
        if not whole or input.ndim != dims + 2 or groups != 1 or any(d != 1 for d in _each(dilation, dims)):
            return None  # kernels that overlap
        sizes = [n * s for n, s in zip(input.shape[2:], strides, strict=True)]
        out = _like(input, (input.shape[0], weight.shape[1], *sizes))
        if out.numel() < SMALLEST:
            return None

        def part(first: int, last: int) -> None:
            out[:, :, first * strides[0] : last * strides[0]] = func(input[:, :, first:last], weight, bias, stride)

        _share(part, _edges(input.shape[2], 1))
        return out

    return conv


def _instance_norm(
    func: Any,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    if running_mean is not None or not use_input_stats or input.numel() < SMALLEST or input.ndim < 3:
        return None
    out = torch.empty_like(input)

    def part(first: int, last: int) -> None:
        scale, shift = (one[first:last] if one is not None else None for one in (weight, bias))
        out[:, first:last] = func(input[:, first:last], weight=scale, bias=shift, eps=eps)

    _share(part, _edges(input.shape[1], 1))
    return out


def _elementwise(func: Any, input: Tensor, *args: Any, inplace: bool = False, **kwargs: Any) -> Tensor | None:
    if input.numel() < SMALLEST or not input.is_contiguous():
        return None
    out = input if inplace else torch.empty_like(input)
    flat, into = input.view(-1), out.view(-1)

    def part(first: int, last: int) -> None:
        if inplace:
            func(flat[first:last], *args, inplace=True, **kwargs)
        else:
            into[first:last] = func(flat[first:last], *args, **kwargs)

    _share(part, _edges(flat.numel(), SMALLEST))
    return out


def _each(value: Any, dims: int) -> tuple[int, ...]:
    values = (value,) * dims if isinstance(value, int) else tuple(value)
    return values * dims if len(values) == 1 else values


_HANDLERS: dict[Any, Callable[..., Tensor | None]] = {
    F.linear: _linear,
    F.conv1d: _conv(1),
    F.conv2d: _conv(2),
    F.conv3d: _conv(3),
    F.conv_transpose2d: _conv_transpose(2),
    F.conv_transpose3d: _conv_transpose(3),
    F.instance_norm: _instance_norm,
    F.leaky_relu: _elementwise,
    F.relu: _elementwise,
    F.silu: _elementwise,
    F.gelu: _elementwise,
    F.softplus: _elementwise,
}
