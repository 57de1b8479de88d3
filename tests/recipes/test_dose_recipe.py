"""The dose recipe: its data, its samples, its losses, and a piece of training that leaves a bundle."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from napari_mamba import bundles
from napari_mamba.errors import InputError
from napari_mamba.recipes.dose import bundle as bundle_of_dose
from napari_mamba.recipes.dose import data, samples, task
from napari_mamba.recipes.dose.losses import dose_loss, histogram_errors
from napari_mamba.recipes.dose.recipe import DoseHeadNeck, predicted, scored
from napari_mamba.recipes.dose.samples import Points, Pose, sample
from napari_mamba.recipes.dose.scoring import summary
from napari_mamba.recipes.registry import evaluate, train

CPU = torch.device("cpu")
SHAPE = (18, 20, 26)


@pytest.fixture(scope="module")
def prepared(openkbp, tmp_path_factory):
    return DoseHeadNeck(openkbp).save_arrays(tmp_path_factory.mktemp("npz") / "data.npz")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A network and windows that a test can afford."""
    monkeypatch.setattr(task, "WINDOW", (16, 16, 24))
    monkeypatch.setattr(task, "TURNED", (16, 20, 24))
    network = {**task.SMALL, "features_per_stage": [4, 8], "strides": [1, 2], "input_size": [16, 16, 24]}
    network["n_conv_per_stage"] = 1
    monkeypatch.setitem(task.NETWORKS, "umamba", ("umamba_enc", network))
    monkeypatch.setitem(task.NETWORKS, "small", ("umamba_enc", network))
    monkeypatch.setattr(samples, "POINTS", 256)
    whole = task.arguments
    monkeypatch.setattr(task, "arguments", lambda variant: {**whole(variant), "unit": [2, 2, 2], "steps": 3})


@pytest.fixture
def made(prepared):
    found = DoseHeadNeck(prepared)
    found.schedule = replace(found.schedule, steps=3, warm_up=1, validate_every=2)
    return found


def test_the_data_come_in_the_network_s_axes_and_keep_every_number(first_patient, made):
    first, arrays = first_patient, made.arrays
    turned = {key: value.transpose(2, 1, 0)[::-1, ::-1, ::-1] for key, value in first.items()}  # to RAS
    np.testing.assert_array_equal(arrays["training_dose"][0], turned["dose_cgy"])
    np.testing.assert_array_equal(arrays["training_structures"][0], turned["structures"])
    hu = arrays["training_ct"][0] * (1000 / data.STEPS) - 1000
    assert np.abs(hu - turned["ct"].clip(-1000, 1000)).max() <= 4
    assert arrays["training_sides"][0].tolist() == [3, 4, 4]
    assert arrays["validation_patients"].tolist() == ["pt_4", "pt_5"]


def test_a_folder_without_patients(tmp_path):
    with pytest.raises(InputError, match="OpenKBP"):
        DoseHeadNeck(tmp_path).arrays  # noqa: B018


def test_the_channels_are_what_the_network_s_table_says(made):
    x = data.Patients(made.arrays, "training", CPU).channels(0)
    structures = made.arrays["training_structures"][0]
    assert x.shape == (task.CHANNELS, *SHAPE)
    assert x[0].min() == 0
    np.testing.assert_array_equal(x[2].numpy(), structures >> 2 & 1)
    np.testing.assert_allclose(x[8].numpy()[(structures >> 9 & 1) == 1], 63 / 70)
    assert x[8].max() == 1
    np.testing.assert_array_equal(x[9].numpy(), structures & 1)
    np.testing.assert_allclose(x[10:].amax((1, 2, 3)), [0.3, 0.4])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("turned", [False, True])
def test_points_of_a_structure_lie_in_it_and_where_their_dose_is(made, seed, turned):
    patients = data.Patients(made.arrays, "training", CPU)
    patients.guesses = [torch.zeros(2, *SHAPE) for _ in range(3)]
    draw = torch.Generator().manual_seed(seed)
    x, dose, places, doses, _, weights = sample(
        patients, Points(patients), seed % 3, turned, np.random.RandomState(seed), draw
    )
    inside = (places.abs() < 0.9).all(-1)
    seen = F.grid_sample(dose[None], places[None, None], align_corners=False)[0, 0, 0]
    assert (seen - doses).abs()[inside].mean() < 0.02
    swapped = {2: 3, 3: 2}
    hits = []
    for number in range(len(task.ORGANS)):
        if weights[number].max() > 0 and inside[number].any():
            at = places[None, None, None, number]
            values = [
                F.grid_sample(x[None, None, 1 + s], at, mode="nearest", align_corners=False).flatten()[inside[number]]
                for s in (number, swapped.get(number, number))
            ]
            hits.append(max(float(v.mean()) for v in values))
    assert min(hits) > 0.5  # of three voxels across, resampled


