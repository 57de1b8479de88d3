"""Published attention maps where they differ from what they are meant to be: only to compare with.

`clamped_matrix` is α as VMamba's analysis computes it (github.com/MzeroMiko/VMamba, analyze/): as a quotient of
exponentials of running sums, the lower one clamped at 1e-20, so that old tokens count too much or too little.
`class_token_row`, `class_token_raw` and `class_token_rollout` are those of Ali et al. for Vision Mamba
(github.com/AmeenAli/HiddenMambaAttn): the class token's row stands for every token's, and the decay of the class
token's own step is left out. `class_token_attribution` is their gradient-weighted map (Mamba-Attribution): rows as
before, without what is negative, times the largest positive gradient at the token, both scaled to 0 … 1 over all of a
layer; the gradient is taken behind the layer, so that it holds nothing of the layer's own mixer. The maps to trust are
in `attention`, `rollout` and `wider.gradient_weighted`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.explain.methods.attribution import first_output
from napari_mamba.explain.recorded.recording import LayerScan, SelectivePath, record

CLAMP = 1e-20


def clamped_matrix(path: SelectivePath, clamp: float = CLAMP) -> Tensor:
    """Mean over the channels of α, (L, L), rows and columns in the tensors' order, with the published clamp."""
    delta, B, C = (path.along(x) for x in (path.delta, path.B, path.C))
    repeat = path.width // B.shape[1]
    sums = delta.cumsum(0)
    total = delta.new_zeros(path.length, path.length)
    for n in range(path.states):
        grown = torch.exp(sums * path.A[:, n])  # (L, D)
        row = C[:, :, n].repeat_interleave(repeat, 1) * grown
        column = B[:, :, n].repeat_interleave(repeat, 1) * delta / grown.clamp(min=clamp)
        total += row @ column.T
    steps = path.steps
    return total.tril().div(path.width).index_select(0, steps).index_select(1, steps)


def class_token_row(scan: LayerScan) -> Tensor:
    """What the class token drew from each other token, (D, L): those before it forwards, those after it backwards."""
    where = torch.nonzero(scan.paths[0].cells < 0).flatten()
    if len(where) != 1 or len(scan.paths) != 2:
        raise InputError(f"{scan.label} has no class token and two directions: choose a layer of Vision Mamba")
    row = int(where[0])
    out = scan.paths[0].delta.new_zeros(scan.paths[0].width, scan.paths[0].length)
    for path in scan.paths:
        step = int(path.steps[row])
        delta, B, C = (path.along(x)[: step + 1] for x in (path.delta, path.B[:, 0], path.C[:, 0]))
        sums = delta.double().cumsum(0)
        apart = (sums[step - 1] - sums[:step])[..., None].to(delta.dtype)  # not the class token's own step
        drawn = (torch.exp(apart * path.A) * (C[step] * B[:step])[:, None]).sum(-1) * delta[:step]
        out[:, path.table[:step]] = drawn.T
    return out


def class_token_raw(scans: Sequence[LayerScan]) -> Tensor:
    """The published raw map: the mean over layers of the class token's row, scaled to 0 … 1 over all channels."""
    rows = [class_token_row(scan) for scan in scans]
    mean = torch.stack([_scaled(row).mean(0) for row in rows]).mean(0)
    return _without_class_token(scans[0], mean)


def class_token_rollout(scans: Sequence[LayerScan]) -> Tensor:
    """The published rollout: in each layer every token is given the class token's row."""
    return _rolled(scans, [class_token_row(scan).mean(0) for scan in scans])


def class_token_attribution(
    network: nn.Module, inputs: Tensor, channel: int | None = None, first: int = 0
) -> tuple[Tensor, Tensor]:
    """The published gradient-weighted map of a class, and the gradients it weighs with.

    Parameters
    ----------
    network : nn.Module
        Vision Mamba with one class token in the middle, scanning both ways.
    inputs : (1, C, H, W)
    channel : int, optional
        The class; the likeliest if not given.
    first : int
        The layer from which on the rows are multiplied.

    Returns
    -------
    map : (cells,)
    gradients : (layers, tokens)
        Of each layer's tokens, the largest positive one over channels.

    Raises
    ------
    InputError
        If the layers hand no residual on beside what they answer, or there is no class token.
    """
    scans = record(network, inputs)
    shifts: dict[str, Tensor] = {}

    def shift(name: str) -> Callable:
        def hook(module: nn.Module, given: tuple, output: object) -> object:
            if not isinstance(output, tuple) or len(output) != 2:
                raise InputError(f"{name} hands no residual on: choose a network of the kind of Vision Mamba")
            hidden, residual = output
            shifts[name] = torch.zeros_like(residual).requires_grad_(
                True
            )  # behind the layer: its mixer sees none of it
            return hidden, residual + shifts[name]

        return hook

    blocks = [scan.name.rpartition(".")[0] for scan in scans]
    handles = [network.get_submodule(name).register_forward_hook(shift(name)) for name in blocks]
    try:
        with torch.enable_grad():
            logits = first_output(network(inputs))[0]
    finally:
        for handle in handles:
            handle.remove()
    number = logits[int(logits.argmax()) if channel is None else channel]
    found = torch.autograd.grad(number, [shifts[name] for name in blocks])
    gradients = torch.stack([one[0].clamp(min=0).amax(-1) for one in found])
    rows = [_scaled(class_token_row(scan).clamp(min=0)).mean(0) for scan in scans]
    weighed = [row * _scaled(g) for row, g in zip(rows, gradients, strict=True)]
    return _rolled(scans[first:], weighed[first:]), gradients


def _rolled(scans: Sequence[LayerScan], rows: Sequence[Tensor]) -> Tensor:
    """The class token's row of the product of the layers' matrices, each of whose rows is the one given and itself."""
    total: Tensor | None = None
    for row in rows:
        one = torch.eye(len(row)) + row
        one = one / one.sum(1, keepdim=True)
        total = one if total is None else one @ total
    assert total is not None
    token = int(torch.nonzero(scans[0].paths[0].cells < 0)[0])
    return _without_class_token(scans[0], total[token])


def _scaled(x: Tensor) -> Tensor:
    return (x - x.min()) / (x.max() - x.min())


def _without_class_token(scan: LayerScan, row: Tensor) -> Tensor:
    return row[scan.paths[0].cells >= 0].clamp(min=0)
