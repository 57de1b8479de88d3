"""The brain recipe: label maps become images of any contrast, and the recipe trains on them."""

import numpy as np
import pytest
import torch

from napari_mamba import bundles, engine, io
from napari_mamba.errors import InputError
from napari_mamba.recipes.brain import data
from napari_mamba.recipes.brain.losses import confusion_dice, dice_and_cross_entropy
from napari_mamba.recipes.brain.recipe import BrainStructures
from napari_mamba.recipes.brain.structures import GROUPS, INDICES, LEFT_RIGHT, STRUCTURES, tables
from napari_mamba.recipes.brain.synthetic import acquisition, contrast
from napari_mamba.recipes.brain.synthetic.synthesis import synthesise
from napari_mamba.recipes.brain.task import NETWORK
from napari_mamba.recipes.registry import export
from napari_mamba.volume import Volume

CPU = torch.device("cpu")
SHAPE = (32, 32, 32)


def head(shift: int = 0) -> np.ndarray:
    """A head of a few labels, RAS: white matter and cortex on both sides, ventricles, CSF, skull and scalp."""
    z, y, x = np.ogrid[-1:1:48j, -1:1:48j, -1:1:48j]
    r = np.sqrt(z**2 + y**2 + (x + shift / 100) ** 2)
    left = np.broadcast_to(x < 0, r.shape)
    labels = np.zeros(r.shape, np.int16)
    for radius, (one, other) in ((0.95, (511, 511)), (0.85, (515, 515)), (0.78, (24, 24)), (0.7, (3, 42))):
        labels[r < radius] = np.where(left, one, other)[r < radius]
    labels[r < 0.5] = np.where(left, 2, 41)[r < 0.5]
    labels[r < 0.2] = np.where(left, 4, 43)[r < 0.2]
    return labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four heads, stored in LPS as scanners like it."""
    folder = tmp_path_factory.mktemp("maps")
    for number in range(4):
        stored = head(number)[:, ::-1, ::-1].copy()
        affine = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
        io.write(Volume(stored[None], affine=affine), folder / f"training_seg_{number:02d}.nii.gz")
    return folder


class Small(BrainStructures):
    window = SHAPE


@pytest.fixture(scope="module")
def recipe(folder, tmp_path_factory):
    packed = Small(folder).save_arrays(tmp_path_factory.mktemp("packed") / "brain.npz")
    return Small(packed)


def test_every_structure_has_a_group_and_its_other_side():
    grouped = [label for labels in GROUPS.values() for label in labels]
    assert set(STRUCTURES) <= set(grouped)
    assert len(grouped) == len(set(grouped))
    sided = [label for label in STRUCTURES if STRUCTURES[label].startswith(("left", "right"))]
    pairs = {**LEFT_RIGHT, **{v: k for k, v in LEFT_RIGHT.items()}}
    for label in sided:
        assert STRUCTURES[pairs[label]].split(" ", 1)[1] == STRUCTURES[label].split(" ", 1)[1]


def test_lesions_are_white_matter_and_plexus_is_ventricle():
    found = tables(np.array([0, 2, 25, 136, 163, 515]))
    assert [INDICES[i] for i in found["target"]] == [0, 2, 2, 4, 43, 0]
    assert found["swapped"].tolist() == [0, 1, 2, 4, 3, 5]


def test_packed_maps_are_the_folders_own(recipe):
    maps = data.unpack(recipe.arrays)
    raw = recipe.arrays["raw"]
    first, box = maps[0], recipe.arrays["brain"][0]
    inside = tuple(slice(a, b) for a, b in zip(box[:3], box[3:], strict=True))
    assert np.array_equal(raw[first], head(0)[: first.shape[0], : first.shape[1], : first.shape[2]])
    assert np.isin(raw[first[inside]], (2, 3, 4, 41, 42, 43)).sum() == np.isin(raw[first], (2, 3, 4, 41, 42, 43)).sum()


def test_a_folder_of_too_few_maps_is_refused(tmp_path):
    with pytest.raises(InputError, match="0 label maps"):
        data.pack(tmp_path)


def test_a_batch_depends_on_its_step_alone(recipe):
    again = Small(recipe.data)
    image, target = recipe.batch(5, CPU)
    assert image.shape == target.shape == (2, 1, *SHAPE)
    assert torch.equal(image, again.batch(5, CPU)[0])
    assert torch.equal(target, again.batch(5, CPU)[1])
    assert not torch.equal(image, recipe.batch(6, CPU)[0])


def test_images_are_finite_and_between_0_and_1(recipe):
    for step in range(12):
        image, target = recipe.batch(step, CPU)
        assert torch.isfinite(image).all()
        assert image.min() >= 0
        assert image.max() <= 1
        assert target.max() < len(INDICES)


def test_left_stays_left_when_a_head_is_mirrored(recipe):
    """Whatever the mirroring, left structures lie at low x."""
    left = [INDICES.index(label) for label in (2, 3, 4)]
    right = [INDICES.index(label) for label in (41, 42, 43)]
    for step in range(6):
        _, target = synthesise(recipe.heads(CPU), (step,), 1, SHAPE, central=True)
        place = torch.arange(SHAPE[2]).float().expand(SHAPE)
        means = [
            place[torch.isin(target[0, 0], torch.tensor(side, dtype=torch.uint8))].mean() for side in (left, right)
        ]
        assert means[0] < means[1] - 3


def test_t1_like_images_have_brighter_white_matter_than_grey_and_fluid(recipe):
    for seed in range(4):
        image, target = synthesise(recipe.heads(CPU), (seed,), 2, SHAPE, kinds=("t1", "t1"), central=True)
        for one, labels in zip(image, target, strict=True):
            medians = [
                one[torch.isin(labels, torch.tensor([INDICES.index(a), INDICES.index(b)], dtype=torch.uint8))].median()
                for a, b in ((2, 41), (3, 42), (4, 43))
            ]
            assert medians[0] > medians[1] > medians[2]


def test_contrasts_are_never_negative_and_sides_share_them():
    random = np.random.default_rng(0)
    for kind in ("", *contrast.KINDS):
        mean, deviation = contrast.draw(random, kind)
        assert mean.shape == deviation.shape == (2, len(GROUPS))
        assert mean.min() >= 0
        assert deviation.min() >= 0


def test_the_matrices_of_a_scanner_blur_and_sample():
    blur = acquisition.blur_matrix(21, 2.0)
    assert np.allclose(blur.sum(1), 1, atol=1e-6)
    impulse = np.eye(21, dtype=np.float32)[10]
    assert np.sqrt(((np.arange(21) - 10) ** 2 * (blur @ impulse)).sum()) == pytest.approx(2.0, rel=0.03)
    ramp = np.arange(21, dtype=np.float32)
    assert np.allclose((acquisition.sampling_matrix(21, 4.0) @ ramp), ramp)  # linear in, linear out
    assert np.array_equal(acquisition.sampling_matrix(9, 1.0), np.eye(9))
    image = torch.randn(2, 5, 6, 7)
    flips = [torch.eye(n).flip(0).expand(2, n, n) for n in (5, 6, 7)]
    assert torch.equal(acquisition.apply(image, flips), image.flip((1, 2, 3)))


def test_one_fine_scan_in_five_is_smooth_and_thick_slices_stay_what_they_are():
    random, sharp = np.random.default_rng(0), np.full(3, 0.3)
    drawn = np.array([acquisition.smoothed(random, np.ones(3), sharp) for _ in range(500)])
    smooth = (drawn > sharp).any(1)
    assert smooth.mean() == pytest.approx(0.2, abs=0.05)
    assert drawn[smooth].min() > 0.4
    assert 1.3 < drawn.max() < 1.8
    thick = [acquisition.smoothed(random, np.array([4.0, 1.0, 1.0]), sharp) for _ in range(100)]
    assert np.array_equal(thick, np.broadcast_to(sharp, (100, 3)))


def test_smooth_scans_leave_images_of_a_given_resolution_as_they_were(monkeypatch):
    def drawn(given):
        return acquisition.draw_scanners(np.random.default_rng(3), 4, (8, 9, 10), torch.device("cpu"), given)

    some, given = drawn(None), drawn((1.0, 1.0, 1.0))
    monkeypatch.setattr(acquisition, "SMOOTHED", 1.0)
    smooth = drawn(None)
    again = drawn((1.0, 1.0, 1.0))
    for before, after in zip(given[0] + given[1], again[0] + again[1], strict=True):
        assert torch.equal(before, after)
    assert any(not torch.equal(a, b) for a, b in zip(some[0], smooth[0], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(some[1], smooth[1], strict=True))  # the same random numbers elsewhere


def test_the_loss_is_small_for_the_truth_and_falls_towards_it():
    target = torch.randint(0, 4, (1, 1, 8, 8, 8), dtype=torch.uint8)
    truth = torch.nn.functional.one_hot(target[:, 0].long(), 4).movedim(-1, 1).float()
    losses = [float(dice_and_cross_entropy(sharp * truth, target)) for sharp in (0, 2, 20)]
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] < 1e-3


def test_the_losses_gradient_is_that_of_its_definition():
    torch.manual_seed(0)
    logits = (3 * torch.randn(2, 5, 6, 7, 8, dtype=torch.float64)).requires_grad_()
    target = torch.randint(0, 4, (2, 1, 6, 7, 8), dtype=torch.uint8)  # the last class is nowhere
    chance, truth = logits.softmax(1), torch.nn.functional.one_hot(target[:, 0].long(), 5).movedim(-1, 1)
    shared, both = (chance * truth).sum((0, 2, 3, 4)), (chance + truth).sum((0, 2, 3, 4))
    defined = 1 - ((2 * shared + 20) / (both + 20))[1:].mean()
    defined = defined + torch.nn.functional.cross_entropy(logits, target[:, 0].long())
    loss = dice_and_cross_entropy(logits, target)
    assert torch.allclose(loss, defined, rtol=1e-12)
    (wanted,), (found,) = (torch.autograd.grad(3 * one, logits) for one in (defined, loss))
    assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-15)


def test_dice_of_a_confusion_table():
    truth = torch.tensor([0, 1, 1, 2])
    found = torch.tensor([0, 1, 2, 2])
    dice = confusion_dice(found, truth, 4)
    assert torch.allclose(dice[:2], torch.tensor([2 / 3, 2 / 3]))
    assert torch.isnan(dice[2])


@pytest.mark.parametrize("variant", BrainStructures.variants)
def test_networks_are_of_equal_size(recipe, variant):
    count = sum(p.numel() for p in Small(recipe.data, variant=variant).network().parameters())
    assert count == pytest.approx(6.5e6, rel=0.03)


def test_a_few_steps_train_and_the_bundle_runs(recipe, tmp_path, monkeypatch):
    """Steps lower the loss on one batch; the exported bundle runs on a scan and doubts what is no brain."""
    monkeypatch.setitem(NETWORK, "features_per_stage", [8, 8, 8, 16, 16])
    torch.manual_seed(0)
    network = recipe.network()
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    image, target = (part[:1] for part in recipe.batch(0, CPU))
    losses = []
    for _ in range(3):
        loss = recipe.loss(network(image), target)
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < losses[0]
    folder = export(recipe, network.state_dict(), tmp_path / recipe.name, {"steps": 4, "of": 4})
    bundle = bundles.load(folder)
    assert [label.index for label in bundle.classes] == list(INDICES)
    scan = Volume((np.random.default_rng(0).random((1, 24, 24, 24)) * 100).astype(np.float32), np.diag([2.0, 2, 2, 1]))
    result = engine.run_to_end(scan, bundle, engine.RunOptions(device="cpu", tile=(48, 48, 48), overlap=0))
    assert result.labels.shape == (24, 24, 24)
    assert any("ml" in warning or "not found" in warning for warning in result.warnings)


def test_validation_scores_a_network_that_knows_the_answer(recipe):
    """A network that answers background has Dice 0: the score tells it from a good one."""

    class Background(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.one_hot(torch.zeros_like(x[:, 0]).long(), len(INDICES)).movedim(-1, 1).float()

    scores = recipe.validate(Background(), CPU)
    assert scores["dice_t1"] == scores["dice_other"] == 0
    assert 0 <= scores["score"] < 0.2


def test_validation_images_have_no_trouble_of_the_training(recipe, monkeypatch):
    from napari_mamba.recipes.brain.synthetic import trouble

    image, target = synthesise(recipe.heads(CPU), (3,), 2, SHAPE, central=True)
    for name in ("share_voxels", "shift_fat", "see_near", "grow_tumours"):
        monkeypatch.setattr(trouble, name, None)
    again = synthesise(recipe.heads(CPU), (3,), 2, SHAPE, central=True)
    assert torch.equal(image, again[0])
    assert torch.equal(target, again[1])
    with pytest.raises(TypeError):
        synthesise(recipe.heads(CPU), (3,), 2, SHAPE)
