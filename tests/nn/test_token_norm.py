"""Layer norm from maps to tokens: the kernel in the emulator and on a device, and what mixers write channels-first."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "scan"))
from cuda_emulator import emulated_device, find_compiler

from napari_mamba.nn.blocks.unets.conv_blocks import before_norm
from napari_mamba.nn.mixers.mamba import Mamba
from napari_mamba.nn.mixers.multipath import MultiPathMamba
from napari_mamba.nn.mixers.token_mixer import MambaLayer
from napari_mamba.nn.mixers.tom import ToMLayer
from napari_mamba.nn.norms.token_norm import normed_tokens
from napari_mamba.scan import scan_order
from napari_mamba.scan.cuda import token_norm as device_norm

emulated = pytest.mark.skipif(find_compiler() is None, reason="needs g++ on Linux to emulate the CUDA kernels")
SHAPES = [(1, 32, 5, 6, 7), (2, 5, 33), (1, 7, 1), (1, 300, 4, 9), (3, 1, 40)]


def exact(x, weight, bias, eps=1e-5):
    tokens = x.double().flatten(2).transpose(1, 2)
    return F.layer_norm(tokens, tokens.shape[2:], weight.double(), bias.double(), eps)


def make(shape, dtype, device="cpu"):
    torch.manual_seed(sum(shape))
    x = (3 + torch.randn(shape, device=device)).to(dtype)
    return x, torch.randn(shape[1], device=device), torch.randn(shape[1], device=device)


@emulated
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernel_agrees_with_float64(shape, dtype):
    x, weight, bias = make(shape, dtype)
    with emulated_device() as launches:
        y = device_norm.token_norm(x, weight, bias, 1e-5)
    assert [name for name, *_ in launches] == ["token_norm"]
    torch.testing.assert_close(y.double(), exact(x, weight, bias), rtol=1e-5, atol=2e-5)


LAST_SHAPES = [(1, 32, 5, 6, 7), (2, 8, 3, 3, 3), (1, 48, 4, 9), (1, 320, 3, 2, 2), (1, 1024, 2, 2, 2)]


@emulated
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", LAST_SHAPES, ids=str)
def test_the_kernel_of_channels_last_maps_agrees_with_float64(shape, dtype):
    x, weight, bias = make(shape, dtype)
    x = x.contiguous(memory_format=torch.channels_last_3d if len(shape) == 5 else torch.channels_last)
    with emulated_device() as launches:
        y = device_norm.token_norm(x, weight, bias, 1e-5)
    assert [name for name, *_ in launches] == ["token_norm_last"]
    torch.testing.assert_close(y.double(), exact(x, weight, bias), rtol=1e-5, atol=2e-5)


@emulated
def test_a_large_mean_costs_no_digits():
    x, weight, bias = make((1, 24, 50), torch.float32)
    with emulated_device():
        y = device_norm.token_norm(x + 1000, weight, bias, 1e-5)
    assert (y.double() - exact(x + 1000, weight, bias)).norm() <= 1e-4 * exact(x, weight, bias).norm()


def test_elsewhere_it_is_the_layer_norm():
    norm = nn.LayerNorm(8)
    x = torch.randn(2, 8, 3, 4, 5)
    torch.testing.assert_close(normed_tokens(x, norm), norm(x.flatten(2).transpose(1, 2)))
    assert normed_tokens(x.bfloat16(), norm).dtype == torch.float32
    normed_tokens(x.requires_grad_(), norm).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("bias", [False, True])
def test_mixers_write_channels_first(bias):
    torch.manual_seed(0)
    x = torch.randn(2, 30, 8)
    mixers = (Mamba(8, bias=bias), MultiPathMamba(8, bias=bias, scale=0.5), Mamba(8, bias=bias))
    mixers[2].replace_mixer("s4d")
    for mixer, order in zip(mixers, (None, scan_order("bidirectional", (30,)), None), strict=True):
        tokens, maps = mixer(x, order), mixer(x, order, channels_first=True)
        assert maps.is_contiguous()
        torch.testing.assert_close(maps, tokens.transpose(1, 2))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_channels_last_maps_on_a_gpu(dtype):
    x, weight, bias = make((1, 96, 33, 20, 21), dtype, "cuda")
    x = x.contiguous(memory_format=torch.channels_last_3d)
    assert device_norm.takes(x)
    y = device_norm.token_norm(x, weight, bias, 1e-5)
    torch.testing.assert_close(y.double(), exact(x, weight, bias), rtol=1e-5, atol=2e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, (1, 32, 40, 41, 42), (1, 1024, 70)], ids=str)
def test_the_device_agrees_with_float64(shape, dtype):
    x, weight, bias = make(shape, dtype, "cuda")
    torch.testing.assert_close(
        device_norm.token_norm(x, weight, bias, 1e-5).double(), exact(x, weight, bias), rtol=1e-5, atol=3e-5
    )


@pytest.mark.gpu
@pytest.mark.parametrize("layer", [lambda: MambaLayer(16), lambda: ToMLayer(16, num_slices=4)])
def test_layers_on_a_device_keep_the_maps_layout(layer):
    torch.manual_seed(0)
    layer, x = layer().eval(), torch.randn(1, 16, 8, 12, 16)
    with torch.no_grad():
        here, there = layer(x), layer.cuda()(x.cuda())
    assert there.is_contiguous()
    torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-4)
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        half = layer(x.cuda().bfloat16())
    assert half.is_contiguous()
    assert half.dtype == torch.bfloat16


@pytest.mark.gpu
def test_an_offset_before_an_instance_norm_is_left_out_on_a_device():
    conv = nn.Conv3d(2, 3, 3).cuda()
    x = torch.randn(1, 2, 6, 7, 8, device="cuda")
    with torch.no_grad():
        assert torch.allclose(before_norm(conv, x), conv(x) - conv.bias.view(-1, 1, 1, 1), atol=1e-3)
    assert torch.equal(before_norm(conv, x), conv(x)), "training keeps it"
