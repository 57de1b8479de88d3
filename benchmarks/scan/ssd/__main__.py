"""Mamba-2's scan on a GPU: `python -m benchmarks.scan.ssd [--write NAME]`; first, to compile: `--warm 0` to `--warm 2`.

Our Triton kernels beside mamba-ssm's and beside plain PyTorch: errors of the output and of every gradient against
float64, times of the forward alone and of forward and backward together through autograd. Times are medians of rounds
of calls over as many input sets as exceed the L2 cache three times. In float32 mamba-ssm multiplies in TF32, ours in
three such products, which keep float32's precision; PyTorch's form computes in float32 whatever the inputs.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.common.gpu import DEVICE, Report, milliseconds, peak_bytes, reason, relative_l2, sets_needed
from benchmarks.scan.ssd import peers
from benchmarks.scan.ssd.inputs import SHAPES, SHORT, Inputs, Shape, inputs
from benchmarks.scan.tables import attempt, cell
from napari_mamba.nn.mixers.mamba2 import scan_heads
from napari_mamba.scan.ssd import ssd, triton_backend

RESULTS = Path(__file__).parents[1] / "results"
GRADIENTS = ("x", "B", "C", "dt", "A_log", "D")


def kernels(shape: Shape, order: Tensor | None = None) -> Callable[..., Tensor]:
    """Our kernels as a function of xBC, dt, A_log and D."""
    return lambda xBC, dt, A_log, D: triton_backend.scan(xBC, dt, A_log, D, shape.states, 1, order)


def plain(shape: Shape, order: Tensor | None = None) -> Callable[..., Tensor]:
    """Plain PyTorch, likewise."""
    return lambda xBC, dt, A_log, D: scan_heads(xBC, dt, A_log, D, shape.states, 1, order, backend="torch")


def exact(shape: Shape) -> Callable[..., Tensor]:
    """The same in float64."""

    def scan(xBC: Tensor, dt: Tensor, A_log: Tensor, D: Tensor) -> Tensor:
        xBC, dt, A_log, D = (t.double() for t in (xBC[:, 0], dt[:, 0], A_log, D))
        x, B, C = xBC.split([shape.heads * shape.width, shape.states, shape.states], -1)
        x = x.unflatten(-1, (shape.heads, -1))
        return (ssd(x * dt[..., None], -A_log.exp() * dt, B[:, :, None], C[:, :, None]) + D[:, None] * x).flatten(2)

    return scan


class Theirs(NamedTuple):
    """mamba-ssm's inputs, dense."""

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor

    @classmethod
    def of(cls, shape: Shape, given: Inputs) -> Theirs:
        x, B, C = given.xBC[:, 0].split([shape.heads * shape.width, shape.states, shape.states], -1)
        B, C = (t[:, :, None].contiguous() for t in (B, C))
        x = x.unflatten(-1, (shape.heads, -1)).contiguous()
        return cls(x, given.dt[:, 0].contiguous(), -given.A_log.exp(), B, C, given.D)


def gradients(shape: Shape, scan: Callable[..., Tensor], given: Inputs) -> list[Tensor]:
    """The output and the gradients in the order of GRADIENTS."""
    leaves = given.leaves()
    y = scan(*leaves)
    xBC, *rest = torch.autograd.grad(y, leaves, given.dy.to(y.dtype))
    return [y.detach(), *xBC.split([shape.heads * shape.width, shape.states, shape.states], -1), *rest]


def peer_gradients(shape: Shape, given: Inputs) -> list[Tensor]:
    """mamba-ssm's, likewise."""
    t = Theirs(*(x.detach().requires_grad_() for x in Theirs.of(shape, given)))
    y = peers.scan(*t)
    x, dt, A, B, C, D = torch.autograd.grad(y, list(t), given.dy.unflatten(-1, (shape.heads, -1)))
    return [y.detach().flatten(2), x.flatten(2)[:, None], B.flatten(2)[:, None], C.flatten(2)[:, None], dt[:, None],
            A * t.A.detach(), D]  # fmt: skip


def errors(shape: Shape, dtype: torch.dtype, beside: bool) -> list[list[str]]:
    """Relative L2 of the output and of each gradient, ours, PyTorch's and mamba-ssm's."""
    given = inputs(shape, dtype)
    truth = gradients(shape, exact(shape), given)
    ways: dict[str, Callable[[], list[Tensor]]] = {
        "ours": lambda: gradients(shape, kernels(shape), given),
        "PyTorch": lambda: gradients(shape, plain(shape), given),
    }
    if beside:
        ways["mamba-ssm"] = lambda: peer_gradients(shape, given)
    rows = []
    for name, way in ways.items():
        try:
            found = [f"{relative_l2(a, b):.1e}" for a, b in zip(way(), truth, strict=True)]
        except Exception as error:  # one side's failure leaves the other's figures standing
            found = [reason(error)]
        rows.append([str(shape), SHORT[dtype], name, *found])
    return rows


