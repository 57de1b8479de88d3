"""Calls whose gradients are asked for, the short way: the same bits as the long way, in few of PyTorch's operators."""

from __future__ import annotations

from collections import Counter
from unittest import mock

import pytest
import torch
from cuda_emulator import emulated_device, find_compiler
from torch.utils._python_dispatch import TorchDispatchMode

from napari_mamba.errors import InputError
from napari_mamba.scan import cuda_backend, selective_scan
from napari_mamba.scan.arguments import scan_arguments
from napari_mamba.scan.cuda import forward
from napari_mamba.scan.cuda.repeat_gradients import TRAINING, replay_training

emulated = pytest.mark.skipif(find_compiler() is None, reason="needs g++ on Linux to emulate the CUDA kernels")
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


@pytest.fixture(autouse=True)
def no_templates():
    with mock.patch.object(TRAINING, "known", {}), mock.patch.object(TRAINING, "_recent", []):
        yield


def made(length=70, width=6, states=4, batch=1, paths=None, dtype=torch.float32, groups=(), without=()):
    """Leaves of which u and z, and B and C, are given as halves of one tensor: what a mixer's projections are."""
    random, k = torch.Generator().manual_seed(length), () if paths is None else (paths,)

    def normal(*shape):
        return torch.randn(shape, generator=random)

    wide, both = normal(batch, *k, length, 2 * width), normal(batch, *k, length, *groups, 2 * states)
    values = {
        "u": wide[..., :width].to(dtype),
        "delta": (normal(batch, *k, length, width) - 2).to(dtype),
        "A": -torch.arange(1.0, states + 1).expand(*k, width, -1).clone(),
        "B": both[..., :states].to(dtype),
        "C": both[..., states:].to(dtype),
        "D": normal(*k, width),
        "z": None if paths else normal(batch, length, width).to(dtype),
        "delta_bias": 0.1 * normal(*k, width),
    }
    values |= dict.fromkeys(without)
    return {name: None if x is None else x.detach().requires_grad_() for name, x in values.items()}


def gradients(values, run):
    """What `run` gives of these tensors, and the gradients of all that are there."""
    y = run(tuple(values.values()))
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    wanted = [x for x in values.values() if x is not None]
    return [y, *torch.autograd.grad(y, wanted, weight)]


def the_long_way(merge):
    def run(tensors):
        args, multi = scan_arguments(*tensors, True, None, merge)
        y, _ = cuda_backend.selective_scan(args)
        return y if multi or merge == "sum" else y[:, 0]

    return run


@emulated
@pytest.mark.parametrize(
    ("kept", "multiprocessors", "merge", "options"),
    [
        ("state", 132, "sum", {}),
        ("state", 132, "sum", {"without": ("D", "z", "delta_bias")}),
        ("state", 132, "sum", {"without": ("D",), "dtype": torch.bfloat16, "width": 8}),
        ("state", 132, "sum", {"width": 80, "length": 37}),  # shares of the gradients of B and C are added up
        ("state", 132, "none", {"paths": 2, "batch": 2, "groups": (3,)}),
        ("pieces", 1, "sum", {"length": 2100, "width": 3}),
        ("pieces", 1, "sum", {"length": 65, "batch": 16, "width": 1, "states": 2}),
    ],
)
def test_the_bits_of_the_long_way_and_the_gradients_of_float64(kept, multiprocessors, merge, options):
    values = made(**options)
    with (
        emulated_device() as launches,
        mock.patch.object(cuda_backend, "_need_cuda"),
        mock.patch.object(forward, "multiprocessors", return_value=multiprocessors),
        mock.patch.object(forward, "_LAYOUTS", {}),
    ):
        found = gradients(values, lambda tensors: replay_training(tensors, True, merge))
        first, launches[:] = list(launches), []
        again = gradients(values, lambda tensors: replay_training(tensors, True, merge))
        assert launches == first
        assert [template.kept_is for template in TRAINING.known.values()] == [kept]
        launches[:] = []
        long = gradients(values, the_long_way(merge))
        assert launches == first
    exact = {name: None if x is None else x.detach().double().requires_grad_() for name, x in values.items()}
    wanted = gradients(exact, lambda tensors: selective_scan(*tensors, True, merge=merge, backend="torch"))
    bound = 1e-5 if values["u"].dtype == torch.float32 else 1e-2
    for one, same, other, right in zip(found, again, long, wanted, strict=True):
        assert one.shape == right.shape
        assert one.dtype == other.dtype
        assert torch.equal(one, same)
        assert torch.equal(one, other)
        assert (one.double() - right).norm() <= bound * right.norm()


class Operators(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.__name__.partition(".")[0]] += 1
        return func(*args, **(kwargs or {}))


def test_few_operators_of_pytorch():
    """Each costs the host some microseconds, of the 400 that a small call may take."""
    values = made(length=32**3, width=64, states=16)
    with mock.patch("napari_mamba.scan.cuda.runtime.Kernel.together"):
        tensors = tuple(values.values())
        y = replay_training(tensors, True, "sum")
        weight = torch.ones_like(y)
        torch.autograd.grad(y, tensors, weight)
        with Operators() as seen:
            torch.autograd.grad(replay_training(tensors, True, "sum"), tensors, weight)
    allocations = sum(count for name, count in seen.counts.items() if name.startswith("empty"))
    views = seen.counts["as_strided"] + seen.counts["unbind"]
    assert allocations <= 9, seen.counts
    assert allocations + views + seen.counts["detach"] == seen.counts.total(), seen.counts  # nothing is computed
    assert seen.counts.total() <= 24, seen.counts


@emulated
def test_gradients_of_any_layout_and_tensors_that_hooks_have_moved():
    values = made()
    with emulated_device():
        expected = gradients(values, lambda tensors: replay_training(tensors, True, "sum"))[1:]
    flat = {"pack_hook": lambda x: x.contiguous().clone(), "unpack_hook": lambda x: x}
    with emulated_device(), torch.autograd.graph.saved_tensors_hooks(**flat):
        y = replay_training(tuple(values.values()), True, "sum")
        weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        turned = weight.transpose(1, 2).contiguous().transpose(1, 2)
        found = torch.autograd.grad(y, list(values.values()), turned, retain_graph=True)
        sums = torch.autograd.grad(y.sum(), list(values.values()))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    exact = [x.detach().double().requires_grad_() for x in values.values()]
    right = torch.autograd.grad(selective_scan(*exact, True, backend="torch").sum(), exact)
    assert all((a - b).norm() <= 1e-5 * b.norm() for a, b in zip(sums, right, strict=True))


def test_what_needs_more_than_launches_goes_the_long_way():
    values = made()
    with mock.patch("napari_mamba.scan.cuda.runtime.Kernel.together"):
        assert replay_training(tuple((values | {"A": values["A"].detach().half()}).values()), True, "sum") is None
        assert replay_training(tuple(made(paths=2).values()), True, "sum") is None, "a sum over paths"
        with pytest.raises(InputError, match="delta_bias has shape"):
            replay_training(tuple((values | {"delta_bias": torch.zeros(5)}).values()), True, "sum")
