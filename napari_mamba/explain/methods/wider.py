"""Attention that takes in more than the bare state space: convolution, gate and norm; a class's gradient."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.explain.methods.attention import linear_kernel
from napari_mamba.explain.methods.attribution import Pick, first_output
from napari_mamba.explain.methods.rules import held_scan
from napari_mamba.explain.recorded.recording import LayerScan, LinearPath, Path, SelectivePath
from napari_mamba.scan.arguments import ScanArguments
from napari_mamba.scan.listening import Call, listen


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
    (SS2D's map convolution and gate) is left out; the norm before the mixer scales each token's column by one number,
    see `norm_before`.
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


def norm_before(network: nn.Module, inputs: Tensor, scan: LayerScan) -> Tensor | None:
    """What the norm in front of a layer multiplies each token with, (B, L): one over its deviation.

    A norm over channels (LayerNorm, RMSNorm) is, at this input, a diagonal map of the tokens and belongs to the unified
    attention as such (arXiv:2405.16504). It is found by its output, which is the layer's input. None where there is
    none, where it normalises over the image (instance norm: the same for all tokens), or where the layer is not given
    its output in the order of its tokens.
    """
    known: dict[int, tuple[Tensor, bool]] = {}
    found: list[Tensor | None] = []

    def keep(module: nn.Module, given: tuple, output: object) -> None:
        if given and isinstance(given[0], Tensor) and isinstance(output, Tensor) and given[0].shape == output.shape:
            known[output.untyped_storage().data_ptr()] = (given[0].detach(), isinstance(module, nn.LayerNorm))

    def enter(module: nn.Module, given: tuple) -> None:
        x = given[0] if given and isinstance(given[0], Tensor) else None
        pair = None if x is None else known.get(x.untyped_storage().data_ptr())
        found.append(None if pair is None else _deviation(*pair, scan.paths[0].length))
        raise _Reached

    norms = [m for m in network.modules() if isinstance(m, nn.LayerNorm) or "RMSNorm" in type(m).__name__]
    handles = [m.register_forward_hook(keep) for m in norms]
    handles.append(network.get_submodule(scan.name).register_forward_pre_hook(enter))
    try:
        with torch.no_grad(), suppress(_Reached):
            network(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


class _Reached(Exception):
    pass


def _deviation(before: Tensor, centred: bool, length: int) -> Tensor | None:
    """1 / deviation of each token (B, ..., C) as (B, L); None where these are no sequences of that length."""
    x = before.reshape(-1, before.shape[-1]).float()
    if before.ndim < 3 or len(x) % length:
        return None
    x = x - x.mean(1, keepdim=True) if centred else x
    return torch.rsqrt(x.square().mean(1) + 1e-5).view(-1, length)


def unified_map(scan: LayerScan, cell: int, direction: int | None = None, scale: Tensor | None = None) -> np.ndarray:
    """The unified attention of a cell as a map on the layer's grid: the mean over channels of its absolute value.

    `scale` (B, L), of each token's column, is that of the norm before the layer; see `norm_before`.
    """
    found = scan.find(cell, direction)
    if not found:
        raise InputError(f"{scan.label} has no token at cell {cell}: its grid is {scan.grid}")
    rows = []
    for path, row in found:
        batch = scan.along(path.direction).index(path)
        one = unified_row(scan, path, row, batch).abs().mean(1)
        rows.append(one if scale is None else one * scale[batch].to(one))
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
