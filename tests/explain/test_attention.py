"""Implicit attention: against full matrices, the published ones, float64, and what follows from its meaning."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_networks import OnMaps, made
from published import filled, loaded, reference

from napari_mamba.errors import InputError
from napari_mamba.explain.methods.attention import attention_maps, attention_matrix, attention_of, linear_kernel
from napari_mamba.explain.methods.published import (
    clamped_matrix,
    class_token_attribution,
    class_token_raw,
    class_token_rollout,
    class_token_row,
)
from napari_mamba.explain.methods.rollout import moved, rollout, rollout_of
from napari_mamba.explain.methods.wider import channel_rows, gradient_weighted, norm_before, unified_map, unified_row
from napari_mamba.explain.recorded.recording import SelectivePath, record
from napari_mamba.nn import S4D, S5, Mamba, Mamba2
from napari_mamba.scan import scan_order, selective_scan


def by_impulses(path):
    """α by definition: column j is what a one in token j adds to each output, (D, L, L)."""
    columns = []
    for j in range(path.length):
        u = torch.zeros_like(path.u)
        u[j] = 1
        B, C = path.B[None, None], path.C[None, None]
        args = (u[None], path.delta[None, None], path.A[None], B, C)
        y = selective_scan(*args, order=path.table[None], backend="reference")
        columns.append(y[0].T)
    return torch.stack(columns, dim=-1)


@pytest.mark.parametrize("groups", [1, 2])
def test_matrix_rows_and_columns_are_the_responses_to_impulses(groups):
    path = made(groups=groups)
    alpha = by_impulses(path)
    torch.testing.assert_close(attention_matrix(path, mean=False), alpha, rtol=1e-4, atol=1e-6)
    for row in (int(path.table[0]), 7, int(path.table[-1])):
        found = attention_of(path, row)
        torch.testing.assert_close(found.drawn, alpha[:, row].mean(0), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.drawn_absolute, alpha[:, row].abs().mean(0), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.given, alpha[:, :, row].mean(0), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.given_absolute, alpha[:, :, row].abs().mean(0), rtol=1e-4, atol=1e-6)
        contribution = (alpha[:, row] * path.u.T).mean(0)
        torch.testing.assert_close(found.contribution, contribution, rtol=1e-4, atol=1e-6)
        weight = torch.rand(path.width)
        weighed = attention_of(path, row, weight).drawn
        torch.testing.assert_close(weighed, (alpha[:, row] * weight[:, None]).sum(0), rtol=1e-4, atol=1e-6)


def test_contributions_sum_to_what_the_state_space_answers():
    path = made()
    y = selective_scan(path.u[None], path.delta[None], path.A, path.B[:, 0][None], path.C[:, 0][None], order=path.table)
    found = attention_of(path, 11)
    assert float(found.contribution.sum()) == pytest.approx(float(y[0, 11].mean()), rel=1e-4)


@pytest.mark.parametrize("length", [2**12, 2**18])
def test_long_sequences_agree_with_float64(length):
    torch.manual_seed(1)
    # so small that the first token is still felt at the end
    delta = F.softplus(torch.randn(length, 8) * 0.3 - np.log(length) - 0.5)
    A = -torch.arange(1.0, 4).expand(8, 3).contiguous()
    rows = torch.randn(2, length, 1, 3)
    path = SelectivePath(0, torch.arange(length), torch.arange(length), torch.randn(length, 8), None, delta, A, *rows)
    wide = replace(path, **{name: getattr(path, name).double() for name in ("u", "delta", "A", "B", "C")})
    for row in (length - 1, length // 2):
        found, exact = attention_of(path, row), attention_of(wide, row)
        for name in ("drawn", "drawn_absolute", "given", "given_absolute"):
            a, b = getattr(found, name).double(), getattr(exact, name)
            assert float((a - b).norm() / b.norm().clamp(min=1e-30)) < 1e-5
    first = attention_of(path, length - 1).drawn_absolute[0]
    assert float(first) > 1e-3 * float(attention_of(path, length - 1).drawn_absolute[-1])  # nothing was cut off


def test_a_decay_so_fast_that_nothing_is_left_gives_zeros_not_nans():
    path = replace(made(), A=torch.full((20, 5), -1e6))
    found = attention_of(path, 3)
    assert found.drawn.isfinite().all()
    assert int((found.drawn_absolute > 1e-20).sum()) == 1  # itself


# ---- the references


def test_mamba_with_constant_decay():
    data, _, _ = reference("analytic_mamba_constant")
    path = record(loaded(Mamba(4, d_state=4, dt_rank=1), data), torch.from_numpy(data["x"]))[0].paths[0]
    alpha = attention_matrix(path, mean=False).numpy()
    assert np.abs(alpha[:, 63] - data["attention_last_row"]).max() < 5e-6
    for lag in (0, 1, 9):
        diagonal = np.diagonal(alpha, -lag, axis1=1, axis2=2)
        assert np.abs(diagonal - data["kernel"][:, lag : lag + 1]).max() < 5e-6


def test_mamba2():
    data, spec, _ = reference("analytic_mamba2")
    layer = loaded(Mamba2(8, d_state=6, headdim=4, ngroups=2), data)
    path = record(layer, torch.from_numpy(data["x"]))[0].paths[0]
    alpha = attention_matrix(path, mean=False).numpy().reshape(spec["heads"], 4, 64, 64)
    assert np.abs(alpha - data["attention"][:, None]).max() < 5e-6
    row = attention_of(path, 50).drawn.numpy()
    assert np.abs(row - data["attention"].mean(0)[50]).max() < 5e-6


def test_s4d_and_s5():
    data, _, _ = reference("analytic_s4d")
    path = record(loaded(S4D(6, d_state=16), data), torch.from_numpy(data["x"]))[0].paths[0]
    assert np.abs(linear_kernel(path, 64).numpy() - data["kernel"]).max() < 5e-6
    found = attention_of(path, 40)
    assert np.abs(found.drawn.numpy()[: 40 + 1] - data["kernel"].mean(0)[40::-1]).max() < 5e-6
    assert np.abs(found.given.numpy()[40:] - data["kernel"].mean(0)[:24]).max() < 5e-6
    data, _, _ = reference("analytic_s5")
    path = record(loaded(S5(4, d_state=12), data), torch.from_numpy(data["x"]))[0].paths[0]
    found = attention_of(path, 63)
    assert np.abs(found.drawn.numpy() - data["kernel"].sum(1).mean(0)[::-1]).max() < 5e-6
    assert np.abs(4 * found.drawn_absolute.numpy()[::-1] - data["token_influence"]).max() < 5e-6


def test_the_published_matrices_of_vim():
    data, spec, fill = reference("hidden_attention_vim")
    network = filled("vim", spec, fill)
    scans = record(network, torch.from_numpy(fill.input(tuple(spec["input"]))))
    for layer, scan in enumerate(scans):
        assert scan.grid == (14, 14)
        assert int(scan.paths[0].cells[98]) == -1  # the class token
        for k, path in enumerate(scan.paths):
            published = data["attention_channel_mean"][layer, k].astype(float)
            found = attention_matrix(path).numpy()
            assert np.abs(found - published).max() < 1e-3 * np.abs(published).max()
    path = scans[1].paths[0]
    channels = torch.stack([attention_matrix(path, mean=False, channels=slice(d, d + 1))[0] for d in spec["channels"]])
    published = data["attention_layer1_channels"][:, 0].astype(float)
    assert np.abs(channels.numpy() - published).max() < 1e-3 * np.abs(published).max()
    # the published maps of the class token, each with its quirks
    rows = class_token_row(scans[1])[spec["channels"]].numpy()
    assert np.abs(rows - data["xai_layer1_channels"]).max() < 1e-5 * np.abs(rows).max()
    for start in (0, 2):
        raw, rolled = class_token_raw(scans[start:]), class_token_rollout(scans[start:])
        np.testing.assert_allclose(raw.numpy(), data[f"raw_start{start}"], atol=1e-6)
        published = data[f"rollout_start{start}"]
        np.testing.assert_allclose(rolled.numpy(), published, atol=1e-5 * np.abs(published).max())
        x = torch.from_numpy(fill.input(tuple(spec["input"])))
        weighed, gradients = class_token_attribution(network, x, first=start)
        assert int(network(x).argmax()) == spec["class_"]
        np.testing.assert_allclose(gradients, data["gradient_max"], atol=1e-5 * data["gradient_max"].max())
        published = data[f"mamba_attr_start{start}"]
        np.testing.assert_allclose(weighed.numpy(), published, atol=1e-5 * np.abs(published).max())


def test_vmamba_where_the_published_code_clamps():
    data, spec, fill = reference("vmamba_erf_attention")
    network = filled("vmamba", spec, fill)
    x = torch.from_numpy(fill.input(tuple(spec["input"])))
    scan = record(network, x, [spec["attention_block"]])[0]
    found = [attention_matrix(path).numpy() for path in scan.paths]
    for k in (0, 2, 3):
        published = data[f"attn/a{k}_CwBdtw"]
        assert np.abs(found[k] - published).max() < 1e-5 * np.abs(published).max()
    exact = data["exact/a1_CwBdtw"]
    assert np.abs(found[1] - exact).max() < 1e-5 * np.abs(exact).max()
    assert np.abs(found[1] - data["attn/a1_CwBdtw"]).max() > 5e-3 * np.abs(exact).max()  # the clamp's error
    clamped = clamped_matrix(scan.paths[1]).numpy()
    assert np.abs(clamped - data["attn/a1_CwBdtw"]).max() < 1e-5 * np.abs(exact).max()


# ---- the wider ones


def test_the_unified_rows_are_the_mixers_own_linear_map():
    torch.manual_seed(0)
    mixer = Mamba(6, d_state=3).requires_grad_(False)
    x, order = torch.randn(1, 12, 6), scan_order("reverse", (12,))
    scan = record(Calls(lambda t: mixer(t, order), mixer), x)[0]
    path, u = scan.paths[0], scan.convolution.x[0]
    gated = path_output(mixer, x, order)
    bias = path_output(mixer, x, order, with_bias=True)
    for row in (0, 5, 11):
        alpha = unified_row(scan, path, row)
        torch.testing.assert_close((alpha * u).sum(0) + bias[row], gated[row], rtol=1e-4, atol=1e-5)


class Calls(torch.nn.Module):
    def __init__(self, function, module):
        super().__init__()
        self.function, self.module = function, module

    def forward(self, x):
        return self.function(x)


def path_output(mixer, x, order, with_bias=False):
    """What out_proj is given, or the part of it that the convolution's bias adds, by the mixer's own arithmetic."""
    from napari_mamba.scan import causal_conv1d

    u = mixer._project(x, slice(None, mixer.d_inner))
    c = causal_conv1d(u, mixer.conv1d.weight[:, 0], mixer.conv1d.bias, order, activation=None)
    values = mixer.conv1d.bias.expand_as(c) * torch.sigmoid(c) if with_bias else F.silu(c)
    delta, B, C = mixer.x_proj(F.silu(c)).split([mixer.dt_rank, 3, 3], dim=-1)
    delta = F.linear(delta, mixer.dt_proj.weight)
    z = mixer._project(x, slice(mixer.d_inner, None))
    A = -torch.exp(mixer.A_log)
    return selective_scan(values, delta, A, B, C, mixer.D, z, mixer.dt_proj.bias, True, order)[0]


def test_channel_rows_of_both_kinds_are_rows_of_the_matrix():
    path = made(length=20)
    rows = channel_rows(path, 4)
    full = attention_matrix(path, mean=False)
    torch.testing.assert_close(rows.T, full[:, 4][:, path.table], rtol=1e-4, atol=1e-6)


def test_the_class_attention_sums_what_each_token_adds_through_the_scan():
    """Gradient check: a scan is linear in its values, so Σ g α u is the change of the answer when they are scaled."""
    torch.manual_seed(0)
    mixer = Mamba(6, d_state=3).requires_grad_(False)
    network = torch.nn.ModuleDict({"mix": mixer})
    network.forward = lambda x: mixer(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])
    x = torch.randn(1, 6, 4, 4)
    found = gradient_weighted(network, x, lambda y: y[0, 0, 1, 1], "mix", positive=False)
    assert found.shape == (4, 4)
    scan = record(network, x, ["mix"])[0]
    path = scan.paths[0]
    out = mixer.out_proj.weight[0] * F.silu(scan.gate[0, 5])
    alpha = attention_matrix(path, mean=False)[:, 5]  # of token (1, 1)
    torch.testing.assert_close(
        torch.from_numpy(found).flatten(), (out[:, None] * alpha * path.u.T).sum(0), rtol=1e-4, atol=1e-6
    )


def test_rollout_of_one_layer_is_its_row_with_half_of_the_residual():
    torch.manual_seed(0)
    mixer = Mamba(6, d_state=3).requires_grad_(False)
    network = torch.nn.ModuleDict({"mix": mixer})
    network.forward = lambda x: mixer(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])
    x = torch.randn(1, 6, 4, 4)
    row = rollout(network, x, 9).ravel()
    path = record(network, x)[0].paths[0]
    bare = attention_matrix(path, absolute=True)[9].numpy()
    expected = bare / bare.sum() / 2
    expected[9] += 0.5
    np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-6)
    assert row.sum() == pytest.approx(1, rel=1e-5)


def test_rollout_goes_over_grids_and_over_many_tokens():
    torch.manual_seed(0)
    layers = OnMaps(Mamba(6, d_state=1)), torch.nn.AvgPool2d(2), OnMaps(S4D(6, d_state=4))
    network = torch.nn.Sequential(*layers).requires_grad_(False)
    x = torch.randn(1, 6, 4, 4)
    scans = record(network, x)
    assert [scan.grid for scan in scans] == [(4, 4), (2, 2)]
    found = rollout_of(scans, 3)
    assert found.map.shape == (2, 2)
    assert found.map.sum() == pytest.approx(1, rel=1e-5)
    # by full matrices: the late layer's row, spread over the cells of the early grid, times the early layer's
    late_matrix = attention_matrix(scans[1].paths[0], absolute=True).numpy()
    row = (late_matrix[3] / late_matrix[3].sum() + np.eye(4)[3]) / 2
    fine = np.kron(row.reshape(2, 2), np.full((2, 2), 0.25)).ravel()
    early = attention_matrix(scans[0].paths[0], absolute=True).numpy()
    fine = (fine @ (early / early.sum(1, keepdims=True)) + fine) / 2
    expected = fine.reshape(2, 2, 2, 2).sum((1, 3))
    np.testing.assert_allclose(found.map, expected, rtol=1e-4, atol=1e-6)
    # with one state the absolute value of the sum is the sum of the absolute values: linear time gives the same
    quick = rollout_of(scans, 3, exact=0)
    assert quick.bound
    np.testing.assert_allclose(quick.map, expected, rtol=1e-4, atol=1e-6)
    assert moved(np.arange(6.0), (2, 3), (3, 4)).sum() == pytest.approx(15)
    with pytest.raises(InputError, match="no token at cell 9"):
        rollout_of(scans, 9)


def test_the_norm_before_a_layer_scales_each_tokens_column():
    torch.manual_seed(0)
    mixer, norm = Mamba(6, d_state=3).requires_grad_(False), torch.nn.LayerNorm(6).requires_grad_(False)
    network = torch.nn.ModuleDict({"norm": norm, "mix": mixer})
    network.forward = lambda x: mixer(norm(x.flatten(2).transpose(1, 2)))
    x = torch.randn(1, 6, 3, 4) * torch.linspace(0.5, 4, 12).view(1, 1, 3, 4)
    scan = record(network, x, ["mix"])[0]
    scale = norm_before(network, x, scan)
    tokens = x[0].flatten(1).T
    torch.testing.assert_close(scale[0], 1 / tokens.std(1, unbiased=False), rtol=1e-3, atol=1e-3)
    plain, normed = unified_map(scan, 11), unified_map(scan, 11, scale=scale)
    np.testing.assert_allclose(normed.ravel(), plain.ravel() * scale[0].numpy(), rtol=1e-5)
    network.forward = lambda x: mixer(x.flatten(2).transpose(1, 2))
    assert norm_before(network, x, scan) is None


def test_what_cannot_be_shown_says_so():
    path = made()
    with pytest.raises(InputError, match="no token 50"):
        attention_of(path, 50)
    long = replace(path, u=torch.zeros(5000, 20))
    with pytest.raises(InputError, match="25,000,000"):
        attention_matrix(long)
    scan = record(Mamba(4), torch.zeros(1, 6, 4))[0]
    with pytest.raises(InputError, match="channels, not places"):
        attention_maps(scan, 0)
