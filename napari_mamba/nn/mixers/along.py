"""Running a mixer that works on whole sequences (an FFT, a product of matrices) along a scan order."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from napari_mamba.scan import ScanOrder, listening
from napari_mamba.scan.arguments import LinearArguments


def along_paths(
    function: Callable[..., Tensor], order: ScanOrder | Tensor | None, *tensors: Tensor, paths: bool = False
) -> Tensor:
    """Gather the rows of (B, L, …) tensors in the order of each path, apply a function, put its rows back, and sum.

    The S6 scan reads along an order at no copy; a function that needs its whole sequence in memory does not.
    `paths=True`: the tensors have a path axis, (B, K, L, …), and each path takes its own.
    """
    if order is None:
        return function(*(x[:, 0] if paths else x for x in tensors))
    table = order.tensor(tensors[0].device) if isinstance(order, ScanOrder) else order.reshape(-1, order.shape[-1])
    total: Tensor | None = None
    for k, index in enumerate(table):
        y = function(*((x[:, k] if paths else x).index_select(1, index) for x in tensors))
        y = torch.zeros_like(y).index_copy(1, index, y)
        total = y if total is None else total + y
    assert total is not None
    return total


def tell_linear(
    u: Tensor, log_decay: Tensor, B: Tensor | None, C: Tensor, order: ScanOrder | Tensor | None
) -> Tensor | None:
    """Tell listeners of a time-invariant state space (see `LinearArguments`); returns an answer in its place."""
    table = order.tensor(u.device) if isinstance(order, ScanOrder) else order
    table = None if table is None else table.reshape(-1, table.shape[-1])
    return listening.tell("linear", LinearArguments(u, log_decay, B, C, table), order, "fft")
