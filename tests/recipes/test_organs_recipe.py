"""The organs recipe: what nobody drew is unknown, left and right change places in a mirror, a bundle that runs."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss

from napari_mamba import bundles
from napari_mamba.recipes.dose.task import ORGANS
from napari_mamba.recipes.organs import bundle
from napari_mamba.recipes.organs import recipe as organs
from napari_mamba.recipes.organs.evaluation import scores_of, totals
from napari_mamba.recipes.organs.figures import failure_of
from napari_mamba.recipes.organs.losses import partial_dice_and_cross_entropy
from napari_mamba.recipes.organs.recipe import CLASSES, OrgansHeadNeck, drawn_in, exchanged, labels_of
from napari_mamba.recipes.registry import evaluate, train

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A network and a window that a test can afford."""
    window = (16, 16, 24)
    monkeypatch.setattr(organs, "WINDOW", window)
    network = {**organs.SMALL, "features_per_stage": [4, 8], "strides": [1, 2], "input_size": list(window)}
    network["first_scan"] = 1
    for name in ("NETWORK", "SMALL"):
        monkeypatch.setattr(organs, name, network)
    monkeypatch.setattr(bundle, "NETWORK", network)


@pytest.fixture(scope="module")
def prepared(openkbp, tmp_path_factory):
    return OrgansHeadNeck(openkbp).save_arrays(tmp_path_factory.mktemp("npz") / "data.npz")


def logits_and_labels():
    torch.manual_seed(0)
    return torch.randn(2, 4, 5, 6, 7), torch.randint(0, 4, (2, 1, 5, 6, 7))


def test_with_every_organ_drawn_the_loss_is_the_usual_one():
    logits, labels = logits_and_labels()
    ours = partial_dice_and_cross_entropy(logits, labels, torch.ones(2, 4, dtype=torch.bool), smooth=1e-5)
    theirs = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    assert float(ours) == pytest.approx(float(theirs(logits, labels)), abs=1e-4)


def test_what_nobody_drew_is_the_background_s_or_the_organ_s():
    logits, labels = logits_and_labels()
    labels[1][labels[1] == 2] = 0
    drawn = torch.ones(2, 4, dtype=torch.bool)
    drawn[1, 2] = False

    def loss(background: float, organ: float):
        changed = logits.clone()
        changed[1, 0], changed[1, 2] = background, organ
        return float(partial_dice_and_cross_entropy(changed, labels, drawn))

    assert loss(3.0, -9.0) == pytest.approx(loss(-9.0, 3.0), abs=1e-3)  # either is as right
    drawn[:] = True
    assert loss(-9.0, 3.0) > loss(3.0, -9.0) + 0.3


def test_no_gradient_where_the_choice_is_unknown():
    logits = torch.zeros(1, 3, 1, 1, 4, requires_grad=True)
    drawn = torch.tensor([[True, True, False]])
    partial_dice_and_cross_entropy(logits, torch.zeros(1, 1, 1, 1, 4), drawn).backward()
    torch.testing.assert_close(logits.grad[0, 0], logits.grad[0, 2])


def test_labels_and_what_was_drawn():
    bits = np.array([[[1, 0b10, 0b101, 0b10000]]], np.uint16)
    assert labels_of(bits).tolist() == [[[0, 1, 2, 4]]]
    assert drawn_in(bits).tolist() == [True, True, True, False, True, False, False, False]


def test_left_and_right_change_places():
    left, right = 1 + ORGANS.index("left parotid"), 1 + ORGANS.index("right parotid")
    assert exchanged(torch.tensor([0, left, right, 7])).tolist() == [0, right, left, 7]


def test_a_mirrored_sample_keeps_right_at_the_patient_s_right(prepared):
    made = OrgansHeadNeck(prepared)
    right, left = 1 + ORGANS.index("right parotid"), 1 + ORGANS.index("left parotid")
    seen = 0
    for step in range(8):
        image, (labels, known) = made.batch(step, CPU)
        assert image.shape == (2, 1, 16, 16, 24)
        for label, drawn in zip(labels, known, strict=True):
            columns = {n: torch.nonzero(label[0] == n)[:, 2].float().mean() for n in (right, left)}
            if drawn[left] and drawn[right] and not any(map(torch.isnan, columns.values())):
                assert columns[right] > columns[left]  # columns run from left to right
                seen += 1
            assert all(bool(drawn[n]) for n in label.unique().int().tolist())
    assert seen > 4


