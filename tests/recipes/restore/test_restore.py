"""The recipes of mr-denoise and mr-superres: people kept apart, batches that repeat, degradations that are right."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_mamba import io
from napari_mamba.engine.preparation.prepare import prepare
from napari_mamba.errors import InputError
from napari_mamba.recipes.registry import recipe
from napari_mamba.recipes.restore import data as scans
from napari_mamba.recipes.restore import denoise, superres
from napari_mamba.recipes.restore.acquisition.noise import add_noise, spatial_noise_map
from napari_mamba.recipes.restore.acquisition.profiles import NAMES, profile_weights
from napari_mamba.recipes.restore.acquisition.slices import along, blurred, thick_slices
from napari_mamba.recipes.restore.patch_sampler import PatchSampler
from napari_mamba.training.history import history
from napari_mamba.training.loop import fit
from napari_mamba.volume import Volume

CPU = torch.device("cpu")
FILES = {
    "native_mr/patient01/study1_T1W.nii.gz": (12, 40, 44),
    "native_mr/patient12/study1_T2W.nii.gz": (12, 40, 44),
    "native_mr/patient19/study2_FLAIR.nii.gz": (12, 40, 44),
    "ms_lesion_mr/patient07/T1.nii.gz": (30, 30, 30),
    "ms_lesion_mr/patient07/lesions.nii.gz": (30, 30, 30),
    "stroke_mr/T1.nii.gz": (30, 30, 30),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six small files in the places the recipe looks for: blobs in a ball, of scales far apart."""
    root = tmp_path_factory.mktemp("mr")
    for number, (name, shape) in enumerate(FILES.items()):
        random = np.random.RandomState(number)
        z, y, x = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in shape)]
        blobs = ndimage.gaussian_filter(random.rand(*shape), 1.5)
        image = np.where(z**2 + y**2 + x**2 < 0.9, 100 + 900 * (blobs - blobs.min()), 0) * 10**number
        thick = 4.0 if shape[0] == 12 else 1.0
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        io.write(
            Volume(
                image[None].astype(np.float32), np.diag([thick, 0.8 if thick > 1 else 1, 0.8 if thick > 1 else 1, 1])
            ),
            root / name,
        )
    return root


@pytest.fixture
def small(monkeypatch):
    """Pieces small enough for a test, and four voxels after two poolings.

    oneDNN's bfloat16 weight gradients of a 3-convolution over two slices read memory that nobody wrote (PyTorch 2.13,
    CPU): NaN now and then.
    """
    monkeypatch.setattr(denoise, "SIZE", (16, 16, 16))
    for name, size in (("LENGTH", 24), ("WIDE", 16), ("NARROW", 16), ("SIDE", 2)):
        monkeypatch.setattr(superres, name, size)


def made(name, folder, **schedule):
    one = recipe(name, folder)
    one.schedule = replace(one.schedule, **({"batch_size": 2, "steps": 10} | schedule))
    return one


def test_parts_share_nobody_and_masks_are_no_scans(folder):
    people = {
        part: {scans.person(file, folder) for file in scans.files(folder, (part,))}
        for part in ("training", "validation", "test")
    }
    assert people == {
        "training": {"native_mr/patient01", "ms_lesion_mr/patient07"},
        "validation": {"native_mr/patient19"},
        "test": {"native_mr/patient12", "stroke_mr/patient"},
    }
    assert not any("lesions" in file.name for file in scans.files(folder, ("training",)))


def test_packed_scans_come_back_and_no_test_person_is_among_them(folder, tmp_path):
    made("mr-denoise", folder).save_arrays(tmp_path / "mr.npz")
    from_file = made("mr-superres", tmp_path / "mr.npz").arrays
    unpacked = scans.unpack(from_file)
    assert [scan.part for scan in unpacked] == ["training", "validation", "training"]
    for scan in unpacked:
        read = scans.read(folder / scan.source, folder)
        assert np.array_equal(scan.data, read.data)
        assert scan.spacing == pytest.approx(read.spacing)
        whole = np.asarray(io.read(folder / scan.source).data)[0]
        assert np.percentile(whole, 99.9) == pytest.approx(scan.scale, rel=1e-4)
        assert scan.data.max() * scan.scale / scans.FULL == pytest.approx(whole.max(), rel=0.01)
    assert [scan.isotropic for scan in unpacked] == [False, False, True]


def test_a_folder_without_scans_is_told(tmp_path):
    with pytest.raises(InputError, match="native_mr"):
        made("mr-denoise", tmp_path).arrays  # noqa: B018


