"""Hidden states against the recurrence itself, memory and influence against closed forms."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_networks import made
from published import loaded, reference

from napari_mamba.explain.methods.states import (
    components,
    influence,
    influence_by_gramian,
    memory_length,
    principal_components,
    run_states,
    state_along,
    state_maps,
)
from napari_mamba.explain.recorded.recording import record
from napari_mamba.nn import S4D, S5, Mamba, Mamba2


def recurrence(path):
    """All states (L, D, N), step by step in float64."""
    h, states = torch.zeros(path.width, path.states, dtype=torch.float64), []
    repeat = path.width // path.B.shape[1]
    for row in path.table.tolist():
        delta = path.delta[row].double()[:, None]
        B = path.B[row].double().repeat_interleave(repeat, 0)
        h = torch.exp(delta * path.A.double()) * h + delta * B * path.u[row].double()[:, None]
        states.append(h)
    return torch.stack(states)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("wide", [False, True])
def test_states_are_those_of_the_recurrence(groups, wide):
    path = made(groups=groups)
    exact = recurrence(path)
    if wide:
        path = replace(path, **{name: getattr(path, name).double() for name in ("u", "delta", "A", "B", "C")})
    basis, mean = torch.randn(2, path.width, path.states), torch.randn(path.width, path.states)
    found = run_states(path, at=[3, 40, 3], basis=basis, mean=mean)
    tolerance = {"rtol": 1e-4, "atol": 1e-5, "check_dtype": False}
    torch.testing.assert_close(found.norm[path.table], exact.flatten(1).norm(dim=1), **tolerance)
    torch.testing.assert_close(found.kept, exact[[3, 40, 3]], **tolerance)
    parts = torch.einsum("tdn,pdn->tp", exact - mean.double(), basis.double())
    torch.testing.assert_close(found.parts[path.table], parts, **tolerance)


def test_components_span_the_variance_of_states_in_a_plane():
    torch.manual_seed(0)
    path = made(length=200)
    parts, share = principal_components([path], samples=200)
    states = recurrence(path).flatten(1)
    _, s, _ = torch.linalg.svd(states - states.mean(0), full_matrices=False)
    expected = (s.square() / s.square().sum())[:3].float()
    torch.testing.assert_close(share, expected, rtol=1e-3, atol=1e-4)
    variance = parts[0][path.table].var(0, unbiased=False) * 200
    torch.testing.assert_close(variance, s[:3].square().float(), rtol=1e-2, atol=1e-3)
    again = components([path], samples=200)[0]
    torch.testing.assert_close(again, components([path], samples=200)[0], rtol=0, atol=0)


def test_references_of_states_and_memory():
    data, _, _ = reference("analytic_mamba_constant")
    path = record(loaded(Mamba(4, d_state=4, dt_rank=1), data), torch.from_numpy(data["x"]))[0].paths[0]
    kept = run_states(path, at=data["states_at"].tolist()).kept.numpy()
    assert np.abs(kept - data["states"]).max() < 5e-6
    expected = np.exp(np.log(data["memory_efold"]).mean())
    assert np.allclose(memory_length(path).numpy(), expected, rtol=1e-5)
    data, _, _ = reference("analytic_mamba2")
    layer = loaded(Mamba2(8, d_state=6, headdim=4, ngroups=2), data)
    path = record(layer, torch.from_numpy(data["x"]))[0].paths[0]
    last = run_states(path, at=[63]).kept[0].numpy()
    assert np.abs(last.reshape(data["last_state"].shape) - data["last_state"]).max() < 5e-6
    data, _, _ = reference("analytic_s4d")
    path = record(loaded(S4D(6, d_state=16), data), torch.from_numpy(data["x"]))[0].paths[0]
    expected = np.exp(np.log(data["memory_efold"]).mean())
    assert np.allclose(memory_length(path).numpy(), expected, rtol=1e-5)
    data, _, _ = reference("analytic_s5")
    path = record(loaded(S5(4, d_state=12), data), torch.from_numpy(data["x"]))[0].paths[0]
    last = torch.view_as_real(run_states(path, at=[63]).kept[0, 0]).numpy()
    assert np.abs(last - data["last_state"]).max() < 5e-6


def test_a_state_of_constant_decay_has_a_known_memory_and_influence():
    length, a, step = 60, 0.2, 0.5
    path = replace(
        made(length=length),
        delta=torch.full((length, 20), step),
        A=torch.full((20, 5), -a),
        B=torch.ones(length, 1, 5),
    )
    torch.testing.assert_close(memory_length(path), torch.full((length,), 1 / (a * step)), rtol=1e-5, atol=1e-5)
    decay = np.exp(-2 * a * step)
    left = length - path.steps.numpy()
    expected = np.sqrt(20 * 5 * step**2 * (1 - decay**left) / (1 - decay))
    np.testing.assert_allclose(influence(path).numpy(), expected, rtol=1e-4)
    np.testing.assert_allclose(influence_by_gramian(path).numpy(), expected, rtol=1e-4)  # the two forms are one here


def test_the_gramian_form_holds_a_tokens_own_decay():
    path = made(length=30, width=6)
    rows = path.steps.argsort()  # in the path's order
    row = int(rows[4])
    held = replace(path, delta=path.delta[row].expand(30, -1).contiguous())
    assert float(influence_by_gramian(path)[row]) == pytest.approx(float(influence(held)[row]), rel=1e-4)
    last = int(rows[-1])
    assert float(influence_by_gramian(path)[last]) == pytest.approx(float(influence(path)[last]), rel=1e-4)


def test_memory_counts_the_tokens_until_the_decay_by_one_e():
    path = replace(made(length=80), A=torch.full((20, 5), -1.0))
    path = replace(path, delta=path.delta[:, :1].expand(-1, 20).contiguous())
    steps = memory_length(path)[path.table].numpy()
    sums = path.delta[path.table, 0].double().cumsum(0).numpy()
    for t in (0, 10, 30):
        after = np.searchsorted(sums, sums[t] + 1)  # the first step by which it has decayed
        assert after - 1 - t <= steps[t] <= after - t + 1e-6


def test_influence_is_the_norm_of_the_states_gradient():
    path = made(length=15, width=6)
    u = path.u.double().requires_grad_(True)
    states = recurrence(replace(path, u=u))
    expected = torch.zeros(15, dtype=torch.float64)
    for t in range(15):
        for d in range(6):
            for n in range(path.states):
                gradient = torch.autograd.grad(states[t, d, n], u, retain_graph=True)[0]
                expected += gradient.square().sum(1)
    torch.testing.assert_close(influence(path).double(), expected.sqrt(), rtol=1e-4, atol=1e-6)


def test_linear_influence_follows_the_same_definition():
    torch.manual_seed(0)
    path = record(S5(4, d_state=6).requires_grad_(False), torch.randn(1, 20, 4))[0].paths[0]
    decay, B = torch.exp(path.log_decay), path.B
    for t in (0, 13, 19):
        energy = sum((B.abs() * decay.abs()[:, None] ** s).square().sum() for s in range(20 - t))
        assert float(influence(path)[t]) == pytest.approx(float(energy) ** 0.5, rel=1e-4)


def test_curve_and_maps():
    torch.manual_seed(0)
    mixer = Mamba(6, d_state=3).requires_grad_(False)
    network = torch.nn.ModuleDict({"mix": mixer})
    network.forward = lambda x: mixer(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])
    scan = record(network, torch.randn(1, 6, 5, 4))[0]
    steps, norms = state_along(scan.paths[0], 10, around=4)
    assert steps.tolist() == list(range(6, 15))
    maps = state_maps(scan, ("norm", "components", "step_size", "memory", "influence"))
    assert maps["norm"].shape == (5, 4)
    assert maps["components"].shape == (3, 5, 4)
    assert maps["norm"].ravel()[6:15] == pytest.approx(norms)
