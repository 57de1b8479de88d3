"""Attention that takes in more than the bare state space: convolution and gate, a class's gradient, all layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.explain.methods.attention import attention_matrix, linear_kernel
from napari_mamba.explain.methods.attribution import Pick, first_output
from napari_mamba.explain.methods.rules import held_scan
from napari_mamba.explain.recorded.recording import LayerScan, LinearPath, Path, SelectivePath, record
from napari_mamba.scan.arguments import ScanArguments
from napari_mamba.scan.listening import Call, listen

MOST_ROLLOUT = 1024
"""Tokens up to which layers are multiplied: their matrices are full."""


def channel_rows(path: Path, row: int) -> Tensor:
    """Row of α of every channel, (L, D), in the order of the path's steps up to the token's, zeros after it."""
    step = int(path.steps[row])
    if isinstance(path, LinearPath):
        kernel = linear_kernel(path, step + 1).T
        return torch.cat([kernel.flip(0), kernel.new_zeros(path.length - step - 1, path.width)])
    assert isinstance(path, SelectivePath)
    delta, B, C = (path.along(x) for x in (path.delta, path.B, path.C))
    wide = torch.float32 if delta.device.type == "mps" else torch.float64
    sums = delta.to(wide).cumsum(0)
    repeat = path.width // B.shape[1]
    out = delta.new_zeros(path.length, path.width)
    for part in torch.arange(step + 1, device=delta.device).split(max(1, 2**22 // (path.width * path.states))):
        decay = torch.exp((sums[step] - sums[part])[..., None].to(delta.dtype) * path.A.to(delta.dtype))
        pairs = (C[step] * B[part]).repeat_interleave(repeat, dim=1)
        out[part] = (decay * pairs).sum(-1) * delta[part]
    return out


def unified_row(scan: LayerScan, path: Path, row: int, batch: int = 0) -> Tensor:
    """A row of the unified implicit attention, (L, D), in the order of the tensors' rows.

    Zimerman, Ali and Wolf (arXiv:2405.16504): the mixer as one linear map of its projected input x, y_i = Σ_j Â_ij x_j
    with Â = diag(SiLU(z)) (α + diag(D)) diag(σ(c)) M, where M is the causal convolution, c what it answers (with its
    bias, which adds apart), and σ the sigmoid, as SiLU(c) = c σ(c). What stands outside of the layer's operators
    (SS2D's map convolution and gate, norms) is left out; the norm before the mixer scales each token's column by one
    number, see `norm_columns`.
    """
    alpha = channel_rows(path, row)
    step = int(path.steps[row])
    if path.skip is not None:
        alpha[step] += path.skip.to(alpha)
    if scan.gate is not None:
        alpha = alpha * F.silu(scan.gate[batch, row]).to(alpha)
    conv = scan.convolution
    if conv is not None and conv.x.shape[-1] == path.width:
        k = path.direction if len(conv.weight) > 1 else 0
        weight = conv.weight[k].detach().to(alpha)  # (D, W)
        taps = weight.shape[1]
        x = conv.x[batch].detach().to(alpha).index_select(0, path.table)
        if conv.silu:
            padded = F.pad(x.T[None], (taps - 1, 0))
            bias = None if conv.bias is None else conv.bias[k].detach().to(alpha)
            alpha = alpha * torch.sigmoid(F.conv1d(padded, weight[:, None], bias, groups=path.width)[0].T)
        spread = torch.zeros_like(alpha)
        for tap in range(min(taps, path.length)):  # what step t drew, its convolution drew from t - tap
            spread[: path.length - tap] += alpha[tap:] * weight[:, taps - 1 - tap]
        alpha = spread
    return torch.zeros_like(alpha).index_copy_(0, path.table, alpha)


def norm_columns(tokens: Tensor, eps: float = 1e-5, centred: bool = False) -> Tensor:
    """What a norm before the mixer multiplies each token's column of Â with, (L,): one over its deviation."""
    x = tokens - tokens.mean(-1, keepdim=True) if centred else tokens
    return torch.rsqrt(x.square().mean(-1) + eps)


def unified_map(scan: LayerScan, cell: int, direction: int | None = None) -> np.ndarray:
    """The unified attention of a cell as a map on the layer's grid: the mean over channels of its absolute value."""
    found = scan.find(cell, direction)
    if not found:
        raise InputError(f"{scan.label} has no token at cell {cell}: its grid is {scan.grid}")
    rows = []
    for path, row in found:
        batch = scan.along(path.direction).index(path)
        rows.append(unified_row(scan, path, row, batch).abs().mean(1))
    return scan.map(rows, [path for path, _ in found])


# ---- a class's gradient


def gradient_weighted(network: nn.Module, inputs: Tensor, pick: Pick, layer: str, positive: bool = True) -> np.ndarray:
    """Which tokens of a layer a class's answer draws on through its scan: Σ_i g_i α_ij u_j, g the answer's gradient.

    The idea of Ali et al.'s Mamba attribution (arXiv:2403.01590), for the whole layer instead of one class token's row:
    the gradient at the scan's output is sent back through α with step sizes, B and C held constant, and multiplied
    with the values. One backward pass, linear in the tokens.

    Returns
    -------
    ndarray, shape of the layer's grid
    """
    held: list[tuple[Call, Tensor]] = []

    def answer(call: Call) -> Tensor | None:
        args = call.arguments
        if call.layer != layer or not isinstance(args, ScanArguments):
            return None
        u = args.u.detach().clone().requires_grad_(True)
        held.append((call, u))
        y = held_scan(args, u, None, call.backend)
        if args.D is not None:  # the skip is no attention: it is added apart
            skip = args.D[:, None] * args.u.detach()
            y = y + (skip.expand(-1, args.paths, -1, -1) if args.merge == "none" else _summed(skip, args))
        return y if args.z is None else y * F.silu(args.z)

    with torch.enable_grad(), listen(network, answer, replaces=True):
        value = pick(first_output(network(inputs.detach())))
    if not held:
        raise InputError(f"{layer} has no selective scan whose gradient could be weighed: choose another layer")
    gradients = torch.autograd.grad(value, [u for _, u in held], allow_unused=True)
    total: np.ndarray | None = None
    for (call, u), g in zip(held, gradients, strict=True):
        if g is None or call.grid is None:
            continue
        per_token = (u.detach() * g).sum(-1).sum(1)  # over channels and paths: (B, L)
        one = _mapped(per_token, call)
        total = one if total is None else total + one
    if total is None:
        raise InputError(f"the answer does not depend on {layer}: choose another class or layer")
    return np.maximum(total, 0) if positive else total


def _summed(skip: Tensor, args: ScanArguments) -> Tensor:
    whole = skip if skip.shape[1] == args.paths else skip.expand(-1, args.paths, -1, -1)
    return whole.sum(1)


def _mapped(values: Tensor, call: Call) -> np.ndarray:
    assert call.grid is not None
    flat = np.zeros(int(np.prod(call.grid)), np.float32)
    rows = values.cpu().float().numpy()
    cells = np.arange(rows.shape[1]) if call.cells is None else call.cells.cpu().numpy()
    for b, row in enumerate(rows):
        mine = cells if cells.ndim == 1 else cells[b]
        np.add.at(flat, mine[mine >= 0], row[mine >= 0])
    return flat.reshape(call.grid)


# ---- all layers


def rollout(network: nn.Module, inputs: Tensor, cell: int, layers: Sequence[str] | None = None) -> np.ndarray:
    """Attention rollout (Abnar and Zuidema, arXiv:2005.00928) of a cell over layers whose tokens share one grid.

    Each layer's mean |α| over channels and directions, half of it the residual, its rows summing to one; multiplied
    from the first layer to the last. (The published code for Mamba takes the class token's row for every row.)

    Returns
    -------
    ndarray, shape of the layers' grid

    Raises
    ------
    InputError
        For more than `MOST_ROLLOUT` tokens, and for layers on different grids.
    """
    scans = record(network, inputs, layers)
    grid = scans[-1].need_grid()
    scans = [scan for scan in scans if scan.grid == grid] if layers is None else scans
    if any(scan.grid != grid for scan in scans):
        raise InputError(
            "these layers' tokens lie on different grids, which cannot be multiplied: choose layers of one"
        )
    total: Tensor | None = None
    for scan in scans:
        one = layer_matrix(scan)
        one = one / one.sum(1, keepdim=True).clamp(min=1e-12)
        one = (one + torch.eye(len(one))) / 2
        total = one if total is None else one @ total
    assert total is not None
    row = total[_row_of(scans[-1], cell)].numpy()
    return scans[-1].map([row], [scans[-1].paths[0]])


def layer_matrix(scan: LayerScan) -> Tensor:
    """Mean |α| over the channels, summed over the directions, (L, L)."""
    if scan.paths[0].length > MOST_ROLLOUT or len(scan.along(0)) > 1:
        raise InputError(
            f"{scan.label} has {scan.paths[0].length} tokens in {len(scan.along(0))} sequences, and rollout multiplies "
            f"full matrices of at most {MOST_ROLLOUT}: choose deeper layers, or look at one token's attention"
        )
    return torch.stack([attention_matrix(path, absolute=True).float().cpu() for path in scan.paths]).sum(0)


def _row_of(scan: LayerScan, cell: int) -> int:
    rows = torch.nonzero(scan.paths[0].cells == cell).flatten()
    if not len(rows):
        raise InputError(f"{scan.label} has no token at cell {cell}: its grid is {scan.grid}")
    return int(rows[0])
