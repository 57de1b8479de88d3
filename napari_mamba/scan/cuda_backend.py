"""The scan on NVIDIA GPUs: our own kernels, compiled at first use; see `napari_mamba.scan.cuda`."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_mamba.errors import InputError
from napari_mamba.scan.arguments import ConvArguments, LowRank, ScanArguments, scan_arguments
from napari_mamba.scan.cuda import conv
from napari_mamba.scan.cuda.backward import selective_scan_backward
from napari_mamba.scan.cuda.forward import prepare, runs_sequentially, selective_scan_forward
from napari_mamba.scan.cuda.repeat import replay_scan
from napari_mamba.scan.cuda.repeat_gradients import replay_training
from napari_mamba.scan.cuda.runtime import on_device, unavailable

__all__ = ["causal_conv1d", "selective_scan", "selective_scan_cached", "selective_scan_sequential", "unavailable"]

# PyTorch's public function asks first whether CUDA was initialised, which a tensor on a device answers.
_current_device = getattr(torch._C, "_cuda_getDevice", torch.cuda.current_device)
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


def _arguments(tensors, softplus: bool, table: Tensor | None, merge: str) -> ScanArguments:
    named = dict(zip(NAMES, tensors, strict=True))
    return ScanArguments(**named, delta_softplus=softplus, table=table, merge=merge)


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, softplus, table, merge, *tensors):
        args = prepare(_arguments(tensors, softplus, table, merge))
        y, last, starts, chunk = selective_scan_forward(args, keep=True)
        ctx.save_for_backward(*tensors, starts, args.table)
        ctx.rest = (softplus, merge, chunk)
        ctx.mark_non_differentiable(last)
        ctx.set_materialize_grads(False)  # no zeros for the last state
        return y, last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output, _):
        *tensors, starts, table = ctx.saved_tensors
        softplus, merge, chunk = ctx.rest
        with on_device(grad_output.device):
            args = prepare(_arguments(tensors, softplus, table, merge))
            found: dict = selective_scan_backward(args, starts, chunk, grad_output)
        given = dict(zip(NAMES, tensors, strict=True))
        return (None, None, None, *(None if x is None else found[name].to(x.dtype) for name, x in given.items()))


def _need_cuda(x: Tensor, name: str) -> None:
    if x.device.type != "cuda":
        raise InputError(f"The CUDA backend computes on CUDA devices, and {name} is on {x.device}; use backend='auto'.")


def selective_scan(args: ScanArguments) -> tuple[Tensor, Tensor]:
    """Run the scan on the GPU with a float32 state; gradients reach every tensor, not through the last state."""
    _need_cuda(args.u, "u")
    tensors = (args.u, args.delta, args.A, args.B, args.C, args.D, args.z, args.delta_bias)
    with on_device(args.u.device):
        if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors):
            return _SelectiveScan.apply(args.delta_softplus, args.table, args.merge, *tensors)
        y, last, _, _ = selective_scan_forward(prepare(args))
    return y, last


def selective_scan_sequential(u: Tensor, delta: LowRank, *rest) -> Tensor | None:
    """Run the paths one after another, their step sizes made just before; None where paths run side by side.

    `rest` are A, B, C, D, z, delta_bias, delta_softplus, order and merge as the operator was given them.
    """
    tensors = (u, *delta, *rest[:6])
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors):
        return None
    if not u.is_cuda or any(x.dtype != u.dtype for x in delta):
        return None
    batch, paths, length, _ = delta.rows.shape
    width = delta.weight.shape[1]
    one = torch.empty(batch, length, width, dtype=u.dtype, device=u.device)
    args, _ = scan_arguments(u, one[:, None].expand(batch, paths, length, width), *rest)
    with on_device(u.device), torch.autocast("cuda", enabled=False):
        args = prepare(args)
        if not runs_sequentially(args):
            return None
        return selective_scan_forward(args, before=lambda k: delta.path(k, one)).y


def selective_scan_cached(
    tensors: tuple[Tensor | None, ...], softplus: bool, merge: str, overwrite: bool = False
) -> Tensor | None:
    """Run a scan in raster order the short way (see `cuda.repeat`); None where that is not one.

    `tensors` are u, delta, A, B, C, D, z and delta_bias as the operator was given them; `overwrite` lets delta's memory
    become the output's where no gradient is asked for.
    """
    u = tensors[0]
    if u is None or not u.is_cuda or u.get_device() != _current_device():
        return None
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors):
        return replay_training(tensors, softplus, merge)
    return replay_scan(tensors, softplus, merge, overwrite)


def causal_conv1d(args: ConvArguments) -> Tensor:
    """Run the convolution on the GPU along every path; returns (B, K, L, D)."""
    _need_cuda(args.x, "x")
    with on_device(args.x.device):
        return conv.causal_conv1d(args)
