"""Registration's recipe: pairs of heads, a loss that better overlap and smoother fields lower, and weights on disk."""

import lzma

import numpy as np
import pytest
import torch

from napari_mamba import bundles
from napari_mamba.engine import RunOptions
from napari_mamba.models.registration.velocity import VelocityNetwork, displacement, unshuffled
from napari_mamba.recipes.registration import alignment, bundle, evaluation
from napari_mamba.recipes.registration.losses import one_hot, registration_loss, soft_dice
from napari_mamba.recipes.registration.recipe import BrainRegistration

CPU = torch.device("cpu")
SIZE = (16, 16, 16)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Five heads of two nested boxes each: cortex around white matter."""
    arrays, shapes, boxes = {"raw": np.array([0, 2, 3], np.int16)}, [], []
    for number in range(5):
        head = np.zeros((40, 40, 40), np.uint8)
        head[8:32, 8 + number : 32, 8:32] = 2
        head[14:26, 14:26, 14 + number : 26] = 1
        arrays[f"map_{number:02d}"] = np.frombuffer(lzma.compress(head.tobytes()), np.uint8)
        shapes.append(head.shape)
        boxes.append([8, 8, 8, 32, 32, 32])
    arrays |= {"shapes": np.array(shapes, np.int16), "brain": np.array(boxes, np.int16)}
    path = tmp_path_factory.mktemp("packed") / "maps.npz"
    np.savez_compressed(path, **arrays)
    return path


@pytest.fixture
def recipe(packed):
    made = BrainRegistration(packed)
    made.window = (32, 32, 32)
    return made


def test_pairs_are_of_different_maps_and_repeat(recipe):
    images, classes = recipe.batch(2, CPU)
    assert images.shape == classes.shape == (1, 2, 32, 32, 32)
    assert not torch.equal(classes[:, 0], classes[:, 1])
    assert torch.equal(images, recipe.batch(2, CPU)[0])
    assert not torch.equal(images, recipe.batch(3, CPU)[0])


def shifted_boxes(step: int) -> torch.Tensor:
    labels = torch.zeros(1, 2, *SIZE, dtype=torch.uint8)
    labels[:, 0, 4:10, 4:10, 4 + step : 10 + step] = 1
    labels[:, 1, 4:10, 4:10, 4:10] = 1
    return labels


def constant(x: float) -> torch.Tensor:
    velocity = torch.zeros(1, 3, 8, 8, 8)
    velocity[:, 2] = x
    return velocity


def test_the_right_shift_has_the_lowest_loss():
    """A shift of 2 voxels is one of the half grid; the moving image lies 2 to the right of the fixed one."""
    losses = {x: float(registration_loss(constant(x), shifted_boxes(2), 2)) for x in (-1.0, 0.0, 0.5, 1.0, 1.5)}
    assert min(losses, key=losses.get) == 1.0
    assert losses[1.0] < 0.05


def test_rough_fields_cost():
    rough = torch.randn(1, 3, 8, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.3
    labels = torch.zeros(1, 2, *SIZE, dtype=torch.uint8)
    assert float(registration_loss(rough, labels, 2)) > float(registration_loss(0 * rough, labels, 2)) + 0.01


def test_soft_dice_of_sets_is_dice():
    labels = shifted_boxes(3)
    first, second = (one_hot(labels[:, side], 2) for side in (0, 1))
    assert float(soft_dice(first, second, smooth=0)) == pytest.approx(0.5)


def test_displacement_and_its_inverse():
    forth, back = displacement(constant(1.0), SIZE)
    assert forth.shape == (1, 3, *SIZE)
    np.testing.assert_allclose(forth[0, 2], 2.0, atol=1e-5)
    np.testing.assert_allclose(back[0, 2], -2.0, atol=1e-5)


def test_unshuffled_keeps_every_voxel_in_its_cube():
    x = torch.arange(2 * 4 * 4 * 6.0).view(1, 2, 4, 4, 6)
    found = unshuffled(x, 2)
    assert found.shape == (1, 16, 2, 2, 3)
    assert torch.equal(found[0, :8, 1, 0, 2].sort().values, x[0, 0, 2:4, 0:2, 4:6].flatten().sort().values)


def test_learning_starts_near_no_motion_and_lowers_the_loss(recipe):
    torch.manual_seed(0)
    network = VelocityNetwork((8, 16, 16), first_scan=3)
    images, classes = recipe.batch(0, CPU)
    forth, _ = displacement(network(images).detach(), recipe.window)
    assert float(forth.abs().max()) < 0.2
    optimiser, losses = torch.optim.Adam(network.parameters(), 1e-2), []
    for _ in range(25):
        loss = registration_loss(network(images), classes, 3)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_validation_of_a_network_that_moves_nothing(recipe):
    class Still(torch.nn.Module):
        def forward(self, pair):
            return torch.zeros(len(pair), 3, *pair.shape[2:])

    scores = recipe.validate(Still(), CPU)
    assert scores["score"] == pytest.approx(scores["dice_before"])
    assert scores["folded"] == 0


def test_the_bundle_answers_what_was_trained(recipe, tmp_path):
    network = recipe.network().eval()
    loaded = bundles.load(bundle.export(recipe, network.state_dict(), tmp_path / "b", {"steps": 1, "seconds": 2.0}))
    (again,) = loaded.networks()
    assert again.passes == 2
    network.passes = 2
    pair = torch.rand(1, 2, 64, 64, 64)
    with torch.no_grad():
        np.testing.assert_allclose(again(pair), network(pair), atol=1e-3)
    assert "Not measured yet" in loaded.card


@pytest.mark.parametrize("variant", BrainRegistration.variants)
def test_every_variant_answers_a_velocity(packed, variant):
    recipe = BrainRegistration(packed, variant=variant)
    recipe.window = (32, 32, 32) if variant == "mambamorph" else (64, 64, 64)
    velocity = recipe.network()(torch.zeros(1, 2, *recipe.window))
    factor = 1 if variant == "mambamorph" else 2
    assert velocity.shape == (1, 3, *[n // factor for n in recipe.window])


def ellipsoids(shift=(0, 0, 0), stretch=1.0):
    """Six blobs in a grid of 40; stretched about its middle and shifted, in voxels."""
    places = np.stack(np.meshgrid(*[np.arange(40.0)] * 3, indexing="ij"), -1)
    spots = [(12, 14, 13), (12, 26, 14), (27, 13, 26), (26, 27, 12), (14, 20, 27), (28, 20, 20)]
    classes = np.zeros((40, 40, 40), np.uint8)
    for number, spot in enumerate(spots, start=1):
        centre = (np.array(spot) - 19.5) * stretch + 19.5 + shift
        classes[((places - centre) ** 2).sum(-1) < 16] = number
    return torch.from_numpy(classes)


def test_the_affine_of_centres_of_mass_is_the_known_one():
    moving, fixed = ellipsoids((2, -1, 3), 1.1), ellipsoids()
    matrix = alignment.centroid_affine(moving, fixed, 7)
    wanted = np.eye(4)
    wanted[:3, :3] *= 1.1
    wanted[:3, 3] = np.array([2, -1, 3]) + 19.5 * (1 - 1.1)
    np.testing.assert_allclose(matrix[:3, :3], wanted[:3, :3], atol=0.03)
    middle = np.array([19.5, 19.5, 19.5, 1])
    np.testing.assert_allclose(matrix @ middle, wanted @ middle, atol=0.3)


def test_aligned_maps_cover_each_other_and_the_fixed_image_stays():
    classes = torch.stack([ellipsoids((2, -1, 3), 1.1), ellipsoids()])[None]
    images = classes.float() / 6
    moved, names = alignment.align(images, classes, 7)
    before, after = (float(soft_dice(one_hot(c[:, 0], 7), one_hot(c[:, 1], 7), 0)) for c in (classes, names))
    assert before < 0.5
    assert after > 0.8
    assert torch.equal(moved[:, 1], images[:, 1])
    left, _ = alignment.align(images, classes, 7, np.random.default_rng(1))
    assert not torch.equal(left, moved)


def test_maps_without_a_structure_in_common_stay_where_they_are():
    empty = torch.zeros(8, 8, 8, dtype=torch.uint8)
    np.testing.assert_array_equal(alignment.centroid_affine(empty, empty, 3), np.eye(4))


def test_evaluation_tells_each_pair_and_the_card_their_spread(recipe):
    """Not registered at all: the Dice is that of the classes as they are."""
    told = []
    found = evaluation.evaluate(recipe, None, RunOptions(device="cpu"), lambda name, case: told.append(name), "before")
    assert len(told) == len(set(told)) == 6
    pair = evaluation.held_out_pair(recipe, 4)
    assert pair.name == told[4]
    (moved, truth) = (np.asarray(one.data[0]) for one in (pair.labels, pair.truth))
    overlaps = [2 * ((moved == c) & (truth == c)).sum() / ((moved == c).sum() + (truth == c).sum()) for c in (1, 2)]
    assert found.numbers["cases"][4]["before"]["dice"] == pytest.approx(np.mean(overlaps))
    row = found.metrics["validation"]["methods"]["before"]
    assert f"| not registered | 6 | {row['dice']['mean']:.3f} ±" in bundle.card(found.metrics)
    assert found.figures()["failures.png"].startswith(b"\x89PNG")


def test_the_card_says_when_it_is_below_syn():
    def measured(syn, ours):
        return {"beside_syn": {"pairs": 2, "syn": syn, "network": ours}}

    assert "below ANTs' SyN on the 2 pairs that both registered: 0.500 beside 0.600" in bundle.beside_syn(
        measured(0.6, 0.5)
    )
    assert "above ANTs' SyN" in bundle.beside_syn(measured(0.5, 0.6))
    assert bundle.beside_syn(None) == bundle.beside_syn({"beside_syn": {"pairs": 0}}) == ""
