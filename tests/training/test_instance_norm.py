"""Our kernels for instance norm against PyTorch's: on a GPU, or in Triton's interpreter with TRITON_INTERPRET=1."""

import os

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from napari_mamba.training import instance_norm

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytest.importorskip("triton", reason="Triton is not installed")
if not (INTERPRETED or torch.cuda.is_available()):
    pytest.skip("needs an NVIDIA GPU, or TRITON_INTERPRET=1", allow_module_level=True)
DEVICE = "cpu" if INTERPRETED else "cuda"


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("size", [(3, 5, 7), (16, 17, 33), (16, 32, 32)])
def test_values_and_gradients_are_those_of_torch(size, dtype, tolerance, monkeypatch):
    monkeypatch.setattr(instance_norm, "BLOCK", 256)
    torch.manual_seed(0)
    x = (5 + torch.randn(2, 3, *size, device=DEVICE)).to(dtype).requires_grad_()
    weight, bias = (torch.randn(3, device=DEVICE, requires_grad=True) for _ in range(2))
    slope = torch.randn_like(x)
    found = instance_norm.instance_norm(x, weight, bias)
    assert found.dtype == dtype
    gradients = torch.autograd.grad(found, (x, weight, bias), slope)
    wanted = F.instance_norm(x.double(), weight=weight.double(), bias=bias.double())
    for mine, theirs in zip(
        (found, *gradients), (wanted, *torch.autograd.grad(wanted, (x, weight, bias), slope.double())), strict=True
    ):
        assert (mine.double() - theirs.double()).norm() < tolerance * theirs.double().norm()


def test_layers_on_the_cpu_stay_as_they_are():
    assert instance_norm.use_fast_norms(nn.InstanceNorm3d(2, affine=True)) == 0
