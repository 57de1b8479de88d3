"""GFE-Mamba and its generator beyond their vectors: a small pair works together, what the row and slices change."""

from __future__ import annotations

import pytest
import torch
from tiny_networks import GFE, GFE_GENERATOR

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.models.tables.gfe_generator import MapTransformer, ResidualBlock
from napari_mamba.models.tables.gfe_mamba import classify, joined

ROW = torch.tensor([[1, 2]]), torch.tensor([[0.5, -1.0, 2.0]])


@pytest.fixture(scope="module")
def pair() -> tuple[torch.nn.Module, torch.nn.Module]:
    torch.manual_seed(0)
    return models.create("gfe_mamba", **GFE).eval(), models.create("gfe_mamba_generator", **GFE_GENERATOR).eval()


@torch.no_grad()
def test_a_volume_and_a_row_become_a_logit_and_a_pet(pair) -> None:
    mri = torch.rand(1, 1, 16, 16, 12)
    logits, pet = classify(*pair, *ROW, mri)
    assert (logits.shape, pet.shape) == ((1, 2), mri.shape)
    for other in [(torch.tensor([[0, 2]]), ROW[1]), (ROW[0], ROW[1] + 1)]:
        assert not torch.allclose(classify(*pair, *other, mri)[0], logits)
    assert not torch.allclose(classify(*pair, *ROW, 1 - mri)[0], logits)


@torch.no_grad()
def test_slices_are_a_set_and_the_row_is_a_sequence(pair) -> None:
    classifier, _ = pair
    maps = torch.rand(2, 1, 8, 64, 6).unbind()
    mri, pet = torch.rand(2, 1, 1, 16, 16, 5).unbind()
    logits = classifier(*ROW, *maps, mri, pet)
    torch.testing.assert_close(classifier(*ROW, *maps, pet.flip(-1), mri.flip(-1)), logits)  # attention has no order
    assert not torch.allclose(classifier(ROW[0].flip(1) % 2, ROW[1], *maps, mri, pet), logits)


def test_a_map_is_cut_into_patches_and_put_together_again() -> None:
    class Through(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    layer = MapTransformer((6, 4), 2, channels=3, dim=12, depth=0, heads=1, hidden=1)
    layer.to_patch_embedding = Through()
    layer.transformer["norm"] = Through()
    with torch.no_grad():
        layer.pos_embedding.zero_()
        layer.from_patch_embedding[2].weight.copy_(torch.eye(7)[1:])
        layer.from_patch_embedding[2].bias.zero_()
        for place in (0, 4, 5):
            layer.from_patch_embedding[place] = Through()
        x = torch.rand(2, 3, 6, 4)
        torch.testing.assert_close(layer(x), x)


def test_the_authors_two_files_are_recognised_together(pair) -> None:
    state = pair[0].state_dict()
    parts = [{k.removeprefix(f"{p}."): v for k, v in state.items() if k.startswith(f"{p}.")} for p in ("model", "ft_model")]  # fmt: skip # noqa: E501
    found = models.identify(joined(*parts))
    assert (found.name, found.ambiguous) == ("gfe_mamba", ("heads",))
    assert (sum(found.arguments["categories"]), len(found.arguments["categories"])) == (5, 2)
    models.create("gfe_mamba", **found.arguments, heads=2).load_state_dict(joined(*parts), strict=True)


def test_the_generator_is_read_off_its_keys_but_for_the_size(pair) -> None:
    found = models.identify(pair[1].state_dict())
    assert (found.name, found.ambiguous) == ("gfe_mamba_generator", ("image_size",))
    assert {key: found.arguments[key] for key in ("f_maps", "patch_size", "dim", "depth", "heads", "mlp_dim")} == {
        "f_maps": [8, 8], "patch_size": 2, "dim": 16, "depth": 1, "heads": 1, "mlp_dim": 16
    }  # fmt: skip


def test_refusals_are_sentences(pair) -> None:
    classifier, generator = pair
    maps, volume = torch.rand(2, 1, 8, 64, 6).unbind(), torch.rand(1, 1, 16, 16, 4)
    with pytest.raises(InputError, match="same columns"):
        classifier(ROW[0][:, :1], ROW[1], *maps, volume, volume)
    with pytest.raises(InputError, match="none that the network knows"):
        classifier(torch.tensor([[1, 9]]), ROW[1], *maps, volume, volume)
    with pytest.raises(InputError, match="256 pixels a slice"):
        classifier(*ROW, *maps, volume, volume[:, :, :8])
    with pytest.raises(InputError, match="resample"):
        generator(volume)
    with pytest.raises(InputError, match="another size"):
        models.create("gfe_mamba_generator", **GFE_GENERATOR | {"image_size": (16, 16, 10)})
    with pytest.raises(InputError, match="at least one column"):
        models.create("gfe_mamba", **GFE | {"categories": [], "num_continuous": 0})


@pytest.mark.parametrize(("order", "slopes"), [("gcr", (0.0, 0.0)), ("gcl", (0.01, 0.1))])
def test_a_block_is_leakier_at_its_end_than_within(order: str, slopes: tuple[float, float]) -> None:
    """The authors' blocks make their inner activation with PyTorch's slope, the last one with another."""
    torch.manual_seed(0)
    block = ResidualBlock(4, 6, 2, order)
    x = torch.randn(1, 4, 3, 4, 5)
    first = block.conv1(x)
    y = first
    for unit, slope in ((block.conv2, slopes[0]), (block.conv3, 1.0)):
        grouped = y.unflatten(1, (2, 3)).flatten(2)
        deviation, mean = torch.std_mean(grouped, dim=2, correction=0, keepdim=True)
        y = ((grouped - mean) / (deviation**2 + 1e-5).sqrt()).reshape(first.shape)
        y = torch.nn.functional.leaky_relu(torch.conv3d(y, unit.conv.weight, padding=1), slope)
    torch.testing.assert_close(block(x), torch.nn.functional.leaky_relu(first + y, slopes[1]), rtol=1e-4, atol=1e-5)
