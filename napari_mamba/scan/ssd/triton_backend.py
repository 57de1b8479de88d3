"""Mamba-2's scan on NVIDIA GPUs in Triton kernels: tensor cores, any scan order by indexed loads, and its gradients."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from napari_mamba.errors import NapariMambaError
from napari_mamba.scan.cuda.runtime import on_device
from napari_mamba.scan.ssd.plan import MOST_STATES, Plan, Tuning, tunings

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MIN_CAPABILITY = (8, 0)
MOST_SEQUENCES = 65535  # of the grid's third axis


@cache
def unavailable() -> str:
    """Say in a sentence why the Triton kernels cannot be used here; an empty text where they can."""
    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA device; install a CUDA build of PyTorch and NVIDIA's driver."
    if torch.version.hip:
        return "Mamba-2's kernels were made for NVIDIA GPUs, and this PyTorch is built for ROCm."
    if importlib.util.find_spec("triton") is None:
        return "The package triton is not installed; install it (for Windows it is called triton-windows)."
    capability = max(torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count()))
    if capability < MIN_CAPABILITY:
        return f"The GPU has compute capability {capability[0]}.{capability[1]}, and Mamba-2's kernels need 8.0."
    return ""


def refused(xBC: Tensor, d_state: int) -> str:
    """Say why the kernels do not take a scan; an empty text where they do."""
    if xBC.dtype not in DTYPES:
        return f"Mamba-2's kernels do not compute in {str(xBC.dtype).removeprefix('torch.')}."
    if xBC.shape[0] * xBC.shape[1] > MOST_SEQUENCES:
        return f"Mamba-2's kernels take up to {MOST_SEQUENCES} sequences at once."
    if d_state > MOST_STATES:
        return f"Mamba-2's kernels take up to {MOST_STATES} states, and this network has {d_state}."
    return ""


_CHOSEN: dict[tuple, Tuning] = {}


def _first_that_fits(kind: str, xBC: Tensor, plan: Plan, run: Callable[[Tuning], Any]) -> Any:
    """Run with the first tuning whose programs fit the GPU's shared memory, and remember it."""
    key = (kind, xBC.device, xBC.dtype, *plan.tile)
    if key in _CHOSEN:
        return run(_CHOSEN[key])
    from triton.runtime.errors import OutOfResources

    reason: Exception | None = None
    for tuning in tunings(plan, xBC.dtype):
        try:
            result = run(tuning)
        except OutOfResources as error:
            reason = error
            continue
        _CHOSEN[key] = tuning
        return result
    raise NapariMambaError(
        f"This GPU has too little shared memory for Mamba-2's kernels ({reason}); use backend='torch'."
    )


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, xBC, dt, A_log, D, table, d_state, groups):
        from napari_mamba.scan.ssd import launching

        args = launching.Arguments(xBC, dt, A_log, D, table)
        plan = launching.plan_of(args, d_state, groups)
        with on_device(xBC.device):
            y, starts = _first_that_fits("forward", xBC, plan, lambda tuning: launching.forward(args, plan, tuning))
        ctx.save_for_backward(xBC, dt, A_log, D, table, starts)
        ctx.plan = plan
        return y[:, 0] if plan.paths == 1 else y.sum(1).to(xBC.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy):
        from napari_mamba.scan.ssd import launching

        xBC, dt, A_log, D, table, starts = ctx.saved_tensors
        args, plan = launching.Arguments(xBC, dt, A_log, D, table), ctx.plan
        dy = _dense(dy)[:, None].expand(-1, plan.paths, -1, -1)
        with on_device(xBC.device):
            found = _first_that_fits(
                "backward", xBC, plan, lambda tuning: launching.backward(args, plan, tuning, starts, dy)
            )
        return found.xBC, found.dt, found.A_log.to(A_log.dtype), found.D.to(D.dtype), None, None, None


def _dense(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def scan(xBC: Tensor, dt: Tensor, A_log: Tensor, D: Tensor, d_state: int, groups: int, table: Tensor | None) -> Tensor:
    """Mamba-2's scan with its skip along K paths, summed.

    Parameters
    ----------
    xBC : (B, K, L, H · P + 2 · groups · d_state), rows in grid order
        x, B and C side by side; float32, float16 or bfloat16.
    dt : (B, K, L, H)
        Step sizes.
    A_log : (H,)
    D : (H,) or (H, P)
    d_state, groups : int
    table : (K, L) int64, or None for the raster

    Returns
    -------
    (B, L, H · P) in xBC's type

    Notes
    -----
    States and sums are float32; so are, in three products on tensor cores, the products of float32 inputs unless
    `torch.backends.cuda.matmul.allow_tf32`. Gradients reach every floating-point tensor.
    """
    width = (xBC.shape[-1] - 2 * groups * d_state) // dt.shape[-1]
    D = D[:, None].expand(-1, width) if D.ndim == 1 else D
    return _Scan.apply(_dense(xBC), _dense(dt.float()), A_log, D, table, d_state, groups)
