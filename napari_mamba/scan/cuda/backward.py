"""The gradients of the selective scan on a GPU; the kernels are `kernels/scan_backward.cu`.

The sequence is cut into chunks, which run in parallel: two launches give the adjoint of the state at every chunk's end,
a third all gradients of every chunk, segment by segment, with the states recomputed from those that the forward pass
kept, and a fourth adds up what the chunks have of the gradients of A, D and the bias. No tensor of L·D·N elements
exists; beside the gradients there are at most 2·N/32 float32 for each position and channel, and 2·N float32 for each
position and the channels of a block.

Results are deterministic: no atomic addition, every sum has a fixed order.

Source: the recurrence is Mamba's (Gu and Dao, arXiv:2312.00752); its adjoint is a scan of the same form backwards in
time (Martin and Cundy, arXiv:1709.04057).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from napari_mamba.errors import InputError
from napari_mamba.scan.arguments import ScanArguments
from napari_mamba.scan.cuda.backward_layout import HEAD, TYPES, Layout, facts_of, layout_for
from napari_mamba.scan.cuda.runtime import Kernel

MAX_STATES = 64
MAX_SEQUENCES = 65535  # blocks along the last axis of a grid
BATCHED = ("u", "delta", "B", "C", "z")
NAMES = ("u", "delta", "B", "C", "z", "A", "D", "delta_bias", "table")  # as launch_backward reads them


def _rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor in a type, its last axis contiguous; the same one where it is so."""
    x = x.detach() if x.requires_grad else x
    x = x if x.dtype == dtype else x.to(dtype)
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _parameter(x: Tensor | None) -> Tensor | None:
    if x is None or (x.dtype == torch.float32 and x.is_contiguous() and not x.requires_grad):
        return x
    return x.detach().float().contiguous()


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


class Written(NamedTuple):
    """What a backward pass writes for its caller.

    u, delta and z: the gradients, contiguous (B, 1 or K, L, D), (B, K, L, D) and (B, L, D). BC: those of B and C,
    (2, B, K, L, G, N). totals: those of A, D and the bias, (K, N + 2, D) float32. Axes of one element may be left out.
    """

    u: Tensor
    delta: Tensor
    z: Tensor | None
    BC: Tensor
    totals: Tensor


def written_for(args: ScanArguments) -> Written:
    """Return the tensors that a backward pass fills, not yet filled."""
    (batch, paths, length, width), states = args.delta.shape, args.A.shape[-1]
    dtype, device = args.u.dtype, args.u.device
    return Written(
        torch.empty(batch, args.u.shape[1], length, width, dtype=dtype, device=device),
        torch.empty(batch, paths, length, width, dtype=dtype, device=device),
        None if args.z is None else torch.empty(batch, length, width, dtype=dtype, device=device),
        torch.empty(2, batch, paths, length, args.B.shape[3], states, dtype=dtype, device=device),
        torch.empty(paths, states + 2, width, dtype=torch.float32, device=device),
    )


def launch_backward(layout: Layout, read: Sequence[int], kept: int, grad: int, written: Written) -> None:
    """Launch a backward pass.

    Parameters
    ----------
    layout : Layout
    read : addresses of u, delta, B, C, z, A, D, delta_bias and the order's table, 0 for what is not there
    kept, grad : int
        Addresses of the states that the forward pass kept, and of the gradient of its output.
    written : Written
        Filled.
    """
    u, delta, B, C, z, A, D, bias, table = read
    device, parts = layout.facts.device, layout.scratch
    scratch = torch.empty(parts.floats, dtype=torch.float32, device=device)
    base = scratch.data_ptr()
    du, dz, both = written.u.data_ptr(), _address(written.z), written.BC.data_ptr()
    half = both + written.BC.numel() // 2 * written.BC.element_size()
    dB, dC, summed = both, half, 0
    if parts.dB is not None and parts.dC is not None:
        dB, dC, summed = base + parts.dB, base + parts.dC, both
    pointers = [
        *(u, delta, B, C, z, grad, A, D, bias, table, kept),
        kept if parts.starts is None else base + parts.starts,
        *(base + parts.adjoints, base + parts.sums, written.totals.data_ptr(), summed),
        *(du, written.delta.data_ptr(), dz),
        0 if not layout.share_u else du if parts.du_sum is None else base + parts.du_sum,
        0 if not layout.share_z else dz if parts.dz_sum is None else base + parts.dz_sum,
        *(dB, dC),
    ]
    vector = layout.vectorable and (u | delta | z | grad) % layout.vector_bytes == 0
    for launches, numbers in layout.rounds(vector):
        Kernel.together(launches, device.index or 0, HEAD, pointers, numbers)