def test_a_bent_patient_s_points_lie_where_their_voxels_are_shown():
    """Coordinates as images: what the sample shows at a voxel's place is that voxel."""
    whole, size = (40, 48, 56), (32, 40, 48)
    knots = torch.randn(1, 3, 4, 4, 4, generator=torch.Generator().manual_seed(3))
    pose = Pose((19.0, 24.0, 27.0), size, True, 0.3, (1.1, 0.9, 0.9), knots)
    coordinates = torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in whole], indexing="ij"))[None]
    shown = F.grid_sample(coordinates, pose.grid(whole, CPU), align_corners=False)
    voxels = torch.tensor([[19.0, 24.0, 27.0], [12.0, 20.0, 30.0], [25.0, 30.0, 18.0]])
    places = pose.places(voxels)
    seen = F.grid_sample(shown, places[None, None, None], align_corners=False)[0, :, 0, 0].T
    torch.testing.assert_close(seen, voxels, atol=0.15, rtol=0)
    straight = replace(pose, bends=None).places(voxels)
    assert (straight - places).abs().max() > 0.01


def test_a_mirrored_patient_s_right_parotid_is_at_the_right(made):
    patients = data.Patients(made.arrays, "training", CPU)
    patients.guesses = [torch.zeros(2, *SHAPE) for _ in range(3)]
    points, mirrored = Points(patients), set()
    for seed in range(8):
        random = np.random.RandomState(seed)
        mirrored.add(Pose.drawn(patients.boxes[0], SHAPE, False, np.random.RandomState(seed)).mirrored)
        x, *_ = sample(patients, points, 0, False, random, torch.Generator().manual_seed(seed))
        right, left = (torch.nonzero(x[1 + task.ORGANS.index(f"{side} parotid")])[:, 2] for side in ("right", "left"))
        if len(right) and len(left):
            assert right.float().mean() > left.float().mean()  # columns run from left to right
    assert mirrored == {False, True}


def test_a_pose_that_changes_nothing_shows_the_patient(made):
    patients = data.Patients(made.arrays, "training", CPU)
    volume = patients.channels(0)
    middle = tuple((n - 1) / 2 for n in SHAPE)
    assert torch.equal(Pose(middle, SHAPE).cut(volume), volume)
    grid = Pose(middle, SHAPE, angle=1e-9).grid(SHAPE, CPU)
    torch.testing.assert_close(F.grid_sample(volume[None], grid, align_corners=False)[0], volume, atol=1e-4, rtol=0)


def test_batches_depend_on_their_step_alone(prepared):
    inputs, target = DoseHeadNeck(prepared).batch(5, CPU)
    again, same = DoseHeadNeck(prepared).batch(5, CPU)
    other, _ = DoseHeadNeck(prepared).batch(6, CPU)
    assert torch.equal(inputs, again)
    assert all(torch.equal(one, two) for one, two in zip(target, same, strict=True))
    assert inputs.shape != other.shape or not torch.equal(inputs, other)
    assert inputs.shape[:2] == (2, task.INPUTS)


def test_the_loss_of_the_truth_is_nothing_and_that_of_one_gray_what_it_weighs(made):
    _, target = made.batch(1, CPU)
    dose, possible, *points = target
    assert dose_loss(dose, target) < 0.05
    measured, shape = histogram_errors(dose + 1 / task.UNIT, *points)
    assert float(task.UNIT * measured) == pytest.approx(1, abs=0.3)
    assert float(task.UNIT * shape) == pytest.approx(1, abs=0.3)
    exact = (dose[:, :, :1] * 0 + 1 / task.UNIT) * possible[:, :, :1]
    assert float(exact.sum() / possible[:, :, :1].sum().clamp(min=1) * task.UNIT) <= 1.001


