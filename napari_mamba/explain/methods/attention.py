"""Implicit attention: what a token drew from each other one, and what drew from it, read off the recurrence.

Unrolled, a state space is y_i = Σ_{j ≤ i} α_ij u_j with α_ij = C_i exp(A Σ_{j < k ≤ i} Δ_k) Δ_j B_j for S6 and Mamba-2
(Ali, Zimerman and Wolf, The Hidden Attention of Mamba Models, arXiv:2403.01590) and the kernel at lag i - j for S4D and
S5. One row and one column of α take one pass over the tokens. The exponents are differences of sums of the step sizes:
the published codes multiply or divide exponentials, which run out of float32 after some hundred tokens and are clamped
there (up to half of an attention map's mass at 1024 tokens).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from napari_mamba.errors import InputError
from napari_mamba.explain.recorded.recording import LayerScan, LinearPath, Path, SelectivePath
from napari_mamba.scan.cpu.threads import run_tasks, worker_count

MOST_MATRIX = 4096
"""Tokens up to which a full matrix is made: 64 MB of float32."""
CHUNK_ELEMENTS = 2**22


@dataclass
class Attention:
    """One token's attention along one path; rows are in the tensors' order, (L,), float32.

    `drawn` is row i of α: what the token drew from each one before it on the path; `given` is its column: how each
    later one drew from it. Both are means over the channels; `drawn_absolute` and `given_absolute` of their absolute
    values; `contribution` is the mean of α_ij u_j, what each token's value added.
    """

    drawn: Tensor
    drawn_absolute: Tensor
    given: Tensor
    given_absolute: Tensor
    contribution: Tensor


def attention_of(path: Path, row: int, weight: Tensor | None = None) -> Attention:
    """The attention of the token in one row, in one pass over the path's tokens.

    Parameters
    ----------
    path : SelectivePath or LinearPath
    row : int
        Of the tensors, not of the path.
    weight : (D,), optional
        Of each channel in the sums; a D-th each if not given.

    Examples
    --------
    >>> from napari_mamba.nn import Mamba
    >>> from napari_mamba.explain.recorded.recording import record
    >>> path = record(Mamba(8), torch.randn(1, 10, 8))[0].paths[0]
    >>> attention_of(path, 9).drawn.shape
    torch.Size([10])
    """
    if not 0 <= row < path.length:
        raise InputError(f"there is no token {row}: the path has {path.length}")
    step = int(path.steps[row])
    weight = torch.full((path.width,), 1 / path.width) if weight is None else weight
    if isinstance(path, LinearPath):
        before, after = _linear(path, step, weight)
    else:
        assert isinstance(path, SelectivePath)
        kernel = path.u.device.type == "cpu" and path.delta.dtype == torch.float32
        one_way = _selective_kernel if kernel else _selective_torch
        before, after = one_way(path, step, weight, -1), one_way(path, step, weight, 1)
    rows = [torch.zeros_like(before[:, 0]).index_copy_(0, path.table, x) for x in (*before.T, *after.T[:2])]
    return Attention(rows[0], rows[1], rows[3], rows[4], rows[2])


def attention_matrix(path: Path, absolute: bool = False, channels: slice | None = None, mean: bool = True) -> Tensor:
    """All of α, (L, L) or, without `mean`, (D, L, L), rows and columns in the tensors' order, in float64's differences.

    Raises `InputError` above `MOST_MATRIX` tokens, where a row (`attention_of`) does instead.
    """
    if path.length > MOST_MATRIX or (not mean and path.length > 1024):
        raise InputError(
            f"the full attention of {path.length} tokens has {path.length**2:,} entries a channel: look at one token's "
            "instead, or at a deeper layer, which has fewer tokens"
        )
    quick = isinstance(path, SelectivePath) and path.u.device.type == "cpu" and path.delta.dtype == torch.float32
    if quick and mean and channels is None:
        return _rows_by_kernel(path, absolute)  # type: ignore[arg-type]
    wanted = channels or slice(None)
    total: Tensor | None = None
    kept = []
    for d in range(path.width)[wanted]:
        one = _channel_matrix(path, d)
        if mean:
            one = one.abs() if absolute else one
            total = one if total is None else total + one
        else:
            kept.append(one)
    if not mean:
        return _to_rows(path, torch.stack(kept))
    assert total is not None
    return _to_rows(path, total / len(range(path.width)[wanted]))


def _rows_by_kernel(path: SelectivePath, absolute: bool) -> Tensor:
    """The mean over channels, (L, L), a row at a time."""
    weight, column = torch.full((path.width,), 1 / path.width), int(absolute)
    steps = path.steps.tolist()
    rows = [_selective_kernel(path, step, weight, -1)[:, column] for step in steps]
    return torch.stack(rows).index_select(1, path.steps)


def _to_rows(path: Path, matrix: Tensor) -> Tensor:
    """A matrix in the path's steps, in the tensors' rows."""
    steps = path.steps
    return matrix.index_select(-2, steps).index_select(-1, steps)


def _channel_matrix(path: Path, d: int) -> Tensor:
    """α of one channel, (L, L), in the order of steps."""
    if isinstance(path, LinearPath):
        return _toeplitz(linear_kernel(path, path.length)[d])
    assert isinstance(path, SelectivePath)
    group = d // (path.width // path.B.shape[1])
    delta = path.along(path.delta)[:, d].double()
    B, C = (path.along(x[:, group]) for x in (path.B, path.C))
    sums = delta.cumsum(0)
    later = sums[:, None] - sums[None]
    out = torch.zeros_like(later, dtype=path.delta.dtype)
    causal = later.new_ones(later.shape, dtype=torch.bool).tril()
    later = later.masked_fill(~causal, math.inf)
    for n, rate in enumerate(path.A[d].double()):
        decay = torch.exp(later * rate).to(out.dtype)
        out += torch.outer(C[:, n], B[:, n]).to(out.dtype) * decay
    return out * delta.to(out.dtype)


def _toeplitz(kernel: Tensor) -> Tensor:
    lags = torch.arange(len(kernel), device=kernel.device)
    lags = lags[:, None] - lags[None]
    return torch.where(lags >= 0, kernel[lags.clamp(min=0)], 0)


# ---- S6 and Mamba-2


def kernel_arrays(path: SelectivePath) -> tuple[np.ndarray, ...]:
    """delta, u, A · log2(e), B and C as flat float32 arrays in the path's order, made once a path."""
    cached = getattr(path, "_arrays", None)
    if cached is None:
        natural = bool((path.table == torch.arange(path.length)).all())
        rows = [x if natural else path.along(x) for x in (path.delta, path.u, path.B, path.C)]
        delta, u, B, C = (x.detach().float().contiguous().view(-1).numpy() for x in rows)
        A2 = (path.A.detach().float() * math.log2(math.e)).contiguous().view(-1).numpy()
        cached = (delta, u, A2, B, C)
        object.__setattr__(path, "_arrays", cached)
    return cached


