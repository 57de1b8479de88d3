"""mLSTM against its recurrence written out, and what the blocks of Vision-LSTM keep."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.nn.xlstm.mlstm import ResidualNorm, mlstm
from napari_mamba.nn.xlstm.vil import ViLBlock, ViLLayer


def made(length: int = 23, seed: int = 0) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    shapes = [(2, 3, length, 4)] * 3 + [(2, 3, length)] * 2
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes]


def recurrence(q, k, v, i, f) -> torch.Tensor:
    """The memory as a matrix, step by step, without any scaling (xLSTM, equations 19 to 27)."""
    memory = q.new_zeros(*q.shape[:2], q.shape[3], q.shape[3])
    norm = q.new_zeros(*q.shape[:2], q.shape[3])
    out = []
    for t in range(q.shape[2]):
        keep, take = f[..., t].sigmoid()[..., None], i[..., t].exp()[..., None]
        key = k[:, :, t] / q.shape[3] ** 0.5
        memory = keep[..., None] * memory + take[..., None] * v[:, :, t, :, None] * key[:, :, None]
        norm = keep * norm + take * key
        read = (memory @ q[:, :, t, :, None])[..., 0]
        out.append(read / (norm * q[:, :, t]).sum(-1, keepdim=True).abs().clamp(min=1))
    return torch.stack(out, dim=2)


@pytest.mark.parametrize("rows", [1024, 5, 1])
def test_the_parallel_form_is_the_recurrence(rows):
    inputs = made()
    torch.testing.assert_close(mlstm(*inputs, rows=rows), recurrence(*inputs), rtol=1e-4, atol=1e-5)


def test_large_gates_do_not_overflow():
    q, k, v, i, f = (x.float() for x in made())
    assert mlstm(q, k, v, 200 * i, 200 * f).isfinite().all()


def test_no_token_reads_a_later_one_and_backwards_no_earlier_one():
    torch.manual_seed(0)
    x = torch.randn(1, 20, 8)
    later = x.clone()
    later[:, 12:] += 1
    for backwards in (False, True):
        layer = ViLLayer(8, backwards).eval()
        changed = (layer(x) - layer(later)).abs().amax(-1)[0] > 1e-6
        assert changed[12:].any()
        assert changed[:12].any() == backwards


def test_the_norm_of_heads_is_a_layer_norm_of_each():
    torch.manual_seed(0)
    norm = ResidualNorm(12, bias=True, heads=3)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    x = torch.randn(2, 5, 12)
    parts = [F.layer_norm(part, (4,)) for part in x.split(4, dim=-1)]
    torch.testing.assert_close(norm(x), torch.cat(parts, -1) * (1 + norm.weight) + norm.bias)


def test_version_two_sees_neighbours_in_the_map():
    """Its convolution is of the map: the token below a changed one changes though it is a row of tokens later."""
    torch.manual_seed(0)
    block = ViLBlock(8, version=2).eval()
    with pytest.raises(InputError, match="does not divide"):
        ViLBlock(9, block_size=4)
    assert block(torch.zeros(1, 24, 8), (4, 6)).shape == (1, 24, 8)


def test_sizes_that_the_networks_do_not_take_are_refused():
    with pytest.raises(InputError, match="96 x 96 x 96 voxels, not"):
        models.create("uvixlstm", class_num=2, out_channels=8, depth=1, dim=32)(torch.zeros(1, 1, 64, 64, 64))
    with pytest.raises(InputError, match="multiples of 16, not"):
        models.create("vision_lstm", dim=16, depth=1, output_shape=(2,))(torch.zeros(1, 3, 30, 32))
    with pytest.raises(InputError, match="multiples of its patches"):
        models.create("vision_lstm2", input_shape=(3, 30, 32))
