"""Time instance norm with leaky ReLU on a GPU, PyTorch's and ours.

    python -m benchmarks.networks.instance_norm [--write NAME]

Forward reads x and writes y; backward reads x and the gradient and writes that of x. Both have to know a channel's sums
before they write its first element, so a map that is larger than the L2 cache is read twice: 3 and 5 times its bytes
are moved, and the speed of a copy of as many bytes is what there is to reach. A smaller map may exceed it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.common.gpu import DEVICE, Report, copy_bandwidth, milliseconds, relative_l2
from napari_mamba.nn.norms.instance_norm import InstanceNorm3d, norm_act

SHAPES = ((1, 32, 128, 128, 128), (2, 16, 128, 144, 128), (1, 64, 64, 64, 64), (1, 320, 8, 8, 8))
SLOPE = 0.01
RESULTS = Path(__file__).with_name("results")


def pytorch(norm: nn.InstanceNorm3d, x: Tensor) -> Tensor:
    """The same by PyTorch's operators, the activation in place as our blocks had it."""
    return F.leaky_relu_(F.instance_norm(x, weight=norm.weight, bias=norm.bias, eps=norm.eps), SLOPE)


def ours(norm: nn.InstanceNorm3d, x: Tensor) -> Tensor:
    """The fused operator, or PyTorch's where it has none."""
    return norm_act(norm, x, SLOPE)


def times(function: Callable, norm: nn.InstanceNorm3d, x: Tensor, grad: Tensor) -> tuple[float, float]:
    """Milliseconds forward and backward."""
    with torch.no_grad():
        forward = milliseconds([lambda: function(norm, x)])
    y = function(norm, x)
    leaves = [x, norm.weight, norm.bias]
    return forward, milliseconds([lambda: torch.autograd.grad(y, leaves, grad, retain_graph=True)])


def errors(function: Callable, norm: nn.InstanceNorm3d, x: Tensor, grad: Tensor) -> str:
    """Relative L2 errors against float64 of y, and the largest of the gradients."""
    wide = InstanceNorm3d(x.shape[1], affine=True, device=DEVICE, dtype=torch.float64)
    wide.load_state_dict(norm.state_dict())

    def results(function, norm, x, grad):
        x = x.detach().requires_grad_()
        y = function(norm, x)
        return [y.detach(), *torch.autograd.grad(y, [x, norm.weight, norm.bias], grad)]

    exact = results(pytorch, wide, x.double(), grad.double())
    first, *others = [relative_l2(a, b) for a, b in zip(results(function, norm, x, grad), exact, strict=True)]
    return f"{first:.0e}, {max(others):.0e}"


def row(shape: tuple[int, ...], dtype: torch.dtype, bandwidth: float) -> list[str]:
    """One line of the table."""
    random = torch.Generator(DEVICE).manual_seed(0)
    norm = InstanceNorm3d(shape[1], affine=True, device=DEVICE)
    for weight in norm.parameters():
        nn.init.normal_(weight, generator=random)
    # A mean of 3 spreads, as behind a convolution's bias.
    x = (torch.randn(shape, generator=random, device=DEVICE) + 3).to(dtype).requires_grad_()
    grad = torch.randn(shape, generator=random, device=DEVICE).to(dtype)
    cells = [", ".join(map(str, shape))]
    for function in (pytorch, ours):
        cells += [f"{time:.3f}" for time in times(function, norm, x, grad)]
    theirs, mine = [float(cell) for cell in cells[1:3]], [float(cell) for cell in cells[3:]]
    moved = x.numel() * x.element_size()
    cells += [f"{a / b:.1f}" for a, b in zip(theirs, mine, strict=True)]
    cells += [f"{n * moved / (t * 1e-3) / bandwidth:.0%}" for n, t in zip((3, 5), mine, strict=True)]
    return cells + [errors(function, norm, x, grad) for function in (pytorch, ours)]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", default="", metavar="NAME", help="also save results/NAME.md")
    report = Report("Instance norm with leaky ReLU on a GPU", parser.parse_args().write, RESULTS)
    bandwidth = copy_bandwidth()
    report.say(f"\nCopy: {bandwidth / 1e12:.2f} TB/s, read and written. Milliseconds; errors: y, largest of gradients.")
    heads = ["B, C, D, H, W", "PyTorch forward", "backward", "ours forward", "backward", "times faster", "backward",
             "of copy speed", "backward", "PyTorch's errors", "ours"]  # fmt: skip
    for dtype in (torch.float32, torch.bfloat16):
        with report.section(str(dtype).removeprefix("torch.")):
            report.table(heads, (row(shape, dtype, bandwidth) for shape in SHAPES))


if __name__ == "__main__":
    main()
