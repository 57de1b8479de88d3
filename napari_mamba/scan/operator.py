"""The two operators every Mamba layer is made of, channels-last, along any scan order, on any backend."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from napari_mamba.scan import listening
from napari_mamba.scan.arguments import LowRank, conv_arguments, scan_arguments
from napari_mamba.scan.orders import ScanOrder
from napari_mamba.scan.registry import choose_backend, get_backend


def _without_autocast(kind: str) -> AbstractContextManager:
    # Entering autocast takes longer than the scan of a short sequence, so only where it is on.
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def selective_scan(
    u: Tensor,
    delta: Tensor | LowRank,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    order: ScanOrder | Tensor | None = None,
    *,
    backend: str = "auto",
    merge: str = "sum",
    return_last_state: bool = False,
    overwrite_delta: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Run the selective state-space recurrence of Mamba (S6) along one or K paths.

    h[t] = exp(delta[t] A) h[t-1] + delta[t] B[t] u[t];  y[t] = C[t]·h[t] + D u[t];  output = Σ_paths y · silu(z).

    Rows of every tensor are in grid order. Step t of path k reads and writes row `order.table[k, t]`; nothing is
    permuted. A (K, ...) A says that there are K paths; without an order each of them is the raster.

    Parameters
    ----------
    u : (B, L, D) floating point, or (B, K, L, D)
    delta : (B, L, D), or (B, K, L, D), or LowRank
        Step sizes, before `delta_bias` and softplus. As a `LowRank` of K paths, "cuda" makes those of one path at a
        time where that saves memory and no gradient is asked for.
    A : (D, N), or (K, D, N)
        Real, normally negative.
    B, C : (B, L, N) or (B, L, G, N), or (B, K, L, N) or (B, K, L, G, N)
        G groups of channels, dividing D, share them.
    D, delta_bias : (D,), or (K, D); optional
    z : (B, L, D), optional
        Gates the output after the paths are merged (with merge="none": each path).
    delta_softplus : bool
    order : ScanOrder, or int64 tensor (K, L), optional
        None is the raster.
    backend : {"auto", "reference", "torch", "cpu", "cuda", "mamba_ssm"}
    merge : {"sum", "none"}
    return_last_state : bool
        Also return the state after the last step, (B, D, N) or (B, K, D, N), float32 or float64.
    overwrite_delta : bool
        `delta` is not needed afterwards: its memory may become the output's. A backend need not make use of that;
        "cuda" does for long sequences in raster order that need no gradient.

    Returns
    -------
    (B, L, D) in u's type; (B, K, L, D) for K paths and merge="none".

    Raises
    ------
    InputError
        For shapes, orders or backends that do not fit; the message says which.

    Notes
    -----
    The state is float32 whatever the type of the inputs (float64 for float64), also under autocast. Gradients reach
    every tensor, not through the last state of the "cpu", "cuda" and "mamba_ssm" backends.

    Source: Gu and Dao, Mamba (arXiv:2312.00752); Liu et al., VMamba (arXiv:2401.10166) for several paths.

    Examples
    --------
    >>> u = torch.randn(1, 6, 8)
    >>> y = selective_scan(u, torch.rand(1, 6, 8), -torch.rand(8, 16), torch.randn(1, 6, 16), torch.randn(1, 6, 16))
    >>> y.shape
    torch.Size([1, 6, 8])
    """
    backend = choose_backend(u) if backend == "auto" else backend
    module = get_backend(backend)
    if listening.ACTIVE:
        told = listening.tell_scan(backend, order, (u, delta, A, B, C, D, z, delta_bias, delta_softplus), merge)
        if told is not None:
            return told
        overwrite_delta = False  # a listener may have kept it
    if isinstance(delta, LowRank):
        if not return_last_state and hasattr(module, "selective_scan_sequential"):
            rest = (A, B, C, D, z, delta_bias, delta_softplus, order, merge)
            y = module.selective_scan_sequential(u, delta, *rest)
            if y is not None:
                return y
        delta = delta.whole()
    if order is None and not return_last_state and hasattr(module, "selective_scan_cached"):
        tensors = (u, delta, A, B, C, D, z, delta_bias)
        again = module.selective_scan_cached(tensors, delta_softplus, merge, overwrite_delta)
        if again is not None:
            return again
    args, multi = scan_arguments(u, delta, A, B, C, D, z, delta_bias, delta_softplus, order, merge)
    with _without_autocast(u.device.type):
        y, state = module.selective_scan(args)
    if not multi and merge == "none":
        y = y.squeeze(1)  # taking the first path would fill its gradient with zeros and copy it
    if not return_last_state:
        return y
    return y, state if multi else state.squeeze(1)


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    order: ScanOrder | Tensor | None = None,
    *,
    activation: str | None = "silu",
    backend: str = "auto",
) -> Tensor:
    """Convolve each channel along the path with its own causal kernel, then SiLU.

    y[t] = act(bias + Σ_w weight[w] x[t - (W - 1) + w]), where t counts steps of the path and x is 0 before it starts.

    Parameters
    ----------
    x : (B, L, D) floating point, rows in grid order
    weight : (D, W), or (K, D, W) for a kernel of its own for each path
    bias : (D,), or (K, D); optional
    order : ScanOrder, or int64 tensor (K, L), optional
    activation : {"silu", None}
    backend : as for `selective_scan`

    Returns
    -------
    (B, L, D) in x's type, rows in grid order; (B, K, L, D) where the order has several paths or weight a path axis.

    Raises
    ------
    InputError
        For shapes, orders or backends that do not fit.

    Examples
    --------
    >>> causal_conv1d(torch.randn(1, 6, 8), torch.randn(8, 4)).shape
    torch.Size([1, 6, 8])
    """
    args, multi = conv_arguments(x, weight, bias, order, activation)
    backend = choose_backend(x) if backend == "auto" else backend
    module = get_backend(backend)
    if listening.ACTIVE:
        told = listening.tell("convolution", args, order, backend)
        if told is not None:
            return told if multi else told.squeeze(1)
    with _without_autocast(x.device.type):
        y = module.causal_conv1d(args)
    return y if multi else y.squeeze(1)


def warm_up(training: bool = False) -> float:
    """Compile the CPU kernels, or load them from the cache, so that the first real call does not; returns the seconds.

    The kernels are compiled once for all shapes, types and layouts. Call it from a worker thread: it does not need the
    GUI thread, but while it compiles it holds the GIL for stretches. `training=True` compiles the backward too.

    Examples
    --------
    >>> warm_up() >= 0
    True
    """
    start = time.perf_counter()
    with torch.inference_mode(False), torch.set_grad_enabled(training):
        u = torch.zeros(1, 2, 1, requires_grad=training)
        rows, A = torch.zeros(1, 2, 1), torch.zeros(1, 1)
        y = selective_scan(causal_conv1d(u, torch.zeros(1, 2), backend="cpu"), rows, A, rows, rows, backend="cpu")
        if training:
            torch.as_tensor(y).sum().backward()
    return time.perf_counter() - start
