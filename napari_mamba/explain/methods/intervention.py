"""Knockout: cut what one region's tokens pass on to another's inside the scans, and see how the answer changes.

Endy et al., Mamba Knockout (arXiv:2505.24244): entries of the implicit attention are set to zero. A scan is linear in
its values, so the entries from region A to region B are cut exactly by taking from B's rows what a scan of A alone
gives them; no matrix is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.explain.methods.attribution import first_output
from napari_mamba.scan import selective_scan
from napari_mamba.scan.arguments import ConvArguments, LinearArguments, ScanArguments
from napari_mamba.scan.listening import Call, listen

Region = Callable[[tuple[int, ...]], Tensor]
"""From a layer's grid to the flags (cells,) of the cells that belong to a region."""


@dataclass
class Knockout:
    """The network's answers before and after the cut, and how many cuts were made (scans that it reached)."""

    before: Tensor
    after: Tensor
    cuts: int


def knockout(
    network: nn.Module, inputs: Tensor, source: Region, target: Region, layers: Sequence[str] | None = None
) -> Knockout:
    """Run a network with the attention from `source` to `target` cut in some layers' scans, or in all of them.

    Convolutions around the scans still pass things on; over their few voxels the regions touch as before.

    Examples
    --------
    >>> cut = knockout(network, x, lambda grid: left(grid), lambda grid: right(grid))  # doctest: +SKIP
    """
    with torch.no_grad():
        before = first_output(network(inputs))
    after, cuts = cut(network, inputs, source, target, layers)
    return Knockout(before, after, cuts)


def cut(
    network: nn.Module, inputs: Tensor, source: Region, target: Region, layers: Sequence[str] | None = None
) -> tuple[Tensor, int]:
    """The network's answer with the cut made, and in how many scans it was."""
    cuts = 0

    def answer(call: Call) -> Tensor | None:
        nonlocal cuts
        if call.grid is None or (layers is not None and call.layer not in layers):
            return None
        args = call.arguments
        if isinstance(args, ConvArguments):
            return None
        a, b = (_flags(region(call.grid), call, args) for region in (source, target))
        if not bool(a.any()) or not bool(b.any()):
            return None
        cuts += 1
        if isinstance(args, ScanArguments):
            return _selective(args, call, a, b)
        whole = linear_scan(args, args.u)
        return whole - linear_scan(args, args.u * a[..., None]) * b[..., None]

    with torch.no_grad(), listen(network, answer, replaces=True):
        return first_output(network(inputs)), cuts


def _flags(cells: Tensor, call: Call, args: ScanArguments | LinearArguments) -> Tensor:
    """Flags of cells as flags of the tensors' rows, (B or 1, L)."""
    cells = cells.flatten().bool().cpu()
    rows = torch.arange(len(cells)) if call.cells is None else call.cells.cpu()
    flags = torch.where(rows >= 0, cells[rows.clamp(min=0)], False)
    return (flags if flags.ndim == 2 else flags[None]).to(args.u.device).to(args.u.dtype)


def _selective(args: ScanArguments, call: Call, a: Tensor, b: Tensor) -> Tensor:
    own = "auto" if call.backend == "ssd" else call.backend
    rest = (args.delta, args.A, args.B, args.C)
    more = {"order": args.table, "backend": own, "merge": args.merge}
    ones = (args.delta_bias, args.delta_softplus)
    whole = selective_scan(args.u, *rest, args.D, None, *ones, **more)  # type: ignore[arg-type]
    u = args.u * (a[:, None, :, None] if args.u.ndim == 4 else a[..., None])
    passed = selective_scan(u, *rest, None, None, *ones, **more)  # type: ignore[arg-type]
    assert isinstance(whole, Tensor) and isinstance(passed, Tensor)  # noqa: PT018
    y = whole - passed * (b[:, None, :, None] if args.merge == "none" else b[..., None])
    if args.z is None:
        return y
    gate = F.silu(args.z)
    return y * (gate if args.merge == "sum" else gate[:, None])


def linear_scan(args: LinearArguments, u: Tensor) -> Tensor:
    """A time-invariant state space along its paths, summed, without the skip: (B, L, D), by Fourier transforms."""
    length = u.shape[1]
    table = torch.arange(length, device=u.device)[None] if args.table is None else args.table
    steps = torch.arange(length, device=u.device)
    powers = torch.exp(args.log_decay[..., None] * steps)  # ([D,] N, L)
    total = torch.zeros_like(u)
    for index in table:
        x = u.index_select(1, index)
        if args.B is None:
            kernel = 2 * torch.einsum("dn,dnl->ld", args.C, powers).real
            spectrum = torch.fft.rfft(kernel, n=2 * length, dim=0)
            y = torch.fft.irfft(torch.fft.rfft(x, n=2 * length, dim=1) * spectrum, n=2 * length, dim=1)[:, :length]
        else:
            entering = x.to(args.B.dtype) @ args.B.T
            spectrum = torch.fft.fft(powers.T, n=2 * length, dim=0)
            states = torch.fft.ifft(torch.fft.fft(entering, n=2 * length, dim=1) * spectrum, dim=1)[:, :length]
            y = 2 * (states @ args.C.T).real
        total = total + torch.zeros_like(y).index_copy(1, index, y)
    return total
