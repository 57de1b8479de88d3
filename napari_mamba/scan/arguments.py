"""Checking the operators' arguments and bringing them to one form: K paths, G groups, explicit axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from napari_mamba.errors import InputError
from napari_mamba.scan.orders import ScanOrder

MERGES = ("sum", "none")


@dataclass
class ScanArguments:
    """What a backend's `selective_scan` is given; every tensor has its path axis K, B and C their group axis G.

    u (B, 1 or K, L, D) and delta (B, K, L, D); A (K, D, N); B and C (B, K, L, G, N); D and delta_bias (K, D) or None;
    z (B, L, D) or None; table (K, L) int64 on the tensors' device, or None where every path is the raster.
    A backend returns the output, (B, L, D) for merge "sum" and (B, K, L, D) for "none", and the last state
    (B, K, D, N).
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    delta_softplus: bool
    table: Tensor | None
    merge: str

    @property
    def paths(self) -> int:
        return self.A.shape[0]


class LowRank(NamedTuple):
    """Step sizes of K paths as a product of few numbers for each position, which need not all be there at once.

    rows (B, K, L, R) and weight (K, D, R), of one type; the step sizes are rows @ weightᵀ, (B, K, L, D).

    Examples
    --------
    >>> LowRank(torch.ones(1, 2, 5, 3), torch.ones(2, 4, 3)).whole().shape
    torch.Size([1, 2, 5, 4])
    """

    rows: Tensor
    weight: Tensor

    def whole(self) -> Tensor:
        """All paths' step sizes."""
        return self.rows @ self.weight.transpose(1, 2)

    def path(self, k: int, out: Tensor) -> None:
        """Write those of path k to `out` (B, L, D)."""
        torch.matmul(self.rows[:, k], self.weight[k].T, out=out)


