"""The CUDA backend as a whole: autograd through the emulator here, and everything on a device where there is one."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from cuda_emulator import emulated_device, find_compiler

from napari_mamba.errors import InputError
from napari_mamba.scan import LowRank, cuda_backend, scan_order, selective_scan
from napari_mamba.scan.arguments import scan_arguments
from napari_mamba.scan.cuda import forward, repeat
from napari_mamba.scan.cuda.backward import selective_scan_backward

BENCHMARKED = [(1, 64, 512), (1, 1024, 512), (1, 64, 32**3), (1, 384, 32**3), (4, 768, 16**3), (2, 96, 64**3)]
LARGE = [(1, 64, 64**3), (1, 128, 64**3), (8, 384, 32**3), (1, 64, 128**3)]
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


def inputs(batch, width, length, states=16, paths=None, dtype=torch.float32, device="cpu", grad=False):
    k = () if paths is None else (paths,)
    torch.manual_seed(0)
    made = {
        "u": torch.randn(batch, length, width, device=device).to(dtype),
        "delta": (torch.randn(batch, *k, length, width, device=device) - 2).to(dtype),
        "A": -torch.arange(1.0, states + 1, device=device).expand(*k, width, -1).clone(),
        "B": torch.randn(batch, *k, length, states, device=device).to(dtype),
        "C": torch.randn(batch, *k, length, states, device=device).to(dtype),
        "D": torch.randn(*k, width, device=device),
        "z": torch.randn(batch, length, width, device=device).to(dtype),
        "delta_bias": 0.1 * torch.randn(*k, width, device=device),
    }
    return {name: x.requires_grad_(grad) for name, x in made.items()}


def relative(value, exact):
    return float((value.double() - exact.double()).norm() / exact.double().norm().clamp_min(1e-30))


def doubled(made):
    return {name: x.detach().double().requires_grad_(x.requires_grad) for name, x in made.items()}


@pytest.mark.skipif(find_compiler() is None, reason="needs g++ on Linux to emulate the CUDA kernels")
@pytest.mark.parametrize("merge", ["sum", "none"])
def test_gradients_pass_through_autograd(merge):
    made = inputs(1, 6, 70, states=4, paths=2, grad=True)
    order = scan_order("bidirectional", (7, 10))
    args, _ = scan_arguments(**made, delta_softplus=True, order=order, merge=merge)
    exact = doubled(made)
    expected = selective_scan(**exact, delta_softplus=True, order=order, merge=merge, backend="reference")
    weight = torch.randn_like(expected)
    with emulated_device(), mock.patch.object(cuda_backend, "_need_cuda"):
        y, _ = cuda_backend.selective_scan(args)
        found = torch.autograd.grad((y * weight).sum(), [made[name] for name in NAMES])
    wanted = torch.autograd.grad((expected * weight).sum(), [exact[name] for name in NAMES])
    for name, value, right in zip(NAMES, found, wanted, strict=True):
        assert value.shape == right.shape
        assert relative(value, right) <= 1e-5, name


@pytest.mark.skipif(find_compiler() is None, reason="needs g++ on Linux to emulate the CUDA kernels")
def test_gradients_from_states_kept_within_chunks():
    made = inputs(1, 3, 2100, states=16, grad=True)
    exact = doubled(made)
    expected = selective_scan(**exact, delta_softplus=True, backend="torch")
    weight = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, list(exact.values()), weight)
    args = scan_arguments(**{n: x.detach() for n, x in made.items()}, delta_softplus=True, order=None, merge="sum")[0]
    with emulated_device() as launches, mock.patch.object(forward, "multiprocessors", return_value=1):
        kept = forward.selective_scan_forward(forward.prepare(args), keep=True)
        found = selective_scan_backward(args, kept.starts, kept.chunk, weight.float())
    names = [name for name, *_ in launches]
    assert names.count("scan_chunks") == 2
    assert "scan_refine_starts" not in names
    for name, right in zip(NAMES, wanted, strict=True):
        assert relative(found[name].view(right.shape), right) <= 1e-5, name


@pytest.mark.skipif(find_compiler() is None, reason="needs g++ on Linux to emulate the CUDA kernels")
@pytest.mark.parametrize(("length", "launched"), [(70, 1), (2100, 3)])
def test_a_call_like_one_before_takes_the_short_way(length, launched):
    made = inputs(1, 6, length, states=4)
    wide = torch.cat([made["u"], made["z"]], 2)
    made |= {"u": wide[..., :6], "z": wide[..., 6:]}
    with emulated_device() as launches, torch.no_grad(), mock.patch.object(repeat.FORWARD, "known", {}) as templates:
        for scale in (1.0, 2.0):  # the second call finds the first one's template, at other addresses
            scaled = {n: x.clone() * scale if n == "B" else x for n, x in made.items()}
            y = repeat.replay_scan(tuple(scaled.values()), True, "sum")
            exact = selective_scan(**doubled(scaled), delta_softplus=True, backend="reference")
            assert relative(y, exact) <= 1e-5
        assert len(templates) == 1
        assert len(launches) == 2 * launched
        apart = scaled | {"u": scaled["u"].contiguous()}
        assert relative(repeat.replay_scan(tuple(apart.values()), True, "sum"), exact) <= 1e-5
        assert len(templates) == 2, "other strides are another template"


@pytest.mark.skipif(find_compiler() is None, reason="needs g++ on Linux to emulate the CUDA kernels")
@pytest.mark.parametrize(("length", "width", "over"), [(70, 6, False), (2100, 6, True), (2100, 40, True)])
def test_the_output_may_lie_over_delta(length, width, over):
    """Where a thread reads each step size itself; one block of a short sequence shares them."""
    made = inputs(1, width, length, states=4)
    with emulated_device(), torch.no_grad(), mock.patch.object(repeat.FORWARD, "known", {}):
        apart = repeat.replay_scan(tuple(made.values()), True, "sum")
        y = repeat.replay_scan(tuple(made.values()), True, "sum", overwrite=True)
    assert (y.data_ptr() == made["delta"].data_ptr()) is over
    assert torch.equal(y, apart)


def test_what_needs_more_than_launches_goes_the_long_way():
    made = inputs(1, 6, 20, states=4)
    with mock.patch.object(repeat.FORWARD, "known", {}):
        transposed = made | {"u": made["u"].transpose(1, 2).contiguous().transpose(1, 2)}
        assert repeat.replay_scan(tuple(transposed.values()), True, "sum") is None
        assert repeat.replay_scan(tuple((made | {"A": made["A"].half()}).values()), True, "sum") is None
        assert repeat.replay_scan(tuple(inputs(1, 6, 20, states=4, paths=2).values()), True, "sum") is None
        with pytest.raises(InputError, match="delta_bias has shape"):
            repeat.replay_scan(tuple((made | {"delta_bias": torch.zeros(5)}).values()), True, "sum")
        assert cuda_backend.selective_scan_cached(tuple(made.values()), True, "sum") is None, "tensors elsewhere"


def test_tensors_elsewhere_are_refused():
    args, _ = scan_arguments(**inputs(1, 4, 5), delta_softplus=True, order=None, merge="sum")
    with pytest.raises(InputError, match="backend='auto'"):
        cuda_backend.selective_scan(args)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", BENCHMARKED + LARGE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_device_agrees_with_float64(shape, dtype):
    made = inputs(*shape, dtype=dtype, device="cuda")
    poison = [torch.full_like(made["u"], torch.nan) for _ in range(3)]
    del poison  # the allocator hands this memory out again
    found = selective_scan(**made, delta_softplus=True, backend="cuda")
    exact = selective_scan(**doubled(made), delta_softplus=True, backend="torch")
    assert relative(found, exact) <= (1e-5 if dtype == torch.float32 else 5e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("states", [1, 4, 8, 10, 16, 32, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [1, 77, 1021, 5003])
def test_device_gradients_agree_with_float64(states, dtype, length):
    made = inputs(2, 40, length, states=states, dtype=dtype, device="cuda", grad=True)
    exact = doubled(made)
    found = selective_scan(**made, delta_softplus=True, backend="cuda")
    expected = selective_scan(**exact, delta_softplus=True, backend="torch")
    weight = torch.randn_like(found)
    gradients = torch.autograd.grad(found, list(made.values()), weight)
    wanted = torch.autograd.grad(expected, list(exact.values()), weight.double())
    bound = 1e-5 if dtype == torch.float32 else 5e-3
    assert relative(found, expected) <= bound
    for name, value, right in zip(NAMES, gradients, wanted, strict=True):
        assert relative(value, right) <= bound, name


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "grid"), [("ss2d", (64, 48)), ("tom", (16, 16, 16)), ("hilbert", (16, 16, 16))])
@pytest.mark.parametrize("merge", ["sum", "none"])
def test_device_follows_scan_orders(name, grid, merge):
    order = scan_order(name, grid)
    made = inputs(1, 96, order.length, paths=order.paths, device="cuda")
    found = selective_scan(**made, delta_softplus=True, order=order, merge=merge, backend="cuda")
    exact = selective_scan(**doubled(made), delta_softplus=True, order=order, merge=merge, backend="torch")
    assert relative(found, exact) <= 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(1, 64, 512), (1, 64, 32**3)])
def test_device_in_a_graph_and_on_another_stream(shape):
    made = inputs(*shape, device="cuda")
    exact = selective_scan(**made, delta_softplus=True, backend="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        beside = selective_scan(**made, delta_softplus=True, backend="cuda")
    stream.synchronize()
    assert torch.equal(beside, exact)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = selective_scan(**made, delta_softplus=True, backend="cuda")
    made["u"].mul_(2)
    graph.replay()
    assert torch.equal(captured, selective_scan(**made, delta_softplus=True, backend="cuda"))
    assert not torch.equal(captured, exact)


@pytest.mark.gpu
@pytest.mark.parametrize("grid", [(8, 8, 8), (40, 36, 32)])
def test_step_sizes_of_low_rank_on_a_device(grid):
    order = scan_order("tom", grid)
    made = inputs(1, 96, order.length, paths=3, device="cuda")
    low = LowRank(torch.randn(1, 3, order.length, 4, device="cuda"), 0.3 * torch.randn(3, 96, 4, device="cuda"))
    made["delta"] = low.whole()
    exact = selective_scan(**doubled(made), delta_softplus=True, order=order, backend="torch")
    made["delta"] = low
    with torch.no_grad():
        assert relative(selective_scan(**made, delta_softplus=True, order=order, backend="cuda"), exact) <= 1e-5
    for x in low:
        x.requires_grad_()
    y = selective_scan(**made, delta_softplus=True, order=order, backend="cuda")
    assert relative(y, exact) <= 1e-5
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(y.sum(), low))
