"""Bundles that answer on a finer grid: where its voxels lie, what the user may ask for, what is refused."""

import numpy as np
import pytest
import torch
from engine_fakes import Apply, fake_bundle
from scipy import ndimage

from napari_mamba.bundles import Tile
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.preparation.prepare import prepare
from napari_mamba.engine.preparation.steps import known_profile, preparation_steps
from napari_mamba.errors import BundleError, InputError
from napari_mamba.io.common.source import Source, attached
from napari_mamba.volume import Volume

STEP = {"step": "refine"}
OBLIQUE = np.array([[0.3, 0.1, 0.95, -20], [-0.1, 0.99, 0.05, 7], [0.94, 0.1, -0.3, 3], [0, 0, 0, 1.0]])
OBLIQUE[:3, :3] /= np.linalg.norm(OBLIQUE[:3, :3], axis=0)


def slices(shape=(10, 24, 20), spacing=(3.0, 1.0, 0.75), axes=(0, 1, 2)):
    """A volume whose value is a smooth function of the place in the world, so that any grid can be checked."""
    affine = OBLIQUE @ np.diag([*spacing, 1.0])
    affine = affine[:, [*axes, 3]]
    shape = tuple(shape[axis] for axis in axes)
    return Volume(values_at(affine, shape)[None].astype(np.float32), affine)


def values_at(affine, shape):
    index = np.stack([*np.indices(shape), np.ones(shape)])
    r, a, s = np.tensordot(affine, index, axes=1)[:3]
    return 100 + 40 * np.sin(r / 7) + 30 * np.cos(a / 6) * np.sin(s / 8)


def same(**changes):
    return fake_bundle(Apply(lambda x: x.clone()), task="restoration", **({"preparation": (STEP,)} | changes))


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_restored_voxels_lie_where_the_affine_says(axes):
    volume = slices(axes=axes)
    image = run_to_end(volume, same(), RunOptions(clip=False)).image
    assert image.spacing == pytest.approx([0.75] * 3, abs=1e-9)
    truth = values_at(image.affine, image.shape)
    inner = tuple(slice(6, -6) for _ in range(3))
    assert np.asarray(image.data)[0][inner] == pytest.approx(truth[inner], abs=0.5)
    assert image.units == volume.units


def test_the_finer_grid_is_centred_on_the_box():
    volume = slices()
    image = run_to_end(volume, same(), RunOptions(spacing=0.7)).image
    middles = [v.affine @ [*((n - 1) / 2 for n in v.shape), 1] for v in (volume, image)]
    assert middles[0] == pytest.approx(middles[1], abs=1e-9)
    assert image.spacing == pytest.approx([0.7] * 3)
    assert image.shape == (round(30 / 0.7), round(24 / 0.7), round(15 / 0.7))


def test_slices_that_are_means_are_sharpened_on_the_finer_grid():
    """Of blobs averaged over slices of 4 mm, the estimate for that profile is nearer to the truth than the spline."""
    fine = ndimage.gaussian_filter(np.random.RandomState(0).rand(48, 12, 12), 1.5)
    centres = np.arange(12) * 4 + 1.5
    weights = np.exp(-0.5 * ((np.arange(48) - centres[:, None]) * 2.3548 / 4) ** 2)
    thick = Volume(np.tensordot(weights / weights.sum(1, keepdims=True), fine, 1)[None], np.diag([4.0, 1, 1, 1]))
    errors = {
        profile: np.abs(prepare(thick, [{**STEP, "profile": profile}]).data[0] - fine).mean()
        for profile in ("point", "gaussian")
    }
    assert errors["gaussian"] < 0.9 * errors["point"]
    with pytest.raises(BundleError, match="'boxy'"):
        prepare(thick, [{**STEP, "profile": "boxy"}])


def test_the_network_may_be_told_how_much_finer_the_image_is():
    prepared = prepare(slices(), [STEP, {"step": "append_upsampling_channel"}])
    assert prepared.data.shape[0] == 2
    assert prepared.data[1] == pytest.approx(0.5 * np.log2(3.0 / 0.75))
    assert prepared.restore_image(prepared.data).shape == prepared.restore_image(prepared.data[:1]).shape


def test_three_sizes_keep_the_axis_that_is_none():
    prepared = prepare(slices(), [{"step": "refine", "spacing": [1.5, None, None]}])
    assert prepared.spacing == pytest.approx((1.5, 1.0, 0.75))
    assert prepared.data.shape == (1, 20, 24, 20)


def test_the_network_sees_the_restored_axis_first():
    network = Apply(lambda x: x.clone())
    volume = slices((24, 20, 10), (1.0, 1.0, 3.0))
    bundle = fake_bundle(network, task="restoration", preparation=(STEP,), tile=Tile((8, 4, 4), divisor=(4, 4, 4)))
    image = run_to_end(volume, bundle).image
    assert network.shapes[0][2:] == (8, 4, 4)
    assert image.shape == (24, 20, 30)
    assert prepare(volume, [STEP]).data.shape == (1, 30, 24, 20)


