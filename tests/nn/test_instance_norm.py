"""The fused instance norm against PyTorch's in float64: in the emulator, and on the device where there is one."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "scan"))
from cuda_emulator import emulated_device, find_compiler

from napari_mamba.models.registration.parts import ConvNormReLU
from napari_mamba.models.segmentation.segmamba import GSC
from napari_mamba.models.segmentation.segmamba_v2 import ConvBlock
from napari_mamba.nn.blocks.unets.conv_blocks import ProjectedResidualBlock, ResidualBlock
from napari_mamba.nn.blocks.unets.unetr import UnetrConvBlock
from napari_mamba.nn.norms import instance_norm
from napari_mamba.nn.norms.instance_norm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d, norm_act
from napari_mamba.scan.cuda import instance_norm as device_norm

emulated = pytest.mark.skipif(find_compiler() is None, reason="needs g++ on Linux to emulate the CUDA kernels")
TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 5e-3}
PLAIN = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
LAYERS = {1: InstanceNorm1d, 2: InstanceNorm2d, 3: InstanceNorm3d}


@contextmanager
def on(device: str, reverse: bool = False):
    """Send fused norms to the emulator, or to the device as users do; gives the launches where they can be seen."""
    if device == "cuda":
        yield None
        assert instance_norm._available()
        assert instance_norm._Switch.on, "a kernel failed and PyTorch did the work"
        return
    with emulated_device(reverse) as launches, pytest.MonkeyPatch.context() as patch:
        patch.setattr(instance_norm, "_on_device", lambda x: True)
        yield launches


def make(shape, dtype=torch.float32, affine=True, mean=0.0, spread=1.0, seed=0):
    """x, weight, bias, residual, gradient."""
    rng = torch.Generator().manual_seed(seed)
    x = (torch.randn(shape, generator=rng, dtype=torch.float64) * spread + mean).to(dtype)
    weight = torch.randn(shape[1], generator=rng) if affine else None
    bias = torch.randn(shape[1], generator=rng) if affine else None
    residual, grad = (torch.randn(shape, generator=rng).to(dtype) for _ in range(2))
    return x, weight, bias, residual, grad


def run(layers, tensors, slope, wide=False, device="cpu", eps=1e-5):
    """The output and the gradients of x, weight, bias and residual, by these layers."""
    x, weight, bias, residual, grad = [
        None if t is None else (t.double() if wide else t).to(device).clone() for t in tensors
    ]
    norm = layers[x.ndim - 2](x.shape[1], eps=eps, affine=weight is not None, device=device)
    if weight is not None:
        norm.weight, norm.bias = nn.Parameter(weight), nn.Parameter(bias)
    leaves = [x.requires_grad_(), norm.weight, norm.bias]
    leaves += [None] if residual is None else [residual.requires_grad_()]
    y = norm_act(norm, x, slope, residual)
    given = [leaf for leaf in leaves if leaf is not None]
    return [t.detach().cpu() for t in (y, *torch.autograd.grad(y, given, grad))]


def agree(tensors, slope=0.01, device="cpu", reverse=False, factor=1.0):
    wanted = run(PLAIN, tensors, slope, wide=True)
    with on(device, reverse) as launches:
        found = run(LAYERS, tensors, slope, device=device)
    assert launches is None or launches
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert torch.isfinite(one).all()
        # The gradient of two elements is all cancellation, so its error counts against what cancels.
        scale = max(other.norm(), 0.2 * tensors[-1].double().norm())
        assert (one.double() - other).norm() <= factor * TOLERANCE[tensors[0].dtype] * scale
    assert found[0].dtype == tensors[0].dtype


SHAPES = [
    pytest.param((1, 2, 2), id="two elements"),
    pytest.param((2, 3, 1, 5, 1), id="axes of one voxel"),
    pytest.param((2, 3, 5, 7, 3), id="rows that are not aligned"),
    pytest.param((1, 5, 8, 8, 8), id="aligned, shorter than a tile"),
    pytest.param((2, 2, 16, 16, 20), id="two runs a row, the last one partly filled"),
    pytest.param((1, 3, 64, 80), id="two axes"),
    pytest.param((1, 1, 8193), id="three runs of odd length"),
]


@emulated
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("residual", [True, False])
def test_it_agrees_with_float64(shape, dtype, residual):
    tensors = make(shape, dtype)
    agree(tensors if residual else (*tensors[:3], None, tensors[4]))


@emulated
@pytest.mark.parametrize("slope", [None, 0, 0.01, 0.3, 1])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_activation_affine_and_residual_are_optional(slope, affine, residual):
    tensors = make((2, 4, 5, 6, 7), affine=affine)
    agree(tensors if residual else (*tensors[:3], None, tensors[4]), slope, reverse=True)


def over_itself(shape, dtype, residual, device="cpu", reverse=False):
    """The result left in x's memory is the one that is made elsewhere, bit for bit."""
    x, weight, bias, other, _ = [None if t is None else t.to(device) for t in make(shape, dtype, mean=3.0)]
    norm = LAYERS[x.ndim - 2](x.shape[1], affine=True, device=device)
    norm.weight, norm.bias = nn.Parameter(weight), nn.Parameter(bias)
    other = other if residual else None
    with on(device, reverse), torch.no_grad():
        apart = norm_act(norm, x.clone(), 0.01, other)
        over = norm_act(norm, x, 0.01, other, overwrite=True)
    assert over.data_ptr() == x.data_ptr() != apart.data_ptr()
    assert torch.equal(over, apart)


