"""Microscopic-Mamba, MUCM-Net, MHS-VM and T-Mamba beyond their vectors: what those do not say."""

from __future__ import annotations

import parity_vectors
import pytest
import torch
from tiny_networks import TINY, Tiny
from torch import nn

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.models.segmentation.images import mhs_vm
from napari_mamba.models.segmentation.t_mamba.mixer import FourierMamba
from napari_mamba.nn.mixers.images.ss2d import SS2D
from napari_mamba.nn.mixers.mamba import Mamba

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("mhs_vm", "microscopic_mamba", "mucm_net", "t_mamba_3d")
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


def test_the_vector_of_mucm_net_sees_the_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Mamba.forward
    parity_vectors.check("mucm_net", "MUCM_Net")
    monkeypatch.setattr(Mamba, "forward", lambda self, x: forward(self, x.flip(1)).flip(1))
    with pytest.raises(AssertionError):  # so far off that the outputs' deviation already tells
        parity_vectors.check("mucm_net", "MUCM_Net")


@pytest.mark.parametrize("variant", ["MUCM_Net", "MUCM_Net_2", "MUCM_Net_4", "MUCM_Net_8"])
def test_mucm_net_variants_are_told_apart_and_learn(variant: str) -> None:
    torch.manual_seed(0)
    network = models.create("mucm_net", variant=variant, num_classes=2, drop_path_rate=0.1, deep_supervision=True)
    assert models.identify(network.state_dict()).arguments["variant"] == variant
    auxiliary, logits = network(torch.randn(2, 1, 64, 64))
    assert [tuple(y.shape) for y in auxiliary] == [tuple(logits.shape)] * 5
    (logits.mean() + sum(y.square().mean() for y in auxiliary)).backward()
    mixers = [p.grad for key, p in network.named_parameters() if "fc21.mamba" in key or "fc22.mamba" in key]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in mixers)


def test_mucm_net_without_deep_supervision_gives_the_same_logits() -> None:
    vector = parity_vectors.load("MUCM_Net_2")
    plain = models.create("mucm_net", variant="MUCM_Net_2").eval()
    plain.load_state_dict(vector.state_dict(), strict=True)
    with torch.inference_mode():
        logits = plain(*vector.inputs())
    assert parity_vectors.relative_l2(logits, vector.outputs[-1], vector.spec["outputs"][-1]) <= 1e-4


def test_mucm_net_says_what_it_cannot_take() -> None:
    with pytest.raises(InputError, match="multiples of 64"):
        models.create("mucm_net")(torch.zeros(1, 3, 96, 64))
    with pytest.raises(InputError, match="MUCM_Net_8"):
        models.create("mucm_net", variant="MUCM_Net_3")


# The first path of each route over 3 rows of 4 columns, drawn by hand; the third path of a head is its counterpart.
ROUTES = {
    "C": ([0, 1, 2, 3, 7, 6, 5, 4, 8, 9, 10, 11], [0, 4, 8, 9, 5, 1, 2, 6, 10, 11, 7, 3]),
    "X": ([0, 1, 4, 8, 5, 2, 3, 6, 9, 10, 7, 11], [3, 2, 7, 11, 6, 1, 0, 5, 10, 9, 4, 8]),
    "S": ([0, 1, 2, 3, 7, 11, 10, 9, 8, 4, 5, 6], [8, 9, 10, 11, 7, 3, 2, 1, 0, 4, 5, 6]),
    "Z": (list(range(12)), [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]),
}


@pytest.mark.parametrize("pattern", ROUTES)
def test_the_routes_of_mhs_vm(pattern: str) -> None:
    order = mhs_vm.head_order(pattern, (3, 4))
    first, second = ROUTES[pattern]
    assert order.table.tolist() == [first, first[::-1], second, second[::-1]]
    for path, inverse in zip(order.table, order.inverse, strict=True):
        assert path[inverse].tolist() == list(range(12))


def test_mhs_vm_fuses_by_the_coefficient_of_variation() -> None:
    y = torch.tensor([[[1.0], [2.0], [3.0], [6.0]]])
    deviation, spread = (14 / 3) ** 0.5, 2.0 + 1e-5  # of four values about 3, and their mean above the least
    torch.testing.assert_close(mhs_vm.fuse(y, 0.4), torch.tensor([[12 * (deviation / spread - 0.4)]]))
    assert mhs_vm.fuse(y, 2.0) == 0


