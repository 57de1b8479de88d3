"""`mixer=` on every network: it runs, learns, keeps everything around the scan; the default's keys are as published."""

import pytest
import torch
from tiny_networks import OTHERS, TINY

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.nn import S4D, S5, Mamba2
from napari_mamba.nn.mixers.exchange import PathMixers
from napari_mamba.scan import scan_order

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = {"mamba2": Mamba2, "s4d": S4D, "s5": S5}
REFUSED = {"mambair_v2", "mambair_v2_light"}


def built(case, **more):
    torch.manual_seed(0)
    return models.create(case.name, **{**case.arguments, **more})


SHAPES = {}


def published_shape(case):
    """Of the answer with the published mixer: it is run once for all others."""
    if id(case) not in SHAPES:
        with torch.no_grad():
            SHAPES[id(case)] = case.run(built(case).train(), case.inputs()).shape
    return SHAPES[id(case)]


EXCHANGED = [case for case in TINY if case.name not in REFUSED]
# Every network with Mamba-2, whose heads have to divide its width, and with one of the time-invariant two in turn.
PAIRS = [(case, name) for n, case in enumerate(EXCHANGED) for name in ("mamba2", ("s4d", "s5")[n % 2])]


@pytest.mark.parametrize(("case", "name"), PAIRS, ids=str)
def test_a_network_runs_with_another_mixer(case, name):
    network = built(case, mixer=name).train()
    kinds = [type(module) for module in network.modules()]
    assert KINDS[name] in kinds
    assert not any("A_logs" in key or "x_proj" in key or "dt_proj" in key for key in network.state_dict())
    for parameter in network.parameters():
        if not parameter.any():  # a last layer that begins at zero would let no gradient through
            torch.nn.init.normal_(parameter, std=0.1)
    y = case.run(network, case.inputs())
    assert y.shape == published_shape(case)
    assert y.isfinite().all()
    y.square().mean().backward()
    own = [p for module in network.modules() if isinstance(module, PathMixers) for p in module.parameters()]
    reached = [p for p in own if p.grad is not None]
    assert len(reached) >= 0.75 * len(own)  # VM-UNetV2 stores a last stage that it never runs
    assert all(p.grad.isfinite().all() for p in reached)
    assert any(p.grad.abs().max() > 0 for p in reached)


@pytest.mark.parametrize("case", TINY, ids=str)
def test_mamba_is_the_default_and_changes_nothing(case):
    default, named = built(case).state_dict(), built(case, mixer="mamba").state_dict()
    assert list(default) == list(named)
    assert not any("exchanged" in key for key in default)
    assert all(torch.equal(default[key], named[key]) for key in default)


@pytest.mark.parametrize("case", [case for case in TINY if case.name in REFUSED], ids=str)
def test_a_scan_that_no_other_mixer_can_do_says_why(case):
    with pytest.raises(InputError, match="prompts"):
        built(case, mixer="mamba2")


def test_a_layer_that_is_shared_is_exchanged_once():
    case = next(case for case in TINY if case.name == "umamba_enc")
    network = built(case, mixer="s5")
    state = network.state_dict()
    assert torch.equal(state["encoder.mamba_layers.0.mamba.exchanged.mixers.0.D"],
                       state["decoder.encoder.mamba_layers.0.mamba.exchanged.mixers.0.D"])  # fmt: skip


def test_an_unknown_mixer_is_named():
    with pytest.raises(InputError, match=r"'s6' is unknown"):
        models.create("ultralight_vm_unet", mixer="s6")


def test_paths_of_their_own_are_mixed_along_their_order():
    torch.manual_seed(0)
    layer, x = PathMixers("s4d", 6, paths=2, d_state=4), torch.randn(2, 9, 6)
    forward, backward = layer.mixers
    expected = forward(x) + backward(x.flip(1)).flip(1)
    torch.testing.assert_close(layer(x, scan_order("bidirectional", (9,))), expected)
    half = layer.half()
    assert all(p.dtype == torch.float32 for p in half.parameters())
    assert half(x.half(), scan_order("bidirectional", (9,))).dtype == torch.float16


def test_every_network_is_tested_here():
    """But those of doses, which fit a fluence before they answer: `test_dose.py` has them."""
    named = {model.name for model in models.list_models() if model.task != "regression"}
    assert {case.name for case in (*TINY, *OTHERS)} == named