def blocks_of(path: SelectivePath) -> list[tuple[int, int, int, int]]:
    """(block, group, first channel, number of channels) of the kernels' blocks: none crosses a group."""
    from napari_mamba.scan.cpu.simd import WIDTH

    groups = path.B.shape[1]
    each = path.width // groups
    starts = [(g, d) for g in range(groups) for d in range(g * each, (g + 1) * each, WIDTH)]
    return [(i, g, d, min(WIDTH, (g + 1) * each - d)) for i, (g, d) in enumerate(starts)]


def _selective_kernel(path: SelectivePath, target: int, weight: Tensor, step: int) -> Tensor:
    from napari_mamba.explain.recorded.kernels import attention_block

    delta, u, A2, B, C = kernel_arrays(path)
    blocks = blocks_of(path)
    out = np.zeros((len(blocks), path.length, 3), np.float32)
    flat, w = out.reshape(-1), weight.detach().float().contiguous().numpy()
    L, D, N, G = path.length, path.width, path.states, path.B.shape[1]

    def work(worker: int, block: int, group: int, d0: int, size: int) -> None:
        attention_block(delta, u, A2, B, C, w, flat, L, D, N, G, group, block, d0, size, target, step)

    run_tasks(blocks, work, worker_count(len(blocks)))
    return torch.from_numpy(out.sum(0))