@emulated
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reverse", [False, True], ids=["ascending", "descending"])
def test_the_result_may_lie_over_the_input(shape, reverse):
    over_itself(shape, torch.float32, residual=True, reverse=reverse)
    over_itself(shape, torch.bfloat16, residual=False, reverse=reverse)


LAST_SHAPES = [
    pytest.param((2, 8, 3, 5, 7), id="few voxels"),
    pytest.param((1, 16, 1, 1, 1), id="one voxel"),
    pytest.param((1, 48, 9, 10, 11), id="channels that do not divide a block"),
    pytest.param((1, 1024, 2, 3, 2), id="as many channels as a block takes"),
    pytest.param((2, 24, 13, 9), id="two axes"),
    pytest.param((1, 8, 30, 31, 32), id="many runs"),
    pytest.param((1, 1024, 10, 5, 5), id="runs of 8 voxels, the last one of 2"),
]


def channels_last(shape, dtype, device="cpu", reverse=False, **made):
    """The kernels of channels-last maps against float64, with a residual and without, elsewhere and over the input."""
    x, weight, bias, residual, _ = make(shape, dtype, **made)
    layout = device_norm.LAST[len(shape)]
    norm = LAYERS[x.ndim - 2](shape[1], affine=True, device=device)
    norm.weight, norm.bias = nn.Parameter(weight.to(device)), nn.Parameter(bias.to(device))
    exact = PLAIN[x.ndim - 2](shape[1], affine=True).double()
    exact.weight, exact.bias = nn.Parameter(weight.double()), nn.Parameter(bias.double())
    x, residual = (t.to(device).contiguous(memory_format=layout) for t in (x, residual))
    x = x.as_strided(x.shape, torch.empty(shape).to(memory_format=layout).stride()) if x.is_contiguous() else x
    for other in (None, residual):
        with torch.no_grad():
            wanted = F.batch_norm(x.double().cpu().flatten(0, 1)[None], None, None, training=True)
            wanted = wanted.view(shape) * weight.double().view(1, -1, *[1] * (x.ndim - 2))
            wanted = wanted + bias.double().view(1, -1, *[1] * (x.ndim - 2))
            wanted = F.leaky_relu(wanted if other is None else wanted + other.double().cpu(), 0.01)
        with on(device, reverse) as launches, torch.no_grad():
            apart = norm_act(norm, x, 0.01, other)
            over = norm_act(norm, x.clone(), 0.01, other, overwrite=True)
        assert launches is None or {name for name, *_ in launches} == {
            "norm_last_statistics", "norm_last_merge", "norm_last_apply"
        }  # fmt: skip
        assert device_norm.is_last(apart)
        assert torch.equal(apart, over)
        error = (apart.double().cpu() - wanted).norm() / wanted.norm()
        assert error <= TOLERANCE[dtype]


