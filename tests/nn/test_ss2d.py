"""SS2D, ToM, the multi-path mixer and the patch layers, against recurrences written out step by step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.nn.blocks.drop import DropPath, drop_path_rates
from napari_mamba.nn.blocks.transformers.patch import PatchExpand, PatchMerging2D
from napari_mamba.nn.blocks.vss import VSSLayer
from napari_mamba.nn.mixers.images.ss2d import SS2D
from napari_mamba.nn.mixers.images.ss2d_v2 import SS2Dv2
from napari_mamba.nn.mixers.multipath import MultiPathMamba
from napari_mamba.nn.mixers.tom import ToMLayer
from napari_mamba.nn.norms.norm import LayerNorm
from napari_mamba.scan import scan_order


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def shaken(module: nn.Module) -> nn.Module:
    """The module with every parameter moved off its initial value, in float64."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return module.double().eval()


def s6(u: Tensor, x_proj: Tensor, dt_proj: Tensor, dt_bias: Tensor, a_log: Tensor, d: Tensor) -> Tensor:
    """Mamba's recurrence over the rows of (L, D), one step after the other."""
    rank, state = dt_proj.shape[1], a_log.shape[1]
    h, rows = torch.zeros(u.shape[1], state, dtype=u.dtype), []
    for row in u:
        dt, b, c = (x_proj @ row).split([rank, state, state])
        step = F.softplus(dt_proj @ dt + dt_bias)[:, None]
        h = torch.exp(-step * a_log.exp()) * h + step * b * row[:, None]
        rows.append(h @ c + d * row)
    return torch.stack(rows)


def cross_scan(mixer: SS2D, u: Tensor, x_proj: Tensor, dt_proj: Tensor) -> Tensor:
    """The sum of S6 over the rows, the columns, and both backwards, by turning the image (H, W, D) itself."""
    height, width, dim = u.shape
    total = torch.zeros_like(u)
    a_logs, ds = mixer.A_logs.view(4, dim, -1), mixer.Ds.view(4, dim)
    for path in range(4):
        image = u.transpose(0, 1) if path % 2 else u
        rows = image.reshape(-1, dim)
        rows = rows.flip(0) if path >= 2 else rows
        y = s6(rows, x_proj[path], dt_proj[path], mixer.dt_projs_bias[path], a_logs[path], ds[path])
        y = y.flip(0) if path >= 2 else y
        total += y.view(width, height, dim).transpose(0, 1) if path % 2 else y.view(height, width, dim)
    return total