@dataclass
class ConvArguments:
    """What a backend's `causal_conv1d` is given: x (B, L, D), weight (K, D, W), bias (K, D) or None, table (K, L) or
    None, whether SiLU follows. A backend returns (B, K, L, D)."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    table: Tensor | None
    silu: bool


@dataclass
class LinearArguments:
    """A time-invariant state space with a diagonal, complex transition (S4D, S5), as its listeners are told of it.

    h[t] = exp(log_decay) h[t-1] + B u[t]; y[t] = 2 Re(C h[t]). u (B, L, D). Of S4D each channel has its own states:
    log_decay and C (D, N), B None (the input enters each state as it is). Of S5 they share them: log_decay (N,),
    B (N, D), C (D, N). table (K, L) or None; the paths' outputs are summed, without the skip.
    """

    u: Tensor
    log_decay: Tensor
    B: Tensor | None
    C: Tensor
    table: Tensor | None


def _expect(tensor: Tensor | None, name: str, shape: tuple[int, ...], like: Tensor) -> None:
    if tensor is None:
        return
    if tensor.shape != shape:
        raise InputError(f"{name} has shape {tuple(tensor.shape)} where {shape} is needed; reshape it to that.")
    if tensor.device != like.device:
        raise InputError(f"{name} is on {tensor.device} and u on {like.device}; move them to one device.")


def order_table(order: ScanOrder | Tensor | None, paths: int, length: int, device: torch.device) -> Tensor | None:
    """Return the (K, L) index tensor of an order on a device, or None for the raster."""
    if order is None:
        return None
    if isinstance(order, ScanOrder):
        if order.table.shape != (paths, length):
            raise InputError(
                f"The scan order {order.name} has {order.table.shape[0]} paths of {order.table.shape[1]} steps, and "
                f"the tensors have {paths} paths of {length}; make the order for their grid with scan_order()."
            )
        return None if order.is_raster else order.tensor(device)
    table = order[None] if order.ndim == 1 else order
    if tuple(table.shape) != (paths, length) or table.dtype != torch.int64:
        raise InputError(f"An order given as a tensor must be int64 of shape ({paths}, {length}); use scan_order().")
    return table.to(device)


def scan_arguments(u, delta, A, B, C, D, z, delta_bias, delta_softplus, order, merge) -> tuple[ScanArguments, bool]:
    """Check the arguments of `selective_scan`; return them in one form, and whether they had a path axis."""
    if merge not in MERGES:
        raise InputError(f"merge={merge!r} is unknown; use 'sum' or 'none'.")
    if not u.is_floating_point():
        raise InputError(f"u has the type {u.dtype}; convert it to a floating-point type.")
    if A.is_complex():
        raise InputError("A is complex, and this scan takes a real A; use the S4D or S5 mixer for complex states.")
    multi = A.ndim == 3
    if A.ndim not in (2, 3) or delta.ndim != (4 if multi else 3) or u.ndim not in (3, delta.ndim):
        raise InputError(
            f"u, delta and A have {u.ndim}, {delta.ndim} and {A.ndim} axes; use (B, L, D), (B, L, D) and (D, N) "
            "for one path, or (B, K, L, D), (B, K, L, D) and (K, D, N) for K paths."
        )
    if not multi:
        u, delta, A, B, C = (x.unsqueeze(axis) for x, axis in ((u, 1), (delta, 1), (A, 0), (B, 1), (C, 1)))
        D = None if D is None else D.unsqueeze(0)
        delta_bias = None if delta_bias is None else delta_bias.unsqueeze(0)
    elif u.ndim == 3:
        u = u[:, None]
    batch, paths, length, width = delta.shape
    states = A.shape[-1]
    if length == 0:
        raise InputError("The sequence is empty; give at least one position.")
    _expect(u, "u", (batch, 1 if u.shape[1] == 1 else paths, length, width), u)
    _expect(delta, "delta", (batch, paths, length, width), u)
    _expect(A, "A", (paths, width, states), u)
    _expect(D, "D", (paths, width), u)
    _expect(delta_bias, "delta_bias", (paths, width), u)
    _expect(z, "z", (batch, length, width), u)
    B = B.unsqueeze(3) if B.ndim == 4 else B
    C = C.unsqueeze(3) if C.ndim == 4 else C
    for name, tensor in (("B", B), ("C", C)):
        groups = tensor.shape[3] if tensor.ndim == 5 else 1
        _expect(tensor, name, (batch, paths, length, groups, states), u)
        if groups == 0 or width % groups:
            raise InputError(f"{name} has {groups} groups, which do not divide the {width} channels; use a divisor.")
    if B.shape[3] != C.shape[3]:
        raise InputError(f"B has {B.shape[3]} groups and C has {C.shape[3]}; give both the same number.")
    table = order_table(order, paths, length, u.device)
    return ScanArguments(u, delta, A, B, C, D, z, delta_bias, bool(delta_softplus), table, merge), multi


def _for_paths(x: Tensor, paths: int) -> Tensor:
    """The same parameters for every path."""
    x = x.unsqueeze(0)
    return x if paths == 1 else x.expand(paths, *x.shape[1:])


def conv_arguments(x, weight, bias, order, activation) -> tuple[ConvArguments, bool]:
    """Check the arguments of `causal_conv1d`; return them in one form, and whether the result keeps its path axis."""
    if activation not in (None, "silu"):
        raise InputError(f"activation={activation!r} is unknown; use 'silu' or None.")
    if x.ndim != 3 or not x.is_floating_point():
        raise InputError(f"x is {x.dtype} of shape {tuple(x.shape)}; give floating-point (B, L, D).")
    multi = weight.ndim == 3
    if weight.ndim not in (2, 3):
        raise InputError(f"weight has shape {tuple(weight.shape)}; give (D, W), or (K, D, W) for K paths.")
    paths = weight.shape[0] if multi else 1
    ordered = (
        order.table.shape[0] if isinstance(order, ScanOrder) else 1 if order is None or order.ndim == 1 else len(order)
    )
    if not multi:
        # One kernel for all the paths of an order.
        paths, multi = ordered, ordered > 1
        weight = _for_paths(weight, paths)
        bias = _for_paths(bias, paths) if bias is not None and bias.ndim == 1 else bias
    _, length, width = x.shape
    if length == 0:
        raise InputError("The sequence is empty; give at least one position.")
    _expect(weight, "weight", (paths, width, weight.shape[-1]), x)
    _expect(bias, "bias", (paths, width), x)
    return ConvArguments(x, weight, bias, order_table(order, paths, length, x.device), activation == "silu"), multi