@emulated
@pytest.mark.parametrize("shape", [s for s in LAST_SHAPES if s.id != "one voxel"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_channels_last_maps_agree_with_float64(shape, dtype):
    channels_last(shape, dtype, mean=1.0)


@emulated
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_channels_last_maps_with_a_large_mean(dtype):
    channels_last((1, 8, 12, 13, 14), dtype, reverse=True, mean=20.0 if dtype != torch.float32 else 1000.0)


@emulated
def test_channels_last_maps_whose_gradient_is_asked_for_go_to_pytorch():
    x = torch.randn(1, 8, 4, 5, 6).contiguous(memory_format=torch.channels_last_3d)
    with on("cpu") as launches:
        norm_act(InstanceNorm3d(8, affine=True), x, 0.01).sum().backward()
        with torch.no_grad():
            norm_act(InstanceNorm3d(6), torch.randn(1, 6, 4, 5, 6).contiguous(memory_format=torch.channels_last_3d), 0)
    assert not launches


@emulated
def test_an_input_that_a_gradient_needs_is_kept():
    x, *_ = make((1, 4, 5, 6, 7))
    norm, before = InstanceNorm3d(4), x.clone()
    with on("cpu"):
        y = norm_act(norm, x.requires_grad_(), 0.01, overwrite=True)
    assert y.data_ptr() != x.data_ptr()
    assert torch.equal(x, before)


@emulated
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_weights_may_be_as_narrow_as_the_input(dtype):
    x, weight, bias, residual, grad = make((2, 4, 6, 7), dtype)
    agree((x, weight.to(dtype), bias.to(dtype), residual, grad))


@emulated
@pytest.mark.parametrize("size", [700, 5001])
def test_a_mean_that_is_large_against_the_spread_costs_no_digits(size):
    agree(make((2, 2, size), mean=1e5, spread=1.0))
    x, *others = make((1, 2, size), mean=3e3, spread=0.5)
    x[:, :, 0] = -3e3  # what the row is compared with is far from it
    agree((x, *others), factor=100)


@emulated
def test_many_runs_and_tiles_are_merged(monkeypatch):
    monkeypatch.setattr(device_norm, "BLOCKS_EACH", 1)  # 4 runs of 4 tiles or fewer
    agree(make((1, 1, 14 * 4096 + 3), torch.bfloat16))
    monkeypatch.setattr(device_norm, "BLOCKS_EACH", 1000)
    agree(make((1, 1, 40 * 4096)))


@emulated
def test_a_map_may_begin_at_any_address():
    x, grad = (torch.randn(2 * 3 * 4096 + 1)[1:].view(2, 3, 4096) for _ in range(2))
    norm = InstanceNorm1d(3)
    with on("cpu"):
        y = norm_act(norm, x.requires_grad_(), 0.01)
        (found,) = torch.autograd.grad(y, x, grad)
    wanted = F.leaky_relu(F.instance_norm(x), 0.01)
    torch.testing.assert_close(y, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, *torch.autograd.grad(wanted, x, grad), rtol=1e-5, atol=1e-5)


@emulated
def test_a_constant_channel_gives_the_offset():
    norm = InstanceNorm3d(2, affine=True)
    nn.init.constant_(norm.bias, 3.0)
    with on("cpu"):
        y = norm(torch.full((1, 2, 4, 4, 4), 1e4))
    assert torch.equal(y, torch.full_like(y, 3.0))


@emulated
def test_results_have_the_same_bits_whatever_the_order_of_the_threads():
    found = []
    for reverse in (False, True):
        with on("cpu", reverse):
            found.append(run(LAYERS, make((2, 3, 9001)), 0.01))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@emulated
def test_launches_are_as_few_as_can_be():
    small, large = torch.randn(1, 2, 4096, requires_grad=True), torch.randn(1, 2, 4097, requires_grad=True)
    for x, forward, backward in (
        (small, ["norm_apply"], ["norm_gradient"]),
        (large, ["norm_statistics", "norm_apply"], ["norm_sums", "norm_gradient"]),
    ):
        with on("cpu") as launches:
            y = norm_act(InstanceNorm1d(2), x, 0.01)
            assert [name for name, *_ in launches] == forward
            y.sum().backward()
        assert [name for name, *_ in launches] == forward + backward


@emulated
def test_only_the_gradients_asked_for_are_computed():
    x, _, _, residual, grad = make((2, 3, 6, 7))
    norm = InstanceNorm2d(3, affine=True)
    with on("cpu"):
        norm_act(norm, x, 0.01, residual).backward(grad)
        assert norm.weight.grad is not None
        assert x.grad is residual.grad is None
        norm.requires_grad_(False)
        norm_act(norm, x, 0.01, residual.requires_grad_()).backward(grad)
    assert residual.grad is not None
    assert x.grad is None


BLOCKS = {  # how many norms, and the block from 4 channels
    "residual": (2, lambda: ResidualBlock(4, 4, (3, 3, 3))),
    "residual, projected and halved": (3, lambda: ResidualBlock(4, 8, (3, 3, 3), 2)),
    "projected": (2, lambda: ProjectedResidualBlock(4, 8, (3, 3), 2)),
    "UNETR": (2, lambda: UnetrConvBlock(2, 4, 4)),
    "UNETR, projected": (3, lambda: UnetrConvBlock(3, 4, 8)),
    "UNETR without residual": (2, lambda: UnetrConvBlock(3, 4, 4, res_block=False)),
    "gated convolution": (4, lambda: GSC(4)),
    "SegMamba-V2's": (1, lambda: ConvBlock(4, 3)),
    "MambaMorph's": (1, lambda: ConvNormReLU(4, 8)),
}


def through(block, x):
    """The output, and the gradients of the input and the weights."""
    leaves = [x.requires_grad_(), *block.parameters()]
    y = block(x)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), leaves)]