def test_histograms_of_the_same_doses_in_other_voxels_are_equal():
    output = torch.arange(64.0).reshape(1, 1, 4, 4, 4)
    index = torch.stack(torch.meshgrid(*[torch.arange(4.0)] * 3, indexing="ij"), -1).reshape(1, 1, 64, 3)
    places = (2 * index.flip(-1) + 1) / 4 - 1
    doses = output.flatten().flip(0)[None, None]
    shares, weights = torch.tensor([[[0.01, 0.05, 0.99]]]), torch.ones(1, 1, 4)
    measured, shape = histogram_errors(output, places, doses, shares, weights)
    assert (float(measured), float(shape)) == (pytest.approx(0, abs=1e-4), pytest.approx(0, abs=1e-4))
    measured, shape = histogram_errors(output, places, doses + 2, shares, weights)
    assert (float(measured), float(shape)) == (pytest.approx(2, abs=1e-4), pytest.approx(2, abs=1e-4))


def test_a_perfect_network_scores_nothing_and_one_gray_off_scores_one(made):
    truth = iter(range(4))

    class Knowing(torch.nn.Module):
        def forward(self, x):
            number = next(truth)
            dose = made.validation(CPU).truth(number % 2)[None, None] / task.UNIT
            return dose + (number >= 2) * x[:, 9:10] / task.UNIT

    exact = summary(dict(scored(made, Knowing(), CPU)))
    assert (exact["dose_score"], exact["dvh_score"]) == (pytest.approx(0, abs=1e-4), pytest.approx(0, abs=1e-4))
    off = summary(dict(scored(made, Knowing(), CPU)))
    assert (off["dose_score"], off["dvh_score"]) == (pytest.approx(1, abs=1e-4), pytest.approx(1, abs=1e-4))
    assert off["patients"] == 2
    assert "spinal cord D0.1cc" in off["measures"]


def test_several_networks_are_averaged(made):
    class Always(torch.nn.Module):
        def __init__(self, gray):
            super().__init__()
            self.gray = gray

        def forward(self, x):
            return torch.full_like(x[:, :1], self.gray / task.UNIT)

    dose = predicted([Always(10.0), Always(30.0)], made.validation(CPU), 0)
    assert dose.unique().tolist() == pytest.approx([20.0], abs=0.1)  # bfloat16


def test_a_piece_of_training_goes_on_and_leaves_a_bundle(prepared, tmp_path, monkeypatch):
    short = replace(DoseHeadNeck.schedule, steps=3, warm_up=1, validate_every=2)
    monkeypatch.setattr(DoseHeadNeck, "schedule", short)
    train("dose-headneck-ct", prepared, tmp_path, steps=2, device="cpu")
    entries = []
    left = train("dose-headneck-ct", prepared, tmp_path, resume=True, device="cpu", on_log=entries.append)
    assert entries[-1]["step"] == 3
    assert entries[-1]["score"] == pytest.approx(-entries[-1]["dose_score"] - entries[-1]["dvh_score"])
    bundle = bundles.load(left)
    measured = evaluate("dose-headneck-ct", prepared, left, device="cpu", write=True)
    assert measured["dose_score"] == pytest.approx(entries[-1]["dose_score"], abs=0.1)  # weights in eight bits
    card = (left / "README.md").read_text()
    assert f"{measured['dose_score']:.2f} Gy" in card
    assert max(measured["worst"], key=measured["worst"].get) in card
    assert "| spinal cord | D0.1cc" in card
    assert "not compared yet" in card
    rows = {"cascade": {"dose_score": 2.5, "dvh_score": 1.5, "step": 10}}
    assert "| cascade of two U-Nets, 7.0 million | 2.500 | 1.500 | 10 |" in bundle_of_dose.card({"comparison": rows})
    members = [{"steps": 3, "dose_score": 2.8, "dvh_score": 1.7}, {"steps": 4, "dose_score": 2.75, "dvh_score": 1.6}]
    told = bundle_of_dose.card({"trained": {"members": members}})
    assert "mean of 2 networks'" in told
    assert "Alone their scores are 2.80 and 1.70 Gy; 2.75 and 1.60 Gy." in told
    assert (left / "failures.png").read_bytes().startswith(b"\x89PNG")
    assert bundle.network.name == "fluence_dose"