def test_a_coarser_axis_is_averaged_first():
    stripes = np.zeros((6, 32, 32), np.float32)
    stripes[:, ::2] = 1
    prepared = prepare(Volume(stripes[None], np.diag([3.0, 0.5, 0.5, 1])), [{"step": "refine", "spacing": 1.0}])
    inner = prepared.data[0, 3:-3, 3:-3, 3:-3]
    assert inner == pytest.approx(np.full(inner.shape, 0.5), abs=0.05)


def test_interpolation_is_scipys_spline():
    volume = Volume(np.random.RandomState(0).rand(1, 9, 4, 5).astype(np.float32), np.diag([2.0, 1, 1, 1]))
    prepared = prepare(volume, [STEP])
    places = (np.arange(18) + 0.5) / 2 - 0.5
    expected = ndimage.map_coordinates(volume.data[0, :, 2, 3], [places], order=3, mode="nearest")
    assert prepared.data[0, :, 2, 3] == pytest.approx(expected, abs=1e-5)


def test_the_residual_lies_on_the_finer_grid_too():
    bundle = fake_bundle(Apply(lambda x: x - 1), task="restoration", preparation=(STEP,))
    result = run_to_end(slices(), bundle, RunOptions(residual=True, clip=False))
    residual = result.extra["residual"]
    assert residual.shape == result.image.shape
    assert np.array_equal(residual.affine, result.image.affine)
    assert np.asarray(residual.data) == pytest.approx(np.ones(residual.data.shape), abs=1e-3)


def test_clipping_keeps_to_the_range_of_the_input():
    volume = slices()
    bundle = fake_bundle(Apply(lambda x: x + 1000), task="restoration", preparation=(STEP,))
    assert np.asarray(run_to_end(volume, bundle).image.data).max() == volume.data.max()


def test_labels_of_a_refined_image_go_back_to_the_inputs_grid():
    volume = slices()
    prepared = prepare(volume, [STEP])
    high = prepared.restore_map((prepared.data[0] > 100).astype(np.uint8))
    assert high.shape == volume.shape
    assert np.mean(high == (volume.data[0] > 100)) > 0.97


def test_without_a_voxel_size_it_is_refused():
    with pytest.raises(InputError, match="how thick"):
        run_to_end(Volume(slices().data, units="pixel"), same())


@pytest.mark.parametrize("spacing", [0.0, -1.0, float("nan"), (1.0, 1.0)])
def test_impossible_voxel_sizes_are_refused(spacing):
    with pytest.raises(InputError, match="positive"):
        RunOptions(spacing=spacing)


def test_a_grid_beyond_memory_is_refused():
    with pytest.raises(InputError, match="voxels"):
        run_to_end(slices(), same(), RunOptions(spacing=0.001))


def test_other_bundles_refuse_a_voxel_size():
    with pytest.raises(InputError, match="own grid"):
        run_to_end(slices(), same(preparation=()), RunOptions(spacing=1.0))


def test_a_step_before_it_is_refused():
    with pytest.raises(BundleError, match="first"):
        prepare(slices(), [{"step": "orient", "axcodes": "RAS"}, STEP])


def test_doubts_about_too_much_and_too_little():
    far = prepare(slices(spacing=(9.0, 1.0, 1.0)), [STEP])
    assert "9.0 times" in far.warnings[0]
    near = prepare(slices(spacing=(1.1, 1.0, 1.0)), [STEP])
    assert "hardly thicker" in near.warnings[0]
    assert not prepare(slices(), [STEP]).warnings


def test_the_uncertainty_of_a_restoration_is_its_spread_over_mirrors():
    ramp = torch.arange(16.0).view(1, 1, 1, 1, 16)
    bundle = fake_bundle(
        Apply(lambda x: x + ramp), task="restoration", tile=Tile((16, 16, 16), mirror_axes=(2,), divisor=(4, 4, 4))
    )
    volume = Volume(np.random.RandomState(0).rand(1, 16, 16, 16).astype(np.float32) * 50)
    result = run_to_end(volume, bundle, RunOptions(uncertainty=True, clip=False))
    found = np.asarray(result.extra["uncertainty"].data)[0, 0, 0]
    assert found == pytest.approx(np.abs(np.arange(16) - 7.5), abs=1e-3)
    assert np.asarray(result.image.data) == pytest.approx(volume.data + 7.5, abs=1e-3)


def test_uncertainty_without_mirrors_is_refused():
    tile = Tile((16, 16, 16), mirror_axes=(0,), divisor=(4, 4, 4))
    with pytest.raises(InputError, match="mirrored copies"):
        run_to_end(slices(), same(tile=tile), RunOptions(uncertainty=True, mirror=False))


def test_a_restoration_is_mirrored_only_on_request():
    network = Apply(lambda x: x.clone())
    bundle = fake_bundle(network, task="restoration", tile=Tile((16, 16, 16), mirror_axes=(0, 1), divisor=(4, 4, 4)))
    volume = Volume(np.random.RandomState(0).rand(1, 16, 16, 16).astype(np.float32))
    run_to_end(volume, bundle)
    assert len(network.shapes) == 1
    run_to_end(volume, bundle, RunOptions(mirror=True))
    assert len(network.shapes) == 5


