"""What an answer must look like, doubted where it does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_fakes import Apply, fake_bundle

from napari_mamba.bundles import Tile
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.answers.postprocessing import postprocess
from napari_mamba.errors import BundleError
from napari_mamba.volume import Volume

NAMES = {0: "background", 1: "left part", 2: "right part"}
RAS = np.eye(4)[[2, 1, 0, 3]]


def two_blocks() -> np.ndarray:
    labels = np.zeros((10, 12, 24), np.uint8)
    labels[2:8, 2:8, 2:8], labels[2:8, 4:10, 12:18] = 1, 2
    return labels


def said(labels: np.ndarray, affine: np.ndarray | None = RAS, agreement: float | None = None, **step) -> list[str]:
    after, doubts = postprocess(labels, (1, 1, 1), NAMES, [step], affine=affine, agreement=agreement)
    assert after is labels
    return doubts


def test_sides_of_different_volume_are_doubted():
    step = {"step": "warn_sides", "pairs": [1, 2], "difference": 0.3}
    labels = two_blocks()
    assert said(labels, **step) == []
    labels[5:, :, 2:8] = 0  # half of the left one: (216 - 108) / 324 = 0.33
    assert said(labels, **step)[0].startswith("Left and right differ more than in people: left part 0.11 ml and right")
    assert said(labels, **{**step, "smallest": 1.0}) == []
    assert said(labels, **{**step, "difference": [0.4]}) == []
    assert "a tumour" in said(labels, **{**step, "difference": [0.2]})[0]
    with pytest.raises(BundleError, match="2 differences for 1 pairs"):
        said(labels, **{**step, "difference": [0.2, 0.3]})


def test_pieces_are_counted_and_crumbs_are_not():
    labels = two_blocks()
    assert said(labels, step="warn_pieces", most=2) == []
    assert "lies in 2 pieces, where people have 1" in said(labels, step="warn_pieces", most=1)[0]
    labels[9, 11, 0] = 1
    assert "Left part lies in 2 pieces" in said(labels, step="warn_pieces", most=1, indices=[1])[0]
    assert said(labels, step="warn_pieces", most=1, indices=[1], smallest=0.001) == []


@pytest.mark.parametrize(
    ("affine", "rule", "fits"),
    [
        (RAS, [1, "L", 2, 9], True),  # ten millimetres apart
        (RAS, [1, "L", 2, 11], False),
        (RAS, [2, "A", 1, 1], True),
        (RAS, [1, "A", 2, -3], True),
        (RAS, [1, "S", 2, 1], False),
        (RAS * np.array([1, 1, -1, 1]), [1, "L", 2, 0], False),  # the same voxels, mirrored in the world
        (RAS * np.array([1, -1, 1, 1]), [1, "A", 2, 1], True),
    ],
)
def test_positions_are_those_of_the_world(affine, rule, fits):
    assert (said(two_blocks(), affine, step="warn_position", rules=[rule]) == []) == fits


def test_positions_of_what_is_not_there_are_not_doubted():
    labels = two_blocks()
    labels[labels == 2] = 0
    assert said(labels, step="warn_position", rules=[[1, "R", 2, 0]]) == []
    with pytest.raises(BundleError, match="direction"):
        said(two_blocks(), step="warn_position", rules=[[1, "X", 2, 0]])
    with pytest.raises(BundleError, match="wrong options"):
        said(two_blocks(), step="warn_position", rules=[[1, "L"]])


def test_mirrored_copies_that_differ_are_doubted():
    step = {"step": "warn_mirrored", "dice": 0.8}
    assert said(two_blocks(), agreement=0.79, **step)[0].startswith("The network's answers to the image and to its")
    assert said(two_blocks(), agreement=0.81, **step) == said(two_blocks(), agreement=None, **step) == []


def test_a_run_measures_how_far_its_mirrored_copies_agree():
    """A network that labels the left half of what it sees, whichever way round that is, against one that sees."""
    half = torch.cat([torch.full((1, 1, 16, 16, 8), 3.0), torch.full((1, 1, 16, 16, 8), -2.0)], dim=-1)
    blind = Apply(lambda x: torch.cat([torch.zeros_like(x), half.expand_as(x)], dim=1))
    sees = Apply(lambda x: torch.cat([torch.zeros_like(x), x - 0.5], dim=1))
    volume = Volume(np.random.default_rng(0).random((1, 16, 16, 16)).astype(np.float32))
    for network, doubted in ((blind, True), (sees, False)):
        steps = ({"step": "warn_mirrored", "dice": 0.9},)
        bundle = fake_bundle(network, classes=2, tile=Tile((16, 16, 16), mirror_axes=(2,)), postprocessing=steps)
        assert any("mirrored copies differ" in w for w in run_to_end(volume, bundle).warnings) == doubted
        assert not any("mirrored" in w for w in run_to_end(volume, bundle, RunOptions(mirror=False)).warnings)
