"""S4 and H3 equal to recurrences written out here (that they are their authors' layers: tests/models)."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from napari_mamba import models
from napari_mamba.nn import H3, S4


def close(result, truth, bound=1e-4):
    result, truth = result.detach().double(), truth.detach().double()
    assert float((result - truth).norm() / truth.norm()) < bound


@pytest.mark.parametrize(
    ("length", "options"),
    [
        (2, {}),
        (63, {"rank": 2, "channels": 2, "n_ssm": 1}),
        (40, {"bidirectional": True, "dt_tie": False, "channels": 2, "swap_channels": True}),
        (50, {"l_max": 20, "rank": 3}),
    ],
)
def test_s4_is_a_recurrence_of_each_channel(length, options):
    """With the matrix as a whole: discretised by the bilinear rule, step by step."""
    torch.manual_seed(0)
    layer, u = S4(3, d_state=8, **options).layer, torch.randn(2, length, 3)
    layer.kernel.P.data += 0.1 * torch.randn_like(layer.kernel.P)
    dt, A, B, C, P = (x.detach().to(torch.cdouble) for x in layer.kernel._parameters_of())
    dt, A, B, C, P = (torch.cat([x, x.conj()], -1) for x in (dt.expand_as(A), A, B[0], C, P))
    matrix = torch.diag_embed(A) - sum(p[:, :, None] * p.conj()[:, None] for p in P)
    rate = torch.diag_embed(2 / dt)
    dA, dB = torch.linalg.solve(rate - matrix, rate + matrix), torch.linalg.solve(rate - matrix, 2 * B)
    taps, h = [], dB
    for _ in range(min(length, options.get("l_max", length))):
        taps.append((C * h).sum(-1).real)  # (channels, 3)
        h = torch.einsum("hmn,hn->hm", dA, h)
    outputs, wide = torch.zeros(2, length, options.get("channels", 1), 3).double(), u.double()[:, :, None]
    ahead = len(layer.D)
    for t in range(length):
        outputs[:, t] += layer.D.double() * wide[:, t]
        for lag, tap in enumerate(taps):
            if t >= lag:
                outputs[:, t] += tap[:ahead] * wide[:, t - lag]
            if options.get("bidirectional") and t + lag + 1 < length:
                outputs[:, t] += tap[ahead:] * wide[:, t + lag + 1]
    outputs = outputs.mT if options.get("swap_channels") else outputs
    close(layer(u), outputs.flatten(2))


def test_a_stored_c_serves_shorter_sequences_and_doubles_for_longer_ones():
    torch.manual_seed(0)
    kernel = S4(3, d_state=8).layer.kernel
    with torch.no_grad():
        whole = kernel(100)
        C, length = kernel._transformed(torch.view_as_complex(kernel.C.contiguous()), 0, 40)
        kernel.C[:] = torch.view_as_real(C)
        kernel.l_kernel.fill_(length)
        for wanted in (30, 40, 100):
            close(kernel(wanted), whole[..., :wanted], 1e-3)


@pytest.mark.parametrize("head_dim", [1, 2])
def test_h3_is_a_shift_then_a_recurrence(head_dim):
    torch.manual_seed(0)
    layer, u = H3(4, d_state=6, head_dim=head_dim, n_ssm=1), torch.randn(2, 30, 4)
    heads = 4 // head_dim
    q, k, v = (p(u).double() for p in (layer.q_proj, layer.k_proj, layer.v_proj))
    shift, diagonal = layer.ssm_k_kernel.kernel, layer.kernel.kernel
    taps = torch.stack([(shift.B[:, : 6 - n] * shift.C[0, :, n:]).sum(-1) for n in range(6)], -1).double()
    shifted = torch.stack([sum(taps[:, n] * k[:, t - n] for n in range(min(6, t + 1))) for t in range(30)], 1)
    k = shifted + layer.ssm_k_D.double() * k
    dt = diagonal.log_dt.double().exp()[:, None]
    A = torch.complex(-diagonal.inv_A_real.double().exp(), diagonal.A_imag.double()) * dt
    B, C = (torch.view_as_complex(x.double().contiguous()) for x in (diagonal.B, diagonal.C[0]))
    y = torch.zeros(2, 30, 4).double()
    for head in range(heads):
        for one in range(head_dim):
            for other in range(head_dim):
                kv, h = k[..., head * head_dim + one] * v[..., head * head_dim + other], 0
                for t in range(30):
                    a = A[head]
                    h = (1 + a / 2) / (1 - a / 2) * h + dt[head] * B[0] / (1 - a / 2) * kv[:, t, None]
                    out = 2 * (C[head] * h).sum(-1).real + layer.D.double()[head] * kv[:, t]
                    y[:, t, other * heads + head] += out * q[:, t, head * head_dim + one]
    close(layer(u), F.linear(y, layer.output_linear.weight.double(), layer.output_linear.bias.double()))


@pytest.mark.parametrize("name", ["s4", "h3"])
def test_a_network_runs_with_them(name):
    torch.manual_seed(0)
    network = models.create("ultralight_vm_unet", mixer=name)
    y = network(torch.randn(2, 3, 64, 64))
    assert y.isfinite().all()
    y.square().mean().backward()
    own = [p for key, p in network.named_parameters() if "exchanged" in key]
    assert own
    assert all(p.grad is None or p.grad.isfinite().all() for p in own)