@pytest.mark.parametrize("name", ["mr-denoise", "mr-superres"])
def test_a_batch_depends_on_its_step_alone(name, folder, small):
    first, other = made(name, folder), made(name, folder)
    other.batch(5, CPU)
    x, y = first.batch(6, CPU)
    x2, y2 = other.batch(6, CPU)
    assert torch.equal(x, x2)
    assert torch.equal(y, y2)
    assert not torch.equal(x, first.batch(7, CPU)[0])
    assert x[:, :1].shape == y.shape
    assert x.shape[1] == made(name, folder).arguments["in_channels"]
    assert x.dtype == torch.float32


@pytest.mark.parametrize("name", ["mr-denoise", "mr-superres"])
def test_ten_steps_on_the_cpu_fit_and_validate(name, folder, small, tmp_path, monkeypatch):
    one = made(name, folder, warm_up=1, validate_every=10, learning_rate=2e-3)
    monkeypatch.setattr(one, "arguments", {**one.arguments, "features": [8, 8, 8]})
    batch = one.batch(0, CPU)
    monkeypatch.setattr(one, "batch", lambda step, device: batch)  # ten times the same, which ten steps can learn
    assert one.on_device
    run = fit(one, tmp_path, device="cpu", steps=10)
    assert run.step == 10
    assert np.isfinite(history(tmp_path)[-1]["score"])
    with torch.inference_mode():
        assert one.loss(run.network.eval()(batch[0]), batch[1]) < one.loss(batch[0][:, :1], batch[1])


@pytest.mark.parametrize("name", ["mr-denoise", "mr-superres"])
@pytest.mark.parametrize("variant", ["axis", "conv", "segresnet"])
def test_variants_keep_the_size_and_compare_in_size(name, variant, folder):
    ships, other = made(name, folder).network(), recipe(name, folder, variant).network()
    counts = [sum(p.numel() for p in network.parameters()) for network in (ships, other)]
    assert counts[1] == pytest.approx(counts[0], rel=0.08)
    with torch.inference_mode():
        assert other(torch.zeros(1, 1 + (name == "mr-superres"), 8, 8, 8)).shape == (1, 1, 8, 8, 8)


def test_noise_has_the_mean_and_spread_that_theory_gives():
    draw = torch.Generator().manual_seed(1)
    clean = torch.zeros(2, 1, 40, 40, 40)
    clean[..., 20:] = 1.0
    noisy = add_noise(clean, torch.tensor(0.1), torch.tensor([True, False]), draw)
    rician, gaussian = noisy[:, 0]
    assert float(rician.min()) >= 0
    assert float(rician[..., :20].mean()) == pytest.approx(0.1 * np.sqrt(np.pi / 2), rel=0.02)
    assert float(rician[..., 20:].square().mean()) == pytest.approx(1 + 2 * 0.01, rel=0.01)
    assert float(gaussian[..., :20].mean()) == pytest.approx(0, abs=0.002)
    assert float(gaussian.sub(clean[1, 0]).std()) == pytest.approx(0.1, rel=0.02)


def test_some_pieces_are_cut_as_by_skull_stripping_and_nothing_is_left_beyond():
    """Bright tissue all over has no air: what is zero was cut away, in the truth as well."""
    noisy, truth = denoise.degrade(torch.full((96, 1, 28, 28, 28), 0.8), torch.Generator().manual_seed(3))
    gone = truth == 0
    assert (noisy[gone] == 0).all()
    assert (truth[~gone] > 0.3).all()
    share = gone.float().mean((1, 2, 3, 4))
    assert 12 < int((share > 0).sum()) < 36  # a quarter
    assert 0.15 < float(share[share > 0].mean()) < 0.7
    region = gone[share.argmax(), 0].float()
    assert float((region[1:] - region[:-1]).abs().mean()) < 0.1  # in one piece


def test_masked_air_is_dark_and_the_rest_keeps_its_noise(monkeypatch):
    monkeypatch.setattr(denoise, "STRIPPED", 0.0)
    monkeypatch.setattr(denoise, "CORRELATED", 0.0)  # an edge between air and tissue would ring
    draw = torch.Generator().manual_seed(3)
    clean = torch.full((64, 1, 12, 12, 12), 0.02)
    clean[..., 6:] = 0.8
    noisy, truth = denoise.degrade(clean, draw)
    dark = (truth[..., :3] == 0).flatten(1).all(1)
    bare = (noisy[..., :3] == 0).flatten(1).all(1)
    assert 5 < int(dark.sum()) < 30  # a quarter
    assert 0 < int(bare.sum()) < int(dark.sum())
    assert not bare[~dark].any()
    assert float(truth[..., 6:].min()) > 0.3


