"""Listening to the scans of a network: each call's arguments, its order and the layer that made it.

Nobody pays where nobody listens: the operators look at `ACTIVE`, one number, and go on. A listener is told before a
call is computed, and the computation then takes the way it takes otherwise, so that its result is the same to the last
bit. What replays earlier calls without Python (CUDA graphs, `torch.compile`) is run plainly while somebody listens.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from napari_mamba.scan.arguments import ConvArguments, LinearArguments, LowRank, ScanArguments, scan_arguments
from napari_mamba.scan.orders import ScanOrder

ACTIVE = 0
"""How many listen, in all threads. Read it as `listening.ACTIVE`."""

Kind = Literal["scan", "convolution", "linear"]
Order = ScanOrder | Tensor | None
Cells = tuple[tuple[int, ...], Tensor | None]
"""A grid and, for each token (L,) or (B, L), its cell on it; -1 for a token that has none, None for the raster."""

_lock = threading.Lock()
_here = threading.local()  # .listening: list of _Listening; .placed: list of callables
_NOTHING = nullcontext()


@dataclass(frozen=True)
class Call:
    """One call of an operator.

    Attributes
    ----------
    kind : {"scan", "convolution", "linear"}
        The selective scan (Mamba-2's, too), the causal convolution, or a time-invariant state space (S4D, S5).
    layer : str
        The module that made it, as `network.named_modules()` names it.
    number : int
        Which call of this kind that layer makes in the present pass, from 0.
    arguments : ScanArguments, ConvArguments or LinearArguments
        In the form that backends are given; see `scan.arguments`. The tensors are the network's own: read them, and
        copy what is to be kept changed.
    order : ScanOrder, tensor or None
        As the operator was given it.
    backend : str
        What computes it.
    grid : tuple of int or None
        The map that the tokens come from, slowest axis first; None where they are no places of an image (channels).
    cells : int64 tensor (L,) or (B, L), or None
        The cell of `grid` that each token, in the order of the tensors' rows, is; -1 for one that is none (a class
        token, padding). None: token r is cell r.
    """

    kind: Kind
    layer: str
    number: int
    arguments: ScanArguments | ConvArguments | LinearArguments
    order: Order
    backend: str
    grid: tuple[int, ...] | None = None
    cells: Tensor | None = None


Listener = Callable[[Call], Any]


@dataclass
class _Listening:
    """One listener in one thread, and the modules of its network that are running, outermost first."""

    listener: Listener
    replaces: bool
    running: list[tuple[str, tuple[int, ...] | None]] = field(default_factory=list)
    made: Counter = field(default_factory=Counter)


@contextmanager
def listen(network: nn.Module, listener: Listener, *, replaces: bool = False) -> Iterator[None]:
    """Tell a listener of each call of the scan and of the causal convolution that a network makes in this thread.

    Parameters
    ----------
    network : nn.Module
        Its modules give the layers' names.
    listener : callable
        Called with a `Call` before it is computed. An error it raises stops the network.
    replaces : bool
        What the listener returns, if not None, is the operator's answer: for what asks how the network would answer
        otherwise. Without it a network's output stays the same to the last bit.

    Examples
    --------
    >>> from napari_mamba.nn import Mamba
    >>> heard = []
    >>> network = Mamba(8)
    >>> with listen(network, lambda call: heard.append(call.kind)):
    ...     y = network(torch.zeros(1, 10, 8))
    >>> heard
    ['convolution', 'scan']
    """
    global ACTIVE
    one = _Listening(listener, replaces)
    mine = _mine()
    handles = []
    for name, module in network.named_modules():
        handles.append(module.register_forward_pre_hook(_enter(one, name)))
        handles.append(module.register_forward_hook(_leave(one), always_call=True))
    mine.append(one)
    with _lock:
        ACTIVE += 1
    try:
        with _uncompiled():
            yield
    finally:
        with _lock:
            ACTIVE -= 1
        mine.remove(one)
        for handle in handles:
            handle.remove()


def placed(cells: Callable[[], Cells | None]) -> AbstractContextManager:
    """Say where the tokens of the scans inside come from, where that is not a feature map in raster order.

    `cells` is called where somebody listens: it returns the map's grid and each token's cell on it (see `Call`), or
    None for tokens that are no places.

    Examples
    --------
    >>> with placed(lambda: None):  # the channels are the tokens here
    ...     pass
    """
    return _place(cells) if ACTIVE and _mine() else _NOTHING


def tell_scan(backend: str, order: Order, tensors: Sequence, merge: str) -> Tensor | None:
    """Tell of a selective scan, `tensors` being u, delta, A, B, C, D, z, delta_bias and delta_softplus.

    Returns what a listener answers in the operator's place, in its form, or None.
    """
    if not _mine():
        return None
    u, delta, *rest = tensors
    delta = delta.whole() if isinstance(delta, LowRank) else delta  # made for the listener alone
    args, multi = scan_arguments(u, delta, *rest, order, merge)
    answer = tell("scan", args, order, backend)
    return answer[:, 0] if answer is not None and merge == "none" and not multi else answer


def tell(kind: Kind, args: ScanArguments | ConvArguments | LinearArguments, order: Order, backend: str) -> Any:
    """Tell of a call whose arguments are in the backends' form; returns a listener's answer, in that form, or None."""
    answer = None
    for one in list(_mine()):
        name, length = one.running[-1][0] if one.running else "", _length(args)
        one.made[name, kind] += 1
        grid, cells = _cells(one, order, length)
        call = Call(kind, name, one.made[name, kind] - 1, args, order, backend, grid, cells)
        with _deaf():  # what a listener computes itself is nobody's call
            said = one.listener(call)
        if one.replaces and said is not None:
            answer = said
    return answer


def _mine() -> list[_Listening]:
    if not hasattr(_here, "listening"):
        _here.listening, _here.placed = [], []
    return _here.listening


@contextmanager
def _deaf() -> Iterator[None]:
    before, _here.listening = _here.listening, []
    try:
        yield
    finally:
        _here.listening = before


@contextmanager
def _place(cells: Callable[[], Cells | None]) -> Iterator[None]:
    _here.placed.append(cells)
    try:
        yield
    finally:
        _here.placed.pop()


def _enter(one: _Listening, name: str) -> Callable:
    def hook(module: nn.Module, inputs: tuple) -> None:
        if not one.running:
            one.made.clear()
        first = inputs[0] if inputs else None
        one.running.append((name, tuple(first.shape) if isinstance(first, Tensor) else None))

    return hook


def _leave(one: _Listening) -> Callable:
    def hook(module: nn.Module, inputs: tuple, output: object) -> None:
        if one.running:
            one.running.pop()

    return hook


def _uncompiled() -> AbstractContextManager:
    """`torch.compile`d code would run past the listeners; it runs as it was written meanwhile."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and importing it takes seconds
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def _length(args: ScanArguments | ConvArguments | LinearArguments) -> int:
    return args.u.shape[-2] if isinstance(args, ScanArguments | LinearArguments) else args.x.shape[-2]


