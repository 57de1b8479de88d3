"""The network of the restoration bundles: any size, an identity before training, scans that reach across the volume."""

import pytest
import torch

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.nn.descriptors.noise import estimate_noise_std

SMALL = {"features": (4, 8, 8), "depths": (1, 1, 1), "d_state": 2}


def trained(**changes):
    """A network that does something: its last layer is not zero."""
    torch.manual_seed(0)
    network = models.create("voxel_mamba_unet", **(SMALL | changes)).eval()
    torch.nn.init.normal_(network.head.weight)
    return network


@pytest.mark.parametrize("scan", ["bidirectional", "axis", ""])
def test_it_starts_as_the_identity_at_any_size(scan):
    x = torch.randn(2, 1, 5, 7, 10)
    assert torch.equal(models.create("voxel_mamba_unet", **SMALL, scan=scan)(x), x)
    assert trained(scan=scan)(x).shape == x.shape


def test_sizes_that_need_no_padding_are_not_changed_by_it():
    network, x = trained(scan=""), torch.randn(1, 1, 8, 8, 64)
    with torch.inference_mode():
        whole, odd = network(x), network(x[..., :63])
    assert torch.allclose(whole[..., :2], odd[..., :2], atol=1e-5)  # beyond the reach of what was cut off


@pytest.mark.parametrize(("scan", "reaches"), [("bidirectional", True), ("", False)])
def test_scans_carry_one_corner_to_the_other(scan, reaches):
    network = trained(scan=scan)
    x = torch.zeros(1, 1, 64, 8, 8, requires_grad=True)
    network(x)[0, 0, 63, 7, 7].backward()
    assert bool(x.grad[0, 0, 0].abs().sum() > 0) is reaches


def test_half_precision_stays_near():
    network, x = trained(), torch.rand(1, 1, 8, 8, 8)
    with torch.inference_mode():
        exact = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(x)
    assert torch.allclose(exact, rough, atol=0.05 * float(exact.abs().max()))


def test_scaled_by_noise_it_answers_in_the_noises_unit(monkeypatch):
    network = models.create("voxel_mamba_unet", **SMALL, noise_scaled=True)
    x = torch.randn(1, 1, 20, 24, 28)
    assert torch.equal(network(x), x)
    told = []
    monkeypatch.setattr(network, "change", lambda seen: told.append(seen) or torch.ones_like(x))
    change = network(0.1 * x) - 0.1 * x
    assert torch.allclose(change, estimate_noise_std(0.1 * x), atol=1e-5)
    assert told[0].shape[1] == network.stem.in_channels == 2


def test_unequal_levels_are_refused():
    with pytest.raises(InputError, match="one depth a level"):
        models.create("voxel_mamba_unet", features=(4, 8), depths=(1, 1, 1))