def times(shape: Shape, dtype: torch.dtype, beside: bool) -> list[str]:
    """A line: forward of mamba-ssm, ours, PyTorch, their ratio to ours; the same of forward and backward."""
    given = [inputs(shape, dtype)]
    size = sum(x.numel() * x.element_size() for x in given[0]) / 2**20
    given += [inputs(shape, dtype, seed) for seed in range(1, sets_needed(size, 8))]
    line = [str(shape), SHORT[dtype]]

    def training(scan: Callable[..., Tensor], one: Inputs) -> Callable[[], object]:
        leaves = one.leaves()

        def call() -> object:
            y = scan(*leaves)
            return torch.autograd.grad(y, leaves, one.dy.to(y.dtype))

        return call

    def peer_training(one: Inputs) -> Callable[[], object]:
        leaves = [x.detach().requires_grad_() for x in Theirs.of(shape, one)]
        dy = one.dy.unflatten(-1, (shape.heads, -1))
        return lambda: torch.autograd.grad(peers.scan(*leaves), leaves, dy)

    for backward in (False, True):
        found = {"mamba-ssm": math.nan}
        for name, scan in (("ours", kernels(shape)), ("PyTorch", plain(shape))):
            if backward:
                calls = [training(scan, one) for one in given]
            else:
                calls = [lambda one=one, scan=scan: scan(*one[:4]) for one in given]
            found[name] = attempt(milliseconds, calls)
        if beside:
            if backward:
                calls = [peer_training(one) for one in given]
            else:
                calls = [lambda t=t: peers.scan(*t) for t in [Theirs.of(shape, one) for one in given]]
            found["mamba-ssm"] = attempt(milliseconds, calls)
        ours = found["ours"]
        line += [cell(found["mamba-ssm"]), cell(ours), cell(found["PyTorch"])]
        line += [cell(found["mamba-ssm"] / ours, ".2f"), cell(found["PyTorch"] / ours, ".1f")]
    return line


def ordered(shape: Shape, dtype: torch.dtype) -> list[str]:
    """Along a random order: ours reads where rows lie, PyTorch gathers and scatters."""
    given = inputs(shape, dtype)
    order = torch.randperm(shape.length, device=DEVICE)[None]
    line = [str(shape), SHORT[dtype]]
    for way in (None, order):
        line.append(cell(attempt(milliseconds, [lambda way=way: kernels(shape, way)(*given[:4])])))
        run, leaves = kernels(shape, way), given.leaves()
        calls = [lambda run=run, leaves=leaves: torch.autograd.grad(run(*leaves), leaves, given.dy)]
        line.append(cell(attempt(milliseconds, calls)))
    return line


def memory(shape: Shape, dtype: torch.dtype, beside: bool) -> list[str]:
    """MiB that forward and backward take beside their inputs, at the peak."""
    given = inputs(shape, dtype)
    leaves = given.leaves()
    ways: list[Callable[[], object]] = [
        lambda: torch.autograd.grad(kernels(shape)(*leaves), leaves, given.dy),
        lambda: torch.autograd.grad(plain(shape)(*leaves), leaves, given.dy.float()),
    ]
    if beside:
        ways.append(lambda: peer_gradients(shape, given))
    line = [str(shape), SHORT[dtype]]
    for way in ways:
        try:
            before, peak = peak_bytes(way)
            line.append(f"{(peak - before) / 2**20:.0f}")
        except Exception as error:  # one side's failure leaves the other's figures standing
            line.append(reason(error))
    return line


def warm(index: int) -> None:
    """Compile, by running them once, what one shape needs; for processes side by side before the times are taken."""
    shape = SHAPES[index]
    peers.compile_in_threads()
    for dtype in SHORT:
        attempt(lambda dtype=dtype: float(gradients(shape, kernels(shape), inputs(shape, dtype))[0].sum()))
    if not peers.unavailable():
        attempt(lambda: float(peer_gradients(shape, inputs(shape, torch.bfloat16))[0].sum()))


Rows = Callable[[Shape, torch.dtype], list[list[str]]]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", default="", metavar="NAME", help="save as results/NAME.md")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no row after so many seconds")
    parser.add_argument("--warm", type=int, default=-1, metavar="I", help="compile for the Ith shape, and no more")
    parser.add_argument("--parts", nargs="*", default=["errors", "times", "order", "memory"])
    options = parser.parse_args()
    if options.warm >= 0:
        warm(options.warm)
        return
    began = time.monotonic()
    report = Report("Mamba-2's scan on a GPU", options.write, RESULTS)
    missing = peers.unavailable()
    report.say(missing or "Beside mamba-ssm's Triton kernels, autotuned, chunks of 256, in bfloat16.")
    if not missing:
        peers.compile_in_threads()

    def rows(make: Rows, *dtypes: torch.dtype):
        for dtype in dtypes:
            for shape in SHAPES:
                if time.monotonic() - began > options.seconds:
                    yield [str(shape), SHORT[dtype], "no time left"]
                    continue
                try:
                    yield from make(shape, dtype)
                except Exception as error:  # what fails leaves the other rows standing
                    yield [str(shape), SHORT[dtype], reason(error)]

    half, heads = torch.bfloat16, ["B × L, H × P, N", "type"]
    if "errors" in options.parts:
        with report.section("Errors against float64 (relative L2)"):
            report.table(
                [*heads, "", "y", *(f"d{name}" for name in GRADIENTS)],
                rows(lambda shape, dtype: errors(shape, dtype, not missing and dtype == half), *SHORT),
            )
    if "times" in options.parts:
        columns = ["mamba-ssm", "ours", "PyTorch", "mamba-ssm ÷ ours", "PyTorch ÷ ours"]
        with report.section("Milliseconds: forward, then forward and backward"):
            report.table(
                [*heads, *columns, *(f"{column}, both" for column in columns)],
                rows(lambda shape, dtype: [times(shape, dtype, not missing and dtype == half)], half, torch.float32),
            )
    if "order" in options.parts:
        with report.section("Milliseconds along an order"):
            report.table(
                [*heads, "raster", "both", "random order", "both"],
                rows(lambda shape, dtype: [ordered(shape, dtype)], half),
            )
    if "memory" in options.parts:
        with report.section("MiB at the peak of forward and backward"):
            report.table(
                [*heads, "ours", "PyTorch", *([] if missing else ["mamba-ssm"])],
                rows(lambda shape, dtype: [memory(shape, dtype, not missing)], half),
            )
    report.say(f"\n{time.monotonic() - began:.0f} s.")
    report.save()


if __name__ == "__main__":
    main()
