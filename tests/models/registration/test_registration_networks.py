"""MambaMorph and VMambaMorph beyond their vectors: integration, composition, and what keys tell."""

from __future__ import annotations

import pytest
import torch

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.models.registration.parts import VecInt


def test_a_constant_velocity_integrates_to_itself() -> None:
    velocity = torch.tensor([1.0, -0.5, 0.25]).view(1, 3, 1, 1, 1).expand(-1, -1, 16, 16, 16)
    inner = VecInt((16, 16, 16))(velocity)[:, :, 6:-6, 6:-6, 6:-6]
    torch.testing.assert_close(inner, velocity[:, :, 6:-6, 6:-6, 6:-6])


def test_a_linear_velocity_integrates_to_an_exponential() -> None:
    places = torch.arange(16.0) - 7.5
    velocity = torch.zeros(1, 3, 16, 16, 16)
    velocity[:, 0] = -0.3 * places.view(-1, 1, 1)  # towards the middle: nothing leaves the image
    flow = VecInt((16, 16, 16))(velocity)[0, 0, :, 8, 8]
    # Seven squarings of one Euler step of 1/128.
    torch.testing.assert_close(flow, places * ((1 - 0.3 / 128) ** 128 - 1), rtol=1e-4, atol=1e-4)


def test_one_turn_is_the_network_and_turns_are_asked_for() -> None:
    arguments = {"img_size": (16, 16, 16), "embed_dim": 12, "depths": (1, 1, 1), "variant": "VMambaMorphFeat"}
    torch.manual_seed(0)
    network = models.create("vmambamorph", **arguments).eval()
    torch.nn.init.normal_(network.reg_head[0].weight, std=0.1)
    twice = models.create("vmambamorph", **arguments, rec_num=2).eval()
    twice.load_state_dict(network.state_dict(), strict=True)
    source, target = torch.rand(2, 1, 1, 16, 16, 16).unbind()
    with torch.no_grad():
        moved, _, flow = network(source, target)
        _, _, both = twice(source, target)
        again = network.integrate(network.flow(network.feature_extractor(moved), network.feature_extractor(target)))
        torch.testing.assert_close(both, network.spatial_trans(flow, again) + again)
    assert (both - flow).abs().max() > 1e-3
    found = models.identify(network.state_dict())
    assert (found.name, found.ambiguous) == ("vmambamorph", ("rec_num",))
    assert "rec_num" in found.note
    assert len(network(source, target, return_pos_flow=False)) == 2


def test_refusals_are_sentences() -> None:
    with pytest.raises(InputError, match="cubes"):
        models.create("vmambamorph", img_size=(16, 32, 16))
    with pytest.raises(InputError, match="rec_num"):
        models.create("vmambamorph", img_size=(16, 16, 16), rec_num=0)
    with pytest.raises(InputError, match="variant"):
        models.create("mambamorph", variant="TransMorph")
    network = models.create("vmambamorph", img_size=(16, 16, 16), embed_dim=12, depths=(1, 1, 1))
    with pytest.raises(InputError, match="resample or crop"):
        network(torch.zeros(1, 1, 16, 16, 16), torch.zeros(1, 1, 32, 16, 16))