def test_a_shrunk_piece_has_half_the_noise(folder, small, monkeypatch):
    monkeypatch.setattr(denoise, "SIZE", (4, 8, 8))
    whole = scans.Scan(
        np.random.RandomState(0).randint(0, 129, (12, 40, 40)).astype(np.uint8),
        (4.0, 1, 1),
        1.0,
        "a",
        "T1",
        "training",
        "",
    )
    pieces, spread = PatchSampler([whole], CPU), {}
    for share in (0.0, 1.0):
        monkeypatch.setattr(denoise, "SHRUNK", share)
        cut = [denoise.piece(pieces, np.random.RandomState(i)) for i in range(20)]
        assert {piece.shape for piece in cut} == {(4, 8, 8)}
        spread[share] = float(torch.stack(cut).std())
    assert spread[1.0] == pytest.approx(spread[0.0] / 2, rel=0.1)


def test_some_of_the_fine_pieces_get_noise():
    fine = torch.zeros(200, 1, 6, 6, 6)
    spread = superres.add_slice_noise(fine, torch.Generator().manual_seed(0)).flatten(1).std(dim=1)
    assert 20 < int((spread > 0).sum()) < 60
    assert float(spread.max()) == pytest.approx(superres.MOST, rel=0.2)


def test_uneven_noise_stays_within_its_bounds():
    factors = spatial_noise_map((3, 1, 9, 12, 7), torch.Generator().manual_seed(0), CPU)
    assert factors.shape == (3, 1, 9, 12, 7)
    assert 0.5 <= float(factors.min()) < float(factors.max()) <= 1.5


def gaussian_slices(fine, step, phase=0.0):
    """Places of slices as wide as they are apart, and their values."""
    places = np.arange(phase, len(fine) - 1, step)
    distance = np.arange(len(fine)) - places[:, None]
    weights = np.exp(-0.5 * (distance * 2.3548 / step) ** 2)
    return places, (weights / weights.sum(1, keepdims=True)) @ fine


def image_line(length=240):
    """Values whose spectrum falls as that of images."""
    return np.cumsum(np.random.RandomState(0).standard_normal(length)) / 10


@pytest.mark.parametrize("step", [2.0, 3.3])
def test_thick_slices_are_nearer_to_the_truth_than_their_spline(step):
    fine, one = image_line(), torch.ones(1)
    places, slices = gaussian_slices(fine, step, 0.4 * step)
    spline = ndimage.map_coordinates(slices, [(np.arange(240) - places[0]) / step], order=3, mode="nearest")
    maps = thick_slices(240, step * one, step * one, torch.tensor([NAMES.index("gaussian")]), 0.4 * step * one)
    found = along(torch.from_numpy(fine).float().view(1, 1, 240, 1, 1), maps)[0, 0, :, 0, 0].numpy()
    inner = slice(20, -20)
    errors = [np.mean((values - fine)[inner] ** 2) for values in (found, spline)]
    assert errors[0] < 0.9 * errors[1]
    again = gaussian_slices(found, step, 0.4 * step)[1]
    assert again[10:-10] == pytest.approx(slices[10:-10], abs=0.02)  # cut into slices again, they are the same


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_validation_takes_slices_as_the_bundle_does(factor):
    """The maps of the validation are the spline of SciPy, and what the preparation step makes of the slices."""
    fine = image_line()
    _, slices = gaussian_slices(fine, factor, (factor - 1) / 2)
    by_spline, ours = (m[0].numpy() @ fine for m in superres.whole_factor(240, factor))
    scipys = ndimage.zoom(slices, factor, order=3, mode="nearest", grid_mode=True)
    assert by_spline == pytest.approx(scipys, abs=1e-3)
    volume = Volume(np.repeat(slices, 4)[None].reshape(1, -1, 2, 2).astype(np.float32), np.diag([factor, 1.0, 1, 1]))
    steps = [{"step": "refine", "profile": "gaussian"}, {"step": "append_upsampling_channel"}]
    prepared = prepare(volume, steps).data
    assert prepared[0, :, 0, 0][:-12] == pytest.approx(ours[:-12], abs=3e-3)  # training repeats the last slice
    assert prepared[1] == pytest.approx(np.log2(factor) / 2)


