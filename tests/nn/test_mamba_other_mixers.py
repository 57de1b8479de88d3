"""S4D, S5 and Mamba-2 against recurrences and the quadratic dual form written out here; all of them exchangeable."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from napari_mamba.errors import InputError
from napari_mamba.nn import S4D, S5, Mamba2, mixer
from napari_mamba.nn.mixers.linear.s5 import hippo_normal
from napari_mamba.scan import scan_order
from napari_mamba.scan.ssd import ssd

NAMES = ("mamba", "mamba2", "s4d", "s5", "s4", "h3")


def close(result, truth, bound):
    assert float((result.double() - truth.double()).norm() / truth.double().norm()) < bound


@pytest.mark.parametrize("length", [1, 2, 100, 1000])
def test_s4d_is_a_recurrence_of_each_channel(length):
    torch.manual_seed(0)
    layer, u = S4D(5, d_state=8), torch.randn(2, length, 5)
    A = torch.complex(-torch.exp(layer.log_A_real.double()), layer.A_imag.double())
    dt = torch.exp(layer.log_dt.double())[:, None]
    decay, gain = torch.exp(A * dt), (torch.exp(A * dt) - 1) / A
    C = torch.view_as_complex(layer.C.double().contiguous())
    h, outputs = torch.zeros(2, *A.shape, dtype=torch.complex128), []
    for t in range(length):
        h = decay * h + gain * u[:, t, :, None]
        outputs.append(2 * (C * h).sum(-1).real + layer.D.double() * u[:, t])
    y = torch.stack(outputs, 1)
    close(layer.convolve(u) + layer.D * u, y, 1e-5)
    a, b = F.linear(F.gelu(y), layer.out_proj.weight.double(), layer.out_proj.bias.double()).chunk(2, -1)
    close(layer(u), a * torch.sigmoid(b), 1e-5)


@pytest.mark.parametrize("length", [1, 2, 100, 1000])
def test_s5_is_one_recurrence_of_all_channels(length):
    torch.manual_seed(0)
    layer, u = S5(5, d_state=8), torch.randn(2, length, 5)
    eigenvalues = torch.complex(layer.Lambda_re.double(), layer.Lambda_im.double())
    decay = torch.exp(eigenvalues * torch.exp(layer.log_step.double()))
    B = ((decay - 1) / eigenvalues)[:, None] * torch.view_as_complex(layer.B.double().contiguous())
    C = torch.view_as_complex(layer.C.double().contiguous())
    h, outputs = torch.zeros(2, 4, dtype=torch.complex128), []
    for t in range(length):
        h = decay * h + u[:, t].to(B.dtype) @ B.T
        outputs.append(2 * (h @ C.T).real + layer.D.double() * u[:, t])
    y = F.gelu(torch.stack(outputs, 1))
    gate = torch.sigmoid(F.linear(y, layer.out_gate.weight.double(), layer.out_gate.bias.double()))
    close(layer(u), y * gate, 1e-5)


def test_s5_starts_from_hippo():
    eigenvalues, vectors = hippo_normal(6)
    n = torch.arange(6, dtype=torch.float64)
    p = torch.sqrt(n + 0.5)
    legs = torch.zeros(6, 6, dtype=torch.float64)
    for i in range(6):
        for j in range(i + 1):
            legs[i, j] = -(i + 1.0) if i == j else -(((2 * i + 1) * (2 * j + 1)) ** 0.5)
    normal = (legs + torch.outer(p, p)).to(torch.complex128)
    torch.testing.assert_close(normal @ vectors, vectors * eigenvalues)
    assert (eigenvalues.imag < 0).all()


def dual(x, log_decay, B, C):
    """SSD as masked attention over the whole sequence: Y = (L ∘ C Bᵀ) X, L[i, j] = exp(Σ_{j < k ≤ i} log_decay[k])."""
    heads_of_a_group = x.shape[2] // B.shape[2]
    B, C = (t.repeat_interleave(heads_of_a_group, dim=2) for t in (B, C))
    since = log_decay.cumsum(1)
    gap = since[:, :, None] - since[:, None]  # (B, i, j, H)
    length = x.shape[1]
    mask = torch.arange(length)[:, None] >= torch.arange(length)
    L = torch.where(mask[None, ..., None], torch.exp(gap), 0.0)
    return torch.einsum("bijh,bihn,bjhn,bjhp->bihp", L, C, B, x)


@pytest.mark.parametrize(("length", "chunk"), [(1, 4), (5, 4), (64, 16), (50, 64)])
@pytest.mark.parametrize("groups", [1, 2])
def test_ssd_is_its_quadratic_dual_and_its_recurrence(length, chunk, groups):
    torch.manual_seed(0)
    x, decay = torch.randn(2, length, 4, 3).double(), -torch.rand(2, length, 4).double()
    B, C = torch.randn(2, 2, length, groups, 5).double()
    y = ssd(x, decay, B, C, chunk)
    torch.testing.assert_close(y, dual(x, decay, B, C))
    h, outputs = torch.zeros(2, 4, 3, 5, dtype=torch.float64), []
    for t in range(length):
        b, c = (v[:, t].repeat_interleave(4 // groups, 1) for v in (B, C))
        h = torch.exp(decay[:, t])[..., None, None] * h + x[:, t, ..., None] * b[:, :, None]
        outputs.append((h * c[:, :, None]).sum(-1))
    torch.testing.assert_close(y, torch.stack(outputs, 1))


def test_ssd_of_strong_decays_stays_finite_with_gradients():
    x, decay = torch.randn(1, 300, 2, 4, requires_grad=True), torch.full((1, 300, 2), -50.0, requires_grad=True)
    B, C = torch.randn(2, 1, 300, 1, 3)
    y = ssd(x, decay, B, C)
    y.sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()
    assert decay.grad.isfinite().all()


def test_mamba2_parameters_are_those_of_mamba_ssm():
    shapes = {name: tuple(value.shape) for name, value in Mamba2(64, d_state=16, ngroups=2).state_dict().items()}
    assert shapes == {
        "in_proj.weight": (128 + 128 + 2 * 2 * 16 + 2, 64),
        "conv1d.weight": (128 + 64, 1, 4),
        "conv1d.bias": (128 + 64,),
        "dt_bias": (2,),
        "A_log": (2,),
        "D": (2,),
        "norm.weight": (128,),
        "out_proj.weight": (64, 128),
    }


def test_mamba2_is_the_published_block():
    torch.manual_seed(0)
    layer, x = Mamba2(32, d_state=8, headdim=16), torch.randn(2, 70, 32)
    twin = Mamba2(32, d_state=8, headdim=16).double()
    twin.load_state_dict(layer.state_dict())
    z, xBC, dt = (x.double() @ twin.in_proj.weight.T).split([64, 80, 4], -1)
    dt = F.softplus(dt + twin.dt_bias)
    xBC = F.silu(twin.conv1d(xBC.transpose(1, 2))[..., :70].transpose(1, 2))
    u, B, C = xBC.split([64, 8, 8], -1)
    u = u.unflatten(-1, (4, 16))
    y = dual(u * dt[..., None], -torch.exp(twin.A_log) * dt, B[:, :, None], C[:, :, None]) + twin.D[:, None] * u
    y = y.flatten(2) * F.silu(z)
    y = y / torch.sqrt((y**2).mean(-1, keepdim=True) + 1e-5)
    close(layer(x), y @ twin.out_proj.weight.T, 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_mixers_are_exchangeable(name):
    torch.manual_seed(0)
    layer, x = mixer(name, 24, d_state=8, d_conv=4, expand=2, dt_rank="auto"), torch.randn(2, 12, 24)
    y = layer(x)
    assert y.shape == x.shape
    y.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_every_mixer_runs_along_an_order(name):
    torch.manual_seed(0)
    layer, x = mixer(name, 16, d_state=8), torch.randn(1, 12, 16)
    order = scan_order("axis", (3, 4), axes=0)
    index = order.tensor()[0]
    by_hand = torch.zeros_like(x)
    by_hand[:, index] = layer(x[:, index])
    torch.testing.assert_close(layer(x, order), by_hand, rtol=1e-4, atol=1e-5)
    assert layer(x, scan_order("ss2d", (3, 4))).shape == x.shape


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_mixer_in_half_precision(name, dtype):
    torch.manual_seed(0)
    layer, x = mixer(name, 16, d_state=8), torch.randn(1, 200, 16)
    exact = layer(x).detach()
    with torch.autocast("cpu", dtype=dtype):
        y = layer(x)
    assert y.isfinite().all()
    close(y.detach(), exact, 0.03)


def test_bad_mixers_are_named():
    for name, arguments, text in [
        ("s6", {}, "unknown"),
        ("s4d", {"wings": 2}, "wings"),
        ("mamba2", {"headdim": 5}, "headdim"),
        ("mamba2", {"ngroups": 7}, "ngroups"),
    ]:
        with pytest.raises(InputError, match=text):
            mixer(name, 16, **arguments)