def selective_scan_backward(
    args: ScanArguments, chunk_starts: Tensor, chunk_length: int, grad_output: Tensor
) -> dict[str, Tensor | None]:
    """Return the gradients of the selective scan.

    Parameters
    ----------
    args : ScanArguments
        As the forward pass had them; u in float32, float16 or bfloat16, at most 64 states. The device of the tensors
        must be the current one.
    chunk_starts : (B, K, chunks, N, D) float32
        The state before each chunk of `chunk_length` steps, which the forward pass kept.
    chunk_length : int
        Steps of a chunk; 32 saves a pass that makes shorter ones.
    grad_output : (B, L, D) for merge "sum", (B, K, L, D) for "none"
        Any floating type and strides.

    Returns
    -------
    dict
        "u", "delta", "A", "B", "C", "D", "z" and "delta_bias": each of the shape and type of its argument, None where
        that is None. The arithmetic is float32, and the same call gives the same bits.

    Raises
    ------
    InputError
        For a type or a number of states that the kernels do not have.

    Examples
    --------
    >>> gradients = selective_scan_backward(args, chunk_starts, 64, torch.ones_like(y))  # doctest: +SKIP
    >>> gradients["A"].shape == args.A.shape  # doctest: +SKIP
    True
    """
    if args.u.dtype not in TYPES:
        raise InputError(f"u has the type {args.u.dtype}; convert it to float32, float16 or bfloat16.")
    if args.A.shape[-1] > MAX_STATES:
        raise InputError(f"A has {args.A.shape[-1]} states; the CUDA scan takes {MAX_STATES}, use backend='torch'.")
    each = max(1, MAX_SEQUENCES // args.paths)
    if args.delta.shape[0] <= each:
        found = _gradients(args, chunk_starts, chunk_length, grad_output)
    else:
        found = _in_parts(args, chunk_starts, chunk_length, grad_output, each)
    arguments = {name: getattr(args, name) for name in found}
    return {
        name: None if gradient is None or arguments[name] is None else gradient.to(arguments[name].dtype)
        for name, gradient in found.items()
    }


def _gradients(args: ScanArguments, starts: Tensor, chunk: int, grad: Tensor) -> dict[str, Tensor | None]:
    dtype = args.u.dtype
    rows = {name: getattr(args, name) for name in BATCHED}
    batched: dict[str, Any] = {name: None if x is None else _rows(x, dtype) for name, x in rows.items()}
    parameters: dict[str, Any] = {name: _parameter(getattr(args, name)) for name in ("A", "D", "delta_bias")}
    table = None if args.table is None else args.table.to(torch.int32).contiguous()
    ready, grad, kept = replace(args, **batched, **parameters, table=table), _rows(grad, dtype), starts.contiguous()
    written, states = written_for(args), args.A.shape[-1]
    if args.delta.numel() > 0:
        read = [_address(getattr(ready, name)) for name in NAMES]
        layout = layout_for(facts_of(ready, chunk, grad))
        launch_backward(layout, read, kept.data_ptr(), grad.data_ptr(), written)
    else:
        written.totals.zero_()
    return {
        "u": written.u,
        "delta": written.delta,
        "A": written.totals[:, :states].transpose(1, 2),
        "B": written.BC[0],
        "C": written.BC[1],
        "D": written.totals[:, states],
        "z": written.z,
        "delta_bias": written.totals[:, states + 1],
    }


def _in_parts(args: ScanArguments, starts: Tensor, chunk: int, grad: Tensor, each: int) -> dict[str, Tensor | None]:
    """Take `each` elements of the batch at a time: a grid has no more blocks along its axis."""
    found = []
    for first in range(0, args.delta.shape[0], each):
        rows = slice(first, first + each)
        some = {n: x[rows] for n in BATCHED if (x := getattr(args, n)) is not None}
        found.append(_gradients(replace(args, **some), starts[rows], chunk, grad[rows]))
    out: dict[str, Tensor | None] = {}
    for name in found[0]:
        parts = [x for part in found if (x := part[name]) is not None]
        out[name] = None if not parts else torch.cat(parts) if name in BATCHED else torch.stack(parts).sum(0)
    return out
