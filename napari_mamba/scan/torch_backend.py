"""The scan in plain PyTorch: any device, differentiable, memory bounded by a block of the sequence.

The sequence is cut into blocks. Within a block the recurrence h[t] = a[t] h[t-1] + b[t] is a scan over an associative
operator, done by recursive doubling (Hillis and Steele, 1986) in log2(block) passes; between blocks the last state is
carried. Under autograd each block is recomputed in the backward pass, so that only the states between blocks are kept.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from napari_mamba.scan.arguments import ConvArguments, ScanArguments

# Elements (B·D·N·block) of one state tensor: 8 MiB in float32, about ten such tensors live at once.
BLOCK_ELEMENTS = 2**21
LONGEST_BLOCK = 1024


def _state_type(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _shift_in(x: Tensor, by: int) -> Tensor:
    return F.pad(x[:, :-by], (0, 0, 0, 0, by, 0))


def _block(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """Scan one block: u, delta (B, T, D), A (D, N), B, C (B, T, G, N), h (B, D, N); returns y (B, T, D) and h."""
    length, width, groups = u.shape[1], u.shape[2], B.shape[2]
    a = torch.exp(delta[..., None] * A)
    b = (delta * u).unflatten(2, (groups, width // groups))[..., None] * B[:, :, :, None]
    b = b.flatten(2, 3)
    b = torch.cat([b[:, :1] + a[:, :1] * h[:, None], b[:, 1:]], dim=1)
    by = 1
    while by < length:
        b = b + a * _shift_in(b, by)
        by *= 2
        if by < length:
            half = by // 2
            a = a * torch.cat([torch.ones_like(a[:, :half]), a[:, :-half]], dim=1)
    y = (b.unflatten(2, (groups, width // groups)) * C[:, :, :, None]).sum(-1).flatten(2)
    return y, b[:, -1]


def _path(args: ScanArguments, k: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    rows = slice(None) if args.table is None else args.table[k]
    u = args.u[:, k if args.u.shape[1] > 1 else 0, rows].to(dtype)
    delta = args.delta[:, k, rows].to(dtype)
    B, C, A = args.B[:, k, rows].to(dtype), args.C[:, k, rows].to(dtype), args.A[k].to(dtype)
    if args.delta_bias is not None:
        delta = delta + args.delta_bias[k].to(dtype)
    if args.delta_softplus:
        delta = F.softplus(delta)
    batch, length, width = u.shape
    h = u.new_zeros(batch, width, A.shape[1])
    size = max(1, min(LONGEST_BLOCK, BLOCK_ELEMENTS // h.numel()))
    recompute = torch.is_grad_enabled() and any(x.requires_grad for x in (u, delta, A, B, C))
    outputs = []
    for start in range(0, length, size):
        part = slice(start, start + size)
        inputs = (u[:, part], delta[:, part], A, B[:, part], C[:, part], h)
        if recompute:
            y, h = checkpoint(_block, *inputs, use_reentrant=False, preserve_rng_state=False)
        else:
            y, h = _block(*inputs)
        outputs.append(y)
    y = torch.cat(outputs, dim=1)
    if args.D is not None:
        y = y + args.D[k].to(dtype) * u
    if args.table is not None:
        y = torch.zeros_like(y).index_copy(1, rows, y)  # type: ignore[arg-type]  # with a table, rows is its tensor
    return y, h


def selective_scan(args: ScanArguments) -> tuple[Tensor, Tensor]:
    """Run the scan with a float32 state (float64 for float64 inputs)."""
    dtype = _state_type(args.u.dtype)
    total, outputs, states = None, [], []
    for k in range(args.paths):
        y, h = _path(args, k, dtype)
        states.append(h)
        if args.merge == "sum":
            total = y if total is None else total + y
        else:
            outputs.append(y)
    merged = total if total is not None else torch.stack(outputs, dim=1)
    if args.z is not None:
        gate = F.silu(args.z.to(dtype))
        merged = merged * (gate if args.merge == "sum" else gate[:, None])
    return merged.to(args.u.dtype), torch.stack(states, dim=1)


def causal_conv1d(args: ConvArguments) -> Tensor:
    """Convolve along every path with PyTorch's depth-wise convolution; returns (B, K, L, D)."""
    taps, width = args.weight.shape[-1], args.x.shape[2]
    dtype = _state_type(args.x.dtype)
    outputs = []
    for k in range(args.weight.shape[0]):
        x = (args.x if args.table is None else args.x[:, args.table[k]]).to(dtype)
        bias = None if args.bias is None else args.bias[k].to(dtype)
        padded = F.pad(x.transpose(1, 2), (taps - 1, 0))
        y = F.conv1d(padded, args.weight[k].to(dtype)[:, None], bias, groups=width).transpose(1, 2)
        outputs.append(y if args.table is None else torch.zeros_like(y).index_copy(1, args.table[k], y))
    y = torch.stack(outputs, dim=1) if len(outputs) > 1 else outputs[0][:, None]
    return (F.silu(y) if args.silu else y).to(args.x.dtype)
