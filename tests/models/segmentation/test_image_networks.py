"""MiM-ISTD, MambaMIM and FDV-Net beyond their vectors: words and patches, generations, a batch, refusals."""

from __future__ import annotations

import pytest
import torch
from tiny_networks import MAMBA_MIM, MIM_ISTD

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.models.segmentation.images.mim_istd import MixedSS2D, WordMerging
from napari_mamba.models.segmentation.volumes.mamba_mim import cube_positions


def test_words_of_four_patches_keep_their_places() -> None:
    torch.manual_seed(0)
    layer, image = WordMerging(1, 3), torch.rand(2, 1, 16, 16)
    layer.norm = torch.nn.Identity()
    words = image[:, 0].unflatten(2, (4, 4)).unflatten(1, (4, 4)).transpose(2, 3).reshape(2, 16, 16)
    with torch.no_grad():
        merged = layer(words, 4).view(2, 2, 2, 4, 4, 3)
        for row in range(2):
            for column in range(2):
                part = image[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
                torch.testing.assert_close(merged[:, row, column].movedim(-1, 1), layer.conv(part))


def test_tokens_are_mixed_up_as_published() -> None:
    torch.manual_seed(0)
    layer, x = MixedSS2D(4), torch.randn(1, 9, 4)
    rows = torch.stack([x[0].T.flatten()[4 * place : 4 * place + 4] for place in range(9)]).view(1, 3, 3, 4)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, 3).view(1, 3, 3, 4), super(MixedSS2D, layer).forward(rows))


@pytest.mark.parametrize("more", [{}, {"feed_forward": False, "depths": [1, 1, 8, 1]}])
def test_mim_istd_is_read_off_its_keys(more: dict) -> None:
    network = models.create("mim_istd", **MIM_ISTD | more)
    found = models.identify(network.state_dict())
    assert (found.name, found.ambiguous) == ("mim_istd", ())
    assert found.generation == ("before 2024-11-10" if more else "since 2024-11-10")
    assert {key: found.arguments[key] for key in MIM_ISTD | more} == MIM_ISTD | more
    with torch.no_grad():
        assert network.eval()(torch.rand(1, 1, 64, 64)).shape == (1, 3, 64, 64)


def test_mamba_mim_is_read_off_its_keys_and_never_scans_back() -> None:
    torch.manual_seed(0)
    network = models.create("mamba_mim", **MAMBA_MIM).eval()
    found = models.identify(network.state_dict())
    assert (found.name, found.ambiguous) == ("mamba_mim", ())
    assert {key: found.arguments[key] for key in MAMBA_MIM} == MAMBA_MIM
    x = torch.rand(1, 1, 32, 32, 32)
    with torch.no_grad():
        before = network(x)
        for layer in network.mae.blocks:
            layer.mamba.A_b_log.add_(1)
            layer.mamba.conv1d_b.weight.zero_()
        assert torch.equal(network(x), before)


def test_positions_tell_the_three_indices_apart() -> None:
    table = cube_positions(2, 12)[0].view(2, 2, 2, 12)
    assert torch.equal(table[1, 0, 1, :4], table[1, 1, 0, :4])
    torch.testing.assert_close(table[0, 1, 0, 4:6], torch.tensor([1.0, 0.01]).sin())
    torch.testing.assert_close(table[0, 0, 1, 10:], torch.tensor([1.0, 0.01]).cos())


def test_images_of_a_batch_change_each_other_in_fdv_net() -> None:
    torch.manual_seed(0)
    network = models.create("fdv_net", n_blocks=1, side=8).eval()
    images = torch.rand(2, 3, 12, 9)
    with torch.no_grad():
        alone = network(images[:1])
        assert not torch.allclose(network(images)[:1], alone)
        torch.testing.assert_close(network(images[:1].repeat(1, 1, 1, 1)), alone)
    assert network.one_at_a_time
    found = models.identify(network.state_dict())
    assert (found.name, dict(found.arguments)) == ("fdv_net", {"n_blocks": 1, "side": 8})


def test_refusals_are_sentences() -> None:
    for shape in [(1, 3, 64, 128), (1, 3, 96, 96)]:
        with pytest.raises(InputError, match="square images"):
            models.create("mim_istd", **MIM_ISTD)(torch.zeros(shape))
    with pytest.raises(InputError, match="double"):
        models.create("mim_istd", channels=[8, 16, 32, 64, 100])
    with pytest.raises(InputError, match="use tiles"):
        models.create("mamba_mim", **MAMBA_MIM)(torch.zeros(1, 1, 48, 32, 32))
    with pytest.raises(InputError, match="multiple of 16"):
        models.create("mamba_mim", **MAMBA_MIM | {"img_size": 40})
    with pytest.raises(InputError, match="multiple of 6"):
        models.create("mamba_mim", **MAMBA_MIM | {"channels": [4, 4, 4, 4, 8]})
    with pytest.raises(InputError, match="colour images"):
        models.create("fdv_net", n_blocks=1, side=4)(torch.zeros(1, 1, 8, 8))
