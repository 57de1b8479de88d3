"""Hidden states: their norm, their principal components, one token's along the path, and how long they last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from napari_mamba.explain.methods.attention import blocks_of, kernel_arrays
from napari_mamba.explain.recorded.recording import LayerScan, LinearPath, Path, SelectivePath
from napari_mamba.scan.cpu.threads import run_tasks, worker_count

SAMPLES = 256
"""States from which principal components are found."""
BLOCK_ELEMENTS = 2**21
MOST_FOLLOWED = 2**25
"""States, times tokens, of which the memory's length is found."""


@dataclass
class States:
    """Sums over the states of one path. `norm` (L,) and `parts` (L, P) in the tensors' order of rows.

    `kept` (S, D, N) are the states themselves at the steps that were asked for.
    """

    norm: Tensor
    parts: Tensor
    kept: Tensor


def run_states(path: Path, at: Sequence[int] = (), basis: Tensor | None = None, mean: Tensor | None = None) -> States:
    """Run a path's states once, in memory that does not grow with its length times its states.

    Parameters
    ----------
    path : SelectivePath or LinearPath
    at : sequence of int
        Steps whose states are kept.
    basis : (P, D, N), optional
        What the states, less `mean` (D, N), are multiplied with.

    Examples
    --------
    >>> from napari_mamba.nn import Mamba
    >>> from napari_mamba.explain.recorded.recording import record
    >>> run_states(record(Mamba(8), torch.randn(1, 10, 8))[0].paths[0], at=[9]).kept.shape
    torch.Size([1, 16, 16])
    """
    steps = sorted({int(t) for t in at})
    if isinstance(path, SelectivePath) and path.u.device.type == "cpu" and path.delta.dtype == torch.float32:
        norm, parts, kept = _run_kernel(path, steps, basis, mean)
    else:
        norm, parts, kept = _run_torch(path, steps, basis, mean)
    place = path.table
    order = {t: i for i, t in enumerate(steps)}
    return States(
        torch.zeros_like(norm).index_copy_(0, place, norm.sqrt()),
        torch.zeros_like(parts).index_copy_(0, place, parts),
        kept[[order[int(t)] for t in at]] if len(at) else kept,
    )


def _run_kernel(path: SelectivePath, at: list[int], basis: Tensor | None, mean: Tensor | None):
    from napari_mamba.explain.recorded.kernels import states_block

    delta, u, A2, B, _ = kernel_arrays(path)
    L, D, N, G = path.length, path.width, path.states, path.B.shape[1]
    P = 0 if basis is None else len(basis)
    blocks = blocks_of(path)
    m = np.zeros(D * N, np.float32) if mean is None else mean.float().contiguous().view(-1).numpy()
    b = np.zeros(1, np.float32) if basis is None else basis.float().contiguous().view(-1).numpy()
    norms, parts = np.zeros((len(blocks), L), np.float32), np.zeros((len(blocks), L, P), np.float32)
    kept, steps = np.zeros((len(at), D, N), np.float32), np.array(at or [0], np.int64)
    flat = [x.reshape(-1) if x.size else np.zeros(1, np.float32) for x in (norms, parts, kept)]

    def work(worker: int, block: int, group: int, d0: int, size: int) -> None:
        states_block(delta, u, A2, B, m, b, *flat, steps, L, D, N, G, P, len(at), group, block, d0, size)

    run_tasks(blocks, work, worker_count(len(blocks)))
    return torch.from_numpy(norms.sum(0)), torch.from_numpy(parts.sum(0)), torch.from_numpy(kept)


