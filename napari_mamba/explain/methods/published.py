"""Published attention maps where they differ from what they are meant to be: only to compare with.

`clamped_matrix` is α as VMamba's analysis computes it (github.com/MzeroMiko/VMamba, analyze/): as a quotient of
exponentials of running sums, the lower one clamped at 1e-20, so that old tokens count too much or too little.
`class_token_row`, `class_token_raw` and `class_token_rollout` are those of Ali et al. for Vision Mamba
(github.com/AmeenAli/HiddenMambaAttn): the class token's row stands for every token's, and the decay of the class
token's own step is left out. The maps to trust are in `attention` and `rollout`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from napari_mamba.errors import InputError
from napari_mamba.explain.recorded.recording import LayerScan, SelectivePath

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
    total: Tensor | None = None
    for scan in scans:
        row = class_token_row(scan).mean(0)
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
