"""Relevance: the published numbers, conservation on every network, and what its comparisons promise."""

import numpy as np
import pytest
import torch
from made_networks import built, given
from published import filled, reference
from tiny_networks import TINY
from torch import nn

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.explain.methods.attribution import picking, relevance
from napari_mamba.explain.methods.faithfulness import perturbation_curve
from napari_mamba.explain.methods.rules import linearised

EXACT = ("umamba_enc", "vmamba", "vim", "h_vmunet", "mambair_v2", "mambamorph", "mambamil")
RECURRENT = ("vmrnn_b", "vmrnn_d")
ONE_INPUT = [case for case in TINY if not case.more]


@pytest.mark.parametrize("case", [case for case in TINY if case.name in RECURRENT], ids=str)
def test_nothing_is_left_of_a_recurrent_network_without_a_state(case):
    """Without a state of an earlier frame the rules leave nothing of its answer, and say so rather than draw zeros."""
    network, x = given(case)
    with pytest.raises(InputError, match="does not depend on the input"):
        relevance(network, x, lambda y: y[0, 0].mean())


@pytest.mark.parametrize("case", [case for case in TINY if case.name not in RECURRENT], ids=str)
def test_relevances_and_the_biases_share_sum_to_the_answer(case):
    """In float32, as users run it: what is left is rounding, which is of the terms' size and not of their sum's."""
    network, x = given(case)
    torch.manual_seed(1)  # MambaIRv2 draws noise
    found = relevance(network, x, lambda y: y[0, 0].mean())
    assert found.map.shape == x.shape
    terms = float(found.map.double().abs().sum()) + abs(found.constants)
    assert abs(found.answer - found.sum - found.constants) < 1e-6 * terms
    assert float(found.map.abs().max()) > 0


@pytest.mark.parametrize("case", [c for c in TINY if c.name in EXACT], ids=str)
def test_nothing_but_rounding_is_missing(case):
    """In float64, which takes three times as long: once for each kind of mixer, norm and answer."""
    network, x = given(case)
    torch.manual_seed(1)
    assert relevance(network.double(), x.double(), lambda y: y[0, 0].mean()).missing < 1e-9


@pytest.mark.parametrize("case", [c for c in ONE_INPUT if c.name in ("umamba_enc", "vim", "segmamba")], ids=str)
def test_the_rules_change_no_answer(case):
    network, x = built(case), case.inputs()[0][:1]
    with torch.no_grad():
        plain = case.run(network, [x])
    with linearised(network.requires_grad_(False)):
        y = case.run(network, [x.clone().requires_grad_(True)])
    torch.testing.assert_close(y.detach(), plain, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(case.run(network, [x]), plain)  # and nothing of them is left


@pytest.mark.parametrize("channel", [780, 17])
def test_published_relevances_of_vim(channel):
    data, spec, fill = reference("mambalrp_vim")
    network = filled("vim", spec, fill)
    x = torch.from_numpy(fill.input(tuple(spec["input"])))
    tolerance = {"relevance": 1e-4, "gradient": 2e-5}  # the published stabiliser of SiLU is left out
    for method, name in (("relevance", "mambalrp"), ("gradient", "gradxinput")):
        found = relevance(network, x, lambda y: y[0, channel], method, at="pos_drop")
        tokens, published = found.map[0].sum(-1).numpy(), data[f"tok/{name}_c{channel}"]
        assert np.linalg.norm(tokens - published) < tolerance[method] * np.linalg.norm(published)
        assert found.answer == pytest.approx(float(data["logits"][channel]), rel=5e-6, abs=5e-6)
    assert relevance(network, x, lambda y: y[0, channel], at="pos_drop").missing < 1e-5


def test_a_linear_network_is_its_own_explanation():
    torch.manual_seed(0)
    network, x = nn.Linear(6, 3), torch.randn(1, 6)
    for method in ("relevance", "gradient", "integrated"):
        found = relevance(network, x, lambda y: y[0, 2], method)
        torch.testing.assert_close(found.map[0], network.weight[2] * x[0], rtol=1e-4, atol=1e-6, check_dtype=False)
    assert relevance(network, x, lambda y: y[0, 2]).constants == pytest.approx(network.bias[2].item(), rel=1e-5)
    assert network.weight.requires_grad  # as it was


def test_integrated_gradients_are_complete():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.SiLU(), nn.Conv2d(4, 2, 3))
    found = relevance(network, torch.randn(1, 1, 12, 12), picking(1), "integrated", steps=200)
    assert found.sum + found.constants == pytest.approx(found.answer, rel=1e-3)


def test_gradient_is_that_of_finite_differences():
    torch.manual_seed(0)
    network = models.create("ultralight_vm_unet", num_classes=1, logits=True).double().eval()
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    found = relevance(network, x, picking(0, voxel=(7, 9)), "gradient").map
    step = torch.zeros_like(x)
    step[0, 1, 7, 9] = 1e-4
    with torch.no_grad():
        change = (network(x + step) - network(x - step))[0, 0, 7, 9] / 2e-4
    assert float(found[0, 1, 7, 9]) == pytest.approx(float(x[0, 1, 7, 9] * change), rel=2e-3, abs=1e-7)


def test_deleting_what_matters_costs_more_than_deleting_what_does_not():
    network = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(network.weight)
    x = torch.rand(1, 1, 16, 16) * 0.1
    x[..., 4:8, 4:8] = 2
    pick = lambda y: y[0, 0, 4:8, 4:8].mean()  # noqa: E731
    good = relevance(network, x, pick).map
    deletion = perturbation_curve(network, x, pick, good)
    assert deletion.area < perturbation_curve(network, x, pick, -good).area
    assert deletion.kept[0] == pytest.approx(1)
    insertion = perturbation_curve(network, x, pick, good, insert=True)
    assert insertion.area > perturbation_curve(network, x, pick, -good, insert=True).area


def test_wrong_wishes_are_refused_in_a_sentence():
    network, x = nn.Linear(6, 3), torch.randn(1, 6)
    with pytest.raises(InputError, match="no method 'lrp'"):
        relevance(network, x, picking(0), "lrp")
    with pytest.raises(InputError, match="no layer 'head'"):
        relevance(network, x, picking(0), at="head")
    with pytest.raises(InputError, match="3 channels"):
        relevance(network, x, picking(7))
    with pytest.raises(InputError, match="does not depend"):
        relevance(network, x, lambda y: torch.ones(()))
