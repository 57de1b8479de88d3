"""What is learnt: classes kept and new, and unknown that is no background."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_mamba import bundles
from napari_mamba.engine.preparation.prepare import prepare
from napari_mamba.errors import InputError
from napari_mamba.training.adaptation.data.people import Case
from napari_mamba.training.adaptation.data.prepared import prepare_pair
from napari_mamba.training.adaptation.data.samples import Prepared
from napari_mamba.training.adaptation.loss import UNKNOWN, partial_loss
from napari_mamba.training.adaptation.targets import heads
from napari_mamba.training.adaptation.targets.classes import choose_classes
from napari_mamba.training.adaptation.targets.likeness import most_alike
from napari_mamba.volume import Volume


def test_one_class_more_keeps_the_old_weights_and_answers(tiny_bundle: Path) -> None:
    bundle = bundles.load(tiny_bundle)
    described, network = heads.with_classes(bundle, (0, 1, 2, None), seed=1)
    assert described.arguments["num_classes"] == 4
    (old,) = bundle.networks()
    tile = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(tile)[:, :3], old(tile))
        _, other = heads.with_classes(bundle, (0, 2), seed=1)
        torch.testing.assert_close(other.eval()(tile), old(tile)[:, [0, 2]])


def test_a_new_class_begins_as_the_one_that_is_likeliest_there(tiny_bundle: Path) -> None:
    class Bright(torch.nn.Module):
        """Channel 2 where it is bright, 1 where it is dark, 0 between."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([torch.zeros_like(x), -9 * x, 9 * x], 1)

    image, labels = np.zeros((1, 10, 12, 14), np.float32), np.zeros((10, 12, 14), np.int16)
    image[0, 2:6, 2:6, 2:6], labels[2:6, 2:6, 2:6] = 1, 1
    image[0, 6:9, 6:9, 6:9], labels[6:9, 6:9, 6:9] = -1, 2
    places = {channel: np.argwhere(labels == channel) for channel in range(3)}
    case = Prepared(Case("p", "p", (), None), image, labels, places, True)
    found = most_alike(Bright(), [case], (8, 8, 8), (0, None, None), torch.device("cpu"))
    assert found == (0, 2, 1)
    assert most_alike(Bright(), [case], (8, 8, 8), (0, 2, None), torch.device("cpu")) == (0, 2, 1)
    assert most_alike(Bright(), [case], (8, 8, 8), (0, 2, None, None), torch.device("cpu"))[3] == 0  # nowhere drawn
    bundle = bundles.load(tiny_bundle)
    (old,) = bundle.networks()
    _, network = heads.with_classes(bundle, (0, None), seed=1, like=(0, 2))
    tile = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        began, known = network.eval()(tile)[:, 1].flatten(), old(tile)[:, 2].flatten()
    assert float(torch.corrcoef(torch.stack([began, known]))[0, 1]) > 0.9


def test_unknown_voxels_have_no_gradient_and_background_has() -> None:
    torch.manual_seed(0)
    target = torch.tensor([[0, 1, UNKNOWN, UNKNOWN]])
    logits = torch.randn(1, 2, 4, requires_grad=True)
    partial_loss(logits, target, [True, True]).backward()
    assert logits.grad is not None
    assert (logits.grad[0, :, 2:] == 0).all()
    assert (logits.grad[0, :, :2] != 0).all()
    known = logits.detach()[:, :, :2]
    torch.testing.assert_close(
        partial_loss(logits.detach(), target, [True, True]), partial_loss(known, target[:, :2], [True, True])
    )


def test_background_may_be_a_class_that_nobody_drew() -> None:
    sure_of_2 = torch.tensor([[[-9.0], [-9.0], [9.0]]])
    background = torch.tensor([[0]])
    assert partial_loss(sure_of_2, background, [True, True, False]) < 0.01
    assert partial_loss(sure_of_2, background, [True, True, True]) > 10


def test_labels_follow_their_image(rng: np.random.Generator, oblique_affine: np.ndarray) -> None:
    """The image of a label map, prepared as an image without interpolation, is the prepared label map."""
    labels = rng.integers(1, 4, (12, 14, 16)).astype(np.int16)
    labels[:2] = 0
    steps = [
        {"step": "orient", "axcodes": "RAS"},
        {"step": "crop_nonzero"},
        {"step": "transpose", "axes": [1, 2, 0]},
        {"step": "resample", "spacing": [1.0, 1.0, 2.0], "order": 0},
        {"step": "centre", "size": [9, 40, 9]},
    ]
    volume = Volume(labels[None].astype(np.float32), affine=oblique_affine)
    image, moved = prepare_pair(volume, labels, steps)
    np.testing.assert_array_equal(image, prepare(volume, steps).data)
    known = moved != UNKNOWN
    assert known.mean() > 0.2
    np.testing.assert_array_equal(image[0][known], moved[known])


def test_classes_are_kept_by_value_and_name(tiny_bundle: Path) -> None:
    spec = bundles.load(tiny_bundle).spec
    assert choose_classes(spec, {0, 2}, {}).drawn == (True, False, True)
    assert choose_classes(spec, {0, 2, 9}, {}, "more").kept == (0, 1, 2, None)
    assert choose_classes(spec, {0, 2, 9}, {}, "other").kept == (0, None, None)  # whose label 2 is it?
    named = choose_classes(spec, {0, 2, 9}, {2: "Posterior", 9: "tumour"}, "other")
    assert named.kept == (0, 2, None)
    assert [entry.name for entry in choose_classes(spec, {0, 2}, {}, "other").entries] == ["background", "label 2"]
    assert choose_classes(spec, {2}, {0: "background", 2: "tumour"}, "other").kept == (0, None)
    with pytest.raises(InputError, match="'posterior' in tiny and 'tumour' here"):
        choose_classes(spec, {2}, {0: "background", 2: "tumour"}, "more")


def test_sides_are_not_mirrored(tiny_bundle: Path) -> None:
    spec = bundles.load(tiny_bundle).spec
    assert not choose_classes(spec, {0, 7, 8}, {7: "anterior", 8: "posterior"}, "other").sided(())
    assert choose_classes(spec, {0, 7, 8}, {7: "Left kidney", 8: "right kidney"}, "other").sided(())
    assert choose_classes(spec, {0, 7, 8}, {}, "other").sided(())  # nobody knows
    assert not choose_classes(spec, {0, 7}, {}, "other").sided(())
    assert choose_classes(spec, {0, 1}, {}).sided((1, 2))
