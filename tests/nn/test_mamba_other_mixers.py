"""S4D, S5 and Mamba-2 against recurrences and the quadratic dual form written out here; all of them exchangeable."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from napari_mamba.errors import InputError
from napari_mamba.nn import S4D, S5, Mamba2, Mamba2Simple, mixer
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
    kernel, last = layer.kernel, layer.output_linear[0]
    A = torch.complex(-torch.exp(kernel.log_A_real.double()), kernel.A_imag.double())
    dt = torch.exp(kernel.log_dt.double())[:, None]
    decay, gain = torch.exp(A * dt), (torch.exp(A * dt) - 1) / A
    C = torch.view_as_complex(kernel.C.double().contiguous())
    h, outputs = torch.zeros(2, *A.shape, dtype=torch.complex128), []
    for t in range(length):
        h = decay * h + gain * u[:, t, :, None]
        outputs.append(2 * (C * h).sum(-1).real + layer.D.double() * u[:, t])
    y = torch.stack(outputs, 1)
    close(layer.convolve(u) + layer.D * u, y, 1e-5)
    a, b = F.linear(F.gelu(y), last.weight[..., 0].double(), last.bias.double()).chunk(2, -1)
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


@pytest.mark.parametrize(
    ("build", "options"),
    [
        (Mamba2, {"d_ssm": 32, "ngroups": 2}),
        (Mamba2, {"D_has_hdim": True, "norm_before_gate": True, "ngroups": 2}),
        (Mamba2, {"rmsnorm": False, "dt_limit": (0.02, 0.03), "d_ssm": 48}),
        (Mamba2Simple, {"learnable_init_states": True, "ngroups": 4}),
        (Mamba2Simple, {"use_mem_eff_path": False, "ngroups": 2}),
    ],
)
def test_mamba2_with_its_options_is_a_recurrence(build, options):
    torch.manual_seed(0)
    layer, u = build(32, d_state=8, headdim=16, **options).double(), torch.randn(2, 20, 32).double()
    for parameter in layer.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    scanned, groups = options.get("d_ssm", 64), options.get("ngroups", 1)
    heads = scanned // 16
    gate, value, z, xBC, dt = layer.in_proj(u).split([64 - scanned] * 2 + [scanned, scanned + 16 * groups, heads], -1)
    xBC = F.silu(layer.conv1d(xBC.mT)[..., :20].mT)
    x = xBC[..., :scanned].unflatten(-1, (heads, 16))
    B, C = (t.unflatten(-1, (groups, 8)).repeat_interleave(heads // groups, 2) for t in xBC[..., scanned:].chunk(2, -1))
    dt = F.softplus(dt + layer.dt_bias).clamp(*options.get("dt_limit", (0, torch.inf)))
    h = torch.zeros(2, heads, 16, 8).double() if layer.init_states is None else layer.init_states.expand(2, -1, -1, -1)
    y = []
    for t in range(20):
        gained = (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None]
        h = torch.exp(-dt[:, t] * layer.A_log.exp())[..., None, None] * h + gained
        y.append((h * C[:, t, :, None]).sum(-1) + layer.D.view(heads, -1) * x[:, t])
    y = torch.stack(y, 1).flatten(2)
    before = options.get("norm_before_gate", False)
    y = y if before else y * F.silu(z)
    if options.get("rmsnorm", True):
        apart = groups if options.get("use_mem_eff_path", True) else 1
        parts = y.unflatten(-1, (apart, -1))
        y = (parts / torch.sqrt((parts**2).mean(-1, keepdim=True) + 1e-5)).flatten(2) * layer.norm.weight
    y = y * F.silu(z) if before else y
    close(layer(u), layer.out_proj(torch.cat([F.silu(gate) * value, y], -1)), 1e-5)


def test_s4d_takes_weights_that_were_saved_under_its_earlier_names():
    layer = S4D(5, d_state=8)
    weights = layer.state_dict()
    earlier = {
        key.replace("kernel.", "").replace("output_linear.0", "out_proj"): value for key, value in weights.items()
    }
    earlier["out_proj.weight"] = earlier["out_proj.weight"][..., 0]
    again = S4D(5, d_state=8)
    again.load_state_dict(earlier, strict=True)
    assert all(torch.equal(value, weights[key]) for key, value in again.state_dict().items())


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
