"""Muon in one launch against PyTorch's, step by step, on a CPU and on a GPU."""

import copy

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="Muon came with PyTorch 2.9")
SHAPES = [(16, 432), (8, 24), (40, 16), (7, 7)]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
OPTIONS = {"weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}


def weights(device):
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(device)) for shape in SHAPES]


def with_gradients(parameters, seed, without=()):
    generator = torch.Generator().manual_seed(seed)
    for number, parameter in enumerate(parameters):
        gradient = torch.randn(parameter.shape, generator=generator).to(parameter)
        parameter.grad = None if number in without else gradient


def both(device):
    from napari_mamba.training.optimisation.muon import Muon

    ours, theirs = weights(device), weights(device)
    return (ours, Muon(ours, **OPTIONS)), (theirs, torch.optim.Muon(theirs, **OPTIONS))


def run(pair, seed, rate, without=()):
    parameters, optimiser = pair
    with_gradients(parameters, seed, without)
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()


def assert_same(ours, theirs):
    start = weights(ours[0].device)
    for one, other, before in zip(ours, theirs, start, strict=True):
        assert (one - other).norm() <= 1e-5 * (other - before).norm() or torch.equal(one, other)


@pytest.mark.parametrize("device", DEVICES)
def test_every_step_is_pytorchs_own_whatever_the_rate(device):
    ours, theirs = both(device)
    for step in range(5):
        for pair in (ours, theirs):
            run(pair, step, 0.01 * (step + 1))
        assert_same(ours[0], theirs[0])


@pytest.mark.parametrize("device", DEVICES)
def test_parameters_may_lack_gradients_and_get_them_later(device):
    ours, theirs = both(device)
    for step, without in enumerate([(1, 3), (1,), (), (0, 1, 2, 3), (2,)]):
        for pair in (ours, theirs):
            run(pair, step, 0.02, without)
        assert_same(ours[0], theirs[0])


@pytest.mark.parametrize("device", DEVICES)
def test_a_loaded_state_is_gone_on_from(device):
    """The momenta of the first steps would be forgotten, or those of before the load gone on with."""
    (ours, optimiser), theirs = both(device)
    for step in range(2):
        run((ours, optimiser), step, 0.01)
        run(theirs, step, 0.01)
    state = copy.deepcopy(optimiser.state_dict())
    kept = [parameter.detach().clone() for parameter in ours]
    run((ours, optimiser), 9, 0.5)
    with torch.no_grad():
        for parameter, value in zip(ours, kept, strict=True):
            parameter.copy_(value)
    optimiser.load_state_dict(state)
    run((ours, optimiser), 2, 0.01)
    run(theirs, 2, 0.01)
    assert_same(ours, theirs[0])