def test_the_vector_of_mhs_vm_sees_its_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    straight = mhs_vm.head_order
    parity_vectors.check("mhs_vm", "MHSVM")
    monkeypatch.setattr(
        mhs_vm, "head_order", lambda pattern, shape: straight("X" if pattern == "S" else pattern, shape)
    )
    with pytest.raises(AssertionError):
        parity_vectors.check("mhs_vm", "MHSVM")


def test_the_threshold_of_mhs_vm_is_asked_for() -> None:
    network = models.create("mhs_vm", depths=[1, 1, 1, 1], depths_decoder=[1, 1, 1, 1])
    found = models.identify(network.state_dict())
    assert found.arguments["head_num"] == 3
    assert found.ambiguous == ("gfu_t",)
    assert "gfu_t" in found.note
    with pytest.raises(InputError, match="3 or 4 heads"):
        models.create("mhs_vm", head_num=5)


@pytest.mark.parametrize("broken", ["both_ways", "kept"])
def test_the_vector_of_t_mamba_sees_its_branches(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mixer = FourierMamba
    whole = getattr(mixer, broken)
    turned = {"both_ways": lambda *given: whole(*given).flip(1), "kept": lambda *given: ~whole(*given)}
    monkeypatch.setattr(mixer, broken, turned[broken])
    with pytest.raises(AssertionError):
        parity_vectors.check("t_mamba_3d", "TMamba3D")


def test_what_no_checkpoint_of_t_mamba_holds_comes_from_its_seed() -> None:
    size = {"input_size": (16, 16, 8)}
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = (models.create("t_mamba_3d", **size, **more).eval() for more in ({}, {}, {"seed": 3}))
    assert not torch.equal(before, torch.get_rng_state())  # trained weights are drawn as ever
    assert not any(key.startswith(("SpectralGating", "GateModules", "learnable")) for key in one.state_dict())
    x = torch.randn(1, 1, 16, 16, 8)
    for network in (same, other):
        network.load_state_dict(one.state_dict(), strict=True)
    with torch.inference_mode():
        torch.testing.assert_close(same(x), one(x))
        # Untrained gates score near zero, so it is little here; the two that are equal differ by nothing at all.
        assert (other(x) - one(x)).norm() > 1e-3 * one(x).norm()
    # As the authors' programs do: seed, then draw the tables of spectra before all else.
    torch.manual_seed(1777777)
    torch.testing.assert_close(one.get_buffer("SpectralGatingBlocks.0"), torch.randn(16, 256) * 0.02)


def test_what_no_checkpoint_of_a_2d_t_mamba_holds_is_drawn_after_its_convolutions() -> None:
    network = models.create("t_mamba_2d", in_channels=3, classes=2, input_size=(16, 24))
    parts = ("fft_conv", "gate_mapping", "downsample.conv.3", "skip.conv.3", "out_conv.conv.3", "units")
    before = [p for key, p in network.named_parameters() if any(part in key for part in parts) and "conv.0." not in key]
    # The authors' programs build these on the CPU and the mixers on a GPU, which has a stream of its own.
    torch.manual_seed(1777777)
    for parameter in before:
        torch.rand(parameter.shape)
    torch.testing.assert_close(network.get_buffer("SpectralGatingBlocks.0"), torch.randn(16, 96) * 0.02)


def test_t_mamba_2d_asks_and_refuses() -> None:
    network = models.create("t_mamba_2d", scaling_version="WIDER", input_size=(8, 16), classes=3)
    found = models.identify(network.state_dict())
    assert (found.name, found.arguments["scaling_version"]) == ("t_mamba_2d", "WIDER")
    assert {"input_size", "seed"} <= set(found.ambiguous)
    with pytest.raises(InputError, match="resample or cut"):
        network(torch.zeros(1, 1, 8, 8))
    with pytest.raises(InputError, match="WIDER"):
        models.create("t_mamba_2d", scaling_version="HUGE")
    with pytest.raises(InputError, match="2 sides"):
        models.create("t_mamba_2d", input_size=(8, 8, 8))


def test_t_mamba_asks_and_refuses() -> None:
    network = models.create("t_mamba_3d", input_size=(8, 8, 8))
    found = models.identify(network.state_dict())
    assert set(found.ambiguous) == {"input_size", "high_freq", "low_freq", "seed"}
    assert "seed" in found.note
    with pytest.raises(InputError, match="resample or cut"):
        network(torch.zeros(1, 1, 8, 8, 16))
    with pytest.raises(InputError, match="multiples of 8"):
        models.create("t_mamba_3d", input_size=(12, 8, 8))
