"""Gradients of convolutions under autocast on a CPU, against float64: memory that nobody wrote must not be in them."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from napari_mamba.training.precision import float32_small_convolutions

CASES = """
import itertools
import torch
from torch import nn
from napari_mamba.training.precision import float32_small_convolutions

torch.manual_seed(0)
for size, kernel, stride in itertools.product(((2, 2, 2), (1, 1, 1), (2, 4, 4), (3, 1, 2)), (3, 5), (1, 2)):
    layer = float32_small_convolutions(nn.Conv3d(16, 32, kernel, stride, kernel // 2))
    x = torch.randn(5, 16, *size)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    weights = torch.randn(y.shape)
    (y.float() * weights).sum().backward()
    exact = nn.functional.conv3d(x.double(), layer.weight.double(), None, stride, kernel // 2)
    (wanted,) = torch.autograd.grad((exact * weights.double()).sum(), layer.weight)
    error = float((layer.weight.grad - wanted).norm() / wanted.norm())
    assert error < 0.01, (size, kernel, stride, error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the pattern in fresh memory is set as glibc does it")
def test_gradients_of_small_maps_whatever_lay_in_memory_before():
    # 0xFE in all that is allocated: as bfloat16 a number near the largest, so a read of it shows.
    told = subprocess.run(
        [sys.executable, "-c", CASES], env={**os.environ, "MALLOC_PERTURB_": "1"}, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr


@pytest.mark.parametrize(
    ("layer", "shape", "dtype"),
    [
        (nn.Conv3d(2, 2, 3, padding=1), (1, 2, 2, 9, 9), torch.float32),
        (nn.Conv3d(2, 2, 3, padding=1), (1, 2, 3, 9, 9), torch.bfloat16),
        (nn.Conv3d(2, 2, (1, 3, 3), padding=(0, 1, 1)), (1, 2, 1, 9, 9), torch.bfloat16),
        (nn.Conv3d(2, 2, 1), (1, 2, 1, 1, 1), torch.bfloat16),
        (nn.Conv2d(2, 2, 3, padding=2, dilation=2), (1, 2, 4, 9), torch.float32),
        (nn.Conv2d(2, 2, 3, padding=2, dilation=2), (1, 2, 5, 9), torch.bfloat16),
        (nn.Conv1d(2, 2, 4, padding=3), (1, 2, 3), torch.float32),
    ],
)
def test_only_maps_smaller_than_the_kernel_leave_autocast(layer, shape, dtype):
    network = float32_small_convolutions(nn.Sequential(layer))
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.ones(shape)).dtype == dtype
    assert list(network.state_dict()) == ["0.weight", "0.bias"]


def test_a_copy_has_weights_of_its_own_and_kinds_stay():
    network = float32_small_convolutions(float32_small_convolutions(nn.Sequential(nn.Conv3d(1, 1, 3, padding=1))))
    x = torch.ones(1, 1, 2, 2, 2)
    before = network(x)
    other = copy.deepcopy(network)
    nn.init.zeros_(other[0].weight)
    nn.init.zeros_(other[0].bias)
    assert torch.equal(other(x), torch.zeros_like(x))
    assert torch.equal(network(x), before)
    assert isinstance(network[0], nn.Conv3d)
    assert len(type(network[0]).__mro__) == len(nn.Conv3d.__mro__) + 2