def test_ss2d_is_the_four_recurrences_written_out() -> None:
    mixer = shaken(SS2D(6, d_state=3, expand=1.5, dt_rank=2))
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    u, z = mixer.in_proj(x).chunk(2, dim=-1)
    u = F.silu(mixer.conv2d(u.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
    y = torch.stack([cross_scan(mixer, image, mixer.x_proj_weight, mixer.dt_projs_weight) for image in u])
    y = F.layer_norm(y, y.shape[-1:], mixer.out_norm.weight, mixer.out_norm.bias)
    torch.testing.assert_close(mixer(x), mixer.out_proj(y * F.silu(z)))


def test_ss2d_of_later_versions_is_the_same_scan_without_a_gate() -> None:
    mixer = shaken(SS2Dv2(6, d_state=2, ssm_ratio=1.0, dt_rank=2, forward_type="v05_noz"))
    x = torch.randn(1, 4, 3, 6, dtype=torch.float64)
    u = F.silu(mixer.conv2d(mixer.in_proj(x).permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
    x_proj, dt_proj = mixer.x_proj.weight.view(4, -1, 6), mixer.dt_projs.weight.view(4, 6, -1)
    y = cross_scan(mixer, u[0], x_proj, dt_proj)[None]
    y = F.layer_norm(y, y.shape[-1:], mixer.out_norm.weight, mixer.out_norm.bias)
    torch.testing.assert_close(mixer(x), mixer.out_proj(y))


@pytest.mark.parametrize(
    "suffix", ["_onnone", "_ondwconv3", "_oncnorm", "_onsoftmax", "_onsigmoid", "_nozact", "_oact"]
)
def test_ss2d_takes_the_authors_suffixes(suffix: str) -> None:
    x = torch.randn(1, 4, 3, 6)
    for version in ("v05", "v051d", "v052d", "v052d3"):
        assert SS2Dv2(6, forward_type=version + suffix)(x).shape == x.shape


def test_ss2d_refuses_an_unknown_version() -> None:
    with pytest.raises(InputError, match="xv1a"):
        SS2Dv2(6, forward_type="xv1a")


def test_ss2d_is_equivariant_to_transposing_where_paths_share_weights() -> None:
    mixer = shaken(SS2D(4, d_state=2))
    with torch.no_grad():
        for name in ("x_proj_weight", "dt_projs_weight", "dt_projs_bias"):
            getattr(mixer, name)[:] = getattr(mixer, name)[:1].clone()
        for name in ("A_logs", "Ds"):
            parameter = getattr(mixer, name).view(4, mixer.d_inner, -1)
            parameter[:] = parameter[:1].clone()
        mixer.conv2d.weight.copy_((mixer.conv2d.weight + mixer.conv2d.weight.transpose(2, 3)) / 2)
    x = torch.randn(1, 3, 6, 4, dtype=torch.float64)
    torch.testing.assert_close(mixer(x.transpose(1, 2)), mixer(x).transpose(1, 2))


def mamba_path(mixer: MultiPathMamba, path: str, tokens: Tensor) -> Tensor:
    """One path of the mixer over (L, C) tokens in the path's own sequence, gated, before the output projection."""
    conv, x_proj = mixer.get_submodule(f"conv1d{path}"), mixer.get_submodule(f"x_proj{path}")
    step = mixer.get_submodule(f"dt_proj{path}")
    u, z = mixer.in_proj(tokens).chunk(2, dim=-1)
    u = F.silu(conv(u.T)[:, : len(tokens)]).T
    y = s6(
        u, x_proj.weight, step.weight, step.bias, mixer.get_parameter(f"A{path}_log"), mixer.get_parameter(f"D{path}")
    )
    return y * F.silu(z)


def test_two_paths_run_both_ways_with_parameters_of_their_own() -> None:
    mixer = shaken(MultiPathMamba(5, d_state=3, scale=0.5))
    x = torch.randn(1, 9, 5, dtype=torch.float64)
    y = mamba_path(mixer, "", x[0]) + mamba_path(mixer, "_b", x[0].flip(0)).flip(0)
    expected = mixer.out_proj(y / 2)[None]
    torch.testing.assert_close(mixer(x, scan_order("bidirectional", (9,))), expected)


@pytest.mark.parametrize("residual", [True, False])
def test_tom_runs_forwards_backwards_and_across_slices(residual: bool) -> None:
    layer = shaken(ToMLayer(4, num_slices=3, residual=residual, d_state=2))
    x = torch.randn(1, 4, 3, 2, 2, dtype=torch.float64)
    tokens = F.layer_norm(x.flatten(2)[0].T, (4,), layer.norm.weight, layer.norm.bias)
    # SegMamba's chunk into slices and stack: position by position, every slice's voxel there.
    across = torch.stack(tokens.chunk(3), dim=1).flatten(0, 1)
    y = mamba_path(layer.mamba, "", tokens) + mamba_path(layer.mamba, "_b", tokens.flip(0)).flip(0)
    y = y + mamba_path(layer.mamba, "_s", across).view(4, 3, -1).transpose(0, 1).reshape(12, -1)
    expected = layer.mamba.out_proj(y).T.view(x.shape)
    torch.testing.assert_close(layer(x), expected + x if residual else expected)


def test_gradients_reach_every_parameter() -> None:
    mixer = SS2D(4, d_state=2)
    mixer(torch.randn(1, 3, 4, 4)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in mixer.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_the_scan_in_float32(dtype: torch.dtype) -> None:
    mixer = shaken(SS2D(8)).float()
    x = torch.randn(1, 12, 12, 8)
    cast = mixer.to(dtype)
    assert mixer.A_logs.dtype == torch.float32
    y = cast(x.to(dtype))
    assert y.dtype == dtype
    assert (y.float() - mixer(x)).norm() <= 1e-2 * mixer(x).norm()


def test_layer_norm_survives_values_whose_squares_overflow_float16() -> None:
    x = torch.tensor([[1000.0, -1000.0, 500.0, 30000.0]], dtype=torch.float16)
    assert LayerNorm(4)(x).isfinite().all()


@pytest.mark.parametrize("shape", [(4, 6), (5, 7)])
def test_patch_merging_takes_whole_blocks_and_leaves_odd_edges(shape: tuple[int, int]) -> None:
    layer = shaken(PatchMerging2D(3))
    x = torch.randn(1, *shape, 3, dtype=torch.float64)
    y = layer(x)
    assert y.shape == (1, shape[0] // 2, shape[1] // 2, 6)
    block = x[0, 2:4, 2:4]
    corners = torch.cat([block[0, 0], block[1, 0], block[0, 1], block[1, 1]])
    expected = layer.reduction(F.layer_norm(corners, (12,), layer.norm.weight, layer.norm.bias))
    torch.testing.assert_close(y[0, 1, 1], expected)


def test_patch_expand_puts_each_quarter_of_the_channels_at_one_pixel() -> None:
    layer = shaken(PatchExpand(4, 2))
    x = torch.randn(1, 3, 5, 4, dtype=torch.float64)
    pixels = layer.expand(x)[0, 1, 2].view(2, 2, 2)
    expected = F.layer_norm(pixels, (2,), layer.norm.weight, layer.norm.bias)
    torch.testing.assert_close(layer(x)[0, 2:4, 4:6], expected)


def test_drop_path_is_the_identity_in_eval_and_keeps_the_mean_in_training() -> None:
    x, drop = torch.ones(4000, 1, 2), DropPath(0.25)
    assert drop.eval()(x) is x
    y = drop.train()(x)
    torch.testing.assert_close(y.unique(), torch.tensor([0.0, 4 / 3]))
    assert abs(y.mean().item() - 1) < 0.05


def test_drop_path_rates_rise_to_the_last_block() -> None:
    assert drop_path_rates(0.3, [1, 2, 1]) == [[0.0], pytest.approx([0.1, 0.2]), [pytest.approx(0.3)]]


def test_checkpointed_stage_has_the_same_gradients() -> None:
    plain, saving = VSSLayer(4, [0.0, 0.0], d_state=2), VSSLayer(4, [0.0, 0.0], d_state=2, use_checkpoint=True)
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(1, 4, 4, 4)
    for stage in (plain, saving):
        stage(x).square().sum().backward()
    for one, other in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
