"""Small scans, convolutions and norms for compute-sanitizer: every kind of plan, odd sizes, all types, both directions.

    export PYTORCH_NO_CUDA_MEMORY_CACHING=1
    compute-sanitizer --tool memcheck --report-api-errors no python -m benchmarks.scan.sanitize
    compute-sanitizer --tool racecheck python -m benchmarks.scan.sanitize

API errors are left out since PyTorch looks for functions of newer drivers. Without PyTorch's cache each tensor is an
allocation of its own, so that an access beyond it is one beyond what was allocated. Results are compared with the
float64 scan as well, and a wrong one ends the script with an error.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from unittest import mock

import torch
from torch.nn import functional as F

from napari_mamba.nn.norms.instance_norm import InstanceNorm3d, norm_act
from napari_mamba.scan import causal_conv1d, scan_order, selective_scan
from napari_mamba.scan.arguments import scan_arguments
from napari_mamba.scan.cuda import backward_layout
from napari_mamba.scan.cuda.forward import prepare, selective_scan_forward
from napari_mamba.scan.cuda.plan import Plan
from napari_mamba.scan.cuda.token_norm import token_norm as device_token_norm

TYPES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 6e-3}
CHUNKS = Plan("chunks", 64, 0, threads=32, blocks=4)
PLANS = {
    "chunks": CHUNKS,
    "chunks, mixed exponentials": replace(CHUNKS, poly=8, ahead=2),
    "single": Plan("single", 0, 1, threads=32, blocks=4),
    "rows by way of shared memory": replace(CHUNKS, ahead=8, staged=True),
    "short": Plan("short", 0, 0, split=8, warps=8),
    "short, four lanes": Plan("short", 0, 0, split=4, warps=16),
    "two channels a thread": replace(CHUNKS, channels=2, ahead=2),
}
WIDTH = 64


def inputs(length: int, width: int, states: int, dtype: torch.dtype, paths: int = 1, batch: int = 2) -> dict:
    """Random arguments of the scan on the GPU."""
    generator = torch.Generator("cuda").manual_seed(length)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device="cuda")

    made = {
        "u": normal(batch, 1, length, width).to(dtype),
        "delta": (normal(batch, paths, length, width) - 3).to(dtype),
        "A": -torch.arange(1.0, states + 1, device="cuda").expand(paths, width, states).contiguous(),
        "B": normal(batch, paths, length, states).to(dtype),
        "C": normal(batch, paths, length, states).to(dtype),
        "D": normal(paths, width),
        "z": normal(batch, length, width).to(dtype),
        "delta_bias": normal(paths, width) / 4,
    }
    return made


def difference(value: torch.Tensor, exact: torch.Tensor) -> float:
    """Relative L2."""
    return float((value.detach().double() - exact.detach()).norm() / exact.detach().norm())


def sized(plan: Plan, length: int) -> Plan:
    """The plan cut for a length."""
    if plan.kind == "single":
        return replace(plan, chunk=-(-length // 64) * 64)
    chunk = plan.chunk or -(-length // plan.warps // plan.split) * plan.split
    return replace(plan, chunk=chunk, chunks=-(-length // chunk))


def forward(name: str, dtype: torch.dtype) -> float:
    """The largest error of a plan's outputs over some lengths."""
    worst = 0.0
    for length in (1, 77, 200):
        made = inputs(length, WIDTH, 16, dtype)
        args = prepare(scan_arguments(**made, delta_softplus=True, order=None, merge="sum")[0])
        y = selective_scan_forward(args, plan=sized(PLANS[name], length)).y
        exact = selective_scan(**{k: x.double() for k, x in made.items()}, delta_softplus=True, backend="torch")
        worst = max(worst, difference(y, exact))
    return worst


def gradients(made: dict, order, backend: str, dtype: torch.dtype | None = None) -> dict:
    """The gradients of the squared outputs' half sum."""
    leaves = {k: x.detach().to(dtype or x.dtype).requires_grad_() for k, x in made.items()}
    y = selective_scan(**leaves, delta_softplus=True, order=order, backend=backend)
    y.double().square().sum().div(2).backward()
    return {k: x.grad for k, x in leaves.items()}


def backward(length: int, width: int, states: int, paths: int, dtype: torch.dtype) -> float:
    """The largest error of the gradients."""
    order = scan_order("bidirectional", (length,)) if paths == 2 else None
    made = inputs(length, width, states, dtype, paths)
    found, exact = gradients(made, order, "cuda"), gradients(made, order, "torch", torch.float64)
    return max(difference(found[k], exact[k]) for k in made)


