"""Time the causal convolution on a GPU against the speed of a copy.

    python -m benchmarks.scan.convolution [--write NAME]

A convolution that reads x once and writes y once can be as fast as a copy of as many bytes; its backward reads x and
the gradient of y and writes that of x (for K paths the sum over the paths is read and written in float32 in between).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.common.gpu import (
    DEVICE,
    Report,
    copy_bandwidth,
    graph_milliseconds,
    milliseconds,
    relative_l2,
    sets_needed,
)
from napari_mamba.scan import causal_conv1d, scan_order

RESULTS = Path(__file__).with_name("results")
TAPS = 4
SHAPES = ((1, 64, (64, 64, 64)), (1, 64, (128, 128, 128)), (1, 384, (32, 32, 32)), (8, 384, (32, 32, 32)))
ORDERED = ((1, 96, (64, 64, 64), "tom", {"nslices": 64}), (2, 96, (64, 64, 64), "bidirectional", {}))


def inputs(batch: int, width: int, length: int, paths: int, dtype: torch.dtype, seed: int) -> list[torch.Tensor]:
    """x as the first half of wider rows, weight and bias."""
    random = torch.Generator(DEVICE).manual_seed(seed)
    wide = torch.randn(batch, length, 2 * width, generator=random, device=DEVICE).to(dtype)
    weight = torch.randn(paths, width, TAPS, generator=random, device=DEVICE)
    return [wide[..., :width], weight, torch.randn(paths, width, generator=random, device=DEVICE)]


def pytorch(x, weight, bias) -> torch.Tensor:
    """The same with PyTorch's operators, one path in raster order."""
    y = F.conv1d(x.mT, weight[0][:, None].to(x.dtype), bias[0].to(x.dtype), padding=TAPS - 1, groups=x.shape[2])
    return F.silu(y[..., : x.shape[1]]).mT


def row(batch, width, grid, name, options, dtype, bandwidth: float) -> list[str]:
    """One line of the table; times are of inputs that are not in the L2 cache."""
    order = scan_order(name, grid, **options)
    paths, length = order.table.shape
    size = torch.tensor([], dtype=dtype).element_size()
    one = batch * length * width * size
    sets = [
        inputs(batch, width, length, paths, dtype, seed) for seed in range(sets_needed((2 + paths) * one / 2**20, 32))
    ]
    with torch.no_grad():
        calls = [lambda t=t: causal_conv1d(*t, order, backend="cuda") for t in sets]
        forward, graph = milliseconds(calls), graph_milliseconds(calls)
        theirs = milliseconds([lambda t=t: pytorch(*t) for t in sets]) if name == "raster" else float("nan")
    leaves = [[x.requires_grad_() for x in t] for t in sets]
    outputs = [causal_conv1d(*t, order, backend="cuda") for t in leaves]
    grads = [torch.randn_like(y) for y in outputs]
    backward = milliseconds(
        [
            lambda y=y, t=t, g=g: torch.autograd.grad(y, t, g, retain_graph=True)
            for y, t, g in zip(outputs, leaves, grads, strict=True)
        ]
    )
    moved = (1 + paths) * one
    moved_back = (2 * paths + 1) * one + (2 * (paths - 1) * one * 4 // size)
    exact = torch.autograd.grad(
        causal_conv1d(*[x.double() for x in leaves[0]], order, backend="torch"), leaves[0], grads[0].double()
    ) if one < 2**26 else None  # fmt: skip
    got = torch.autograd.grad(outputs[0], leaves[0], grads[0])
    error = "" if exact is None else f"{max(relative_l2(a, b) for a, b in zip(got, exact, strict=True)):.1e}"
    return [
        f"{batch}, {width}, {'x'.join(map(str, grid))}, {name}",
        *(f"{theirs:.3f}", f"{forward:.3f}", f"{graph:.3f}", f"{moved / (graph * 1e-3) / bandwidth:.0%}"),
        *(f"{backward:.3f}", f"{moved_back / (backward * 1e-3) / bandwidth:.0%}", error),
    ]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", default="", metavar="NAME", help="also save results/NAME.md")
    report = Report("The causal convolution on a GPU", parser.parse_args().write, RESULTS)
    bandwidth = copy_bandwidth()
    report.say(f"\nCopy: {bandwidth / 1e12:.2f} TB/s, read and written. Width {TAPS}, bias, SiLU.")
    heads = ["B, D, grid, order", "PyTorch ms", "ours ms", "in a graph ms", "of copy speed", "backward ms",
             "of copy speed", "gradients' largest rel. L2"]  # fmt: skip
    for dtype in (torch.float32, torch.bfloat16):
        with report.section(str(dtype).removeprefix("torch.")):
            shapes = [(*shape, "raster", {}) for shape in SHAPES] + list(ORDERED)
            report.table(heads, (row(*shape, dtype, bandwidth) for shape in shapes))


if __name__ == "__main__":
    main()