@emulated
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_use_it_and_do_what_they_do_without(name):
    torch.manual_seed(0)
    norms, make_block = BLOCKS[name]
    block = make_block()
    x = torch.randn(2, 4, 6, 8, 10) if any(p.ndim == 5 for p in block.parameters()) else torch.randn(2, 4, 12, 8)
    wanted = through(block, x)
    with on("cpu") as launches:
        found = through(block, x)
    assert [kind for kind, *_ in launches] == norms * ["norm_apply"] + norms * ["norm_gradient"]
    for one, other in zip(found, wanted, strict=True):
        # A convolution's bias before a norm has no gradient but rounding.
        assert (one - other).norm() <= 1e-5 * other.norm() + 1e-3


@pytest.mark.parametrize("slope", [None, 0, 0.01])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_cpu_does_what_pytorch_does(slope, dtype):
    x = torch.randn(2, 3, 4, 5, dtype=dtype)
    norm, plain = (layers[2](3, affine=True).to(dtype) for layers in (LAYERS, PLAIN))
    y = plain(x)
    wanted = y if slope is None else F.relu(y) if slope == 0 else F.leaky_relu(y, slope)
    assert torch.equal(norm_act(norm, x, slope), wanted)
    assert torch.equal(norm(x), plain(x))
    assert isinstance(norm, nn.InstanceNorm2d)
    assert list(norm.state_dict()) == ["weight", "bias"]


def test_other_norms_are_called_and_their_input_is_left_alone():
    x = torch.randn(2, 4, 5, 5)
    before = x.clone()
    assert torch.equal(norm_act(nn.Identity(), x, 0.1), F.leaky_relu(x, 0.1))
    assert torch.equal(norm_act(nn.GroupNorm(2, 4), x, 0), F.relu(nn.GroupNorm(2, 4)(x)))
    assert torch.equal(x, before)