def convolution(dtype: torch.dtype, width: int) -> float:
    """The error of the convolution along an order, and of its gradients."""
    x = torch.randn(2, 77, width, device="cuda").to(dtype).requires_grad_()
    weight = torch.randn(2, width, 4, device="cuda").to(dtype).requires_grad_()
    order = scan_order("bidirectional", (77,))
    y = causal_conv1d(x, weight, None, order, activation="silu", backend="cuda")
    (y.double().square().sum() / 2).backward()
    exact_x, exact_w = (t.detach().double().requires_grad_() for t in (x, weight))
    exact = causal_conv1d(exact_x, exact_w, None, order, activation="silu", backend="torch")
    (exact.square().sum() / 2).backward()
    return max(difference(y, exact), difference(x.grad, exact_x.grad), difference(weight.grad, exact_w.grad))


def instance_norm(dtype: torch.dtype, shape: tuple[int, ...], last: bool) -> float:
    """The error of the fused instance norm, over its input as well; of its gradients where maps are channels-first."""
    layer = InstanceNorm3d(shape[1], affine=True).cuda()
    x, residual = (torch.randn(shape, device="cuda").to(dtype) for _ in range(2))
    layout = torch.channels_last_3d if last else torch.contiguous_format
    x, residual = x.contiguous(memory_format=layout), residual.contiguous(memory_format=layout)
    leaves = [x.double().requires_grad_(), residual.double().requires_grad_()]
    exact = F.leaky_relu(F.instance_norm(leaves[0]) + leaves[1], 0.01)
    with torch.no_grad():
        over = norm_act(layer, x.clone(memory_format=torch.preserve_format), 0.01, residual, overwrite=True)
    if last:
        return difference(over, exact)
    given = [x.requires_grad_(), residual.requires_grad_()]
    y = norm_act(layer, x, 0.01, residual)
    grad = torch.ones_like(y)
    pairs = zip(torch.autograd.grad(y, given, grad), torch.autograd.grad(exact, leaves, grad.double()), strict=True)
    return max(difference(over, exact), difference(y, exact), *(difference(a, b) for a, b in list(pairs)[1:]))


def token_norm(dtype: torch.dtype, channels: int, last: bool) -> float:
    """The error of the layer norm from a map to tokens."""
    x = torch.randn(2, channels, 3, 5, 7, device="cuda").to(dtype)
    x = x.contiguous(memory_format=torch.channels_last_3d) if last else x
    weight, bias = torch.randn(2, channels, device="cuda")
    tokens = x.double().flatten(2).transpose(1, 2)
    exact = F.layer_norm(tokens, (channels,), weight.double(), bias.double())
    return difference(device_token_norm(x, weight, bias, 1e-5), exact)


def main() -> None:
    """Run everything; ends with an error where a result is wrong."""
    wrong = []

    def report_error(what: str, error: float, bound: float) -> None:
        print(f"{what}: {error:.1e}", flush=True)
        if not error <= bound:
            wrong.append(what)

    for name, (dtype, bound) in itertools.product(PLANS, TYPES.items()):
        report_error(f"forward, {name}, {dtype}", forward(name, dtype), bound)
    for dtype, bound in TYPES.items():
        for length, width, states, paths in ((77, 40, 16, 1), (300, 33, 16, 2), (70, 5, 1, 1), (90, 24, 64, 1)):
            error = backward(length, width, states, paths, dtype)
            report_error(
                f"gradients, length {length}, width {width}, {states} states, {paths} paths, {dtype}", error, 2 * bound
            )
        with mock.patch.object(backward_layout, "multiprocessors", return_value=1):
            report_error(f"gradients, several segments a chunk, {dtype}", backward(300, 72, 16, 1, dtype), 2 * bound)
        for shape, last in (((2, 3, 5, 7, 9), False), ((1, 2, 20, 21, 22), False), ((1, 24, 9, 10, 11), True)):
            report_error(f"instance norm, {shape}, {dtype}", instance_norm(dtype, shape, last), 2 * bound)
        for channels, last in ((33, False), (48, True)):
            report_error(f"token norm, {channels} channels, {dtype}", token_norm(dtype, channels, last), 2 * bound)
        for width in (64, 5):
            report_error(f"convolution, width {width}, {dtype}", convolution(dtype, width), 2 * bound)
    if wrong:
        raise SystemExit(f"wrong: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
