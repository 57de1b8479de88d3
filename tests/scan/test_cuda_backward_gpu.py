"""The gradients of the CUDA scan on a GPU, through the public operator, against the float64 scan in plain PyTorch."""

from __future__ import annotations

import pytest
import torch

from napari_mamba.scan import scan_order, selective_scan

pytestmark = pytest.mark.gpu
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
LIMITS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 5e-3}


def make(batch, width, length, states=16, paths=1, groups=1, dtype=torch.float32):
    rng = torch.Generator("cuda").manual_seed(length)

    def normal(*shape):
        return torch.randn(*shape, generator=rng, device="cuda")

    values = {
        "u": normal(batch, 1, length, width).to(dtype),
        "delta": (normal(batch, paths, length, width) - 3).to(dtype),
        "A": -torch.arange(1, states + 1, device="cuda").float().expand(paths, width, states).contiguous(),
        "B": normal(batch, paths, length, groups, states).to(dtype),
        "C": normal(batch, paths, length, groups, states).to(dtype),
        "D": normal(paths, width),
        "z": normal(batch, length, width).to(dtype),
        "delta_bias": normal(paths, width) / 4,
    }
    return values, normal(batch, length, width).to(dtype)


def gradients(values, grad, backend, order, dtype=None):
    leaves = {n: x.detach().to(dtype or x.dtype).requires_grad_() for n, x in values.items()}
    y = selective_scan(**leaves, delta_softplus=True, order=order, backend=backend)
    y.backward(grad.to(y.dtype))
    return {name: leaf.grad for name, leaf in leaves.items()}


def worst(values, grad, order=None):
    found = gradients(values, grad, "cuda", order)
    wanted = gradients(values, grad, "torch", order, torch.float64)
    assert all(found[n].dtype == values[n].dtype for n in values)
    return max(float((found[n].double() - wanted[n]).norm() / wanted[n].norm()) for n in values)


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize(
    "shape", [(1, 64, 32**3), (1, 128, 40001), (2, 96, 20**3), (4, 768, 16**3), (1, 1024, 512), (3, 33, 1), (1, 5, 777)]
)
def test_shapes(shape, dtype):
    assert worst(*make(*shape, dtype=dtype)) < LIMITS[dtype]


@pytest.mark.parametrize("states", [1, 4, 8, 10, 16, 32, 64])
@pytest.mark.parametrize("groups", [1, 3])
def test_states_and_groups(states, groups):
    assert worst(*make(2, 66, 3001, states=states, groups=groups)) < LIMITS[torch.float32]


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize(("states", "batch", "width"), [(1, 2, 66), (2, 2, 66), (4, 2, 66), (1, 128, 384)])
def test_few_states_without_a_gate(states, batch, width, dtype):
    """With 128 sequences of 384 channels, on an H200, each warp has whole ones."""
    values, grad = make(batch, width, 601, states=states, dtype=dtype)
    del values["z"]
    assert worst(values, grad) < LIMITS[dtype]


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
def test_four_directions(dtype):
    order = scan_order("ss2d", (48, 50))
    assert worst(*make(1, 96, 2400, paths=order.table.shape[0], dtype=dtype), order) < LIMITS[dtype]


def test_the_same_call_gives_the_same_bits():
    values, grad = make(1, 384, 5000)
    first, second = (gradients(values, grad, "cuda", None) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in NAMES)


def test_memory_is_that_of_the_gradients():
    """No tensor of L·D·N elements: the peak above the inputs stays below 8 tensors of L·D."""
    values, grad = make(1, 64, 64**3)
    gradients(values, grad, "cuda", None)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    gradients(values, grad, "cuda", None)
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before < 8 * grad.numel() * 4
