"""S4 and H3 equal to recurrences written out here (that they are their authors' layers: tests/models)."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from napari_mamba import models
from napari_mamba.nn import H3, S4


def close(result, truth, bound=1e-4):
    assert float((result.double() - truth.double()).norm() / truth.double().norm()) < bound


@pytest.mark.parametrize("length", [2, 63, 100])
def test_s4_is_a_recurrence_of_each_channel(length):
    """With the matrix as a whole: discretised by the bilinear rule, step by step."""
    torch.manual_seed(0)
    layer, u = S4(3, d_state=8), torch.randn(2, length, 3)
    kernel = layer.layer.kernel
    dt, A, B, C, P = (x.detach().to(torch.cdouble) for x in kernel._parameters_of())
    A, B, C, P = (torch.cat([x, x.conj()], -1) for x in (A, B, C, P))
    matrix = torch.diag_embed(A) - P[..., :, None] * P.conj()[..., None, :]
    eye, step = torch.eye(8, dtype=torch.cdouble), dt[..., None] / 2
    dA = torch.linalg.solve(eye - step * matrix, eye + step * matrix)
    dB = torch.linalg.solve(eye - step * matrix, dt * B)
    h, outputs = torch.zeros(2, 3, 8, dtype=torch.cdouble), []
    for t in range(length):
        h = torch.einsum("hmn,bhn->bhm", dA, h) + dB * u[:, t, :, None]
        outputs.append((C * h).sum(-1).real + layer.layer.D[0].double() * u[:, t])
    close(layer.layer(u), torch.stack(outputs, 1))


def test_a_stored_c_serves_shorter_sequences_and_doubles_for_longer_ones():
    torch.manual_seed(0)
    kernel = S4(3, d_state=8).layer.kernel
    with torch.no_grad():
        whole = kernel(100)
        C, length = kernel._transformed(torch.view_as_complex(kernel.C[0].contiguous()), 0, 40)
        kernel.C[0] = torch.view_as_real(C)
        kernel.l_kernel.fill_(length)
        for wanted in (30, 40, 100):
            close(kernel(wanted), whole[:, :wanted], 1e-3)


def test_h3_is_a_shift_then_a_recurrence():
    torch.manual_seed(0)
    layer, u = H3(4, d_state=6), torch.randn(2, 30, 4)
    q, k, v = (p(u).double() for p in (layer.q_proj, layer.k_proj, layer.v_proj))
    shift, diagonal = layer.ssm_k_kernel.kernel, layer.kernel.kernel
    taps = torch.stack([(shift.B[:, : 6 - n] * shift.C[0, :, n:]).sum(-1) for n in range(6)], -1).double()
    shifted = torch.stack([sum(taps[:, n] * k[:, t - n] for n in range(min(6, t + 1))) for t in range(30)], 1)
    kv = (shifted + layer.ssm_k_D.double() * k) * v
    dt = diagonal.log_dt.double().exp()[:, None]
    A = torch.complex(-diagonal.inv_A_real.double().exp(), diagonal.A_imag.double()) * dt
    B, C = (torch.view_as_complex(x.double().contiguous()) for x in (diagonal.B, diagonal.C[0]))
    h, outputs = torch.zeros(2, 4, 3, dtype=torch.cdouble), []
    for t in range(30):
        h = (1 + A / 2) / (1 - A / 2) * h + dt * B / (1 - A / 2) * kv[:, t, :, None]
        outputs.append(2 * (C * h).sum(-1).real + layer.D.double() * kv[:, t])
    y = torch.stack(outputs, 1) * q
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
