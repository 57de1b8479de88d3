"""The CUDA convolution against the float64 one: in the emulator everywhere, on the device where there is one."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from cuda_emulator import emulated_device, find_compiler

from napari_mamba.errors import InputError
from napari_mamba.scan import scan_order, torch_backend
from napari_mamba.scan.arguments import conv_arguments
from napari_mamba.scan.cuda import conv

emulated = pytest.mark.skipif(find_compiler() is None, reason="needs g++ on Linux to emulate the CUDA kernels")
TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 5e-3}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The tensors are small: PyTorch's threads would only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(batch, length, width, taps, paths=1, dtype=torch.float32, weight_dtype=None, bias=True, padded=0, seed=0):
    """x is a slice of wider rows where `padded` says so, as the half of a projection's output is."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, length, width + padded, generator=rng).to(dtype)[..., :width]
    weight = torch.randn(paths, width, taps, generator=rng).to(weight_dtype or dtype)
    return x, weight, torch.randn(paths, width, generator=rng).to(weight_dtype or dtype) if bias else None


def gradients(function, tensors, order, activation, grad):
    """Return the output and the gradients of x, weight and bias."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in tensors]
    args, _ = conv_arguments(*leaves, order, activation)
    y = function(args)
    given = [leaf for leaf in leaves if leaf is not None]
    return [y.detach(), *torch.autograd.grad(y, given, grad.to(y.dtype))]


def close(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert torch.isfinite(one).all()
        assert (one.double() - other.double()).norm() <= TOLERANCE[one.dtype] * other.double().norm()


def agree(tensors, order=None, activation="silu", device="cpu", reverse=False):
    """Compare forward and backward with PyTorch's in float64 on the same (rounded) numbers."""
    x, weight, _ = tensors
    grad = torch.randn(
        x.shape[0], len(weight), *x.shape[1:], generator=torch.Generator().manual_seed(9), dtype=torch.float64
    ).to(x.dtype)
    wanted = gradients(
        torch_backend.causal_conv1d, [None if t is None else t.double() for t in tensors], order, activation, grad
    )
    # Sent to the device as it is: a slice must stay one.
    there = [None if t is None else _like_on(t, device) for t in tensors]
    with emulated_device(reverse) if device == "cpu" else nullcontext():
        found = gradients(conv.causal_conv1d, there, order, activation, grad.to(device))
    close([f.cpu() for f in found], wanted)


