"""The bundles mr-denoise and mr-superres: what they do to a scan before any training, and how they are measured."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.metrics.regression import SSIMMetric
from scipy import ndimage

from napari_mamba import bundles, engine, io, models, recipes
from napari_mamba.engine.preparation.prepare import prepare
from napari_mamba.errors import InputError
from napari_mamba.recipes.restore import denoise_bundle, measure, rician, superres_bundle
from napari_mamba.training.scoring.evaluation import add_comparison
from napari_mamba.volume import Volume

SMALL = {"features": [4, 4, 8], "depths": [1, 1, 1], "d_state": 2}
MODULES = {"mr-denoise": denoise_bundle, "mr-superres": superres_bundle}
TRAINED = {"steps": 1, "of": 2, "minutes": 0.5, "device": "CPU"}


def scan(shape=(12, 30, 26), spacing=(3.0, 1.0, 1.0), scale=700.0):
    """A ball of smooth blobs in air."""
    z, y, x = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in shape)]
    blobs = ndimage.gaussian_filter(np.random.RandomState(0).rand(*shape), 1.5)
    image = np.where(z**2 + y**2 + x**2 < 0.8, 0.3 + (blobs - blobs.min()) / np.ptp(blobs), 0) * scale
    return Volume(image[None].astype(np.float32), np.diag([*spacing, 1.0]))


def small(name, monkeypatch):
    """The arguments of a small network, which the bundle's module then takes for its own."""
    key = "SCALED" if name == "mr-denoise" else "UPSAMPLING_RANGE"
    arguments = {**getattr(MODULES[name], key), **SMALL}
    monkeypatch.setattr(MODULES[name], key, arguments)
    return arguments


@pytest.fixture(params=list(MODULES))
def name(request):
    return request.param


@pytest.fixture
def made(name, tmp_path, monkeypatch):
    """A small untrained bundle, which answers its prepared input."""
    arguments = small(name, monkeypatch)
    network = models.create("voxel_mamba_unet", **arguments, scan="bidirectional")
    return bundles.load(MODULES[name].export(None, network.state_dict(), tmp_path / name, TRAINED))


def run(bundle, volume, **options):
    return engine.run_to_end(volume, bundle, engine.RunOptions(tile=(12, 16, 16), **options))


def test_an_untrained_bundle_keeps_the_intensity_scale(made, name):
    volume = scan()
    result = run(made, volume, residual=True)
    image = np.asarray(result.image.data)
    assert image.max() == pytest.approx(volume.data.max(), rel=0.02)
    assert image.min() >= 0
    removed = np.abs(np.asarray(result.extra["residual"].data)).max()
    assert removed < (1e-2 if name == "mr-denoise" else 250)  # of the interpolation, what leaves the input's range
    assert image.shape == ((1, 12, 30, 26) if name == "mr-denoise" else (1, 36, 30, 26))


def test_superres_gives_the_grid_asked_for(tmp_path, monkeypatch):
    weights = models.create("voxel_mamba_unet", **small("mr-superres", monkeypatch), scan="bidirectional").state_dict()
    bundle = bundles.load(superres_bundle.export(None, weights, tmp_path / "b", TRAINED))
    image = run(bundle, scan(), spacing=0.9).image
    assert image.spacing == pytest.approx([0.9] * 3)
    assert image.shape == (40, 33, 29)
    with pytest.raises(InputError, match="how thick"):
        run(bundle, Volume(scan().data, units="pixel"))


def test_bad_input_is_told(made):
    volume = scan()
    with pytest.raises(InputError, match="all zeros"):
        run(made, volume.with_data(np.zeros_like(volume.data)))
    with pytest.raises(InputError, match="look like CT"):
        run(made, volume.with_data(volume.data - 1000))
    assert any("negative" in w for w in run(made, volume.with_data(volume.data - 100)).warnings)
    assert any("much less than" in w for w in engine.run_to_end(scan((3, 9, 9)), made).warnings)


def test_gaussian_noise_below_zero_does_not_shift_the_scale(tmp_path, monkeypatch):
    weights = models.create("voxel_mamba_unet", **small("mr-denoise", monkeypatch), scan="bidirectional").state_dict()
    bundle = bundles.load(denoise_bundle.export(None, weights, tmp_path / "b", TRAINED))
    volume = scan()
    prepared = prepare(volume.with_data(volume.data - 50), bundle.preparation)
    assert prepared.data.min() == pytest.approx(-50 / (np.percentile(volume.data, 99.9) - 50), rel=1e-3)
    assert prepared.data.max() > 1  # what is brighter than the percentile is not cut


