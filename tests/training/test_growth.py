"""A network grown from a smaller one answers as that one did."""

import pytest
import torch

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.training.weights.net2net import load_smaller_weights

SMALL = {
    "spatial_dims": 3,
    "input_channels": 1,
    "num_classes": 3,
    "features_per_stage": [4, 8, 10],
    "kernel_sizes": 3,
    "strides": [1, 2, 2],
    "n_conv_per_stage": [1, 1, 1],
    "n_conv_per_stage_decoder": [1, 1],
    "generation": "v1",
    "first_scan": 2,
}


def make(**changed):
    return models.create("umamba_enc", **{**SMALL, **changed}).eval()


def trained():
    """A network whose every weight has some value, as training leaves it."""
    torch.manual_seed(0)
    network = make()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


@torch.inference_mode()
def answers(*networks):
    torch.manual_seed(1)
    x = torch.randn(1, 1, 16, 16, 16)
    return [network(x) for network in networks]


def test_wider_stages_change_no_answer():
    small, large = trained(), make(features_per_stage=[6, 12, 10])
    before, random = answers(small, large)
    assert not torch.allclose(before, random, atol=0.1)
    assert torch.allclose(answers(load_smaller_weights(large, small))[0], before, atol=1e-4)


def test_more_blocks_change_answers_only_where_a_map_is_negative():
    small, large = trained(), make(n_conv_per_stage=[1, 2, 1], n_conv_per_stage_decoder=[2, 1])
    before, after = answers(small, load_smaller_weights(large, small))
    assert (before - after).abs().mean() < 0.02 * before.abs().mean()


def test_new_channels_and_blocks_learn():
    large = load_smaller_weights(make(features_per_stage=[6, 12, 10], n_conv_per_stage=[1, 2, 1]), trained()).train()
    optimiser = torch.optim.SGD(large.parameters(), 0.1)
    for _ in range(2):
        optimiser.zero_grad()
        large(torch.randn(1, 1, 16, 16, 16)).square().sum().backward()
        torch.nn.utils.clip_grad_norm_(large.parameters(), 1.0)
        optimiser.step()
    assert large.encoder.stem.convs[0].conv.weight.grad[4:].abs().max() > 0
    assert large.encoder.stages[1].blocks[1].conv1.conv.weight.grad.abs().max() > 0


def test_it_does_not_grow_from_a_larger_or_another_network():
    with pytest.raises(InputError, match=r"is \(4, 1, 3, 3, 3\) to \(2, 1, 3, 3, 3\)"):
        load_smaller_weights(make(features_per_stage=[2, 8, 10]), trained())
    with pytest.raises(InputError, match="mamba"):
        load_smaller_weights(make(first_scan=3), trained())
