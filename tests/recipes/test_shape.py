"""The adrenal recipe: folds kept apart, distances as the bundle makes them, and a calibrated bundle that runs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_mamba import bundles, engine, models, recipes
from napari_mamba.engine.preparation.prepare import prepare
from napari_mamba.errors import InputError
from napari_mamba.nn.descriptors.granulometry import nearest
from napari_mamba.recipes.shape import augment, bundle, evaluation, recipe, stacking, task
from napari_mamba.recipes.shape.data import FILE, load
from napari_mamba.recipes.shape.recipe import AdrenalShape
from napari_mamba.training import linear
from napari_mamba.training.scoring.evaluation import add_comparison
from napari_mamba.volume import Volume

CPU = torch.device("cpu")


def glands(count, labels, seed):
    """Ellipsoids, the hyperplastic ones fatter."""
    random, places = np.random.default_rng(seed), np.indices((64, 64, 64)) - 31.5
    masks = []
    for label in labels:
        sides = np.array([16, 9, 4 + 4 * label]) * random.uniform(0.9, 1.1, 3)
        masks.append((places**2 / sides.reshape(3, 1, 1, 1) ** 2).sum(0) < 1)
    return np.array(masks, np.uint8) * 255


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ten glands for training, five for validation, four for the test."""
    folder, arrays = tmp_path_factory.mktemp("adrenal"), {}
    for seed, (part, count) in enumerate((("train", 10), ("val", 5), ("test", 4))):
        labels = np.arange(count) % 2
        masks = glands(count, labels, seed).transpose(0, 3, 2, 1)  # the file's axes are x, y, z
        arrays[f"{part}_images"], arrays[f"{part}_labels"] = masks, labels[:, None]
    np.savez_compressed(folder / FILE, **arrays)
    return folder


@pytest.fixture
def small(monkeypatch):
    """Networks and grids for a test's time."""
    monkeypatch.setattr(task, "NETWORK", {**task.NETWORK, "channels": 4})
    for module in (recipe, bundle):
        monkeypatch.setattr(module, "GRID", 32)
    monkeypatch.setattr(AdrenalShape, "schedule", replace(AdrenalShape.schedule, batch_size=2))


def test_arrays_hold_every_gland_but_those_of_the_test(data):
    arrays = AdrenalShape(data).arrays
    masks = np.unpackbits(arrays["mask"], axis=1).reshape(-1, 64, 64, 64)
    assert np.array_equal(masks[:10] > 0, np.load(data / FILE)["train_images"].transpose(0, 3, 2, 1) > 0)
    extents = np.ptp(np.argwhere(masks[0]), axis=0)
    assert extents[0] > extents[1] > extents[2]  # as `glands` makes them along z, y, x
    assert arrays["label"].tolist() == [*(np.arange(10) % 2), *(np.arange(5) % 2)]


def test_each_member_trains_on_all_folds_but_its_own(data):
    made = AdrenalShape(data)
    _, label, rows = made.placed(CPU)
    for member, mine in enumerate(rows):
        assert sorted({*mine.tolist(), *np.flatnonzero(made.fold == member).tolist()}) == list(range(15))
        assert not set(mine.tolist()) & set(np.flatnonzero(made.fold == member).tolist())
        assert 0 < label[made.fold == member].float().mean() < 1


def test_distances_on_a_gpu_are_those_of_the_preparation(data):
    masks = np.load(data / FILE)["val_images"][:1]
    found = augment.distances(masks, 8.0, CPU)[:, 0].float().numpy()
    inside = torch.from_numpy(masks > 0)
    inner = nearest(torch.nn.functional.pad(inside, (1,) * 6))[:, 1:-1, 1:-1, 1:-1]
    outer = nearest(~inside)
    signed = torch.where(inside, inner - 0.5, 0.5 - outer).clamp(-8, 8) / 8
    assert found == pytest.approx(signed.numpy(), abs=1e-3)  # float16
    steps = [{"step": "binarise"}, {"step": "signed_distance", "limit": 8.0}]
    assert prepare(Volume(masks[:1]), steps).data[0] == pytest.approx(found[0], abs=1e-3)


def test_validation_sees_what_the_bundle_prepares(data):
    mask = np.load(data / FILE)["val_images"][:1]
    prepared = prepare(Volume(mask, evaluation.UPRIGHT), bundle.spec("nnmamba").preparation).data
    images = augment.distances(mask, 8.0, CPU)
    seen = augment.warp(images, torch.tensor([0]), augment.flip_combinations(CPU)[:1], torch.ones(1), task.GRID)
    assert seen[0].numpy() == pytest.approx(prepared, abs=0.01)


def test_there_are_eight_mirrorings_and_the_engines_comes_second():
    matrices = augment.flip_combinations(CPU)
    assert len({tuple(matrix.flatten().tolist()) for matrix in matrices}) == 8
    assert all(torch.equal(matrix[:, :3].abs(), torch.eye(3)) for matrix in matrices)
    image = torch.rand(1, 1, 8, 8, 8)
    seen = augment.warp(image, torch.tensor([0]), matrices[1:2], torch.ones(1), 8)
    (axis,) = bundle.spec("nnmamba").tile.mirror_axes
    assert torch.allclose(seen[0, 0], image[0, 0].flip(axis), atol=1e-5)


def test_some_glands_are_only_mirrored(data):
    images = augment.distances(np.load(data / FILE)["val_images"][:1], 8.0, CPU)
    generator = torch.Generator().manual_seed(0)
    matrix, scale, exact = augment.place(12, generator, CPU)
    assert 2 < int(exact.sum()) < 10
    assert bool((scale[exact] == 1).all())
    seen = augment.warp(images, torch.zeros(12, dtype=torch.long), matrix, scale, 64, generator, exact)
    kept = seen.flatten(1).sort(1).values.isclose(images.float().flatten().sort().values, atol=1e-4).all(1)
    assert torch.equal(kept, exact)  # the same values in other places