def _like_on(t, device):
    if device == "cpu":
        return t
    wide = torch.empty_strided((t.untyped_storage().nbytes() // t.element_size(),), (1,), dtype=t.dtype, device=device)
    return wide.as_strided(t.shape, t.stride()).copy_(t)


SHAPES = [  # batch, length, width, taps, padded
    pytest.param(1, 1, 4, 4, 0, id="one step"),
    pytest.param(2, 3, 8, 4, 0, id="shorter than the kernel"),
    pytest.param(2, 77, 12, 4, 12, id="half of a wider tensor"),
    pytest.param(1, 530, 7, 4, 0, id="odd channels and length"),
    pytest.param(3, 41, 6, 3, 1, id="rows that are not aligned"),
    pytest.param(1, 9, 260, 2, 1, id="several blocks of channels"),
    pytest.param(1, 3000, 1, 4, 0, id="one channel, several blocks"),
]


@emulated
@pytest.mark.parametrize(("batch", "length", "width", "taps", "padded"), SHAPES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_it_agrees_with_float64_at_every_shape(batch, length, width, taps, padded, dtype):
    agree(make(batch, length, width, taps, dtype=dtype, padded=padded))


@emulated
@pytest.mark.parametrize("taps", range(1, 9))
def test_it_agrees_for_every_width_of_the_kernel(taps):
    agree(make(1, 70, 8, taps, dtype=torch.bfloat16 if taps % 2 else torch.float32))


@emulated
@pytest.mark.parametrize("name", ["reverse", "ss2d", "tom", "hilbert"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_it_follows_scan_orders(name, dtype):
    shape = (5, 6) if name == "ss2d" else (4, 4, 4) if name == "hilbert" else (3, 5, 4)
    order = scan_order(name, shape, **({"nslices": 3} if name == "tom" else {}))
    paths, length = order.table.shape
    agree(make(2, length, 8, 4, paths=paths, dtype=dtype), order, reverse=True)


@emulated
@pytest.mark.parametrize("activation", ["silu", None])
@pytest.mark.parametrize("bias", [True, False])
def test_activation_and_bias_are_optional(activation, bias):
    agree(make(1, 30, 8, 4, paths=2, bias=bias), activation=activation)


@emulated
def test_weights_may_have_a_type_of_their_own():
    agree(make(1, 30, 8, 4, dtype=torch.bfloat16, weight_dtype=torch.float32))
    agree(make(1, 30, 8, 4, dtype=torch.float32, weight_dtype=torch.float16))


@emulated
def test_one_kernel_for_all_paths_of_an_order_is_not_copied_and_gets_the_sum_of_the_gradients():
    order = scan_order("ss2d", (4, 5))
    x, weight, bias = make(1, 20, 8, 4)
    agree((x, weight[0].expand(4, -1, -1), bias[0].expand(4, -1)), order)


@emulated
def test_neither_launches_nor_copies_are_wasted():
    order = scan_order("ss2d", (4, 5))
    x, weight, bias = make(2, 20, 8, 4, paths=4)
    with emulated_device() as launches:
        conv.causal_conv1d(conv_arguments(x, weight, bias, order, "silu")[0])
    assert [name for name, *_ in launches] == ["conv_forward"]
    x.requires_grad_()
    with emulated_device() as launches:
        y = conv.causal_conv1d(conv_arguments(x, weight, bias, order, "silu")[0])
        y.sum().backward()
    assert [name for name, *_ in launches] == ["conv_forward"] + 4 * ["conv_backward"]
    assert weight.grad is None
    assert x.grad.shape == x.shape


@emulated
def test_gradients_have_the_same_bits_whatever_the_order_of_the_threads():
    tensors, grad = make(2, 100, 8, 4, paths=2), torch.randn(2, 2, 100, 8)
    results = []
    for reverse in (False, True):
        with emulated_device(reverse):
            results.append(gradients(conv.causal_conv1d, tensors, None, "silu", grad))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@emulated
def test_a_gradient_that_is_not_contiguous_is_read_as_it_is():
    x, weight, bias = make(1, 20, 8, 4)
    wide = torch.randn(1, 1, 20, 16)
    results = []
    for grad in (wide[..., :8], wide[..., :8].contiguous(), wide[..., :8].mT.contiguous().mT):
        with emulated_device():
            results.append(gradients(conv.causal_conv1d, (x, weight, bias), None, "silu", grad))
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*results, strict=True))


def test_wide_kernels_go_to_pytorch_and_unknown_types_are_refused():
    x, weight, bias = make(1, 20, 8, 11)
    args, _ = conv_arguments(x, weight, bias, None, "silu")
    assert torch.equal(conv.causal_conv1d(args), torch_backend.causal_conv1d(args))
    args, _ = conv_arguments(x.double(), weight[..., :4], bias, None, "silu")
    with pytest.raises(InputError, match="float64"):
        conv.causal_conv1d(args)


def test_an_empty_batch_gives_an_empty_result():
    x, weight, bias = make(0, 20, 8, 4)
    assert conv.causal_conv1d(conv_arguments(x, weight, bias, None, "silu")[0]).shape == (0, 1, 20, 8)
    dx, dweight, dbias = gradients(conv.causal_conv1d, (x, weight, bias), None, "silu", torch.zeros(0, 1, 20, 8))[1:]
    assert dx.shape == (0, 20, 8)
    assert not dweight.any()
    assert not dbias.any()


def test_blocks_are_within_the_device_limits_and_cover_every_step():
    for batch, length, width, vector in [(1, 128**3, 64, 4), (1, 1, 1, 1), (2**20, 7, 3, 1), (1, 512, 5000, 8)]:
        for runs in (conv.FORWARD_RUNS, conv.BACKWARD_RUNS):
            lanes, threads, run, blocks, slabs = conv.layout(batch, length, width, vector, 3, runs)
            assert threads <= conv.THREADS
            assert threads % lanes == 0
            assert batch * blocks < 2**31
            assert slabs < 2**16
            assert (blocks - 1) * threads // lanes * run < length <= blocks * threads // lanes * run
            assert slabs * lanes * vector >= width
            assert run % runs[0] == 0


@pytest.mark.gpu
@pytest.mark.parametrize(("batch", "length", "width", "taps", "padded"), SHAPES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_the_device_agrees_with_float64(batch, length, width, taps, padded, dtype):
    agree(make(batch, length, width, taps, dtype=dtype, padded=padded), device="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["reverse", "ss2d", "tom"])
def test_the_device_follows_scan_orders(name):
    order = scan_order(name, (40, 50) if name == "ss2d" else (12, 16, 8), **({"nslices": 4} if name == "tom" else {}))
    paths, length = order.table.shape
    for dtype in TOLERANCE:
        agree(make(2, length, 96, 4, paths=paths, dtype=dtype, padded=96), order, device="cuda")
