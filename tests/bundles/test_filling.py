"""Networks filled with weights: each tensor once, as load_state_dict would, and without drawing random numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_mamba.bundles import weights
from napari_mamba.errors import BundleError


class Twice(nn.Module):
    """A module that has two names, as U-Mamba's encoder has."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
        self.other = self.one
        self.register_buffer("beside", torch.zeros(2), persistent=False)


def state(network: nn.Module, value: float) -> dict[str, torch.Tensor]:
    return {key: torch.full_like(tensor, value) for key, tensor in network.state_dict().items()}


def test_what_has_two_names_is_filled_from_one_and_stays_one():
    network = Twice()
    given = {key: tensor for key, tensor in state(network, 2).items() if key.startswith("one")}
    kept = network.one[0].weight
    assert weights.fill(network, given, "here") is network
    assert network.other is network.one
    assert network.one[0].weight is kept
    assert all((tensor == 2).all() for tensor in network.state_dict().values())
    given["one.0.weight"].zero_()
    assert (network.one[0].weight == 2).all(), "the weights are the network's own"


def test_two_names_with_their_own_values_are_left_to_pytorch():
    network, reference = Twice(), Twice()
    given = state(network, 2)
    given |= {key: tensor + 1 for key, tensor in given.items() if key.startswith("other")}
    weights.fill(network, given, "here")
    reference.load_state_dict(given)
    for key, tensor in reference.state_dict().items():
        assert torch.equal(network.state_dict()[key], tensor)


def test_older_names_are_still_changed():
    network, asked = Twice(), []
    network.one.register_load_state_dict_pre_hook(lambda *given: asked.append(given[2]))
    weights.fill(network, state(network, 3), "here")
    assert asked
    assert all((tensor == 3).all() for tensor in network.state_dict().values())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_told_by_its_name(bad):
    network = Twice()
    given = state(network, 1)
    given["one.1.bias"][2] = given["other.1.bias"][2] = bad
    with pytest.raises(BundleError, match=r"'one\.1\.bias' are not finite"):
        weights.fill(network, given, "here")


def test_initialisers_draw_nothing_where_weights_will_fill_what_they_would():
    before = torch.get_rng_state()
    tensor = torch.full((4, 4), 5.0)
    with weights._Unfilled():
        for name in ("uniform_", "normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_"):
            assert getattr(nn.init, name)(tensor) is tensor
    assert torch.equal(torch.get_rng_state(), before)
    assert (tensor == 5).all()
    with weights._Unfilled():
        tensor.normal_()
    assert not (tensor == 5).any(), "a tensor's own methods still draw"


@pytest.mark.gpu
def test_a_gpu_gets_the_same_weights(tiny_bundle):
    from napari_mamba import bundles

    device = torch.device("cuda", 0)
    (here,), (there,) = bundles.load(tiny_bundle).networks(), bundles.load(tiny_bundle).networks(device)
    assert {tensor.device for tensor in (*there.parameters(), *there.buffers())} == {device}
    for key, tensor in here.state_dict().items():
        assert torch.equal(there.state_dict()[key].cpu(), tensor)
