"""Channels-last maps through whole networks: what they compute stays, and no layer lays them out anew."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "scan"))
from cuda_emulator import emulated_device, find_compiler

from napari_mamba import models
from napari_mamba.nn.blocks import layout
from napari_mamba.nn.blocks.layout import for_convolutions
from napari_mamba.nn.blocks.unets import conv_blocks
from napari_mamba.nn.norms import instance_norm
from napari_mamba.scan.cuda.instance_norm import is_last

emulated = pytest.mark.skipif(find_compiler() is None, reason="needs g++ on Linux to emulate the CUDA kernels")
PLAN = {
    "spatial_dims": 3,
    "input_channels": 1,
    "num_classes": 2,
    "features_per_stage": (8, 16),
    "kernel_sizes": 3,
    "strides": (1, 2),
    "n_conv_per_stage": 1,
    "n_conv_per_stage_decoder": 1,
    "input_size": (16, 16, 16),
}
SEGMAMBA = {"in_chans": 4, "out_chans": 2, "depths": (1, 1, 1, 1), "feat_size": (8, 8, 16, 16), "hidden_size": 16}
NETWORKS = {
    "umamba_enc": (PLAN, (1, 1, 16, 16, 16)),
    "umamba_bot": (PLAN, (1, 1, 16, 16, 16)),
    "segmamba": (SEGMAMBA, (1, 4, 32, 32, 32)),
}


def seen(network: nn.Module) -> list[tuple[str, bool]]:
    """Fills, as the network runs, with its convolutions' names and whether they were given channels-last maps.

    Convolutions answer in the layout of their input, as cuDNN's do; some of a CPU's do not.
    """
    found: list[tuple[str, bool]] = []

    def hook(name, inputs, y):
        found.append((name, is_last(inputs[0])))
        return y.contiguous(memory_format=torch.channels_last_3d) if is_last(inputs[0]) else y

    for name, module in network.named_modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            module.register_forward_hook(lambda _, inputs, y, name=name: hook(name, inputs, y))
    return found


@contextmanager
def kernels(wanted: bool = True):
    with emulated_device() as launches, pytest.MonkeyPatch.context() as patch:
        patch.setattr(instance_norm, "_on_device", lambda x: True)
        patch.setattr(layout, "_wanted", wanted)
        yield launches


@emulated
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_keeps_the_layout_and_its_answer(name):
    arguments, shape = NETWORKS[name]
    torch.manual_seed(0)
    network = models.create(name, **arguments).eval()
    x = torch.randn(shape)
    with torch.no_grad():
        wanted = network(x)
        found = seen(network)
        with kernels() as launches:
            y = network(x)
    assert {"norm_last_apply"} <= {kernel for kernel, *_ in launches}
    assert found
    assert [layer for layer, last in found if not last] == []
    assert (y - wanted).norm() <= 1e-4 * wanted.norm()


def test_what_stays_as_it_comes(monkeypatch):
    monkeypatch.setattr(layout, "wants_kernels", lambda x: True)
    x = torch.randn(2, 3, 4, 5, 6)
    assert for_convolutions(x, (8,)) is x, "training"
    with torch.no_grad():
        assert is_last(for_convolutions(x, (8, 320)))
        assert for_convolutions(x, (8, 30)) is x, "norms without kernels"
        one = for_convolutions(x[:, :1].contiguous(), ())
        assert one.stride() == (120, 1, 30, 6, 1)
        assert torch.equal(one, x[:, :1])
        flat = torch.randn(2, 3, 4, 5)
        assert for_convolutions(flat, ()) is flat, "two axes"
        monkeypatch.setattr(layout, "_wanted", False)
        assert for_convolutions(x, ()) is x


@pytest.mark.parametrize("factor", [(2, 2, 2), (1, 2, 3), (2, 2)])
def test_enlargement_of_a_channels_last_map(factor):
    x = torch.randn(2, 3, *range(2, 2 + len(factor)))
    last = x.contiguous(memory_format=torch.channels_last_3d if len(factor) == 3 else torch.channels_last)
    y = conv_blocks._repeated(last, factor)
    assert is_last(y)
    assert torch.equal(y, nn.functional.interpolate(x, scale_factor=[float(f) for f in factor], mode="nearest"))


@pytest.mark.gpu
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_networks_on_a_gpu(name, dtype, monkeypatch):
    arguments, shape = NETWORKS[name]
    torch.manual_seed(0)
    network, x = models.create(name, **arguments).eval(), torch.randn(shape)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    with torch.no_grad():
        wanted = network(x)
        network = network.cuda()
        found = seen(network)
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            y = network(x.cuda())
    assert [layer for layer, last in found if not last] == []
    limit = 1e-3 if dtype == torch.float32 else 0.1
    assert (y.float().cpu() - wanted).norm() <= limit * wanted.norm()
