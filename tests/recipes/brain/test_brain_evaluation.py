"""Evaluation of a brain bundle: scores, the card's numbers and pictures."""

import inspect
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from napari_mamba import engine, io
from napari_mamba.recipes.brain import evaluation
from napari_mamba.recipes.brain.bundle import spec
from napari_mamba.recipes.brain.card import card
from napari_mamba.recipes.brain.flip_averaging import KINDS, mirroring
from napari_mamba.recipes.brain.pictures import picture
from napari_mamba.recipes.brain.structures import INDICES, left_right_swap
from napari_mamba.recipes.brain.task import classes
from napari_mamba.training.scoring.scores import summary
from napari_mamba.volume import Volume


def test_dice_of_all_structures_in_one_count():
    truth = np.zeros((4, 4, 4), np.uint8)
    truth[:2], truth[2] = 2, 41
    found = truth.copy()
    found[0] = 41
    dice = evaluation.dice_of(found, truth)
    assert dice[INDICES.index(2) - 1] == pytest.approx(2 * 16 / 48)
    assert dice[INDICES.index(41) - 1] == pytest.approx(2 * 16 / 48)
    assert np.isnan(dice[INDICES.index(3) - 1])


class Threshold:
    """Stands for a bundle that calls left white matter what is bright."""

    name = "threshold"


@pytest.fixture
def answers(monkeypatch):
    def run_to_end(volume, bundle, options):
        found = np.where(np.asarray(volume.data) > 0.5, 2, 0).astype(np.uint8)
        return engine.Result(labels=volume.with_data(found, ("labels",)))

    monkeypatch.setattr(evaluation.engine, "run_to_end", run_to_end)


def test_agreement_leaves_lesions_out(tmp_path, answers):
    folder = tmp_path / "ms_lesion_mr" / "patient07"
    folder.mkdir(parents=True)
    image = np.zeros((1, 8, 8, 8), np.float32)
    image[0, :4] = 1
    lesion = np.zeros_like(image)
    lesion[0, 4] = 1
    for name in ("T1", "T2", "FLAIR"):
        scan = image + (0.9 * lesion if name == "FLAIR" else 0)
        io.write(Volume(scan), folder / f"{name}.nii.gz")
    io.write(Volume(lesion.astype(np.uint8)), folder / "lesions.nii.gz")
    folders = evaluation.scan_folders(tmp_path / "brain_label_maps")
    assert list(folders) == ["ms_lesion_mr/patient07"]
    said = []
    measured, pictures = evaluation.agreement(folders, Threshold(), engine.RunOptions(), lambda *a: said.append(a))
    assert measured["mean"] == 1.0  # the one difference is a lesion
    assert len(measured["pairs"]) == len(said) == 3
    assert pictures["worst_pair.png"].startswith(b"\x89PNG")


