"""The heart's recipe: what partial labels mean, and samples whose labels belong to their images."""

import numpy as np
import pytest
import torch

from napari_mamba.errors import InputError
from napari_mamba.recipes.heart import data, samples, task
from napari_mamba.recipes.heart.losses import partial_loss
from napari_mamba.recipes.heart.recipe import Heart
from napari_mamba.recipes.heart.validation import validate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def arrays(sunnybrook):
    return data.pack(sunnybrook)


@pytest.fixture(scope="module")
def packed(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "heart.npz"
    np.savez_compressed(path, **arrays)
    return path


def test_held_out_people_are_not_packed(arrays):
    people = {str(name) for part in ("training", "validation") for name in arrays[f"{part}_people"]}
    assert people == {"SC-HF-I-01", "SC-N-03", "SC-HYP-06"}
    assert set(arrays["training_people"].tolist()).isdisjoint(arrays["validation_people"].tolist())


def test_codes_say_what_was_drawn(arrays):
    cine = [str(phase).startswith("phase") for phase in arrays["training_phases"]]
    stacks = arrays["training_codes"][np.logical_not(cine)]
    assert not (stacks == task.WALL).any()
    assert (stacks == task.NOT_CAVITY).any()
    diastole, systole = arrays["training_codes"][cine]
    assert (diastole[1:5] == task.WALL).any(axis=(1, 2)).all()
    assert not (diastole[1:5] == task.NOT_CAVITY).any()
    assert (systole[1:5] == task.NOT_CAVITY).any(axis=(1, 2)).all()
    for phase in (diastole, systole):
        assert (phase[0] == task.UNKNOWN).all()  # a slice of the cine on which nothing was drawn
        assert (phase[5:] == task.UNKNOWN).all()  # beyond its slices


def test_far_from_the_cavity_is_background():
    labels = np.zeros((1, 101, 101), np.uint8)
    labels[0, 50, 50] = 1
    codes = data.cavity_only(labels, side=1.0)
    assert codes[0, 50, 79] == task.NOT_CAVITY
    assert codes[0, 50, 82] == task.BACKGROUND


def naive_entropy(logits, code):
    """Cross-entropy of one voxel from its probabilities, by the meaning of its code."""
    background, cavity, wall = np.exp(logits) / np.exp(logits).sum()
    return -np.log([background, cavity, wall, background + wall][code])


def test_loss_is_marginal():
    random = np.random.default_rng(0)
    logits, codes = random.normal(size=(3, 5)), np.array([0, 1, 2, 3, 4])
    expected = np.mean([naive_entropy(logits[:, n], codes[n]) for n in range(4)])
    tensors = torch.from_numpy(logits)[None, :, :, None], torch.from_numpy(codes)[None, None, :, None].float()
    from napari_mamba.recipes.heart import losses

    probable = torch.softmax(tensors[0], 1)
    known = (tensors[1][:, 0] != 4).float()
    rest = losses.soft_dice_loss(probable[:, 1], (tensors[1][:, 0] == 1).float(), known) + 0.5 * losses.soft_dice_loss(
        probable[:, 2], (tensors[1][:, 0] == 2).float(), losses.wall_drawn(tensors[1][:, 0])
    )
    assert float(partial_loss(*tensors) - rest) == pytest.approx(expected, abs=1e-6)


def test_what_is_unknown_has_no_gradient():
    logits = torch.randn(2, 3, 4, 8, 8, requires_grad=True)
    codes = torch.full((2, 1, 4, 8, 8), float(task.NOT_CAVITY))
    codes[:, :, :2] = task.UNKNOWN
    codes[:, :, 2:, 2:5, 2:5] = task.CAVITY
    partial_loss(logits, codes).backward()
    assert float(logits.grad[:, :, :2].abs().max()) == 0
    assert float(logits.grad[:, :, 2:].abs().min()) > 0


def test_background_and_wall_are_one_where_the_cavity_alone_was_drawn():
    codes = torch.full((1, 1, 1, 8, 8), float(task.NOT_CAVITY))
    codes[..., 2:5, 2:5] = task.CAVITY
    right = torch.full((1, 3, 1, 8, 8), -20.0)
    right[:, task.CAVITY] = torch.where(codes[:, 0] == task.CAVITY, 20.0, -20.0)
    losses = []
    for other in (task.BACKGROUND, task.WALL):
        answer = right.clone()
        answer[:, other] = torch.where(codes[:, 0] == task.CAVITY, -20.0, 20.0)
        losses.append(float(partial_loss(answer, codes)))
    assert max(losses) < 1e-3


@pytest.mark.parametrize("variant", ["slices", "beat"])
def test_samples_show_what_their_labels_say(packed, variant):
    """Without noise the cavity is brighter than what is around it, wherever the window was taken from."""
    recipe = Heart(packed, variant=variant)
    image, codes = recipe.batch(3, CPU)
    assert image.shape == codes.shape == (recipe.schedule.batch_size, 1, *task.WINDOW)
    assert 0 <= float(image.min()) <= float(image.max()) <= 1
    assert set(codes.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    brighter = [
        float(one[code == task.CAVITY].mean() - one[code == task.NOT_CAVITY].mean())
        for one, code in zip(image.movedim(2, 1).flatten(0, 2), codes.movedim(2, 1).flatten(0, 2), strict=True)
        if (code == task.CAVITY).sum() > 20 and (code == task.NOT_CAVITY).sum() > 20
    ]
    assert len(brighter) > 20
    assert np.mean(np.array(brighter) > 0) > 0.9


def test_samples_are_a_function_of_seed_and_step(packed):
    first, again, other = (Heart(packed, seed=seed, variant="slices") for seed in (1, 1, 7))
    assert torch.equal(first.batch(5, CPU)[0], again.batch(5, CPU)[0])
    assert not torch.equal(first.batch(5, CPU)[0], other.batch(5, CPU)[0])


def test_slices_beyond_the_stack_are_unknown(packed):
    recipe = Heart(packed)
    store = recipe.store("training", CPU)
    draw = torch.Generator().manual_seed(1)
    picks = torch.zeros(8, dtype=torch.long)
    _, codes = samples.along_slices(store, picks, draw)
    codes = codes.flatten(3)[:, 0]
    unknown, cavity = (codes == task.UNKNOWN).all(dim=2), (codes == task.CAVITY).any(dim=2)
    assert (unknown.sum(dim=1) >= 2).all()  # 6 slices in a window of 8
    assert not (unknown & cavity).any()
    assert (cavity.sum(dim=1) >= 4).all()  # a window begins at most one slice off the stack


def test_a_beat_changes_the_cavity(packed):
    store = Heart(packed).store("training", CPU)
    swung = []
    for seed in range(4):
        _, codes = samples.along_time(store, torch.arange(4), torch.Generator().manual_seed(seed))
        area = (codes == task.CAVITY).flatten(3).sum(3)[:, 0].float()
        swung += (area.amax(1) / area.amin(1).clamp(min=1)).tolist()
    assert np.median(swung) > 1.1


class Bright(torch.nn.Module):
    """Calls what is brighter than the wall and the rest the cavity."""

    def forward(self, x):
        bright = (x > 0.78).float()
        return torch.cat([1 - bright, bright, torch.zeros_like(bright)], dim=1) * 10


@pytest.mark.parametrize("along", ["slices", "plane", "beat"])
def test_validation_scores_an_answer(arrays, along):
    scores = validate(Bright(), arrays, CPU, along)
    assert scores["score"] > 0.9
    assert scores["ef_error"] < 5
    assert {"dice_ed", "dice_es"} <= scores.keys()


def test_variants_have_equal_sizes(packed):
    counts = [sum(p.numel() for p in Heart(packed, variant=v).network().parameters()) for v in Heart.variants]
    assert max(counts) < 1.06 * min(counts)
    assert max(counts) * 2 < 8e6  # bytes in float16


def test_export_makes_a_bundle_that_the_engine_runs(packed, sunnybrook, tmp_path):
    from napari_mamba.recipes.heart.bundle import card, export
    from napari_mamba.recipes.heart.evaluation import summarised
    from napari_mamba.recipes.registry import evaluate

    recipe = Heart(packed)
    torch.manual_seed(0)
    weights = dict(recipe.network().state_dict())
    folder = export(recipe, weights, tmp_path / "heart-mr", {"steps": 0, "minutes": 0, "device": "CPU"})
    measured = evaluate("heart-mr", sunnybrook, folder, device="cpu")
    assert measured["misplaced"] == ["SC-N-06"]  # alone is held out
    assert measured["people"] == 0
    assert measured["dice_of_all"].keys() == {"cavity, end diastole", "cavity, end systole"}
    assert {row["case"] for row in measured["cases"]} == {"SC-N-06 ED", "SC-N-06 ES"}
    assert "beside the heart" in card({"held_out": summarised(measured["cases"] + other_person(measured["cases"]))})


def other_person(rows):
    return [row | {"person": "SC-N-07"} for row in rows]


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="Sunnybrook"):
        data.pack(tmp_path)
