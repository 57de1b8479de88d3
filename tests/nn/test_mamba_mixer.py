"""The S6 mixer: its parameters, its mathematics, its initialisation and its numerics."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from napari_mamba.nn import Mamba
from napari_mamba.scan import scan_order


def test_parameters_are_those_of_mamba_ssm():
    shapes = {name: tuple(value.shape) for name, value in Mamba(20, d_state=8, d_conv=3, expand=2).state_dict().items()}
    assert shapes == {
        "in_proj.weight": (80, 20),
        "conv1d.weight": (40, 1, 3),
        "conv1d.bias": (40,),
        "x_proj.weight": (2 + 16, 40),
        "dt_proj.weight": (40, 2),
        "dt_proj.bias": (40,),
        "A_log": (40, 8),
        "D": (40,),
        "out_proj.weight": (20, 40),
    }
    assert {"in_proj.bias", "out_proj.bias"} <= set(Mamba(8, bias=True).state_dict())
    assert "conv1d.bias" not in Mamba(8, conv_bias=False).state_dict()


def test_initialisation():
    torch.manual_seed(0)
    mixer = Mamba(64)
    dt = F.softplus(mixer.dt_proj.bias.detach())
    assert 0.001 * 0.99 <= float(dt.min()) < 0.003
    assert 0.03 < float(dt.max()) <= 0.1 * 1.01
    torch.testing.assert_close(torch.exp(mixer.A_log[3]), torch.arange(1.0, 17.0))
    assert torch.equal(mixer.D, torch.ones(128))
    assert float(mixer.dt_proj.weight.detach().abs().max()) <= mixer.dt_rank**-0.5


def channels_first(mixer: Mamba, x: torch.Tensor) -> torch.Tensor:
    """The block's slow path as published: (B, D, L) tensors, nn.Conv1d cut to its causal part, a loop over steps."""
    length = x.shape[1]
    inner, z = F.linear(x, mixer.in_proj.weight, mixer.in_proj.bias).transpose(1, 2).chunk(2, dim=1)
    inner = F.silu(mixer.conv1d(inner)[..., :length])
    projected = mixer.x_proj(inner.transpose(1, 2))
    dt, B, C = torch.split(projected, [mixer.dt_rank, mixer.d_state, mixer.d_state], dim=-1)
    dt = F.softplus(mixer.dt_proj(dt)).transpose(1, 2)
    A = -torch.exp(mixer.A_log)
    h, outputs = torch.zeros(x.shape[0], *A.shape, dtype=x.dtype), []
    for t in range(length):
        h = h * torch.exp(dt[:, :, t, None] * A) + (dt[:, :, t] * inner[:, :, t])[..., None] * B[:, None, t]
        outputs.append(torch.einsum("bdn,bn->bd", h, C[:, t]) + mixer.D * inner[:, :, t])
    return mixer.out_proj((torch.stack(outputs, 2) * F.silu(z)).transpose(1, 2))


@pytest.mark.parametrize("keywords", [{}, {"bias": True, "conv_bias": False, "d_state": 4, "d_conv": 2, "expand": 1}])
def test_forward_and_gradients_are_the_published_blocks(keywords):
    torch.manual_seed(0)
    mixer = Mamba(12, **keywords)
    x = torch.randn(2, 40, 12)
    twin = Mamba(12, **keywords).double()
    twin.load_state_dict(mixer.state_dict())
    exact = channels_first(twin, x.double())
    y = mixer(x)
    torch.testing.assert_close(y.double(), exact, rtol=1e-4, atol=1e-6)
    y.square().sum().backward()
    exact.square().sum().backward()
    for (name, p), q in zip(mixer.named_parameters(), twin.parameters(), strict=True):
        assert float((p.grad - q.grad).norm() / q.grad.norm()) < 2e-5, name


def test_an_order_equals_permuting_by_hand():
    torch.manual_seed(0)
    mixer, x, order = Mamba(8), torch.randn(1, 12, 8), scan_order("axis", (3, 4), axes=0)
    by_hand = torch.empty_like(x)
    by_hand[:, order.table[0].copy()] = mixer(x[:, order.table[0].copy()])
    torch.testing.assert_close(mixer(x, order), by_hand, rtol=1e-5, atol=1e-6)


def test_several_paths_share_the_parameters_and_are_summed():
    torch.manual_seed(0)
    mixer, x = Mamba(8).eval(), torch.randn(1, 12, 8)
    paths = [scan_order("raster", (12,)), scan_order("reverse", (12,))]
    both = mixer(x, scan_order("bidirectional", (12,)))
    torch.testing.assert_close(both, sum(mixer(x, path) for path in paths), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_and_finite(dtype):
    torch.manual_seed(0)
    mixer, x = Mamba(16), torch.randn(1, 500, 16)
    exact = mixer(x).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = mixer(x)
    half = mixer.to(dtype)(x.to(dtype))
    for y in (cast, half):
        assert y.isfinite().all()
        assert float((y.detach().float() - exact).norm() / exact.norm()) < 0.03
    assert half.dtype == dtype


def test_dt_rank_auto_rounds_up():
    assert Mamba(17).dt_rank == math.ceil(17 / 16)
    assert Mamba(17, dt_rank=5).dt_rank == 5
