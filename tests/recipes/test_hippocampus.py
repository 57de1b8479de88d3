"""The hippocampus recipe: people kept apart, batches that repeat, and a bundle that the engine can run."""

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_mamba import bundles, engine, io, recipes
from napari_mamba.errors import InputError
from napari_mamba.recipes.hippocampus import task
from napari_mamba.recipes.hippocampus.card import card
from napari_mamba.recipes.hippocampus.data import pairs, part, person
from napari_mamba.recipes.hippocampus.recipe import Hippocampus
from napari_mamba.recipes.hippocampus.task import TILE
from napari_mamba.training.recipe import Schedule
from napari_mamba.volume import Volume

NUMBERS = (*range(1, 41),)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Forty small crops of twenty people: a bright ellipsoid of two halves on noise, in intensities far apart."""
    folder = tmp_path_factory.mktemp("task04")
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    z, y, x = np.ogrid[-1:1:20j, -1:1:28j, -1:1:20j]
    inside = z**2 + (y / 1.2) ** 2 + x**2 < 0.4
    labels = np.where(inside, np.where(y > 0, 1, 2), 0).astype(np.uint8)
    for number in NUMBERS:
        noise = np.random.RandomState(number).standard_normal(labels.shape)
        image = ((labels > 0) * 4 + noise + 10) * 10 ** (number % 4)
        name = f"hippocampus_{number:03d}.nii.gz"
        io.write(Volume(image[None].astype(np.float32)), folder / "images" / name)
        io.write(Volume(labels[None]), folder / "labels" / name)
    return folder


def test_the_two_sides_of_a_person_stay_together():
    assert person(Path("hippocampus_003.nii.gz")) == person(Path("hippocampus_004.nii.gz")) == 2
    assert person(Path("hippocampus_005.nii.gz")) == 3


def test_parts_share_nobody_and_lose_nobody(data):
    people = {which: {person(image) for image, _ in pairs(data, which)} for which in ("training", "validation", "test")}
    assert not people["training"] & people["test"]
    assert not people["training"] & people["validation"]
    assert not people["validation"] & people["test"]
    assert set.union(*people.values()) == {(n + 1) // 2 for n in NUMBERS}


def test_a_fifth_of_many_people_is_held_out():
    parts = [part(number) for number in range(2000)]
    assert parts.count("test") / 2000 == pytest.approx(0.2, abs=0.03)
    assert parts.count("validation") / 2000 == pytest.approx(0.08, abs=0.03)


CPU = torch.device("cpu")


def test_a_batch_depends_on_its_step_alone(data):
    first, again, recipe = (Hippocampus(data, variant="small") for _ in range(3))
    recipe.batch(5, CPU)
    for (x, y), (x2, y2) in ((first.batch(6, CPU), recipe.batch(6, CPU)), (first.batch(7, CPU), again.batch(7, CPU))):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)
    assert not torch.equal(first.batch(6, CPU)[0], first.batch(8, CPU)[0])


def test_batches_are_normalised_and_hold_only_known_labels(data):
    image, label = Hippocampus(data, variant="small").batch(2, CPU)
    assert image.shape == label.shape == (2, 1, *TILE)
    assert image.abs().max() < 30  # whatever the scanner's scale
    assert set(label.unique().tolist()) == {0, 1, 2}


def test_the_stored_arrays_stand_in_for_the_folder(data, tmp_path):
    folder = Hippocampus(data, variant="small")
    stored = Hippocampus(folder.save_arrays(tmp_path / "prepared.npz"), variant="small")
    for a, b in zip(folder.batch(3, CPU), stored.batch(3, CPU), strict=True):
        assert torch.equal(a, b)


def test_a_sample_keeps_image_and_label_together(data):
    """The crop's object is brighter than its surroundings, before and after the deformation."""
    image, label = Hippocampus(data, variant="small").batch(11, CPU)
    for one, where in zip(image, label > 0, strict=True):
        assert one[where].mean() > one[~where].mean() + 0.5