def _selective_torch(path: SelectivePath, target: int, weight: Tensor, step: int) -> Tensor:
    """The same on any device and in float64: the sums are differences of a float64 running sum."""
    delta, u, B, C = (path.along(x) for x in (path.delta, path.u, path.B, path.C))
    sums = _running_sum(path)
    groups, A = path.B.shape[1], path.A.to(delta.dtype)
    weight = weight.to(delta)
    out = delta.new_zeros(path.length, 3)
    first, last = (0, target + 1) if step < 0 else (target, path.length)
    size = max(1, CHUNK_ELEMENTS // (path.width * path.states))
    for start in range(first, last, size):
        part = slice(start, min(start + size, last))
        apart = (sums[target] - sums[part]) if step < 0 else (sums[part] - sums[target])
        decay = torch.exp(apart[..., None].to(delta.dtype) * A)  # (T, D, N)
        drawing, source = (C[target][None], B[part]) if step < 0 else (C[part], B[target][None])
        pairs = (drawing * source).repeat_interleave(path.width // groups, dim=1)
        alpha = (decay * pairs).sum(-1) * (delta[part] if step < 0 else delta[target]) * weight
        values = u[part] if step < 0 else u[target]
        out[part] = torch.stack([alpha.sum(1), alpha.abs().sum(1), (alpha * values).sum(1)], dim=1)
    return out


def _running_sum(path: SelectivePath) -> Tensor:
    cached = getattr(path, "_sums", None)
    if cached is None:
        wide = torch.float32 if path.delta.device.type == "mps" else torch.float64
        cached = path.along(path.delta).to(wide).cumsum(0)
        object.__setattr__(path, "_sums", cached)
    return cached


# ---- S4D and S5


def linear_kernel(path: LinearPath, length: int) -> Tensor:
    """The kernel at each lag: (D, length) of S4D; of S5, whose channels mix, its diagonal."""
    lags = torch.arange(length, device=path.u.device)
    out = []
    size = max(1, CHUNK_ELEMENTS // path.log_decay.numel())
    for part in lags.split(size):
        powers = torch.exp(path.log_decay[..., None] * part)
        if path.B is None:
            out.append(2 * torch.einsum("dn,dnl->dl", path.C, powers).real)
        else:
            out.append(2 * torch.einsum("dn,nd,nl->dl", path.C, path.B, powers).real)
    return torch.cat(out, dim=1)


def _linear(path: LinearPath, step: int, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over the channels (for S5: over pairs of an output and an input channel) at each step, both ways."""
    length, weight = path.length, weight.to(path.u)
    u = path.u.index_select(0, path.table)
    longest = max(step + 1, length - step)
    signed, absolute, given = (u.new_zeros(longest) for _ in range(3))
    wide = path.width * (path.states if path.B is None else path.width)
    for lags in torch.arange(longest, device=u.device).split(max(1, CHUNK_ELEMENTS // wide)):
        powers = torch.exp(path.log_decay[..., None] * lags)
        if path.B is None:
            kernel = 2 * torch.einsum("dn,dnl->ld", path.C, powers).real * weight
            by_input = kernel
        else:
            full = 2 * torch.einsum("dn,nc,nl->ldc", path.C, path.B, powers).real * weight[:, None]
            kernel, by_input = full.flatten(1), full.sum(1)
        signed[lags], absolute[lags] = kernel.sum(1), kernel.abs().sum(1)
        reached = lags <= step
        given[lags[reached]] = (by_input[reached] * u[step - lags[reached]]).sum(1)
    before, after = u.new_zeros(length, 3), u.new_zeros(length, 3)
    lags = torch.arange(step + 1, device=u.device)
    before[step - lags] = torch.stack([signed[lags], absolute[lags], given[lags]], dim=1)
    lags = torch.arange(length - step, device=u.device)
    after[step + lags, 0], after[step + lags, 1] = signed[lags], absolute[lags]
    return before, after


# ---- of a layer


def attention_maps(
    scan: LayerScan, cell: int, direction: int | None = None, weight: Tensor | None = None
) -> dict[str, np.ndarray]:
    """A cell's attention in a layer, summed over its paths (or along one), as maps on the layer's grid.

    Returns
    -------
    dict of ndarray
        "drawn", "given" (means of absolute values, not negative), "drawn_signed", "given_signed", "contribution".

    Examples
    --------
    >>> maps = attention_maps(scan, cell=100)  # doctest: +SKIP
    """
    scan.need_grid()
    found = scan.find(cell, direction)
    if not found:
        raise InputError(f"{scan.label} has no token at cell {cell}: its grid is {scan.grid}")
    each = [(path, attention_of(path, row, weight)) for path, row in found]
    paths = [path for path, _ in each]
    fields = {
        "drawn": "drawn_absolute",
        "given": "given_absolute",
        "drawn_signed": "drawn",
        "given_signed": "given",
        "contribution": "contribution",
    }
    return {name: scan.map([getattr(a, field) for _, a in each], paths) for name, field in fields.items()}
