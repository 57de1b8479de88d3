"""VMRNN beyond its networks' vectors: a memory, predictions that feed themselves, keys, refusals."""

from __future__ import annotations

import pytest
import torch

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.models.video.vmrnn import predicted_frames

B = {"patch_size": 2, "in_chans": 1, "embed_dim": 8, "depths": [1, 2]}
D = {"in_chans": 2, "embed_dim": 8, "depths_downsample": [1, 2], "depths_upsample": [3, 1]}


@pytest.mark.parametrize(("name", "arguments"), [("vmrnn_b", B), ("vmrnn_d", D)])
@torch.no_grad()
def test_a_frame_is_remembered(name: str, arguments: dict) -> None:
    torch.manual_seed(0)
    network = models.create(name, **arguments).eval()
    frames = torch.rand(1, 3, arguments["in_chans"], 8, 16)
    first = list(predicted_frames(network, frames, 2))
    other = frames.clone()
    other[:, 0] = 1 - other[:, 0]
    assert not torch.allclose(next(predicted_frames(network, other, 1)), first[0])
    # the second prediction is what a first one gives that saw the first as a frame
    seen = torch.cat([frames, first[0][:, None]], dim=1)
    torch.testing.assert_close(next(predicted_frames(network, seen, 1)), first[1])
    assert all(0 <= frame.min() <= frame.max() <= 1 for frame in first)


@pytest.mark.parametrize(("name", "arguments"), [("vmrnn_b", B), ("vmrnn_d", D)])
def test_keys_tell_all(name: str, arguments: dict) -> None:
    found = models.identify(models.create(name, **arguments).state_dict())
    assert (found.name, found.ambiguous) == (name, ())
    assert {key: found.arguments[key] for key in arguments} == arguments


def test_refusals_are_sentences() -> None:
    network = models.create("vmrnn_b", **B)
    for shape in [(1, 2, 8, 8), (1, 1, 8, 7), (1, 4, 1, 8, 8)]:
        with pytest.raises(InputError, match="one after the other"):
            network(torch.zeros(shape))
    with pytest.raises(InputError, match="at least one frame"):
        next(predicted_frames(network, torch.zeros(1, 0, 1, 8, 8), 1))
    with pytest.raises(InputError, match="as many cells"):
        models.create("vmrnn_d", **D | {"depths_upsample": [1]})