def test_scaling_a_gland_scales_its_distances(data):
    images = augment.distances(np.load(data / FILE)["val_images"][:1], 8.0, CPU)
    larger = torch.eye(3, 4)[None] / 1.25
    plain = augment.warp(images, torch.tensor([0]), torch.eye(3, 4)[None], torch.ones(1), 64)
    scaled = augment.warp(images, torch.tensor([0]), larger, torch.tensor([1.25]), 64)
    assert float((scaled > 0).sum() / (plain > 0).sum()) == pytest.approx(1.25**3, rel=0.05)
    assert float(scaled.max() / plain.max()) == pytest.approx(1.25, rel=0.1)


def test_a_batch_depends_on_its_step_alone(data, small):
    first, again = AdrenalShape(data), AdrenalShape(data)
    first.batch(3, CPU)
    for one, two in zip(first.batch(7, CPU), again.batch(7, CPU), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(first.batch(7, CPU)[0], first.batch(8, CPU)[0])
    assert first.batch(7, CPU)[0].shape == (10, 1, 32, 32, 32)


def test_the_factors_of_a_fold_do_not_come_from_its_own_labels():
    random = np.random.default_rng(1)
    truth, fold = random.random(2000) < 0.4, np.arange(2000) % 5
    good, bad = truth + random.normal(size=2000), random.normal(size=2000)
    moved = truth.copy()
    moved[fold == 3] = ~moved[fold == 3]
    one, two = (stacking.weighed(good, bad, labels, fold) for labels in (truth, moved))
    assert np.array_equal(one[fold == 3], two[fold == 3])
    assert not np.array_equal(one[fold == 2], two[fold == 2])


def test_the_joined_network_gives_the_weighed_logit():
    plain = task.network("nnmamba").eval()
    masks = glands(4, [0, 1, 0, 1], 3) > 0
    table = stacking.descriptors(masks, CPU)
    regression = linear.fit(table, np.array([0, 1, 0, 1]), 10.0)
    state = bundle.joined(plain.state_dict(), regression, (0.5, 0.8, 0.3))
    network = models.create("nnmamba_cls", **task.NETWORK, granulometry=True).eval()
    network.load_state_dict(state)
    x = augment.distances(masks, 8.0, CPU).float()
    with torch.inference_mode():
        before, after = plain(x), network(x)
    wanted = 0.5 * (before[:, 1] - before[:, 0]).numpy() + 0.8 * regression.margin(table) + 0.3
    assert (after[:, 1] - after[:, 0]).numpy() == pytest.approx(wanted, abs=1e-3)


def test_train_export_run_and_measure(data, small, tmp_path, monkeypatch):
    monkeypatch.setattr(AdrenalShape, "schedule", replace(AdrenalShape.schedule, validate_every=1, steps=2))
    packed = AdrenalShape(data).save_arrays(tmp_path / "adrenal.npz")
    folder = recipes.train("adrenal-shape", packed, tmp_path / "run", device="cpu")
    made = bundles.load(folder)
    assert len(made.networks()) == task.FOLDS
    assert made.metrics["cross_validation"]["glands"] == 15
    assert made.metrics["cross_validation"]["auc_descriptors"]["value"] == 1.0
    measured = recipes.evaluate("adrenal-shape", data, folder, device="cpu", write=True)
    assert measured["glands"] == 4
    assert 0 <= measured["auc"]["low"] <= measured["auc"]["value"] <= 1
    assert measured["descriptors"]["auc"]["value"] == 1.0  # these glands are easy
    written = bundles.load(folder)
    assert "| is hyperplasia |" in written.card
    assert (folder / "calibration.png").is_file()
    assert (folder / "failures.png").is_file()
    assert len(list(written.state_dicts())) == task.FOLDS
    add_comparison(written, {"nnmamba": tmp_path / "run", "resnet": tmp_path / "run"}, bundle.card)
    last = bundles.load(folder)
    assert f"| ResNet of equal size (MONAI) | {last.metrics['comparison']['resnet']['auc_network']:.3f} |" in last.card
    assert last.metrics["test"] == written.metrics["test"]
    assert (folder / "calibration.png").is_file()


def test_bad_input_is_refused_or_doubted_with_the_reason(data, small, tmp_path):
    made = AdrenalShape(data)
    network = made.network()
    folder = bundle.export(made, network.state_dict(), tmp_path / "adrenal-shape", {"steps": 0, "of": 1})
    loaded, options = bundles.load(folder), engine.RunOptions(device="cpu", mirror=False)
    mask = np.load(data / FILE)["test_images"][:1].transpose(0, 3, 2, 1)
    for image, said in (
        (np.zeros_like(mask), "all zeros"),
        (np.random.default_rng(0).normal(size=mask.shape), "grey image"),
        ((mask > 0).astype(np.uint8) + (np.indices(mask.shape)[1] > 40), "labels"),
        (np.eye(64, dtype=np.uint8)[None, None] * np.ones((1, 1, 1, 1), np.uint8), "64 voxels"),
    ):
        with pytest.raises(InputError, match=said):
            engine.run_to_end(Volume(image), loaded, options)
    large = engine.run_to_end(Volume(mask, np.diag([3.0, 3, 3, 1])), loaded, options)
    assert any("ml" in warning for warning in large.warnings)
    assert any("larger than the 64 x 64 x 64 mm" in warning for warning in large.warnings)


def test_a_folder_without_the_file_is_named(tmp_path):
    with pytest.raises(InputError, match=FILE):
        load(tmp_path)
