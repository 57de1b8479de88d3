"""Adapting a bundle to blobs: it learns, from drawings, strokes and images without labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from blobs import QUICK, blob, to_end, write

from napari_mamba import bundles
from napari_mamba.bundles.guards.locator import Locator
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.errors import BundleError, InputError
from napari_mamba.training.adaptation import training
from napari_mamba.training.adaptation.adapt import adapt, work_folder
from napari_mamba.training.adaptation.card import adapted_spec
from napari_mamba.training.adaptation.options import AdaptOptions
from napari_mamba.training.adaptation.targets.classes import choose_classes
from napari_mamba.volume import Volume


def test_a_new_class_is_learnt_and_the_bundle_runs(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    result = to_end(tiny_bundle, data, tmp_path / "cube", classes="other", steps=40)
    assert result.score is not None
    assert result.score.mean > 0.6
    assert result.score.people == 1
    bundle = bundles.load(tmp_path / "cube")
    assert [(entry.index, entry.name) for entry in bundle.classes] == [(0, "background"), (7, "label 7")]
    image, label = blob(99)
    labels = run_to_end(Volume(image[None], affine=np.eye(4)), bundle, RunOptions(device="cpu")).labels
    found = np.asarray(labels.data[0]) == 7
    assert 2 * (found & (label == 1)).sum() / (found.sum() + label.sum()) > 0.6
    assert "Not for clinical use" in bundle.card
    assert "1 held-out person" in bundle.card
    assert "`tiny`" in bundle.card
    assert result.facts["peak_memory_bytes"] > 0
    assert not (work_folder(tmp_path / "cube") / "images").exists()


def test_scribbles_are_enough_for_a_cube(tiny_bundle: Path, tmp_path: Path) -> None:
    """A tenth of the voxels is painted: 2 background, 1 cube, 0 unpainted as in napari."""
    for number in range(4):
        image, label = blob(number)
        painted = np.where(np.random.default_rng(number).random(label.shape) < 0.1, 2 - label, 0).astype(np.uint8)
        write(tmp_path / "data", f"p{number}", image, painted)
    options = {"unknown": 0, "background": 2, "steps": 40}
    result = to_end(tiny_bundle, tmp_path / "data", tmp_path / "out", **options)
    assert result.facts["partial"]
    image, label = blob(99)
    bundle = bundles.load(tmp_path / "out")
    labels = run_to_end(Volume(image[None], affine=np.eye(4)), bundle, RunOptions(device="cpu")).labels
    found = np.asarray(labels.data[0]) == 1
    assert 2 * (found & (label == 1)).sum() / (found.sum() + label.sum()) > 0.6


def test_the_size_of_its_own_images_is_not_doubted(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    """Images of 16 to 20 mm, for a bundle of whole heads whose field of view another one finds in larger images."""
    spec = bundles.load(tiny_bundle).spec
    locator = Locator("finder", {"left": (1,), "right": (2,)}, larger_than_mm=(60.0, 60.0, 60.0))
    steps = ({"step": "field_of_view", "mm": [80, 400], "max_mm": 700}, *spec.preparation)
    head = bundles.load(bundles.save(tmp_path / "head", replace(spec, preparation=steps, locator=locator),
                                     [bundles.load(tiny_bundle).networks()[0].state_dict()], "# Head"))  # fmt: skip
    to_end(head.path, data, tmp_path / "out", classes="other", steps=1)
    adapted = bundles.load(tmp_path / "out")
    assert adapted.preparation[0] == {"step": "field_of_view", "mm": [12, 400], "max_mm": 700}
    assert adapted.locator is None  # the place of somebody's own structure is not the bundle's
    classes = choose_classes(head.spec, {0, 1}, {})
    facts = {"training_people": 1, "view_mm": [16.0, 500.0], "located": False}
    kept = adapted_spec(head, "kept", head.network, classes, (16, 16, 16), facts)
    assert kept.locator == locator
    assert kept.preparation[0]["mm"] == [12, 600]
    located = adapted_spec(head, "kept", head.network, classes, (16, 16, 16), {**facts, "located": True})
    assert located.locator is None


@pytest.mark.parametrize(
    "options",
    [
        {"scheme": "mean-teacher"},
        {"scheme": "cross", "freeze": "encoder"},
        {"scheme": "supervised", "pretrain_steps": 3, "random_weights": True},
    ],
)
def test_images_without_labels_are_learnt_from(options, tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    for number in range(10, 13):
        write(tmp_path / "more", f"q{number}", blob(number)[0], None)
    given = {"classes": "other", "steps": 4, "unlabelled": tmp_path / "more" / "images", **options}
    stopped = to_end(tiny_bundle, data, tmp_path / "out", stop_at=2, **given)
    assert stopped.cancelled
    result = to_end(tiny_bundle, data, tmp_path / "out", resume=True, **given)
    assert result.facts["unlabelled_images"] == 3
    assert result.facts["scheme"] == options["scheme"]
    assert result.score is not None
    assert "3 images without labels" in bundles.load(tmp_path / "out").card
    kept, (own,) = bundles.load(tmp_path / "out").networks()[0].state_dict(), bundles.load(tiny_bundle).networks()
    same = {key: torch.equal(value, kept[key]) for key, value in own.state_dict().items() if ".stages.0." in key}
    encoder = [equal for key, equal in same.items() if key.startswith("encoder.")]
    assert encoder
    assert all(encoder) == (options.get("freeze") == "encoder")


def test_a_scheme_needs_what_it_learns_from(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    write(tmp_path / "more", "q1", blob(9)[0], None)
    given = {"classes": "other", "steps": 1}
    with pytest.raises(InputError, match="every voxel here has one"):
        to_end(tiny_bundle, data, tmp_path / "out", scheme="mean-teacher", **given)
    with pytest.raises(InputError, match="nothing is learnt from images without labels"):
        to_end(tiny_bundle, data, tmp_path / "out", unlabelled=tmp_path / "more", **given)
    with pytest.raises(InputError, match="no image that has no labels"):
        to_end(tiny_bundle, data, tmp_path / "out", scheme="cross", unlabelled=data, **given)
    with pytest.raises(InputError, match="no scheme 'magic'"):
        AdaptOptions(scheme="magic")
    with pytest.raises(BundleError, match=r"has no part 'tail'.*decoder, encoder"):
        to_end(tiny_bundle, data, tmp_path / "out", freeze="tail", **given)


def test_a_round_looks_at_few_tiles_and_the_end_at_all(
    tiny_bundle: Path, data: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(training, "MOST_TILES", 1)
    large, label = np.zeros((16, 18, 90), np.float32), np.zeros((16, 18, 90), np.uint8)
    large[:, :, 70:], label[4:12, 4:12, 72:80] = 1, 7
    write(data, "p9", large, label)
    options = AdaptOptions(**QUICK, classes="other", steps=2, patch=(16, 16, 16), validation=("p9",))
    scores = [event.score for event in adapt(tiny_bundle, data, tmp_path / "out", options) if event.score]
    assert [score.part for score in scores] == [True, True, False]
    assert "tiles far" not in bundles.load(tmp_path / "out").card


def test_an_ensemble_says_that_its_first_network_is_adapted(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    other = bundles.load(tiny_bundle)
    weights = [{k: v + number * 0.01 for k, v in other.networks()[0].state_dict().items()} for number in range(2)]
    both = bundles.save(tmp_path / "both", other.spec, weights, "# Two")
    events = [*adapt(both, data, tmp_path / "out", AdaptOptions(**QUICK, classes="other", steps=1))]
    assert [event.message for event in events if event.warning] == [
        f"{bundles.load(both).name} averages 2 networks: the first is adapted, and is the new bundle alone"
    ]
    assert len(bundles.load(tmp_path / "out").weights) == 1