def test_the_batch_tells_the_distance_of_its_slices():
    step, maps = superres.random_maps(60, 50, torch.Generator().manual_seed(0))
    assert 1.5 <= float(step.min()) < 2
    assert 6 < float(step.max()) <= 8
    assert maps.sum(dim=2).numpy() == pytest.approx(1, abs=1e-4)
    # The wider apart the slices, the more of a wave that is 5 voxels long is lost.
    wave = torch.sin(torch.arange(60.0) * 2 * torch.pi / 5)
    left = (maps @ wave)[:, 15:45].square().mean(1)
    assert float(left[step < 2].min()) > 0.3
    assert float(left[step > 5].max()) < 0.1


def test_a_batch_has_a_distance_out_of_each_part_of_the_range():
    step, _ = superres.random_maps(40, 8, torch.Generator().manual_seed(3))
    share = torch.log(step / 1.5) / np.log(8 / 1.5)
    assert sorted((8 * share).long().tolist()) == list(range(8))
    assert (8 * share).long().tolist() != list(range(8))  # no place in the batch has a part of its own


def test_pieces_without_much_error_do_not_drown_the_others(folder):
    """A fifth of the scanner's noise matters to `mr-denoise` alone."""
    target = torch.zeros(1, 1, 4, 4, 4)
    pulls = {}
    for name in ("mr-denoise", "mr-superres"):
        for error in (0.003, 0.1):
            output = torch.full_like(target, error, requires_grad=True)
            made(name, folder).loss(output, target).backward()
            pulls[name, error] = float(output.grad.sum())
    assert pulls["mr-denoise", 0.003] > 10 * pulls["mr-denoise", 0.1]
    assert pulls["mr-superres", 0.003] < 4 * pulls["mr-superres", 0.1]


def test_profiles_have_their_width_and_their_place():
    """By their definition: a box is the mean over its width, a Gaussian has half its height there."""
    distance = torch.arange(60, dtype=torch.float64).repeat(len(NAMES), 1, 1) - 29.5
    weights = profile_weights(distance, torch.full((len(NAMES),), 8.0), torch.arange(len(NAMES)))[:, 0]
    found = dict(zip(NAMES, weights, strict=True))
    assert weights.sum(1).numpy() == pytest.approx(1)
    assert (weights - weights.flip(1)).abs().max() < 1e-6
    assert found["box"][26:34].numpy() == pytest.approx(1 / 8)
    gaussian = np.exp(-4 * np.log(2) * (distance[0, 0].numpy() / 8) ** 2)
    assert found["gaussian"].numpy() == pytest.approx(gaussian / gaussian.sum(), abs=1e-4)
    assert found["sinc"].numpy()[10:50] == pytest.approx((np.sinc(distance[0, 0].numpy() / 8) / 8)[10:50], abs=9e-3)
    for name in NAMES[-3:]:  # what a pulse excites: most of it within the slice, some ripple beyond
        assert 0.85 < float(found[name][26:34].sum()) < 0.99


def test_slices_side_by_side_of_a_box_are_the_means_that_numpy_makes():
    fine = image_line()
    by_spline, _ = superres.whole_factor(240, 4, "box")
    scipys = ndimage.zoom(fine.reshape(-1, 4).mean(1), 4, order=3, mode="nearest", grid_mode=True)
    assert by_spline[0].numpy() @ fine == pytest.approx(scipys, abs=1e-3)


def test_a_second_axis_is_coarser_in_some_samples_and_never_more_than_the_slices():
    distance = torch.full((400,), 1.5)
    maps = superres.second_maps(24, distance, torch.Generator().manual_seed(0))
    untouched = (maps == torch.eye(24)).flatten(1).all(1)
    assert 60 < int((~untouched).sum()) < 140
    assert maps.sum(2).numpy() == pytest.approx(1, abs=1e-4)


def test_blurred_is_scipys_filter_and_what_is_not_blurred_stays():
    volumes = torch.rand(2, 1, 14, 15, 16)
    found = blurred(volumes, torch.tensor([1.1, 0.0]))
    assert torch.allclose(found[1], volumes[1], atol=1e-6)
    inside = (slice(6, -6),) * 3
    expected = ndimage.gaussian_filter(volumes[0, 0].numpy(), 1.1, truncate=6)[inside]
    assert found[0, 0].numpy()[inside] == pytest.approx(expected, abs=1e-3)


def test_what_is_applied_along_another_axis_is_turned_alike():
    volumes, maps = torch.rand(2, 1, 4, 5, 6), torch.rand(2, 5, 5)
    expected = np.stack([np.einsum("ij,zjx->zix", m, v[0]) for m, v in zip(maps.numpy(), volumes.numpy(), strict=True)])
    assert along(volumes, maps, 1)[:, 0].numpy() == pytest.approx(expected, abs=1e-5)