def test_a_batch_depends_on_its_step_alone(prepared):
    image, (labels, _) = OrgansHeadNeck(prepared).batch(5, CPU)
    again, (same, _) = OrgansHeadNeck(prepared).batch(5, CPU)
    assert torch.equal(image, again)
    assert torch.equal(labels, same)


def test_a_network_that_knows_scores_one_and_organs_nobody_drew_do_not_count(prepared, monkeypatch):
    made = OrgansHeadNeck(prepared)
    _, labels, drawn, _ = made.patients("validation", CPU)
    order = iter(range(2))

    class Knowing(torch.nn.Module):
        def forward(self, x):
            truth = labels[next(order)][None]
            return torch.nn.functional.one_hot(truth[:, 0].long(), CLASSES).movedim(-1, 1).float()

    scores = made.validate(Knowing(), CPU)
    assert scores["score"] == 1
    assert np.isnan(scores["dice_larynx"])
    assert not drawn[:, 1 + ORGANS.index("larynx")].any()


def test_a_piece_of_training_leaves_a_bundle_that_runs(prepared, openkbp, tmp_path, monkeypatch):
    short = replace(OrgansHeadNeck.schedule, steps=2, warm_up=1, validate_every=2)
    monkeypatch.setattr(OrgansHeadNeck, "schedule", short)
    left = train("organs-headneck-ct", prepared, tmp_path, device="cpu")
    assert bundles.load(left).spec.classes[1].name == "brainstem"
    measured = evaluate("organs-headneck-ct", openkbp, left, device="cpu", write=True)
    assert measured["patients"] == 2
    assert "larynx" not in measured["dice"]
    card = (left / "README.md").read_text()
    assert "| brainstem | 2 |" in card
    assert "not compared yet" in card
    assert (left / "failures.png").read_bytes().startswith(b"\x89PNG")


def test_each_organ_has_its_worst_patient_and_what_was_not_found():
    bits = np.zeros((8, 16, 16), np.uint16)
    bits[2:6, 4:8, 4:8], bits[2:6, 4:8, 9:12] = 0b10, 0b100  # brainstem, spinal cord
    labels = labels_of(bits)
    half = np.where(labels == 2, 0, labels)
    half[2:4][half[2:4] == 1] = 0
    cases = {"pt_1": scores_of(labels, bits, (3, 4, 4)), "pt_2": scores_of(half, bits, (3, 4, 4))}
    assert cases["pt_1"]["dice"] == {"brainstem": 1, "spinal cord": 1}
    assert cases["pt_2"]["dice"] == {"brainstem": pytest.approx(2 / 3), "spinal cord": 0}
    assert cases["pt_2"]["hausdorff95_mm"]["brainstem"] == 6
    found = totals(cases)
    assert found["mean_dice"] == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert found["worst"] == {"brainstem": "pt_2", "spinal cord": "pt_2"}
    assert found["missed"] == {"brainstem": 0, "spinal cord": 1}
    assert found["hausdorff95_mm"]["spinal cord"]["n"] == 1
    said = bundle.card({"validation": found})
    assert "0.0 ± 0.0 (0.0 to 0.0), nothing found in 1" in said
    assert "the spinal cord in 1" in said


def test_the_picture_shows_the_slice_where_most_is_wrong():
    truth, predicted = np.zeros((2, 5, 60, 60), bool)
    truth[1:4, 20:30, 40:50] = True
    predicted[1:3, 20:30, 40:50] = True
    shown = failure_of("pt_1", "larynx", 0.5, (truth, predicted), np.zeros(truth.shape), (3, 4, 4))
    assert shown.truth.sum() == 100
    assert not shown.predicted.any()  # slice 3
    assert shown.truth.shape == (30, 30)  # 40 mm about it, where the image has them


def test_the_comparison_s_network_has_no_scan():
    def scans(variant):
        return [name for name, _ in OrgansHeadNeck("", variant=variant).network().named_parameters() if "A_log" in name]

    assert scans("umamba")
    assert not scans("resenc")
    row = {"score": 0.7, "step": 10, **{f"dice_{organ.replace(' ', '_')}": 0.5 for organ in ORGANS}}
    card = bundle.card({"comparison": {"resenc": {**row, "seconds": 510.02}}})
    assert "| nnU-Net's residual encoder U-Net | 0.700 |" in card
    assert "for the same 8.5 minutes, side by side" in card
