"""The scan's backward on a GPU beside mamba-ssm's, and the errors of its gradients; tables of `cuda.py`."""

from __future__ import annotations

import math

import torch

from benchmarks.common.gpu import Report, milliseconds, relative_l2
from benchmarks.scan import peers
from benchmarks.scan.tables import attempt, cell, inputs, name
from napari_mamba.scan import selective_scan
from napari_mamba.scan.arguments import scan_arguments
from napari_mamba.scan.cuda.backward import selective_scan_backward
from napari_mamba.scan.cuda.forward import prepare, selective_scan_forward

BACKWARD = ((1, 64, 32**3), (1, 64, 64**3), (1, 128, 64**3), (2, 96, 64**3), (1, 384, 32**3), (1, 64, 128**3))
"""Shapes of the backward's table."""

GRADIENTS = ("u", "delta", "A", "B", "C", "D", "delta_bias", "z")


def backward_row(shape, dtype, backend) -> list[str]:
    """One line of the backward's table: the backward alone, and forward and backward together.

    Both sides call their kernels directly; the last column is ours as training runs it, through autograd.
    """
    x = inputs(shape, dtype)
    dout = torch.randn_like(x["u"])
    ours = theirs = ours_both = theirs_both = math.nan
    if not peers.unavailable():
        with torch.no_grad():
            t, d = peers.channels_first(x), dout.transpose(1, 2).contiguous()
            y, states, _ = peers.forward(t)
            theirs = attempt(milliseconds, [lambda: peers.backward(t, d, y, states)])
            theirs_both = attempt(milliseconds, [lambda: peers.backward(t, d, *peers.forward(t)[:2])])
            del t, d, y, states
    with torch.no_grad():
        args = prepare(scan_arguments(**x, delta_softplus=True, order=None, merge="sum")[0])
        kept = selective_scan_forward(args, keep=True)
        ours = attempt(milliseconds, [lambda: selective_scan_backward(args, kept.starts, kept.chunk, dout)])

        def both() -> None:
            kept = selective_scan_forward(args, keep=True)
            selective_scan_backward(args, kept.starts, kept.chunk, dout)

        ours_both = attempt(milliseconds, [both])
    leaves = {key: value.requires_grad_() for key, value in x.items()}
    wanted = [leaves[key] for key in GRADIENTS]
    autograd = attempt(
        milliseconds,
        [lambda: torch.autograd.grad(selective_scan(**leaves, delta_softplus=True, backend=backend), wanted, dout)],
    )
    return [name(shape), cell(theirs), cell(ours), cell(theirs / ours, ".2f"), "2", cell(theirs_both),
            cell(ours_both), cell(theirs_both / ours_both, ".2f"), cell(autograd)]  # fmt: skip


def gradient_errors(dtype, backend) -> list[list[str]]:
    """Relative L2 of every gradient against float64 autograd through the recurrence, at 1, 64, 1500."""
    x = inputs((1, 64, 1500), dtype)
    dout = torch.randn_like(x["u"])

    def gradients(values: peers.Inputs, name_of_backend: str) -> list[torch.Tensor]:
        leaves = {key: value.detach().clone().requires_grad_() for key, value in values.items()}
        y = selective_scan(**leaves, delta_softplus=True, backend=name_of_backend)
        return list(torch.autograd.grad(y, [leaves[key] for key in GRADIENTS], dout.to(y.dtype)))

    exact = gradients({key: value.double() for key, value in x.items()}, "reference")
    rows = [["ours", *(f"{relative_l2(a, b):.1e}" for a, b in zip(gradients(x, backend), exact, strict=True))]]
    if not peers.unavailable():
        t, d = peers.channels_first(x), dout.transpose(1, 2).contiguous()
        y, states, _ = peers.forward(t)
        got = dict(
            zip(("u", "delta", "A", "B", "C", "D", "delta_bias", "z"), peers.backward(t, d, y, states), strict=True)
        )
        got |= {key: got[key].squeeze(1) for key in "BC"}
        same = [got[k].transpose(1, 2) if k in ("u", "delta", "B", "C", "z") else got[k] for k in GRADIENTS]
        rows.append(["mamba-ssm", *(f"{relative_l2(a, b):.1e}" for a, b in zip(same, exact, strict=True))])
    return rows


def backward_tables(report: Report, backend: str, dtypes) -> None:
    """Times of the backward, and errors of the gradients."""
    heads = ["B, D, L", "mamba-ssm bwd ms", "ours bwd ms", "times", "aim", "mamba-ssm fwd+bwd ms", "ours fwd+bwd ms",
             "times", "through autograd ms"]  # fmt: skip
    for dtype in dtypes:
        label = str(dtype).removeprefix("torch.")
        with report.section(f"Backward, {label}"):
            report.table(heads, (backward_row(shape, dtype, backend) for shape in BACKWARD))
            report.say("\nRelative L2 of the gradients at 1, 64, 1500, float64 autograd through the recurrence:")
            report.table(["", *GRADIENTS], gradient_errors(dtype, backend))