def test_a_picture_shows_image_and_labels(tmp_path):
    image = np.random.default_rng(0).random((12, 14, 16))
    labels = np.where(image > 0.5, 41, 0)
    assert picture([(image, None), (image, labels)], tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_classes_are_those_of_freesurfer_with_colours():
    named = {one.index: one for one in classes()}
    assert tuple(named) == INDICES
    assert named[17].name == "left hippocampus"
    assert named[17].color == named[53].color == "#dcd814"
    assert spec().network.arguments["num_classes"] == len(named) == 33


def test_the_card_tells_what_was_measured_and_nothing_else():
    assert "Not measured yet." in card({})
    one = summary([0.9, 0.8])
    told = card(
        {
            "held_out": {
                "images": 18,
                "mirrored": False,
                "mean": 0.87654,
                "by_image": {"T1-like, 1 mm": one},
                "by_structure": {"left putamen": one},
                "calibration": {"error": 0.0123, "voxels": 1000},
            },
            "copied": {"held_out": {"mean": 0.8811, "T1-like, 1 mm": 0.8822}, "agreement": {"mean": 0.8633}},
            "speed_on_gpu": {
                "seconds": 1.96,
                "seconds_alone": 1.44,
                "first": 3.38,
                "gigabytes": 2.14,
                "device": "NVIDIA H100",
                "precision": "float16",
            },
            "icbm": {"grey": 0.871, "white": 0.912},
            "agreement": {
                "mean": 0.86,
                "mirrored": False,
                "pairs": [{"person": "ms", "first": "T1", "second": "T2", "dice": one}],
            },
            "speed": {
                "seconds": 41.6,
                "processor_seconds": 78.3,
                "gigabytes": 2.6,
                "threads": 2,
                "device": "a CPU",
                "precision": "f32",
            },
            "trained": {"steps": 4000, "of": 4000, "minutes": 15.2, "device": "NVIDIA H200"},
            "failures": [{"file": "worst_pair.png", "text": "A pair."}],
            "compared": {
                name: {
                    "parameters": 6.49e6,
                    "steps": 1262,
                    "seconds_a_step": seconds,
                    "device": "NVIDIA H100",
                    **dict.fromkeys(("dice_t1", "dice_other", "icbm_grey", "icbm_white"), score),
                }
                for name, seconds, score in (("U-Mamba Enc", 0.0918, 0.2764), ("SegResNet", 0.1333, 0.1476))
            },
        }
    )
    for number in (
        "0.877",
        "0.850 ± 0.071",
        "0.871",
        "0.912",
        "0.860",
        "0.012",
        "42 s",
        "78 s of",
        "2.6 GB",
        "15.2 minutes",
        "by default, 0.881",
        "| 0.882 |",
        "by default, 0.863",
        "| U-Mamba Enc | 6.5 M | 0.092 | 0.276 | 0.276 | 0.276 | 0.276 |",
        "| SegResNet | 6.5 M | 0.133 | 0.148 |",
        "1262 steps on the same windows",
        "2.0 s (1.4 s without mirrored copies; 3.4 s the first time)",
    ):
        assert number in told
    assert "![worst_pair.png](worst_pair.png)" in told
    assert "Not for clinical use" in told


def test_a_mirrored_copy_swaps_the_sides_and_nothing_else():
    sides = left_right_swap()
    assert [sides[one] for one in sides] == list(range(len(INDICES)))
    named = {one.index: one.name for one in classes()}
    for index, other in zip(INDICES, (INDICES[side] for side in sides), strict=True):
        assert named[other] == named[index].replace("left", "other").replace("right", "left").replace("other", "right")


class Sided(torch.nn.Module):
    """Finds the left hippocampus in the left half of its input, which is bright there, and is unsure elsewhere."""

    def forward(self, image):
        logits = torch.zeros(1, len(INDICES), *image.shape[2:])
        logits[:, 0] = 0.1
        logits[:, INDICES.index(17), ..., : image.shape[-1] // 2] = (image[0] > 0)[..., : image.shape[-1] // 2].float()
        return logits


def test_the_mirrored_copy_helps_a_network_that_sees_one_side(monkeypatch):
    target = torch.zeros(3, 1, 8, 8, 8, dtype=torch.uint8)
    target[..., 1:3], target[..., 5:7] = INDICES.index(17), INDICES.index(53)
    images = target.float()
    monkeypatch.setattr("napari_mamba.recipes.brain.flip_averaging.synthesise", lambda *a, **k: (images, target))
    recipe = Mock(window=(8, 8, 8))
    scores = mirroring(recipe, Sided(), torch.device("cpu"))
    assert set(scores) == set(KINDS)
    assert all(one["with"] == pytest.approx(1) and one["without"] < 0.6 for one in scores.values())


def head(turn):
    """A head whose left half is bright white matter, for `Threshold`; each turn hides one slice more from it."""
    image = np.zeros((1, 8, 8, 8), np.float32)
    image[0, turn:, :, :4] = 1
    truth = np.zeros((8, 8, 8), int)
    truth[..., :4] = 2
    return evaluation.SyntheticScan(f"person {turn % 3 + 1}", f"kind {turn % 2}", Volume(image), truth)


@pytest.fixture
def sure_heads(sure_answers, monkeypatch):
    monkeypatch.setattr(evaluation, "synthetic_scan", lambda recipe, turn: head(turn))


def test_the_heads_numbers_are_those_of_their_answers(sure_heads):
    said = []
    options = engine.RunOptions(mirror=False)
    measured, pictures = evaluation.held_out(None, Threshold(), options, lambda *a: said.append(a), heads=4)
    wanted = [2 * (8 - n) / (16 - n) for n in range(4)]  # slices of eight found
    assert [scores["dice"] for _, scores in said] == pytest.approx(wanted)
    assert (measured["images"], measured["people"], measured["mirrored"]) == (4, 3, False)
    assert measured["mean"] == pytest.approx(np.mean(wanted))
    assert measured["by_image"]["kind 1"]["mean"] == pytest.approx(np.mean(wanted[1::2]))
    assert measured["by_structure"]["left cerebral white matter"]["n"] == 4
    assert 0 < measured["calibration"]["error"] < 0.25
    assert set(pictures) == {"calibration.png", "worst_synthetic.png"}


def test_what_mirrored_copies_add_is_measured_as_a_user_runs_it(sure_heads):
    recipe = Mock(data=Path("nowhere"))
    found = evaluation.copied(recipe, Threshold(), engine.RunOptions(), lambda *a: None, heads=2)
    assert found == {
        "held_out": {"mean": pytest.approx((1 + 14 / 15) / 2), "kind 0": 1.0, "kind 1": pytest.approx(14 / 15)}
    }


def test_the_worst_head_is_drawn(sure_heads, monkeypatch):
    shown = []
    monkeypatch.setattr(evaluation, "picture", lambda rows, path: (shown.extend(rows), path.write_bytes(b""))[0])
    evaluation.held_out(None, Threshold(), engine.RunOptions(), lambda *a: None, heads=3)
    assert np.array_equal(shown[0][0], head(2).volume.data[0])
    assert np.array_equal(shown[2][1], np.where(head(2).volume.data[0] > 0.5, 2, 0))


def test_the_card_is_measured_as_a_user_runs_the_bundle():
    asked = inspect.signature(evaluation.evaluate).parameters["mirror"].default
    assert asked == engine.RunOptions().mirror