SHAPES = {
    "gaussian": lambda place: np.exp(-0.5 * (2.3548 * place) ** 2),
    "box": lambda place: np.abs(place) < 0.5,
    "sinc": lambda place: np.where(np.abs(place) < 3, np.sinc(place), 0),
}


def cut(image, axis, factor, profile="gaussian"):
    """Slices of a profile as wide as they are apart, side by side from the first voxel on."""
    count = image.shape[axis] // factor
    centres = (np.arange(count) + 0.5) * factor - 0.5
    weights = SHAPES[profile]((np.arange(image.shape[axis]) - centres[:, None]) / factor)
    return np.moveaxis(np.tensordot(image, weights / weights.sum(1, keepdims=True), axes=(axis, 1)), -1, axis)


@pytest.mark.parametrize(("axis", "factor"), [(0, 3), (2, 2)])
def test_slices_are_kept_whatever_the_network_answers(axis, factor):
    fine = ndimage.gaussian_filter(np.random.RandomState(0).rand(24, 24, 24), 1).astype(np.float32) * 90
    thick = cut(fine, axis, factor)
    sides = [float(factor) if a == axis else 1.0 for a in range(3)]
    volume = Volume(thick[None].astype(np.float32), np.diag([*sides, 1.0]))

    def error(**options):
        step = {**STEP, "profile": "gaussian", **options}
        bundle = fake_bundle(Apply(lambda x: 0.8 * x + 5), task="restoration", preparation=(step,))
        image = np.asarray(run_to_end(volume, bundle, RunOptions(clip=False)).image.data)[0]
        return np.abs(cut(image, axis, factor) - thick).mean()

    assert error() > 2
    assert error(data_consistency=True) < 0.05


@pytest.mark.parametrize("profile", SHAPES)
def test_slices_of_a_profile_that_is_told_are_kept_and_of_another_are_not(profile):
    fine = ndimage.gaussian_filter(np.random.RandomState(0).rand(24, 24, 24), 1).astype(np.float32) * 90
    thick = cut(fine, 0, 2, profile).astype(np.float32)
    bundle = same(preparation=({**STEP, "profile": "gaussian"},))

    def error(told):
        options = RunOptions(clip=False, slice_profile=told)
        image = np.asarray(run_to_end(Volume(thick[None], np.diag([2.0, 1, 1, 1])), bundle, options).image.data)[0]
        return np.abs(cut(image, 0, 2, profile) - thick).mean()

    errors = {told: error(told) for told in SHAPES}
    assert errors[profile] < 0.02
    assert all(errors[other] > 5 * errors[profile] for other in SHAPES if other != profile)


@pytest.mark.parametrize(
    ("acquisition", "thick", "asked", "told"),
    [
        ("3D", 2.0, None, "sinc"),
        ("2D", 2.0, None, None),
        ("", 2.0, None, None),
        ("3D", 4.0, None, None),  # interpolated between its slices
        ("3D", 2.0, "box", "box"),
        ("3D", 2.0, "unknown", "unknown"),
    ],
)
def test_slices_are_known_to_be_sampled_in_k_space_where_the_header_says_3d(acquisition, thick, asked, told):
    volume = Volume(np.zeros((1, 4, 8, 8), np.float32), np.diag([2.0, 1, 1, 1]))
    volume = attached(volume, Source(acquisition=acquisition, slice_thickness=thick))
    assert known_profile(volume, same(), asked) == told
    assert known_profile(volume, same(preparation=()), None) is None
    step = preparation_steps(same(), None, told)[0]
    assert step.get("data_consistency") == (told if told in SHAPES else None)


def test_a_profile_that_cannot_be_used_is_told():
    volume = Volume(np.random.RandomState(0).rand(1, 6, 12, 12).astype(np.float32), np.diag([2.0, 1, 1, 1]))
    bundle = same(preparation=({**STEP, "profile": "gaussian"},))
    result = run_to_end(volume, bundle, RunOptions(slice_profile="sinc", spacing=(1.0, 0.9, 0.9)))
    assert any("slices' profile was not used" in warning for warning in result.warnings)
    with pytest.raises(InputError, match="leave the slices' profile away"):
        run_to_end(volume, fake_bundle(Apply(lambda x: x), task="restoration"), RunOptions(slice_profile="sinc"))
    with pytest.raises(InputError, match="one of gaussian, box, sinc, unknown, not 'lanczos'"):
        RunOptions(slice_profile="lanczos")
    with pytest.raises(BundleError, match="one of the profiles gaussian, box, sinc, not 'lanczos'"):
        prepare(volume, [{**STEP, "data_consistency": "lanczos"}])


def test_slices_are_left_where_another_axis_is_interpolated():
    step = {**STEP, "profile": "gaussian", "data_consistency": True, "spacing": [1.0, 1.5, 1.5]}
    prepared = prepare(slices(), [step])
    image = prepared.restore_image(prepared.data)
    assert prepared.data_consistency(image) is image
