"""Rules under which a network is linear around its input, so that relevance is conserved on its way back.

Jafari et al., MambaLRP (arXiv:2406.07592; github.com/FarnoushRJ/MambaLRP): in a selective state space the step size, B
and C are held constant; a gate shares half with what it gates; an activation is its input times a constant, a norm its
(centred) input over a constant deviation. The forward pass stays the same. Here the rules act on PyTorch's operators
while the network runs, so they hold for every network of the library and change none.

What they say of operators that the paper does not have: sigmoids, softmaxes and denominators are weights, held
constant; a product of two activations shares like a gate. Whatever is added that does not come from the input (biases,
class tokens, positions, running means) is noted, and its share told: the relevances and it sum to the output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from napari_mamba.nn.blocks.probability import Probability
from napari_mamba.nn.norms.instance_norm import plain_norms
from napari_mamba.scan import causal_conv1d, selective_scan
from napari_mamba.scan.arguments import ConvArguments, ScanArguments
from napari_mamba.scan.listening import Call, listen

HELD = {"sigmoid", "softmax", "log_softmax", "exp", "rsqrt", "sqrt", "reciprocal", "norm", "var", "std", "sigmoid_"}
ADDED = {"add", "__add__", "__radd__", "add_", "__iadd__", "sub", "__sub__", "__rsub__", "sub_", "__isub__", "rsub"}
TIMES = {"mul", "__mul__", "__rmul__", "mul_", "__imul__", "multiply", "matmul", "__matmul__", "bmm", "mm", "einsum"}
OVER = {"div", "__truediv__", "true_divide", "div_", "__itruediv__", "__rtruediv__", "__rdiv__"}
LINEAR = {"linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
ACTIVATIONS = {
    "silu": 0.5,
    "gelu": 0.5,
    "tanh": 1.0,
    "elu": 1.0,
    "mish": 0.6,
    "hardswish": 0.5,
    "relu6": 0.0,
    "selu": 1.0,
}
"""With the ratio of output to input at 0."""


class Rules(TorchFunctionMode):
    """Inside of this context the operators follow the rules; `constants` collects what was added from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.constants: list[Tensor] = []
        self.off = False

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        rule = None if self.off else self._rule(func.__name__)
        if rule is None or not any(_active(x) for x in _tensors(args, kwargs)):
            return func(*args, **kwargs)
        return rule(func, *args, **kwargs)

    def _rule(self, name: str) -> Callable | None:
        if name in LINEAR:
            return self._linear
        if name in ADDED:
            return self._added
        if name in TIMES:
            return self._times
        if name in OVER:
            return lambda func, a, b, *rest, **more: func(a, _held(b), *rest, **more)
        if name in HELD:
            return lambda func, *args, **more: func(*args, **more).detach()
        if name in ACTIVATIONS:
            return lambda func, x, *args, **more: _activated(func, ACTIVATIONS[name], x, *args, **more)
        others: dict[str, Callable] = {
            "cat": self._joined,
            "concat": self._joined,
            "stack": self._joined,
            "layer_norm": self._layer_norm,
            "instance_norm": self._instance_norm,
            "group_norm": self._group_norm,
            "batch_norm": self._batch_norm,
            "scaled_dot_product_attention": _attention,
            "grid_sample": lambda func, x, grid, *rest, **more: func(x, grid.detach(), *rest, **more),
        }
        return others.get(name)

    def constant(self, value: Tensor | float, like: Tensor) -> Tensor:
        """A constant as something whose share in the output can be told."""
        tensor = value.detach() if isinstance(value, Tensor) else torch.tensor(value, dtype=like.dtype)
        leaf = tensor.to(like.device).clone().requires_grad_(True)
        self.constants.append(leaf)
        return leaf

    def share(self, gradients: list[Tensor | None]) -> float:
        """What the constants add to the output, from their gradients."""
        pairs = zip(self.constants, gradients, strict=True)
        return float(sum((c.detach().double() * g.double()).sum() for c, g in pairs if g is not None))

    def _linear(self, func: Callable, x: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **more: Any):
        if _active(x) and _active(weight):
            return _shared(func(x, weight, bias, *rest, **more))
        y = func(x, weight.detach(), None, *rest, **more)
        if bias is None:
            return y
        shift = self.constant(bias, y)
        return y + (shift if func.__name__ == "linear" else shift.view(-1, *[1] * (y.ndim - 2)))

    def _added(self, func: Callable, *args: Any, **more: Any) -> Tensor:
        like = next(x for x in args if _active(x))
        return func(*(x if _active(x) or not _number(x) else self.constant(x, like) for x in args), **more)

    def _times(self, func: Callable, *args: Any, **more: Any) -> Tensor:
        active = [x for x in _tensors(args, more) if _active(x)]
        if len(active) < 2:
            return func(*args, **more)
        if func.__name__ in ("mul_", "__imul__"):
            func = torch.mul
        return _shared(func(*args, **more))

    def _joined(self, func: Callable, tensors: Any, *args: Any, **more: Any) -> Tensor:
        like = next(x for x in tensors if _active(x))
        kept = [x if _active(x) or not x.is_floating_point() else self.constant(x, like) for x in tensors]
        return func(kept, *args, **more)

    # ---- norms: the centred input over a constant deviation

    def _scaled(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        x = x if weight is None else x * weight.detach().view(shape)
        return x if bias is None else x + self.constant(bias, x).view(shape)

    def _layer_norm(self, func, x, normalized_shape, weight=None, bias=None, eps=1e-5):
        axes = tuple(range(-len(normalized_shape), 0))
        return self._scaled(_standardised(x, axes, eps), weight, bias, tuple(normalized_shape))

    def _instance_norm(
        self, func, x, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1,
        eps=1e-5,
    ):  # fmt: skip
        if not use_input_stats:
            return self._batch_norm(func, x, running_mean, running_var, weight, bias, False, momentum, eps)
        shape = (-1, *[1] * (x.ndim - 2))
        return self._scaled(_standardised(x, tuple(range(2, x.ndim)), eps), weight, bias, shape)

    def _group_norm(self, func, x, num_groups, weight=None, bias=None, eps=1e-5):
        grouped = x.unflatten(1, (num_groups, -1))
        y = _standardised(grouped, tuple(range(2, grouped.ndim)), eps).flatten(1, 2)
        return self._scaled(y, weight, bias, (-1, *[1] * (x.ndim - 2)))

    def _batch_norm(
        self, func, x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
    ):
        shape = (-1, *[1] * (x.ndim - 2))
        rate = torch.rsqrt(running_var + eps).view(shape)
        y = (x - self.constant(running_mean, x).view(shape)) * rate
        return self._scaled(y, weight, bias, shape)

    # ---- what the scan's listeners answer

    def answer(self, call: Call) -> Tensor | None:
        """A scan whose step sizes, B and C are constant, with a gate that shares; a convolution whose bias is noted."""
        args = call.arguments
        if isinstance(args, ConvArguments):
            y = self._plainly(_convolved, args, call.backend)
            if args.bias is not None:
                y = y + self.constant(args.bias, y)[:, None]
            return F.silu(y) if args.silu else y
        if not isinstance(args, ScanArguments) or not _active(args.u):
            return None  # S4D and S5 are linear as they are
        y = self._plainly(_scanned, args, call.backend)
        if args.z is None:
            return y
        gate = F.silu(args.z.to(y.dtype))
        return y * (gate if args.merge == "sum" else gate[:, None])

    def _plainly(self, function: Callable, *args: Any) -> Tensor:
        before, self.off = self.off, True
        try:
            return function(*args)
        finally:
            self.off = before


@contextmanager
def linearised(network: nn.Module) -> Iterator[Rules]:
    """Run a network under the rules; its published sigmoid at the end is left out, as relevance is of logits.

    Examples
    --------
    >>> from napari_mamba.nn import Mamba
    >>> network, x = Mamba(4).requires_grad_(False), torch.randn(1, 5, 4, requires_grad=True)
    >>> with linearised(network) as rules:
    ...     y = network(x)
    """
    endings = [module for module in network.modules() if isinstance(module, Probability)]
    before = [module.logits for module in endings]
    rules = Rules()
    try:
        for module in endings:
            module.logits = True
        with torch.enable_grad(), plain_norms(), listen(network, rules.answer, replaces=True), rules:
            yield rules
    finally:
        for module, logits in zip(endings, before, strict=True):
            module.logits = logits


def _scanned(args: ScanArguments, backend: str) -> Tensor:
    return held_scan(args, args.u, args.D, backend)


def held_scan(args: ScanArguments, u: Tensor, skip: Tensor | None, backend: str) -> Tensor:
    """A scan of values u by the same state space, whose step sizes, decays, B and C are constants; without its gate."""
    delta, A, B, C = (x.detach() for x in (args.delta, args.A, args.B, args.C))
    D, bias = (None if x is None else x.detach() for x in (skip, args.delta_bias))
    own = "auto" if backend == "ssd" else backend
    softplus, merge = args.delta_softplus, args.merge
    y = selective_scan(u, delta, A, B, C, D, None, bias, softplus, args.table, backend=own, merge=merge)
    assert isinstance(y, Tensor)
    return y


def _convolved(args: ConvArguments, backend: str) -> Tensor:
    return causal_conv1d(args.x, args.weight.detach(), None, args.table, activation=None, backend=backend)


def _active(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


def _number(x: Any) -> bool:
    return (isinstance(x, float | int) and not isinstance(x, bool)) or (isinstance(x, Tensor) and x.is_floating_point())


def _tensors(args: tuple, kwargs: dict) -> Iterator[Tensor]:
    for x in (*args, *kwargs.values()):
        if isinstance(x, Tensor):
            yield x
        elif isinstance(x, list | tuple):
            yield from (y for y in x if isinstance(y, Tensor))


def _held(x: Any) -> Any:
    return x.detach() if isinstance(x, Tensor) else x


def _shared(product: Tensor) -> Tensor:
    """A product of which each factor gets half."""
    return product / 2 + (product / 2).detach()


def _activated(func: Callable, at_zero: float, x: Tensor, *args: Any, **more: Any) -> Tensor:
    held = x.detach()
    if func.__name__ == "silu":
        return x * torch.sigmoid(held)
    more.pop("inplace", None)
    approximate = more.get("approximate", args[0] if args and isinstance(args[0], str) else "none")
    if func.__name__ == "gelu" and approximate == "none":
        return x * (0.5 * (1 + torch.erf(held / math.sqrt(2))))
    value = func(held, *args, **more)
    return x * torch.where(held == 0, torch.full_like(held, at_zero), value / held)


def _standardised(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * torch.rsqrt(centred.detach().square().mean(axes, keepdim=True) + eps)


def _attention(func: Callable, query: Tensor, key: Tensor, value: Tensor, *args: Any, **more: Any) -> Tensor:
    return func(query.detach(), key.detach(), value, *args, **more)
