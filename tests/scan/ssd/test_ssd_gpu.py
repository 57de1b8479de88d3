"""Mamba-2's kernels on a GPU at sizes of real networks, in every precision, against float64 in plain PyTorch."""

import pytest
import torch

from napari_mamba.nn import Mamba2
from napari_mamba.nn.mixers.mamba2 import scan_heads
from napari_mamba.scan import scan_order
from napari_mamba.scan.ssd import ssd_backend_on
from napari_mamba.scan.ssd.choice import SWITCH

pytestmark = pytest.mark.gpu
LIMITS = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
SHAPES = {
    "language": (2, 1, 4096, 24, 64, 1, 128),
    "image": (4, 1, 56 * 56, 12, 64, 1, 64),
    "volume": (1, 1, 32**3, 8, 32, 1, 16),
    "four paths": (1, 4, 48 * 48, 6, 32, 1, 64),
    "groups and a wide head": (2, 2, 1001, 4, 96, 2, 40),
    "many states": (1, 1, 700, 3, 64, 1, 256),
    "one step": (3, 1, 1, 2, 4, 1, 3),
}


@pytest.fixture(autouse=True)
def kernels(monkeypatch):
    """Why there is nothing to test, if so."""
    monkeypatch.setenv(SWITCH, "1")
    name, reason = ssd_backend_on(torch.device("cuda"))
    if name != "triton":
        pytest.skip(reason)


def found(values, dy, states, groups, order, backend):
    leaves = [x.detach().clone().requires_grad_() for x in values]
    y = scan_heads(*leaves, states, groups, order, backend=backend)
    return [y, *torch.autograd.grad(y, leaves, dy.to(y.dtype))]


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_output_and_gradients(shape, dtype):
    batch, paths, length, heads, width, groups, states = shape
    rng = torch.Generator("cuda").manual_seed(0)

    def normal(*size):
        return torch.randn(*size, generator=rng, device="cuda")

    values = (
        normal(batch, paths, length, heads * width + 2 * groups * states).to(dtype),
        torch.nn.functional.softplus(normal(batch, paths, length, heads) - 3),
        normal(heads),
        normal(heads),
    )
    dy = normal(batch, length, heads * width).to(dtype)
    order = torch.stack([torch.randperm(length, generator=rng, device="cuda") for _ in range(paths)])
    ours = found(values, dy, states, groups, order, "triton")
    exact = found([x.double() for x in values], dy, states, groups, order, "torch")
    worst = [float((a.double() - b).norm() / b.norm()) for a, b in zip(ours, exact, strict=True)]
    assert max(worst) < LIMITS[dtype], worst
    assert ours[0].dtype == ours[1].dtype == dtype


def test_the_mixer_trains_under_autocast_as_in_float32():
    torch.manual_seed(0)
    layer, x = Mamba2(64, d_state=32).cuda(), torch.randn(2, 24 * 24, 64, device="cuda")
    order = scan_order("bidirectional", (24, 24))
    plain = Mamba2(64, d_state=32, backend="torch").cuda()
    plain.load_state_dict(layer.state_dict())
    truth = plain(x, order)
    torch.testing.assert_close(layer(x, order), truth, rtol=1e-3, atol=1e-4)
    with torch.autocast("cuda", torch.bfloat16):
        half = layer(x, order)
    assert float((half - truth).norm() / truth.norm()) < 3e-2
    half.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_it_runs_in_a_cuda_graph():
    torch.manual_seed(0)
    layer, x = Mamba2(64, d_state=32).cuda().eval(), torch.randn(1, 500, 64, device="cuda")
    with torch.inference_mode():
        plain = layer(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = layer(x)
        graph.replay()
        assert torch.equal(y, plain)


def test_two_runs_give_the_same_bits():
    torch.manual_seed(0)
    values = (torch.randn(1, 1, 900, 128 + 32), torch.rand(1, 1, 900, 4), torch.zeros(4), torch.ones(4))
    values = [x.cuda() for x in values]
    dy = torch.randn(1, 900, 128, device="cuda")
    first, second = (found(values, dy, 16, 1, None, "triton") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
