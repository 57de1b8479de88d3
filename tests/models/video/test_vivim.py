"""Vivim beyond its vector: SegFormer's attention written out, clips of a batch, what keys tell and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.nn.blocks.transformers.segformer import ReducedAttention

SMALL = {"depths": [1] * 4, "feat_size": [8, 8, 16, 16], "backbone_depths": [1] * 4, "decoder_width": 8}


def test_attention_is_a_softmax_over_the_reduced_map() -> None:
    torch.manual_seed(0)
    layer, x = ReducedAttention(8, heads=2, ratio=2), torch.randn(1, 24, 8)
    with torch.no_grad():
        few = layer.layer_norm(layer.sr(x.transpose(1, 2).view(1, 8, 4, 6)).flatten(2).transpose(1, 2))
        heads = []
        for head in (slice(0, 4), slice(4, 8)):
            q, k, v = layer.query(x)[..., head], layer.key(few)[..., head], layer.value(few)[..., head]
            heads.append((q @ k.transpose(1, 2) / math.sqrt(4)).softmax(-1) @ v)
        torch.testing.assert_close(layer(x, (4, 6)), torch.cat(heads, dim=-1))


def test_clips_of_a_batch_do_not_meet_and_frames_do() -> None:
    torch.manual_seed(0)
    network = models.create("vivim", **SMALL).eval()
    clips = torch.rand(2, 5, 3, 32, 32)
    other = clips.clone()
    other[0, 4] += 1
    with torch.no_grad():
        together = network(clips)
        torch.testing.assert_close(together, torch.cat([network(clip[None]) for clip in clips]))
        changed = network(other)
    assert not torch.allclose(changed[0], together[0])  # an earlier frame sees the last one
    torch.testing.assert_close(changed[5:], together[5:])


def test_the_slices_of_a_volume_are_the_frames_of_a_clip() -> None:
    torch.manual_seed(0)
    clips = models.create("vivim", **SMALL, out_chans=2).eval()
    volumes = models.create("vivim", **SMALL, out_chans=2, volume=True).eval()
    volumes.load_state_dict(clips.state_dict())
    x = torch.rand(2, 5, 3, 32, 64)
    with torch.no_grad():
        frames, whole = clips(x), volumes(x.transpose(1, 2))
    assert whole.shape == (2, 2, 5, 32, 64)
    for clip in range(2):
        for frame in range(5):
            torch.testing.assert_close(whole[clip, :, frame], frames[5 * clip + frame])
    with pytest.raises(InputError, match="leave volume or with_edge out"):
        models.create("vivim", **SMALL, with_edge=True, volume=True)


def test_keys_tell_all() -> None:
    network = models.create("vivim", **SMALL, with_edge=True, out_chans=2)
    found = models.identify(network.state_dict())
    assert (found.name, found.ambiguous) == ("vivim", ())
    assert dict(found.arguments) == {**SMALL, "with_edge": True, "out_chans": 2, "in_chans": 3}
    with torch.no_grad():
        scores, edges = network.eval()(torch.zeros(1, 5, 3, 32, 32))
    assert (scores.shape, edges.shape) == ((5, 2, 32, 32), (5, 1, 32, 32))


def test_refusals_are_sentences() -> None:
    network = models.create("vivim", **SMALL).eval()
    for shape, words in [((1, 3, 32, 32), "clips"), ((1, 5, 1, 32, 32), "clips"), ((1, 1, 3, 32, 32), "5 frames")]:
        with pytest.raises(InputError, match=words):
            network(torch.zeros(shape))
