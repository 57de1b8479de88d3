"""MambaMIL beyond its vectors: the strided path written out, other sizes, what its keys tell."""

from __future__ import annotations

import pytest
import torch

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.models.slides.mambamil import SRMamba
from napari_mamba.nn import Mamba


def one_path(mixer: SRMamba, suffix: str) -> Mamba:
    """A plain Mamba with the parameters of one of the mixer's paths."""
    state = {}
    for key in Mamba(mixer.in_proj.in_features).state_dict():
        head, _, tail = key.partition(".")
        own = f"A{suffix}_log" if head == "A_log" else head if "proj" in head and head[0] in "io" else head + suffix
        state[key] = mixer.state_dict()[f"{own}.{tail}" if tail else own]
    path = Mamba(mixer.in_proj.in_features)
    path.load_state_dict(state)
    return path


@pytest.mark.parametrize(("length", "rate"), [(12, 4), (13, 4), (3, 10), (9, 1)])
def test_srmamba_is_a_scan_of_the_padded_and_reordered_copy(length: int, rate: int) -> None:
    torch.manual_seed(0)
    mixer = SRMamba(16)
    x = torch.randn(2, length, 16)
    padded = torch.cat([x, x.new_zeros(2, -length % rate, 16)], dim=1)
    steps = [row for start in range(rate) for row in range(start, padded.shape[1], rate)]
    with torch.no_grad():
        strided = torch.empty_like(padded)
        strided[:, steps] = one_path(mixer, "_b")(padded[:, steps])
        expected = one_path(mixer, "")(x) + strided[:, :length]
        torch.testing.assert_close(mixer(x, rate), expected, rtol=1e-4, atol=1e-6)


def test_survival_is_the_product_of_what_the_hazards_leave() -> None:
    torch.manual_seed(0)
    bag = torch.randn(30, 24)
    model = models.create("mambamil", in_dim=24, n_classes=4, survival=True, layer=1, rate=5).eval()
    with torch.no_grad():
        hazards, survival, label = model(bag)
    assert hazards.shape == survival.shape == (1, 4)
    assert label.item() == hazards.argmax()
    left = 1.0
    for hazard, alive in zip(hazards[0].tolist(), survival[0].tolist(), strict=True):
        left *= 1 - hazard
        assert alive == pytest.approx(left, rel=1e-5)


def test_bags_of_a_batch_do_not_meet() -> None:
    torch.manual_seed(0)
    bags = torch.randn(3, 17, 24)
    model = models.create("mambamil", in_dim=24, layer=1, rate=4).eval()
    with torch.no_grad():
        together = model(bags)[0]
        alone = torch.cat([model(bag)[0] for bag in bags])
    torch.testing.assert_close(together, alone)


def test_keys_tell_sizes_but_not_the_second_path() -> None:
    arguments = {"in_dim": 40, "n_classes": 5, "layer": 3}
    found = models.identify(models.create("mambamil", **arguments, type="BiMamba").state_dict())
    assert (found.name, found.arguments) == ("mambamil", arguments)
    assert {"type", "rate"} <= set(found.ambiguous)
    assert "SRMamba" in found.note
    plain = models.identify({"model": models.create("mambamil", **arguments, type="Mamba").state_dict()})
    assert plain.arguments == {**arguments, "type": "Mamba"}
    assert "type" not in plain.ambiguous


def test_refuses_what_is_no_bag() -> None:
    model = models.create("mambamil", in_dim=24, layer=1)
    with pytest.raises(InputError, match="24"):
        model(torch.zeros(1, 5, 23))
    with pytest.raises(InputError, match="SRMamba"):
        models.create("mambamil", type="mamba")