def test_empty_space_about_an_image_changes_nothing_in_it():
    """Zeros would lower the percentile that is white, and be taken for noise-free tissue."""
    shipped = bundles.load("mr-denoise")
    assert shipped.spec.preparation == denoise_bundle.spec().preparation
    image = np.asarray(scan((12, 20, 20)).data)[0] + 5 * np.random.RandomState(0).rand(12, 20, 20).astype(np.float32)
    image -= image.min()  # answers never leave the input's range, which zeros about it widen
    margin = ((3, 5), (9, 2), (0, 14))
    alone, about = (
        np.asarray(run(shipped, Volume(one[None], np.diag([3.0, 1, 1, 1]))).image.data)[0]
        for one in (image, np.pad(image, margin))
    )
    assert np.array_equal(about, np.pad(alone, margin))


def test_cards_say_what_was_not_measured(made):
    text = (made.path / "README.md").read_text()
    assert "Not measured yet." in text
    assert "Not for clinical use" in text
    assert "1 steps of 1.6 million voxels in 0.5 minutes on CPU." in text


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "scans"
    for name, shape, spacing in (
        ("native_mr/patient12/study1_T1W.nii.gz", (12, 36, 36), (3.0, 1.0, 0.9)),
        ("native_mr/patient12/study2_T1W.nii.gz", (12, 36, 36), (3.0, 1.0, 0.9)),
        ("stroke_mr/T1.nii.gz", (24, 24, 24), (1.0, 1.0, 1.0)),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        io.write(scan(shape, spacing), root / name)
    return root


def fake_method(image, sigma, rician):
    return ndimage.gaussian_filter(image, 0.6)


def test_evaluation_writes_numbers_card_and_picture(made, name, folder, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(denoise_bundle, "SIZE", (8, 20, 20))
    monkeypatch.setattr(denoise_bundle, "LEVELS", (0.05, 0.09))
    monkeypatch.setattr(denoise_bundle, "_baselines", lambda: {"nlm": lambda *a: calls.append(1) or fake_method(*a)})
    monkeypatch.setattr(superres_bundle, "TESTED", (2, 4))
    monkeypatch.setattr(superres_bundle, "FARTHEST", ())
    kept = {"kept": tmp_path / "kept.json"} if name == "mr-denoise" else {}
    told = []
    options = {"device": "cpu", "write": True, **kept}
    measured = recipes.evaluate(name, folder, made.path, on_case=lambda *a: told.append(a), **options)
    json.dumps(measured)
    assert (measured["people"], measured["volumes"]) == (2, 2)
    # Two levels of two kinds of noise, and three shares of k-space; two distances of slices of three profiles,
    # and of one that is told.
    assert len(told) == len(measured["cases"]) == 2 * (7 if name == "mr-denoise" else 8)
    written = bundles.load(made.path)
    assert written.metrics["held_out"]["table"] == measured["table"]
    assert (made.path / "examples.png").read_bytes().startswith(b"\x89PNG")
    card = (made.path / "README.md").read_text()
    gains = [row["gain"]["psnr"]["mean"] for row in measured["table"].values()]
    assert f"it is {min(gains):+.2f} to {max(gains):+.2f} dB" in card
    assert ("dB are missing at the worst" in card) is (min(gains) < (0.5 if name == "mr-denoise" else 1.5))
    if name == "mr-denoise":  # the network answers its input, so it gains nothing over it
        for row in measured["table"].values():
            assert row["mr-denoise"]["psnr"]["mean"] == pytest.approx(row["input"]["psnr"]["mean"], abs=0.01)
        before = len(calls)
        recipes.evaluate(name, folder, made.path, device="cpu", **kept)
        assert len(calls) == before  # the slow method was not asked again
    else:  # it answers the best linear interpolation of the slices
        assert measured["largest_beyond_range"] == 0
        for row in measured["table"].values():
            assert row["mr-superres"]["psnr"]["mean"] > row["linear"]["psnr"]["mean"]
        for setting in ("2×", "4×"):  # of the profile that it takes them to have
            row = measured["table"][setting]
            assert row["mr-superres"]["psnr"]["mean"] > row["spline"]["psnr"]["mean"] + 0.3


def test_variants_are_compared_in_the_card(made, name, tmp_path):
    entry = {"step": 7, "score": 1.5} | {f"psnr_{n}": n for n in (3, 5, 9, 15)} | {f"gain_{n}": n for n in (2, 3, 4)}
    (tmp_path / "history.jsonl").write_text(json.dumps(entry) + "\n")
    add_comparison(made, {"segresnet": tmp_path}, MODULES[name].card)
    values = "3.000 | 5.000 | 9.000 | 15.000" if name == "mr-denoise" else "2.000 | 3.000 | 4.000"
    assert f"| SegResNet (2.2 million) | {values} | 7 |" in (made.path / "README.md").read_text()


def test_an_evaluation_without_the_scans_is_refused(made, name, tmp_path):
    (tmp_path / "mr.npz").touch()  # what a recipe packs for training has no test people
    with pytest.raises(InputError, match="no test people"):
        recipes.evaluate(name, tmp_path / "mr.npz", made.path)


def test_thick_slices_keep_their_place_and_their_mean():
    fine = scan((24, 24, 24), (1.0, 1.0, 1.0))
    coarse = superres_bundle.simulate_thick_slices(fine, 0, 4)
    assert coarse.shape == (6, 24, 24)
    assert coarse.affine @ [-0.5, 0, 0, 1] == pytest.approx(fine.affine @ [-0.5, 0, 0, 1])
    assert coarse.data.mean() == pytest.approx(fine.data.mean(), rel=0.02)
    ours = prepare(coarse, [{"step": "refine"}]).data[0]
    scipys = superres_bundle.interpolated(coarse, 0, 4)["spline"]
    assert ours == pytest.approx(scipys, abs=0.01 * float(fine.data.max()))


def test_the_rician_mean_is_taken_out():
    random, signal = np.random.RandomState(0), np.array([0.0, 1.0, 3.0, 8.0])
    noisy = np.hypot(signal[:, None] + random.standard_normal((4, 200_000)), random.standard_normal((4, 200_000)))
    assert rician.signal_of_mean(noisy.mean(axis=1)) == pytest.approx(signal, abs=0.08)


def test_rician_noise_is_made_even_and_comes_back_without_bias():
    random, signal = np.random.RandomState(0), np.array([0.0, 0.5, 1.0, 2.0, 4.0, 12.0, 80.0])
    noise = random.standard_normal((2, 7, 200_000))
    stable = rician.stabilise(np.hypot(signal[:, None] + noise[0], noise[1]))
    assert stable.std(axis=1) == pytest.approx(np.ones(7), abs=0.12)
    assert rician.signal_of_stable(stable.mean(axis=1)) == pytest.approx(signal, abs=0.08)


@pytest.mark.parametrize("shape", [(12, 30, 26), (8, 14, 13), (11, 11, 11)])
def test_the_similarity_is_monais(shape):
    truth = np.asarray(scan(shape, scale=1.0).data)[0]
    noisy = truth + 0.1 * np.random.RandomState(1).standard_normal(shape).astype(np.float32)
    pair = [torch.from_numpy(values)[None, None] for values in (noisy, truth)]
    monais = SSIMMetric(spatial_dims=3, data_range=1.0, win_size=min(11, *shape))(*pair)
    assert measure.similarity(noisy, truth) == pytest.approx(float(monais.mean()), abs=1e-4)


def test_noise_of_a_case_is_always_the_same():
    case = measure.Case("a", "p", np.full((20, 20, 20), 5.0, np.float32), 10.0, np.eye(4))
    first, again = (measure.noisy(case, 0.1, False) for _ in range(2))
    assert np.array_equal(first, again)
    assert (first - 5).std() == pytest.approx(1.0, rel=0.05)
    assert not np.array_equal(first, measure.noisy(case, 0.1, True))


@pytest.fixture(scope="module")
def template():
    """The middle of the ICBM template: a head that no network here has seen, without noise of its own."""
    volume = io.read(Path(__file__).parents[3] / "sample_data/icbm2009a_t1.nii.gz")
    middle = np.asarray(volume.data)[0, 70:106, 80:152, 60:120].astype(np.float32)
    return measure.Case("icbm", "icbm", middle, float(np.percentile(middle, 99.9)), np.eye(4))


@pytest.mark.parametrize(("level", "kind"), [(0.05, "Rician"), (0.15, "Gaussian")])
def test_the_shipped_denoiser_removes_noise_and_no_anatomy(template, level, kind):
    noisy = measure.noisy(template, level, kind == "Rician")
    restored = denoise_bundle.restore(bundles.load("mr-denoise"), template, noisy, engine.RunOptions(device="cpu"))
    before, after = (measure.compare(v, template.truth, template.peak)["psnr"] for v in (noisy, restored))
    assert after > before + 5
    assert abs(float((restored - template.truth).mean())) < 0.01 * template.peak  # smooth tissue is not darkened
    removed, detail = noisy - restored, template.truth - ndimage.gaussian_filter(template.truth, 1.5)
    assert abs(np.corrcoef(removed.ravel(), detail.ravel())[0, 1]) < 0.2


@pytest.mark.parametrize(("factor", "profile", "least"), [(2, "gaussian", 1), (4, "box", 1), (2, "sinc", 0.3)])
def test_the_shipped_superresolution_beats_the_spline_on_a_smooth_head(template, factor, profile, least):
    coarse = superres_bundle.simulate_thick_slices(template.volume(template.truth), 0, factor, profile)
    restored = superres_bundle.restore(bundles.load("mr-superres"), coarse, 0, factor, engine.RunOptions(device="cpu"))
    spline = superres_bundle.interpolated(coarse, 0, factor)["spline"]
    ours, other = (measure.compare(v, template.truth, template.peak)["psnr"] for v in (restored, spline))
    assert ours > other + least
    given = np.asarray(coarse.data)[0]
    again = superres_bundle.simulate_thick_slices(template.volume(restored), 0, factor, profile)
    assert np.abs(np.asarray(again.data)[0] - given).mean() < 0.015 * template.peak  # though nothing forces it to
    assert given.min() <= restored.min() < restored.max() <= given.max()
