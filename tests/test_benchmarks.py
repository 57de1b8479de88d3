"""What the GPU benchmarks compute besides times: errors, the stand-in paths, exponents."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from napari_mamba.scan import scan_order, selective_scan


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))


def channels_first_kernel(u, delta, A, B, C, D, z, delta_bias, softplus) -> list[torch.Tensor]:
    """mamba-ssm's kernel, (B, D, L) and (B, G, N, L), from our operator."""
    groups = (value.permute(0, 3, 1, 2) for value in (B, C))
    y = selective_scan(u.transpose(1, 2), delta.transpose(1, 2), A, *groups, D, None, delta_bias, softplus)
    return [y.transpose(1, 2), torch.empty(0)]


def test_error_in_windows_sees_what_the_whole_sequence_has(bench: None) -> None:
    import scan
    import scan_cuda

    x = scan.arguments(1, 4, 5200, "cpu")
    y = selective_scan(**x, delta_softplus=True, backend="cpu")
    assert scan_cuda.error(x, y) < 1e-6
    y[0, -1] += 1
    assert scan_cuda.error(x, y) > 1e-3


def test_cross_scan_by_copies_equals_one_call(bench: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import peers
    import scan

    kernels = ModuleType("selective_scan_cuda")
    kernels.fwd = channels_first_kernel
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", kernels)
    grid = (4, 3, 5)
    order = scan_order("axis", grid, axes=(2, 0), reverse=True)
    x = scan.arguments(2, 6, 60, "cpu", paths=4)
    theirs = peers.CrossScan(x, order.tensor("cpu"), grid)().transpose(1, 2)
    torch.testing.assert_close(selective_scan(**x, delta_softplus=True, order=order), theirs, rtol=1e-4, atol=1e-4)


def test_exponent_of_linear_and_quadratic_times(bench: None) -> None:
    import networks

    sizes = [96, 128, 192]
    assert networks.exponent(sizes, [s**3.0 for s in sizes]) == pytest.approx(1)
    assert networks.exponent(sizes, [s**6.0 for s in sizes[:2]] + [float("nan")]) == pytest.approx(2)


def test_triton_chunks_fill_the_gpu_and_are_powers_of_two(bench: None) -> None:
    import triton_scan

    for length, programs in ((512, 2), (64**3, 2), (32**3, 96)):
        chunk = triton_scan.chunk_length(length, programs, 132)
        assert chunk >= 32
        assert chunk & (chunk - 1) == 0
    assert triton_scan.chunk_length(64**3, 2, 132) < triton_scan.chunk_length(64**3, 96, 132)
