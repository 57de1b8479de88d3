"""The oracle: the recurrence as it is written in the paper, in float64, one step at a time.

Source: Mamba (arXiv:2312.00752), equation 2 with the discretisation of section 3 (zero-order hold for A, Euler for B).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_mamba.scan.arguments import ConvArguments, ScanArguments


def selective_scan(args: ScanArguments) -> tuple[Tensor, Tensor]:
    """Run the scan in float64; slow, differentiable, memory proportional to B·L·D·N where gradients are needed."""
    outputs, states = zip(*(_path(args, k) for k in range(args.paths)), strict=True)
    y = torch.stack(outputs, dim=1)
    if args.merge == "sum":
        y = y.sum(dim=1)
    if args.z is not None:
        gate = F.silu(args.z.double())
        y = y * (gate if args.merge == "sum" else gate[:, None])
    return y.to(args.u.dtype), torch.stack(states, dim=1)


def _path(args: ScanArguments, k: int) -> tuple[Tensor, Tensor]:
    u = args.u[:, k if args.u.shape[1] > 1 else 0].double()
    delta = args.delta[:, k].double()
    if args.delta_bias is not None:
        delta = delta + args.delta_bias[k].double()
    if args.delta_softplus:
        delta = F.softplus(delta)
    A = args.A[k].double()
    batch, length, width = u.shape
    repeat = width // args.B.shape[3]
    h = u.new_zeros(batch, width, A.shape[1])
    rows: list[Tensor] = [u] * length
    for t in range(length):
        row = t if args.table is None else int(args.table[k, t])
        B = args.B[:, k, row].double().repeat_interleave(repeat, dim=1)
        C = args.C[:, k, row].double().repeat_interleave(repeat, dim=1)
        step = delta[:, row, :, None]
        h = torch.exp(step * A) * h + step * B * u[:, row, :, None]
        rows[row] = (h * C).sum(-1)
    y = torch.stack(rows, dim=1)
    if args.D is not None:
        y = y + args.D[k].double() * u
    return y, h


def causal_conv1d(args: ConvArguments) -> Tensor:
    """Convolve in float64, one tap at a time, along every path; returns (B, K, L, D) in x's type."""
    x = args.x.double()
    length, taps = x.shape[1], args.weight.shape[-1]
    outputs = []
    for k in range(args.weight.shape[0]):
        index = torch.arange(length, device=x.device) if args.table is None else args.table[k]
        path = x[:, index]
        y = torch.zeros_like(path) if args.bias is None else args.bias[k].double().expand_as(path)
        for tap in range(min(taps, length)):  # the value `tap` steps back
            shifted = F.pad(path[:, : length - tap], (0, 0, tap, 0))
            y = y + shifted * args.weight[k, :, taps - 1 - tap].double()
        outputs.append(torch.zeros_like(y).index_copy(1, index, y))
    y = torch.stack(outputs, dim=1)
    return (F.silu(y) if args.silu else y).to(args.x.dtype)
