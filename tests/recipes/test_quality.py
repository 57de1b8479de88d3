"""The quality recipe: artefacts as TorchIO makes them, windows as the bundle prepares them, people kept apart."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from napari_mamba import bundles, engine, io, models, recipes
from napari_mamba.engine.preparation.prepare import prepare
from napari_mamba.errors import InputError
from napari_mamba.nn.descriptors.spectrum import Spectrum, count
from napari_mamba.recipes.quality import (
    artefacts,
    bundle,
    evaluation,
    kspace,
    random_acquisition,
    recipe,
    task,
    torchio_artefacts,
)
from napari_mamba.recipes.quality.artefacts import ARTEFACTS, MAX_BIAS_FIELD, MILD, RANGES, TISSUE, RandomSource
from napari_mamba.recipes.quality.recipe import Quality
from napari_mamba.recipes.quality.task import CLASSES
from napari_mamba.recipes.restore import data as scans
from napari_mamba.training.scoring.classification import auc
from napari_mamba.volume import Volume

CPU = torch.device("cpu")
SHAPE, SPACING = (20, 40, 36), (3.0, 1.5, 1.5)


def head(seed=0):
    """An ellipsoid with a darker middle, and texture."""
    z, y, x = (np.linspace(-1.2, 1.2, n) for n in SHAPE)
    radius = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)
    texture = 0.05 * np.random.default_rng(seed).normal(size=SHAPE)
    return np.where(radius < 1, 0.7 + 0.3 * np.cos(4 * radius) + texture, 0.0).astype(np.float32)


def volume(image):
    affine = np.eye(4)
    affine[:3, :3] = np.diag(SPACING)[::-1]
    return Volume(np.asarray(image, np.float32)[None], affine)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """One scan each of people for training, validation and the test."""
    folder = tmp_path_factory.mktemp("mr")
    for seed, who in enumerate(("patient01", "patient03", "patient19", "patient12")):
        (folder / "native_mr" / who).mkdir(parents=True)
        io.write(volume(1000 * head(seed)), folder / "native_mr" / who / "study1_T1W.nii.gz")
    return folder


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(task, "NETWORK", {**task.NETWORK, "channels": 4, "hidden": 8})
    for module in (recipe, bundle):
        monkeypatch.setattr(module, "WINDOW", (16, 48, 48))
    for name in ("REPEATS", "PAIRS"):
        monkeypatch.setattr(evaluation, name, 1)
    monkeypatch.setattr(recipe, "CHECKS", 1)
    monkeypatch.setattr(recipe, "SIMULATED", 8)
    monkeypatch.setattr(kspace, "EPOCHS", 2)
    monkeypatch.setattr(Quality, "schedule", replace(Quality.schedule, batch_size=4, steps=2, validate_every=1))


class Fixed(RandomSource):
    """Chance whose numbers are given, in order."""

    def __init__(self, *numbers):
        super().__init__(0, CPU)
        self.numbers = list(numbers)

    def uniform(self, low, high):
        return self.numbers.pop(0)

    def randint(self, low, high):
        return self.numbers.pop(0)


def through_torchio(transform, image):
    torchio = pytest.importorskip("torchio")
    tensor = torch.from_numpy(image.transpose(2, 1, 0).copy())[None]
    affine = np.diag([SPACING[2], SPACING[1], SPACING[0], 1.0])
    made = transform(torchio.ScalarImage(tensor=tensor, affine=affine))
    return made.numpy()[0].transpose(2, 1, 0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_ghosting_is_that_of_torchio(axis):
    torchio = pytest.importorskip("torchio")
    wanted = through_torchio(torchio.Ghosting(num_ghosts=5, axis=2 - axis, intensity=0.8, restore=None), head())
    found = artefacts.ghosting(torch.from_numpy(head()), Fixed(axis, 5, 0.8))
    assert found.numpy() == pytest.approx(wanted, abs=1e-5)


def test_spikes_are_those_of_torchio():
    torchio = pytest.importorskip("torchio")
    places = (3, 30, 11)  # z, y, x
    share = [[(n + 0.5) / size for n, size in zip(places[::-1], SHAPE[::-1], strict=True)]]
    wanted = through_torchio(torchio.Spike(spikes_positions=np.array(share), intensity=0.6), head())
    found = artefacts.spikes(torch.from_numpy(head()), Fixed(0.6, 1, *places))
    assert found.numpy() == pytest.approx(wanted, abs=1e-5)


def test_blur_and_the_bias_field_are_those_of_torchio():
    torchio = pytest.importorskip("torchio")
    wanted = through_torchio(torchio.Blur(std=(2.0, 2.0, 2.0)), head())
    assert artefacts.blur(torch.from_numpy(head()), SPACING, 2.0).numpy() == pytest.approx(wanted, abs=1e-4)
    weights = np.random.default_rng(1).uniform(-1, 1, len(artefacts.bias_powers())).tolist()
    wanted = through_torchio(torchio.BiasField(coefficients=weights, order=3), np.ones(SHAPE, np.float32))
    found = artefacts.polynomial(SHAPE, weights, CPU).exp().numpy()
    # TorchIO counts from -n/2 + 0.5 over a maximum of n/2 - 0.5, as is done here
    assert found == pytest.approx(wanted, rel=1e-4)


def test_motion_mixes_k_space_as_torchio_does():
    torchio = pytest.importorskip("torchio")
    image, angles, shifts = torch.from_numpy(head()), [0.0, 0.0, 0.0], [0.0, 6.0, 0.0]  # no turn: signs apart
    wanted = through_torchio(
        torchio.Motion(
            degrees=np.zeros((1, 3)), translation=np.array([[0.0, 6.0, 0.0]]), times=np.array([0.4]),
            image_interpolation="linear",
        ),
        head(),
    )  # fmt: skip
    # count, axis (third of the four choices is z), time's offset, then the movement itself
    found = [
        artefacts.motion(image, SPACING, Fixed(1, 0, -0.1 / 0.5, *angles, *[sign * s for s in shifts])).numpy()
        for sign in (1, -1)
    ]
    assert min(abs(one - wanted).max() for one in found) < 1e-4


def test_every_movement_is_large_enough_to_be_seen():
    rng = RandomSource(3, CPU)
    least = [RANGES["motion"][key][0] for key in ("degrees", "mm")]
    for _ in range(200):
        angles, shifts = artefacts.movement(rng)
        assert max(map(abs, angles)) >= least[0] or max(map(abs, shifts)) >= least[1]


def test_noise_has_the_strength_asked_for():
    zero = torch.zeros(40, 40, 40)
    for seed in range(4):  # Gaussian or, of the magnitude, Rayleigh
        made = artefacts.noise(zero, 0.1, RandomSource(seed, CPU))
        assert float(made.square().mean().sqrt()) in (pytest.approx(0.1, rel=0.03), pytest.approx(0.1414, rel=0.03))


def test_a_bias_field_has_its_strength_over_the_head_and_no_bright_corner():
    image, inside = torch.from_numpy(head()), torch.from_numpy(head()) > TISSUE
    bright = image.clamp(min=1e-3)
    for seed in range(8):
        field = (artefacts.bias_field(bright, 0.3, RandomSource(seed, CPU)) / bright).log()
        assert float(field[inside].std(correction=0)) == pytest.approx(0.3, rel=1e-3)
        assert float(field.abs().max()) <= MAX_BIAS_FIELD + 1e-4


def test_the_bias_field_of_the_test_scans_has_its_strength_over_the_head_too():
    torchio = pytest.importorskip("torchio")
    ones, inside = np.ones(SHAPE, np.float32), head() > TISSUE
    drawn = torchio.ScalarImage(tensor=torch.from_numpy(head().transpose(2, 1, 0).copy())[None])
    transform = torchio_artefacts.bias_field(torchio, drawn, 0.3, np.random.default_rng(0))
    field = np.log(through_torchio(transform, ones))
    assert field[inside].std() == pytest.approx(0.3, rel=0.15)  # it is measured on a coarser grid
    assert abs(field).max() <= 1.05 * MAX_BIAS_FIELD


def test_a_good_scan_with_mild_faults_stays_close_to_itself():
    pytest.importorskip("torchio")
    clean = volume(1000 * head())
    made, again = (torchio_artefacts.mild(clean, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(made.data, again.data)
    change = np.abs(made.data - clean.data).mean() / clean.data.mean()
    assert 0.001 < change < 0.15
    noise = torchio_artefacts.add(clean, ["noise"], np.random.default_rng(3))
    assert change < np.abs(noise.data - clean.data).mean() / clean.data.mean()
    assert all(MILD[name] < min(next(iter(RANGES[name].values()))) for name in MILD)


@pytest.mark.parametrize("name", ARTEFACTS)
def test_torchio_spoils_a_scan_on_its_own_grid_and_scale(name):
    pytest.importorskip("torchio")
    clean = volume(1000 * head())
    made = torchio_artefacts.add(clean, [name], np.random.default_rng(0))
    again = torchio_artefacts.add(clean, [name], np.random.default_rng(0))
    assert np.array_equal(made.data, again.data)
    assert np.array_equal(made.affine, clean.affine)
    change = np.abs(made.data - clean.data).mean() / clean.data.mean()
    assert 0.01 < change < 2
    untouched = torchio_artefacts.add(clean, [], np.random.default_rng(0)).data
    assert untouched == pytest.approx(clean.data, rel=1e-5)


def test_the_window_is_what_the_bundle_prepares(data, small):
    scan = scans.read(data / "native_mr/patient01/study1_T1W.nii.gz", data)
    seen = recipe.window(torch.from_numpy(scan.data).float(), scan.spacing, RandomSource(0, CPU), vary=False)
    file = io.read(data / "native_mr/patient01/study1_T1W.nii.gz")
    prepared = prepare(file, bundle.spec("nnmamba").preparation).data[0]
    assert seen.shape == prepared.shape
    # The packed scan is cropped to the head: the middle may differ by a voxel, the picture not.
    close = [
        np.corrcoef(np.roll(seen.numpy(), (dz, dy, dx), (0, 1, 2)).ravel(), prepared.ravel())[0, 1]
        for dz in (-1, 0, 1) for dy in (-1, 0, 1) for dx in (-1, 0, 1)
    ]  # fmt: skip
    assert max(close) > 0.97


def test_a_batch_depends_on_its_step_alone_and_people_stay_apart(data, small):
    first, again = Quality(data), Quality(data)
    first.batch(1, CPU)
    for one, two in zip(first.batch(5, CPU), again.batch(5, CPU), strict=True):
        assert torch.equal(one, two)
    inputs, targets = first.batch(6, CPU)
    assert inputs.shape == (4, 1, 16, 48, 48)
    assert targets.shape == (4, len(CLASSES))
    assert {scan.person for scan in first.scans["training"]} == {"native_mr/patient01", "native_mr/patient03"}
    assert {scan.person for scan in first.scans["validation"]} == {"native_mr/patient19"}


class Planned(TorchDispatchMode):
    """Notes what a GPU plans or tunes anew for every size: convolutions, and transforms of more than one line."""

    def __init__(self):
        super().__init__()
        self.found, self.seen = [], set()

    def __torch_dispatch__(self, called, types, args=(), kwargs=None):
        name = called.overloadpacket.__name__
        self.seen.add(name)
        if "convolution" in name or ("_fft" in name and args[0].ndim > 1):
            self.found.append(name)
        return called(*args, **(kwargs or {}))


def test_no_artefact_needs_a_plan_for_every_size_of_scan():
    rng = RandomSource(0, CPU)
    with Planned() as planned:
        artefacts.add(torch.from_numpy(head()), SPACING, ARTEFACTS, rng)
        artefacts.nearly_clean(torch.from_numpy(head()), SPACING, rng)
    assert {"mm", "grid_sampler_3d"} <= planned.seen
    assert any("_fft" in name for name in planned.seen)  # of one line, on the CPU
    assert not planned.found


def test_another_grid_shows_the_same_head():
    image, seen = torch.from_numpy(head()), set()
    extent = np.array(SHAPE) * SPACING
    for seed in range(12):
        made, sides = random_acquisition.random_resampling(image, SPACING, RandomSource(seed, CPU))
        assert np.array(made.shape) * sides == pytest.approx(extent)
        assert float(made.mean()) == pytest.approx(float(image.mean()), rel=0.05)
        seen.add(round(sides[0], 1))
    assert min(seen) < 1.3 < 2.9 < max(seen)  # some of its thick slices became thin ones
    thin = random_acquisition.random_resampling(torch.rand(60, 40, 40), (1.0, 1.0, 1.0), Fixed(1.0, 0.5, 3.0))
    assert thin[0].shape == (20, 40, 40)
    assert float(thin[0].std()) < float(torch.rand(60, 40, 40).std())  # an average, not a pick


def test_interpolation_keeps_what_is_constant_and_what_is_linear():
    for old, new in ((10, 25), (10, 10), (30, 12)):
        matrix = random_acquisition.interpolation(old, new, CPU)
        assert torch.allclose(matrix.sum(1), torch.ones(new))
        ramp = matrix @ (torch.arange(old) + 0.5)
        middle = slice(new // 4, -new // 4)
        assert torch.allclose(ramp[middle], ((torch.arange(new) + 0.5) * old / new)[middle], atol=0.02)
    assert torch.equal(random_acquisition.interpolation(7, 7, CPU), torch.eye(7))


def test_other_kinds_of_good_scans_keep_air_dark_and_the_scale():
    image = torch.from_numpy(head()).clamp(min=0)
    for seed in range(10):
        rng = RandomSource(seed, CPU)
        cut = random_acquisition.random_skull_stripping(image, rng)
        assert bool(((cut == image) | (cut == 0)).all())
        assert 0.05 < float((cut > TISSUE).sum() / (image > TISSUE).sum()) < 1
        other = random_acquisition.random_contrast(image, rng)
        assert 0 <= float(other.min()) <= float(other.max()) <= 1 + 1e-5
        assert bool((other[image == 0] == 0).all())
        made, sides = random_acquisition.random_acquisition(image, SPACING, rng)
        assert made.isfinite().all()
        assert len(sides) == 3
    random_padding = random_acquisition.random_padding(image, RandomSource(0, CPU))
    assert float(random_padding.sum()) == pytest.approx(float(image.sum()))
    assert all(one >= other for one, other in zip(random_padding.shape, image.shape, strict=True))


def test_a_scan_is_clean_or_has_one_or_two_artefacts():
    rng, counts = RandomSource(1, CPU), []
    for _ in range(400):
        names = recipe.draw_names(rng)
        truth = recipe.target(names)
        assert truth[0] == float(not names)
        assert sorted(names) == sorted(n for n, there in zip(CLASSES[1:], truth[1:], strict=True) if there)
        counts.append(len(names))
    assert np.bincount(counts) / 400 == pytest.approx(
        [recipe.CLEAN, 1 - recipe.CLEAN - recipe.PAIR, recipe.PAIR], abs=0.06
    )


def test_a_perceptron_learns_what_no_line_tells_and_is_the_mean_of_its_members(monkeypatch):
    monkeypatch.setattr(kspace, "EPOCHS", 60)
    monkeypatch.setattr(kspace, "MEMBERS", 2)
    random = np.random.default_rng(0)
    hidden = random.normal(size=(800, 3))
    table = 3 + 2 * hidden[:, np.arange(count()) % 3] + 0.1 * random.normal(size=(800, count()))
    truth = np.stack([(abs(hidden[:, 0]) < 0.7) & (abs(hidden[:, 1]) < 0.7), hidden[:, 2] > 0], axis=1)
    made = kspace.train(table[:600], truth[:600].astype(float), 0)
    said = kspace.answers(made, table[600:])
    assert auc(truth[600:, 0], said[:, 0]) > 0.85  # inside of a box: no line tells it
    assert auc(truth[600:, 1], said[:, 1]) > 0.95
    inputs, wanted = torch.from_numpy(table[:600]).float(), torch.from_numpy(truth[:600]).float()
    members = [kspace.member(made, inputs, wanted, number) for number in range(kspace.MEMBERS)]
    mean = np.mean([kspace.answers(one, table[600:]) for one in members], axis=0)
    assert said == pytest.approx(mean, abs=1e-4)
    again = torch.cat([one.first.weight for one in members])
    assert torch.equal(made.first.weight, again), "trained again, they are the same to the bit"


def test_the_joined_network_gives_the_weighed_logits(small):
    plain = task.network("nnmamba").eval()
    spectrum = Spectrum(len(CLASSES), kspace.HIDDEN * kspace.MEMBERS)
    factors = [(0.5 + 0.1 * k, 1.0 - 0.1 * k, 0.2 * k) for k in range(len(CLASSES))]
    network = models.create("nnmamba_cls", **task.NETWORK, spectrum=kspace.HIDDEN * kspace.MEMBERS).eval()
    network.load_state_dict(bundle.joined(plain.state_dict(), spectrum, factors))
    x = torch.randn(2, 1, 16, 48, 48)
    first, second, shift = (torch.tensor(column) for column in zip(*factors, strict=True))
    with torch.inference_mode():
        wanted = first * plain(x) + second * spectrum(x) + shift
        assert torch.allclose(network(x), wanted, atol=1e-3)


def test_train_export_run_and_measure(data, small, tmp_path):
    pytest.importorskip("torchio")
    packed = Quality(data).save_arrays(tmp_path / "mr.npz")
    folder = recipes.train("mr-quality", packed, tmp_path / "run", device="cpu")
    made = bundles.load(folder)
    assert set(made.metrics["weighed"]) == set(CLASSES)
    assert made.metrics["trained"]["simulated"] == 8
    measured = recipes.evaluate("mr-quality", data, folder, device="cpu", write=True)
    assert (measured["people"], measured["scans"], measured["simulated"]) == (1, 1, len(ARTEFACTS) + 2)
    assert np.sum(measured["confusion"], axis=1).tolist() == [1] * len(CLASSES)
    card = bundles.load(folder).card
    assert "| **bias field** |" in card
    assert all((folder / name).is_file() for name in ("calibration.png", "failures.png", "where.png"))
    file = io.read(data / "native_mr/patient12/study1_T1W.nii.gz")
    result = engine.run_to_end(file, bundles.load(folder), engine.RunOptions(device="cpu", uncertainty=True))
    assert list(result.scores) == list(CLASSES)
    assert result.extra["activation_map"].shape == file.shape


def test_what_is_no_head_scan_is_doubted_or_refused(data, small, tmp_path):
    made = Quality(data)
    folder = bundle.export(made, made.network().state_dict(), tmp_path / "mr-quality", {"steps": 0, "of": 1})
    loaded, options = bundles.load(folder), engine.RunOptions(device="cpu")
    with pytest.raises(InputError, match="all zeros"):
        engine.run_to_end(volume(np.zeros(SHAPE)), loaded, options)
    ct = engine.run_to_end(volume(head() * 1500 - 1000), loaded, options)
    assert any("look like CT" in warning for warning in ct.warnings)
    speck = engine.run_to_end(volume(head()[:3, :8, :8] + 0.1 * head()[10:13, 10:18, 10:18]), loaded, options)
    assert any("much less than the" in warning for warning in speck.warnings)
