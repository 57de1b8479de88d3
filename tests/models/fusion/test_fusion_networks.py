"""FusionMamba beyond its vector: its convolution written out, which image is which, what keys tell, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.models.fusion.fusionmamba import CentreDifferenceConv, ChannelAttention

SMALL = {"depths": [1, 1], "depths_decoder": [1, 1], "dims": [8, 16], "dims_decoder": [16, 8]}


def test_the_convolution_takes_a_share_of_its_sum_off_the_centre() -> None:
    torch.manual_seed(0)
    layer, x = CentreDifferenceConv(3), torch.randn(1, 5, 4, 3)
    torch.nn.init.normal_(layer.learnable_mask)
    weight = layer.conv.weight.detach()
    share = layer.learnable_theta.detach() * layer.learnable_mask.detach() * weight.sum((2, 3))
    expected = F.conv2d(x.movedim(-1, 1), weight, padding=1)
    expected -= F.conv2d(x.movedim(-1, 1), (weight[:, :, 1, 1] * share)[:, :, None, None])
    with torch.no_grad():
        torch.testing.assert_close(layer(x).movedim(-1, 1), expected)


def test_channels_are_weighed_by_their_means_and_their_neighbours() -> None:
    torch.manual_seed(0)
    layer, x = ChannelAttention(), torch.randn(2, 3, 4, 5)
    mean = F.pad(x.mean((1, 2)), (1, 1))
    left, middle, right = layer.conv.weight.detach().flatten()
    gate = (left * mean[:, :-2] + middle * mean[:, 1:-1] + right * mean[:, 2:]).sigmoid()
    with torch.no_grad():
        torch.testing.assert_close(layer(x), x * gate[:, None, None])


def test_fusion_depends_on_which_image_is_which() -> None:
    torch.manual_seed(0)
    network = models.create("fusionmamba", **SMALL).eval()
    a, b = torch.rand(2, 1, 1, 16, 8).unbind()
    with torch.no_grad():
        assert not torch.allclose(network(a, b), network(b, a))


def test_keys_tell_all() -> None:
    arguments = {**SMALL, "d_state": 4, "in_chans": 2, "patch_size": 2, "patch_norm": False}
    found = models.identify(models.create("fusionmamba", **arguments).state_dict())
    assert (found.name, found.ambiguous) == ("fusionmamba", ())
    assert dict(found.arguments) == arguments


def test_refusals_are_sentences() -> None:
    network = models.create("fusionmamba", **SMALL)
    with pytest.raises(InputError, match="resample one"):
        network(torch.zeros(1, 1, 16, 8), torch.zeros(1, 1, 16, 16))
    with pytest.raises(InputError, match="multiples of 8"):
        network(torch.zeros(1, 1, 12, 8), torch.zeros(1, 1, 12, 8))
