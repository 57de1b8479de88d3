"""AdamW and Muon over a network's weights, each step against PyTorch's own or a decomposition in float64."""

import copy

import pytest
import torch
from torch import nn

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.training.optimisation.optimisers import Optimiser, _flat, _mixing

muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="Muon came with PyTorch 2.9")


class Small(nn.Module):
    """A kernel, a depthwise kernel, a kernel of one input, a matrix, a norm, a state matrix."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(1, 8, 3)
        self.conv = nn.Conv3d(8, 6, 3)
        self.depthwise = nn.Conv1d(6, 6, 4, groups=6)
        self.linear = nn.Linear(6, 4)
        self.norm = nn.LayerNorm(4)
        self.A_log = nn.Parameter(torch.randn(4, 4))


def with_gradients(network, seed=0):
    rng = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=rng).to(parameter)
    return network


@pytest.mark.parametrize("last", [False, True])
@muon
def test_weights_that_mix_channels_change_alike_in_every_direction(last):
    network = with_gradients(Small())
    network = network.to(memory_format=torch.channels_last_3d) if last else network
    before = copy.deepcopy(network.state_dict())
    Optimiser(network, "muon", decay=0.0).step(rate=0.01)
    assert [name for name, p in network.named_parameters() if any(p is one for one in _mixing(network))] == [
        "conv.weight",
        "linear.weight",
    ]
    for name in ("conv.weight", "linear.weight"):
        change = (before[name] - network.state_dict()[name]).double().flatten(1)
        gradient = dict(network.named_parameters())[name].grad.double().flatten(1)
        left, _, right = torch.linalg.svd(gradient, full_matrices=False)
        along = torch.diagonal(left.T @ change @ right.T) / (0.01 * 0.2 * max(change.shape) ** 0.5)
        assert ((along > 0.6) & (along < 1.3)).all(), name  # five iterations come so near to one
        assert (
            change - left @ torch.diag(torch.diagonal(left.T @ change @ right.T)) @ right
        ).norm() < 0.1 * change.norm()


@muon
def test_the_layout_in_memory_changes_nothing():
    plain, last = with_gradients(Small()), Small()
    last.load_state_dict(plain.state_dict())
    last = with_gradients(last.to(memory_format=torch.channels_last_3d))
    for network in (plain, last):
        optimiser = Optimiser(network, "muon")
        for _ in range(3):
            optimiser.step(rate=0.01)
    for one, other in zip(plain.parameters(), last.parameters(), strict=True):
        assert (one - other).norm() <= 1e-2 * one.norm()  # its products are rounded to bfloat16


@muon
def test_the_rest_is_changed_as_adamw_changes_it():
    ours, theirs = with_gradients(Small()), Small()
    theirs.load_state_dict(ours.state_dict())
    with_gradients(theirs)
    Optimiser(ours, "muon", decay=0.1).step(rate=0.01)
    free = [theirs.A_log, *(p for p in theirs.parameters() if p.ndim == 1)]
    kernels = [theirs.stem.weight, theirs.depthwise.weight]
    groups = [{"params": free, "weight_decay": 0.0}, {"params": kernels, "weight_decay": 0.1}]
    torch.optim.AdamW(groups, lr=0.01).step()
    mixing = {id(p) for p in _mixing(ours)}
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other) == (id(one) not in mixing), name


@pytest.mark.parametrize("kind", ["adamw", pytest.param("muon", marks=muon)])
def test_resumed_equals_uninterrupted(kind):
    whole = Small()
    first = copy.deepcopy(whole)
    optimiser = Optimiser(whole, kind)
    for seed in range(4):
        with_gradients(whole, seed)
        optimiser.step(rate=0.01)
    optimiser = Optimiser(first, kind)
    for seed in range(2):
        with_gradients(first, seed)
        optimiser.step(rate=0.01)
    second = copy.deepcopy(first)
    again = Optimiser(second, kind)
    again.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    for seed in (2, 3):
        with_gradients(second, seed)
        again.step(rate=0.01)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_a_checkpoint_of_adamw_alone_is_gone_on_from_by_adamw_alone():
    network = with_gradients(Small())
    older = Optimiser(network)
    older.step(rate=0.01)
    (state,) = copy.deepcopy(older.state_dict())  # as it lay in a checkpoint before there was another kind
    again = Optimiser(network)
    again.load_state_dict(state)
    assert torch.equal(*(next(iter(one.parts[0].state.values()))["exp_avg"] for one in (older, again)))
    if hasattr(torch.optim, "Muon"):
        with pytest.raises(InputError, match="another one"):
            Optimiser(network, "muon").load_state_dict(state)


@muon
def test_every_weight_of_a_network_is_in_one_part_and_kernels_are_views():
    network = models.create("umamba_enc", **UMAMBA).to(memory_format=torch.channels_last_3d)
    optimiser = Optimiser(network, "muon")
    for weight, view in zip(optimiser.mixing, optimiser.views, strict=True):
        assert view.data_ptr() == weight.data_ptr()
        assert torch.equal(_flat(weight.detach(), weight), view)
    counted = sum(p.numel() for part in optimiser.parts for group in part.param_groups for p in group["params"])
    assert counted == sum(p.numel() for p in network.parameters())


UMAMBA = {
    "spatial_dims": 3,
    "input_channels": 1,
    "num_classes": 2,
    "features_per_stage": [8, 16],
    "kernel_sizes": [[3, 3, 3]] * 2,
    "strides": [[1, 1, 1], [2, 2, 2]],
    "n_conv_per_stage": [1, 1],
    "n_conv_per_stage_decoder": [1],
    "input_size": [16, 16, 16],
}


def test_what_cannot_be_is_refused(monkeypatch):
    with pytest.raises(InputError, match="adamw, muon"):
        Optimiser(Small(), "adam")
    with pytest.raises(InputError, match="another one"):
        Optimiser(Small(), "adamw").load_state_dict([{}, {}])
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(InputError, match=r"2\.9"):
        Optimiser(Small(), "muon")