def test_unknown_variants_are_named(data):
    with pytest.raises(InputError, match="segresnet"):
        Hippocampus(data, variant="transformer")


def test_train_two_steps_resume_and_run_the_bundle(data, tmp_path, monkeypatch):
    small = dict(task.NETWORK, features_per_stage=[4, 8, 8, 8], n_conv_per_stage=[1] * 4)
    monkeypatch.setattr(task, "NETWORK", small)
    monkeypatch.setattr(Hippocampus, "schedule", Schedule(2, 1, 1e-3))
    out = tmp_path / "run"
    recipes.train("hippocampus-mr", data, out, device="cpu", steps=1)
    folder = recipes.train("hippocampus-mr", data, out, device="cpu", steps=1, resume=True)
    bundle = bundles.load(folder)
    assert bundle.metrics["trained"]["steps"] == 2
    assert "not for clinical use" in bundle.card.lower()
    assert "Not measured yet" in bundle.card
    volume = io.read(data / "images" / "hippocampus_001.nii.gz")
    result = engine.run_to_end(volume, bundle, engine.RunOptions(device="cpu", mirror=False))
    assert result.labels.shape == volume.shape


def test_another_seed_is_another_network_and_no_rate_learns_nothing(data, tmp_path, monkeypatch):
    small = dict(task.NETWORK, features_per_stage=[4, 8, 8, 8], n_conv_per_stage=[1] * 4)
    monkeypatch.setattr(task, "NETWORK", small)
    monkeypatch.setattr(Hippocampus, "schedule", Schedule(2, 1, 1e-3))

    def first_kernel(name, steps, **options):
        folder = recipes.train("hippocampus-mr", data, tmp_path / name, device="cpu", steps=steps, **options)
        (network,) = bundles.load(folder).networks()
        return next(p for p in network.parameters() if p.ndim == 5)

    begun = first_kernel("begun", 0, seed=7)
    assert not torch.equal(begun, first_kernel("other", 0))
    assert torch.equal(begun, first_kernel("still", 1, seed=7, learning_rate=0.0))
    assert not torch.equal(begun, first_kernel("moved", 1, seed=7))


def test_a_blend_lies_between_the_start_and_the_run(data, tmp_path, monkeypatch):
    small = dict(task.NETWORK, features_per_stage=[4, 8, 8, 8], n_conv_per_stage=[1] * 4)
    monkeypatch.setattr(task, "NETWORK", small)
    monkeypatch.setattr(Hippocampus, "schedule", Schedule(2, 1, 0.1, warm_up=1))
    start = recipes.train("hippocampus-mr", data, tmp_path / "start", device="cpu", steps=0)
    on = {"device": "cpu", "steps": 1, "start": start}
    whole, half = (
        recipes.train("hippocampus-mr", data, tmp_path / name, **on, blend=share)
        for name, share in (("whole", None), ("half", 0.5))
    )
    before, after, between = (next(bundles.load(folder).state_dicts()) for folder in (start, whole, half))
    for key in before:
        assert torch.allclose(between[key], (before[key] + after[key]) / 2, atol=2e-3)  # float16
    assert any(not torch.allclose(before[key], after[key], atol=1e-2) for key in before)
    assert "50% ships" in " ".join(bundles.load(half).card.split())
    with pytest.raises(InputError, match="name the start"):
        recipes.train("hippocampus-mr", data, tmp_path / "none", device="cpu", blend=0.5)
    monkeypatch.setattr(task, "NETWORK", dict(small, features_per_stage=[8, 8, 8, 8]))
    with pytest.raises(InputError, match="another network"):
        recipes.train("hippocampus-mr", data, tmp_path / "none", **on, blend=0.5)
    assert not (tmp_path / "none").exists()  # before anything was trained