def _run_torch(path: Path, at: list[int], basis: Tensor | None, mean: Tensor | None):
    """Blocks of the sequence by recursive doubling, on any device and for complex states."""
    a_of, b_of, state = _recurrence(path)
    length, real = path.length, path.u.dtype
    norms, parts, kept = [], [], []
    size = max(1, min(1024, BLOCK_ELEMENTS // max(state.numel(), 1)))
    for start in range(0, length, size):
        a, b = a_of(start, start + size), b_of(start, start + size)
        b[0] = b[0] + a[0] * state
        by = 1
        while by < len(b):
            b = torch.cat([b[:by], b[by:] + a[by:] * b[:-by]])
            a = torch.cat([a[:by], a[by:] * a[:-by]])
            by *= 2
        state = b[-1]
        norms.append(b.abs().square().flatten(1).sum(1))
        if basis is not None:
            shifted = b if mean is None else b - mean.to(b)
            parts.append(torch.einsum("tdn,pdn->tp", shifted, basis.to(b).conj()).real)
        kept += [b[t - start] for t in at if start <= t < start + size]
    empty = state.new_zeros(0, *state.shape)
    found = torch.stack(kept) if kept else empty
    return torch.cat(norms).to(real), (torch.cat(parts) if parts else norms[0].new_zeros(length, 0)), found


def _recurrence(path: Path):
    """Functions of a stretch of steps to its decays and inputs, (T, D, N), and the first state, zero."""
    u = path.u.index_select(0, path.table)
    if isinstance(path, LinearPath):
        decay = torch.exp(path.log_decay) if path.B is None else torch.exp(path.log_decay)[None]

        def inputs(start: int, stop: int) -> Tensor:
            rows = u[start:stop].to(path.C.dtype)
            entering = rows[..., None] if path.B is None else (rows @ path.B.T)[:, None]
            return entering.expand(-1, *decay.shape).clone()

        def decays(start: int, stop: int) -> Tensor:
            return decay.expand(min(stop, path.length) - start, *decay.shape)

        return decays, inputs, torch.zeros_like(decay)
    assert isinstance(path, SelectivePath)
    delta, B = path.along(path.delta), path.along(path.B)
    repeat = path.width // B.shape[1]

    def selective_inputs(start: int, stop: int) -> Tensor:
        rows = (delta[start:stop] * u[start:stop])[..., None]
        return rows * B[start:stop].repeat_interleave(repeat, dim=1)

    A = path.A.to(delta.dtype)
    return lambda start, stop: torch.exp(delta[start:stop, :, None] * A), selective_inputs, torch.zeros_like(A)


def components(paths: Sequence[Path], count: int = 3, samples: int = SAMPLES) -> tuple[Tensor, Tensor, Tensor]:
    """The directions (count, D, N) in which states vary most, common to some paths; their mean; the shares of variance.

    They are found from states at `samples` steps spread evenly over the paths.
    """
    each = max(2, samples // len(paths))
    kept = []
    for path in paths:
        steps = np.unique(np.linspace(0, path.length - 1, min(each, path.length)).round().astype(int))
        kept.append(run_states(path, at=steps.tolist()).kept)
    states = torch.cat(kept)
    mean = states.mean(0)
    flat = (states - mean).flatten(1)
    wide = flat.to(torch.complex128 if flat.is_complex() else torch.float64)
    values, vectors = torch.linalg.eigh(wide @ wide.conj().T)  # few samples of many states: their products are few
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    share = values / values.sum().clamp(min=1e-30)
    found = vectors[:, :count].conj().T @ wide / values[:count, None].sqrt().clamp(min=1e-30)
    basis = found.to(flat.dtype).reshape(-1, *mean.shape)
    sign = torch.sign(basis.flatten(1).real.sum(1)).to(basis)  # the same in every run
    basis = basis * torch.where(sign == 0, 1, sign)[:, None, None]
    short = count - len(basis)
    return torch.cat([basis, basis.new_zeros(short, *mean.shape)]), mean, share[:count].float()


def principal_components(paths: Sequence[Path], count: int = 3, samples: int = SAMPLES) -> tuple[list[Tensor], Tensor]:
    """The states' first principal components: (L, count) of each path, in the order of rows; the shares of variance.

    See `components`.
    """
    basis, mean, share = components(paths, count, samples)
    return [run_states(path, basis=basis, mean=mean).parts for path in paths], share


def step_sizes(path: Path) -> Tensor:
    """The mean step size over the channels, (L,): what each token lets in. Of S4D and S5 it is the same everywhere."""
    if isinstance(path, SelectivePath):
        return path.delta.mean(1)
    assert isinstance(path, LinearPath)
    return torch.full((path.length,), 1.0, device=path.u.device)


def memory_length(path: Path) -> Tensor:
    """Tokens until a state has decayed to 1/e, counted from each token, (L,): the geometric mean over all states.

    Fractions of a token are interpolated. Beyond the end of the path its last step is taken to go on. Of many tokens
    not every channel is followed: so many, evenly spread, that `MOST_FOLLOWED` states are.
    """
    if isinstance(path, LinearPath):
        steps = (-1 / path.log_decay.real).log().mean().exp()
        return torch.full((path.length,), float(steps))
    assert isinstance(path, SelectivePath)
    from napari_mamba.explain.recorded.kernels import memory_channel

    count = int(np.clip(MOST_FOLLOWED // (path.length * path.states), 1, path.width))
    channels = torch.linspace(0, path.width - 1, count).round().long().to(path.u.device)
    delta = path.along(path.delta[:, channels]).detach().cpu().double().T.contiguous().numpy()
    sums = np.zeros((count, path.length + 1))
    np.cumsum(delta, axis=1, out=sums[:, 1:])
    rates = np.maximum(-path.A[channels].detach().cpu().double().numpy(), 1e-12)
    workers = worker_count(count)
    out = np.zeros((workers, path.length))

    def work(worker: int, d: int) -> None:
        memory_channel(sums[d], rates[d], out[worker], path.length, path.states, d)

    run_tasks([(d,) for d in range(count)], work, workers)
    mean = np.exp(out.sum(0) / (count * path.states)).astype(np.float32)
    rows = np.empty_like(mean)
    rows[path.table.cpu().numpy()] = mean
    return torch.from_numpy(rows)


def state_along(path: Path, row: int, around: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """The states' norm in a window of tokens about one: steps (T,) and norms (T,)."""
    norm = run_states(path).norm
    middle = int(path.steps[row])
    steps = np.arange(max(0, middle - around), min(path.length, middle + around + 1))
    return steps, norm[path.table[torch.from_numpy(steps)]].cpu().numpy()


def influence(path: Path) -> Tensor:
    """How much each token moves the states from it on, (L,): the root of Σ_{s ≥ t} |∂h_s / ∂u_t|² over all states.

    One pass backwards: the energy that an input leaves in the states, through the full chain of their decays. X-VMamba
    (arXiv:2511.12694) calls this its Jacobian form. Its other one, by the controllability Gramian of a diagonal system,
    has a closed form, as it takes the decay of the token's own step for all later ones: `influence_by_gramian`. The two
    are the same where the step size does not change. (The authors' code was not out when this was written, so neither
    is compared with theirs; the first is compared with the gradients themselves.)
    """
    if isinstance(path, LinearPath):
        return _linear_influence(path)
    assert isinstance(path, SelectivePath)
    from napari_mamba.explain.recorded.kernels import influence_block

    delta, _, A2, B, _ = kernel_arrays(path.on("cpu"))
    L, D, N, G = path.length, path.width, path.states, path.B.shape[1]
    blocks = blocks_of(path)
    out = np.zeros((len(blocks), L), np.float32)
    flat = out.reshape(-1)

    def work(worker: int, block: int, group: int, d0: int, size: int) -> None:
        influence_block(delta, A2, B, flat, L, D, N, G, group, block, d0, size)

    run_tasks(blocks, work, worker_count(len(blocks)))
    energy = torch.from_numpy(np.sqrt(out.sum(0)))
    return torch.zeros_like(energy).index_copy_(0, path.table.cpu(), energy)


def influence_by_gramian(path: Path) -> Tensor:
    """`influence` with the decay of each token's own step held for all later ones, (L,): a closed form.

    The root of Σ (ΔB)² (1 - a^2n) / (1 - a²), a = exp(ΔA) of the token's own step and n the steps to the path's end.
    """
    if isinstance(path, LinearPath):
        return _linear_influence(path)
    assert isinstance(path, SelectivePath)
    repeat = path.width // path.B.shape[1]
    left = (path.length - path.steps).double()
    out = torch.zeros(path.length, dtype=torch.float64, device=path.u.device)
    for n in range(path.states):
        log_square = 2 * path.delta.double() * path.A[:, n].double()
        series = torch.expm1(left[:, None] * log_square) / torch.expm1(log_square).clamp(max=-1e-300)
        entering = path.delta.double() * path.B[:, :, n].double().repeat_interleave(repeat, 1)
        out += (entering.square() * series).sum(1)
    return out.sqrt().float()


def _linear_influence(path: LinearPath) -> Tensor:
    square = torch.exp(2 * path.log_decay.real)  # (D, N) or (N,)
    left = torch.arange(path.length, 0, -1, device=square.device).double()  # steps from each one to the end
    entering = torch.ones_like(square) if path.B is None else path.B.abs().square().sum(1)
    series = (1 - torch.exp(left[:, None] * square.flatten().double().log())) / (1 - square.flatten().double())
    energy = (series * entering.flatten()).sum(1).sqrt().float()
    return torch.zeros_like(energy).index_copy_(0, path.table, energy)


def state_maps(scan: LayerScan, what: Sequence[str] = ("norm",), direction: int | None = None) -> dict[str, np.ndarray]:
    """Maps of the hidden states on a layer's grid; a mean over its paths, or along one.

    Parameters
    ----------
    what : sequence of str
        "norm", "components" (3, *grid), "step_size", "memory" (tokens), "influence".
    """
    scan.need_grid()
    paths = scan.along(direction)
    share = 1 / len({path.direction for path in paths})
    makers = {
        "norm": lambda: [run_states(path).norm * share for path in paths],
        "components": lambda: [x * share for x in principal_components(paths)[0]],
        "step_size": lambda: [step_sizes(path) * share for path in paths],
        "memory": lambda: [memory_length(path) * share for path in paths],
        "influence": lambda: [influence(path) * share for path in paths],
    }
    return {name: scan.map(makers[name](), paths) for name in what}
