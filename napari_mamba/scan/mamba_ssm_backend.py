"""The field's own CUDA kernels, where the user has them: the `mamba-ssm` package, and `causal-conv1d` beside it.

They take channels-first tensors and no order, so here paths are gathered and scattered: this backend is for comparison
and for those who want it. Source: github.com/state-spaces/mamba, github.com/Dao-AILab/causal-conv1d.
"""

from __future__ import annotations

import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_mamba.errors import InputError
from napari_mamba.scan import torch_backend
from napari_mamba.scan.arguments import ConvArguments, ScanArguments


def unavailable() -> str:
    """Say why the package's kernels cannot be used here; an empty text where they can."""
    if importlib.util.find_spec("mamba_ssm") is None:
        return "The package mamba-ssm is not installed; install napari-mamba[mamba-ssm], or use backend='auto'."
    if importlib.util.find_spec("selective_scan_cuda") is None:
        return (
            "The installed mamba-ssm was built without its selective_scan_cuda kernel; build it with "
            "MAMBA_FORCE_BUILD=TRUE, or use backend='auto'."
        )
    return ""


def _need_cuda(x: Tensor) -> None:
    if x.device.type != "cuda":
        raise InputError(f"mamba-ssm computes on CUDA devices only, and u is on {x.device}; use backend='auto'.")


def _take(x: Tensor, index: Tensor | None) -> Tensor:
    """Return rows (B, L, …) in path order, the length last."""
    return (x if index is None else x.index_select(1, index)).movedim(1, -1).contiguous()


def _give(y: Tensor, index: Tensor | None) -> Tensor:
    """Return (B, D, L) in path order as rows (B, L, D) in grid order."""
    y = y.transpose(1, 2)
    return y if index is None else torch.zeros_like(y).index_copy(1, index, y)


def selective_scan(args: ScanArguments) -> tuple[Tensor, Tensor]:
    """Run mamba-ssm's kernel once for each path; the state is float32."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    _need_cuda(args.u)
    # With one path the kernel gates by itself; of several, the merged output is gated.
    fused = args.z if args.paths == 1 else None
    outputs, states = [], []
    for k in range(args.paths):
        index = None if args.table is None else args.table[k]
        out, state = selective_scan_fn(
            _take(args.u[:, k if args.u.shape[1] > 1 else 0], index),
            _take(args.delta[:, k], index).to(args.u.dtype),
            args.A[k].float().contiguous(),
            _take(args.B[:, k], index).to(args.u.dtype),
            _take(args.C[:, k], index).to(args.u.dtype),
            None if args.D is None else args.D[k].float().contiguous(),
            z=None if fused is None else _take(fused, index).to(args.u.dtype),
            delta_bias=None if args.delta_bias is None else args.delta_bias[k].float().contiguous(),
            delta_softplus=args.delta_softplus,
            return_last_state=True,
        )
        outputs.append(_give(out, index))
        states.append(state)
    y = torch.stack(outputs, dim=1)
    if args.merge == "sum":
        y = y.sum(dim=1)
    if args.z is not None and fused is None:
        gate = F.silu(args.z.float())
        y = y * (gate if args.merge == "sum" else gate[:, None])
    return y.to(args.u.dtype), torch.stack(states, dim=1)


def causal_conv1d(args: ConvArguments) -> Tensor:
    """Run causal-conv1d's kernel where it is installed and takes this width, and PyTorch's convolution otherwise."""
    taps = args.weight.shape[-1]
    if importlib.util.find_spec("causal_conv1d") is None or not 2 <= taps <= 4:
        return torch_backend.causal_conv1d(args)
    from causal_conv1d import causal_conv1d_fn

    _need_cuda(args.x)
    outputs = []
    for k in range(args.weight.shape[0]):
        index = None if args.table is None else args.table[k]
        bias = None if args.bias is None else args.bias[k].to(args.x.dtype).contiguous()
        weight = args.weight[k].to(args.x.dtype).contiguous()
        y = causal_conv1d_fn(_take(args.x, index), weight, bias, activation="silu" if args.silu else None)
        outputs.append(_give(y, index))
    return torch.stack(outputs, dim=1)