def test_a_run_begins_from_the_first_member_of_an_ensemble(data, tmp_path, monkeypatch):
    small = dict(task.NETWORK, features_per_stage=[4, 8, 8, 8], n_conv_per_stage=[1] * 4)
    monkeypatch.setattr(task, "NETWORK", small)
    monkeypatch.setattr(Hippocampus, "schedule", Schedule(2, 1, 1e-3))
    members = [
        recipes.train("hippocampus-mr", data, tmp_path / str(seed), device="cpu", steps=seed, seed=seed)
        for seed in (1, 2)
    ]
    whole = bundles.join(members, tmp_path / "whole")
    on = recipes.train("hippocampus-mr", data, tmp_path / "on", device="cpu", steps=0, start=whole)
    first, found = (next(bundles.load(place).state_dicts()) for place in (members[0], on))
    assert all(torch.equal(first[key], found[key]) for key in first)
    begun = bundles.load(on).metrics["trained"]["start"]
    assert begun["steps"] == 1
    assert begun["sha256"] == bundles.load(whole).sha256
    assert "members" not in begun


@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf")])
def test_what_is_no_learning_rate_is_refused(data, tmp_path, rate):
    with pytest.raises(InputError, match="no learning rate"):
        recipes.train("hippocampus-mr", data, tmp_path / "none", device="cpu", learning_rate=rate)
    assert not (tmp_path / "none").exists()


def test_evaluate_writes_its_numbers_into_the_card(data, tmp_path, monkeypatch):
    small = dict(task.NETWORK, features_per_stage=[4, 8, 8, 8], n_conv_per_stage=[1] * 4)
    monkeypatch.setattr(task, "NETWORK", small)
    monkeypatch.setattr(Hippocampus, "schedule", Schedule(2, 1, 1e-3))
    folder = recipes.train("hippocampus-mr", data, tmp_path / "run", device="cpu", steps=0)
    held_out = pairs(data, "test")[:2]
    monkeypatch.setattr("napari_mamba.recipes.hippocampus.evaluation.pairs", lambda data, which: held_out)
    measured = recipes.evaluate("hippocampus-mr", data, folder, device="cpu", write=True)
    assert measured["volumes"] == 2
    card = bundles.load(folder).card
    mean = measured["dice"]["anterior hippocampus"]["mean"]
    assert f"| anterior hippocampus | {mean:.3f} ±" in card
    assert bundles.load(folder).metrics["held_out"]["people"] == len({person(image) for image, _ in held_out})


def test_bad_data_folders_are_named(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        recipes.recipe("hippocampus-mr", tmp_path / "absent")
    with pytest.raises(InputError, match=r"holds no images/hippocampus"):
        pairs(tmp_path, "training")
    with pytest.raises(InputError, match="there is no recipe"):
        recipes.recipe("nothing", tmp_path)


def test_the_card_tells_of_members_and_how_they_were_chosen():
    member = {"steps": 9, "minutes": 2.0, "device": "NVIDIA H200", "optimiser": "muon", "learning_rate": 0.004}
    chosen = [{"members": "1 + 2", "dice_anterior": 0.91, "dice_posterior": 0.89, "score": 0.9}]
    one, two = card({"trained": member}), card({"trained": {"members": [member] * 2}, "chosen": chosen})
    assert "--data DIR` makes it again" in one
    assert "join" not in one
    assert "ensemble of 2 networks; logits are averaged" in two
    assert "napari-mamba join" in two
    assert "| 1 + 2 | 0.9100 | 0.8900 | 0.9000 |" in two


def test_the_card_tells_what_the_border_costs():
    """Each row's numbers stand where their name does."""
    dice = {"answer": [0.91, 0.82], "own_slice": [0.93, 0.84], "raters_slice": [0.95, 0.86], "one_part": [0.97, 0.97]}
    told = " ".join(card({"border": {"dice": dice, "rms": 1.25, "most": 4}}).split())
    assert "1.2 slices from it (root mean square over the validation volumes, at most 4)" in told
    assert "Cut where the raters did, its outline has a Dice of 0.950 and 0.860; cut at one slice" in told
    assert "choice 0.930 and 0.840; as it answers 0.910 and 0.820; both parts as one 0.970 (" in told
    assert "coronal" not in card({})
