"""Time the selective scan on the CPU and print the tables of the README: `python -m benchmarks.scan.cpu`.

Every time is the best of several runs. "PyTorch recurrence" is the loop over positions that mamba-ssm's
`selective_scan_ref` runs (exponentials and inputs computed for the whole sequence first, then one step at a time).
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from benchmarks.scan.inputs import STATES, arguments
from napari_mamba.scan import causal_conv1d, scan_order, selective_scan, warm_up


def recurrence(u, delta, A, B, C, D, z, delta_bias) -> torch.Tensor:
    """Run the scan as PyTorch users without a kernel do, (B, L, D) in and out."""
    dt = F.softplus(delta + delta_bias).transpose(1, 2)
    decay = torch.exp(torch.einsum("bdl,dn->bdln", dt, A))
    inputs = torch.einsum("bdl,bln,bld->bdln", dt, B, u)
    h, outputs = torch.zeros_like(decay[:, :, 0]), []
    for t in range(u.shape[1]):
        h = decay[:, :, t] * h + inputs[:, :, t]
        outputs.append(torch.einsum("bdn,bn->bd", h, C[:, t]))
    return (torch.stack(outputs, dim=1) + u * D) * F.silu(z)


def best(function: Callable[[], object], repeats: int) -> float:
    """Return the least time of a call in seconds, after one call that is not counted."""
    times = []
    for i in range(repeats + 1):
        start = time.perf_counter()
        function()
        if i:
            times.append(time.perf_counter() - start)
    return min(times)


def print_comparison(repeats: int) -> None:
    x = arguments(1, 128, 32**3)
    elements = x["u"].numel()
    trained = {name: value.clone().requires_grad_() for name, value in x.items()}
    order = scan_order("reverse", (32, 32, 32))

    def backward() -> None:
        selective_scan(**trained, delta_softplus=True).sum().backward()

    with torch.no_grad():
        exact = recurrence(**x)
        difference = (selective_scan(**x, delta_softplus=True) - exact).norm() / exact.norm()
        slow = best(lambda: recurrence(**x), 1)
        fast = best(lambda: selective_scan(**x, delta_softplus=True), repeats)
        ordered = best(lambda: selective_scan(**x, delta_softplus=True, order=order), repeats)
        weight = torch.randn(128, 4)
        conv = best(lambda: causal_conv1d(x["u"], weight), repeats)
    both = best(backward, repeats)
    print(f"\n(B, D, L) = (1, 128, 32³), N = {STATES}, float32; relative L2 to the recurrence {difference:.1e}\n")
    print("| what | ms | million positions·channels/s | times the recurrence |")
    print("| --- | ---: | ---: | ---: |")
    rows = (
        ("PyTorch recurrence", slow),
        ("selective_scan", fast),
        ("selective_scan, reversed order", ordered),
        ("selective_scan, forward and backward", both),
        ("causal_conv1d and SiLU", conv),
    )
    for name, seconds in rows:
        ratio = "" if name.startswith(("causal", "selective_scan, f")) else f"{slow / seconds:.0f}"
        print(f"| {name} | {1e3 * seconds:.1f} | {elements / seconds / 1e6:.1f} | {ratio} |")


def print_lengths(repeats: int) -> None:
    print("\n| L (D = 32) | ms | ns per position·channel |")
    print("| --- | ---: | ---: |")
    for power in range(12, 22):
        x = arguments(1, 32, 2**power)
        with torch.no_grad():
            # As much measured time for a short sequence as for a long one.
            runs = repeats * max(1, 2 ** (17 - power))
            seconds = best(lambda x=x: selective_scan(**x, delta_softplus=True), runs)
        print(f"| 2^{power} | {1e3 * seconds:.2f} | {1e9 * seconds / x['u'].numel():.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    processor = platform.processor() or platform.machine()
    print(f"{processor}, {options.threads} CPU threads, PyTorch {torch.__version__}")
    print(f"compiling or loading the kernels: {warm_up(training=True):.1f} s")
    print_comparison(options.repeats)
    print_lengths(options.repeats)


if __name__ == "__main__":
    main()