def _cells(one: _Listening, order: Order, length: int) -> tuple[tuple[int, ...] | None, Tensor | None]:
    """The grid that the tokens come from: as a network says, as the order has it, or the nearest map that fits."""
    if _here.placed:
        return _here.placed[-1]() or (None, None)
    if isinstance(order, ScanOrder) and len(order.shape) > 1:
        return order.shape, None
    whole = next((shape[2:] for _, shape in one.running if shape is not None and len(shape) > 3), None)
    for _, shape in reversed(one.running):
        fitting = [grid for grid in _maps(shape) if _count(grid) == length]
        if fitting:
            return min(fitting, key=lambda grid: _stretch(grid, whole)), None
    return None, None


def _maps(shape: tuple[int, ...] | None) -> list[tuple[int, ...]]:
    """The grids that a tensor of this shape may be a map on: channels first, or last."""
    return [shape[2:], shape[1:-1]] if shape is not None and len(shape) in (4, 5) else []


def _count(grid: tuple[int, ...]) -> int:
    return torch.Size(grid).numel()


def _stretch(grid: tuple[int, ...], whole: tuple[int, ...] | None) -> float:
    """How unevenly a grid shrinks the image: a map of (Y, X) does it evenly, one misread as (X, C) hardly."""
    if whole is None or len(whole) != len(grid):
        return float("inf")
    ratios = [n / small for n, small in zip(whole, grid, strict=True)]
    return max(ratios) / min(ratios)
