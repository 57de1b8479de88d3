"""Microscopic-Mamba beyond its vector: what the vector does not say."""

from __future__ import annotations

import parity_vectors
import pytest
import torch
from tiny_networks import TINY, Tiny
from torch import nn

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.nn.mixers.ss2d import SS2D

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("microscopic_mamba",)
each = pytest.mark.parametrize("case", [case for case in TINY if case.name in NAMES], ids=str)


def build(case: Tiny) -> nn.Module:
    torch.manual_seed(0)
    return models.create(case.name, **case.arguments).eval()


@each
def test_identified_by_its_own_weights(case: Tiny) -> None:
    network = build(case)
    found = models.identify({f"module.{key}": value for key, value in network.state_dict().items()})
    assert found.name == case.name
    asked = {key: case.arguments[key] for key in found.ambiguous if key in case.arguments}
    again = models.create(case.name, **{**found.arguments, **asked}).eval()
    again.load_state_dict(network.state_dict(), strict=True)
    x = case.inputs()[0]
    with torch.inference_mode():
        torch.testing.assert_close(case.run(again, [x]), case.run(network, [x]))


@each
def test_a_network_cast_to_bfloat16_agrees(case: Tiny) -> None:
    network, x = build(case), case.inputs()[0]
    with torch.inference_mode():
        whole = case.run(network, [x])
        half = case.run(network.to(torch.bfloat16), [x.to(torch.bfloat16)]).float()
    assert half.isfinite().all()
    assert (half - whole).norm() <= 0.1 * whole.norm()


def test_the_vector_of_microscopic_mamba_sees_the_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = SS2D.scan
    monkeypatch.setattr(SS2D, "scan", lambda self, u: scan(self, u.flip(1)).flip(1))
    with pytest.raises(AssertionError, match="relative L2"):
        parity_vectors.check("microscopic_mamba", "MicroscopicMamba_T")


def test_microscopic_mamba_says_that_it_needs_a_square() -> None:
    with pytest.raises(InputError, match="32 rows and 48 columns"):
        models.create("microscopic_mamba", depths=[1], dims=[32])(torch.zeros(1, 3, 32, 48))