@emulated
def test_what_has_no_kernel_goes_to_pytorch(monkeypatch):
    norm = InstanceNorm2d(3, affine=True)
    cases = [
        (norm, torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)),
        (norm, torch.randn(2, 3, 5, 4).mT),
        (norm, torch.randn(3, 4, 5)),
        (norm.double(), torch.randn(1, 3, 4, 5).double()),
        (InstanceNorm2d(3, track_running_stats=True), torch.randn(2, 3, 4, 5)),
    ]
    for layer, x in cases:
        layer = layer.to(x.dtype)
        with on("cpu") as launches:
            found = layer(x)
        assert not launches
        assert found.shape == x.shape
    with on("cpu"), pytest.raises(ValueError, match="more than 1 spatial element"):
        InstanceNorm2d(3)(torch.randn(1, 3, 1, 1))
    monkeypatch.setattr(instance_norm._Switch, "on", False)
    with on("cpu") as launches:
        norm.float()(torch.randn(1, 3, 4, 5))
    assert not launches


@emulated
def test_a_residual_of_another_kind_is_added_by_pytorch():
    x, _, _, residual, _ = make((1, 3, 4, 5), torch.bfloat16)
    with on("cpu") as launches:
        y = norm_act(InstanceNorm2d(3), x, 0.01, residual.float())
        z = norm_act(InstanceNorm2d(3), x, 0.01, residual[:, :1])
    assert len(launches) == 2
    assert y.dtype == torch.float32
    assert z.dtype == torch.bfloat16


def test_a_kernel_that_cannot_be_made_leaves_the_work_to_pytorch(monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise instance_norm.NapariMambaError("no compiler")

    monkeypatch.setattr(instance_norm, "_on_device", lambda x: True)
    monkeypatch.setattr(device_norm, "run_forward", fail)
    monkeypatch.setattr(instance_norm._Switch, "on", True)
    x = torch.randn(1, 3, 4, 5)
    assert torch.equal(InstanceNorm2d(3)(x), F.instance_norm(x))
    assert "no compiler" in caplog.text
    assert not instance_norm._Switch.on


@emulated
def test_it_cannot_be_differentiated_twice_and_says_so():
    x = torch.randn(1, 2, 9, requires_grad=True)
    with on("cpu"):
        (dx,) = torch.autograd.grad(norm_act(InstanceNorm1d(2), x, 0.01).square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            dx.sum().backward()


def test_every_row_is_covered_by_legal_launches():
    for rows, size in [(32, 128 * 144 * 128), (32, 128**3), (320, 512), (2, 1024**3), (10**6, 3), (1, 2)]:
        for processors in (4, 132):
            splits, tiles = device_norm.cut_rows(rows, size, processors)
            assert 1 <= splits <= device_norm.MAX_SPLITS
            assert (splits - 1) * tiles * device_norm.TILE < size <= splits * tiles * device_norm.TILE
            assert rows * splits < 2**31


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", [(1, 32, 64, 64, 65), (2, 96, 33, 32, 31), (1, 768, 8, 8, 8), (1, 48, 96, 96, 96)])
def test_channels_last_maps_agree_with_float64_on_a_gpu(shape, dtype):
    channels_last(shape, dtype, device="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", [(1, 32, 64, 64, 65), (2, 3, 5, 7, 3), (1, 48, 96, 96, 96), (1, 768, 8, 8, 8)])
def test_the_result_may_lie_over_the_input_on_a_gpu(shape, dtype):
    over_itself(shape, dtype, residual=True, device="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [*SHAPES, pytest.param((2, 16, 64, 72, 64), id="large")])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("residual", [True, False])
def test_the_device_agrees_with_float64(shape, dtype, residual):
    tensors = make(shape, dtype)
    agree(tensors if residual else (*tensors[:3], None, tensors[4]), device="cuda")


@pytest.mark.gpu
def test_a_cuda_graph_records_it():
    norm, x = InstanceNorm3d(4, affine=True).cuda(), torch.randn(1, 4, 24, 24, 24, device="cuda")
    with torch.no_grad():
        norm(x)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = norm_act(norm, x, 0.01)
        x.copy_(torch.randn_like(x))
        graph.replay()
        assert torch.allclose(y, F.leaky_relu(F.instance_norm(x), 0.01), atol=1e-5)
