"""Each preparation step alone, and its inverse, against nibabel, SciPy and arithmetic by hand."""

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from napari_mamba.engine.preparation.axes import orient, transpose
from napari_mamba.engine.preparation.cropping import crop_nonzero
from napari_mamba.engine.preparation.grids.regridding import resize, respace
from napari_mamba.engine.preparation.grids.spacing import resample
from napari_mamba.engine.preparation.normalising import normalise
from napari_mamba.engine.preparation.state import State
from napari_mamba.errors import BundleError, InputError

RANDOM = np.random.default_rng(3)


def state(shape=(2, 5, 6, 7), affine=None):
    affine = np.diag([3.0, 2.0, 1.0]) if affine is None else affine
    return State(RANDOM.normal(size=shape).astype(np.float32), affine)


def affine_at(seed):
    """Columns for (z, y, x): a random rotation of a random signed permutation, with random spacing."""
    random = np.random.default_rng(seed)
    axes = np.eye(3)[random.permutation(3)] * random.choice([-1, 1], 3)
    tilt = Rotation.from_rotvec(random.normal(size=3) * 0.35).as_matrix()
    return tilt @ axes * random.uniform(0.4, 6, 3)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "PIR"])
def test_orient_is_nibabels(seed, axcodes):
    before = state((1, 4, 5, 6), affine_at(seed))
    after, undo = orient(before, axcodes)

    homogeneous = np.eye(4)
    homogeneous[:3, :3] = before.affine[:, ::-1]
    xyz = before.data[0].transpose(2, 1, 0)
    steps = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(homogeneous), nib.orientations.axcodes2ornt(axcodes)
    )
    expected = nib.orientations.apply_orientation(xyz, steps).transpose(2, 1, 0)
    np.testing.assert_array_equal(after.data[0], expected)
    moved = homogeneous @ nib.orientations.inv_ornt_aff(steps, xyz.shape)
    np.testing.assert_allclose(after.affine[:, ::-1], moved[:3, :3])
    np.testing.assert_array_equal(undo.values(after.data), before.data)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2), (2, 1, 0)])
def test_transpose_and_back(axes):
    before = state()
    after, undo = transpose(before, axes)
    assert after.spacing == tuple(before.spacing[a] for a in axes)
    np.testing.assert_array_equal(after.data, before.data.transpose(0, *(a + 1 for a in axes)))
    np.testing.assert_array_equal(undo.values(after.data), before.data)


def test_crop_takes_the_union_of_channels_and_fills_outside():
    data = np.zeros((2, 6, 7, 8), np.float32)
    data[0, 2, 3, 4] = 1
    data[1, 3, 5, 1] = -1
    after, undo = crop_nonzero(State(data, np.eye(3)))
    np.testing.assert_array_equal(after.data, data[:, 2:4, 3:6, 1:5])
    np.testing.assert_array_equal(undo.values(after.data), data)
    back = undo.values(np.full((2, 2, 3, 4), 5, np.float32), fill=[1, 0])
    assert back[0, 0, 0, 0] == 1
    assert back[1, 0, 0, 0] == 0
    assert (back == 5).sum() == 2 * 24


def test_crop_leaves_an_empty_image_whole():
    after, _ = crop_nonzero(State(np.zeros((1, 2, 3, 4), np.float32), np.eye(3)))
    assert after.data.shape == (1, 2, 3, 4)


def test_zscore_and_ct_by_hand():
    before = state((2, 4, 5, 6))
    ct = {"scheme": "ct", "lower": -0.5, "upper": 0.8, "mean": 0.1, "std": 0.4}
    after, undo = normalise(before, ["zscore", ct])
    first, second = before.data.astype(float)
    np.testing.assert_allclose(after.data[0], (first - first.mean()) / first.std(), atol=1e-5)
    np.testing.assert_allclose(after.data[1], (np.clip(second, -0.5, 0.8) - 0.1) / 0.4, atol=1e-5)
    np.testing.assert_allclose(undo.image(after.data)[0], first, atol=1e-5)
    np.testing.assert_allclose(undo.image(after.data)[1], np.clip(second, -0.5, 0.8), atol=1e-5)
    np.testing.assert_array_equal(undo.values(after.data), after.data)


def test_zscore_inside_the_mask_counts_holes_and_leaves_the_outside():
    data = np.zeros((1, 9, 9, 9), np.float32)
    data[0, 2:7, 2:7, 2:7] = RANDOM.normal(100, 10, (5, 5, 5))
    data[0, 4, 4, 4] = 0  # a hole, surrounded
    after, undo = normalise(State(data, np.eye(3)), [{"scheme": "zscore", "use_mask": True}])
    inside = data[0, 2:7, 2:7, 2:7].astype(float)
    np.testing.assert_allclose(after.data[0, 2:7, 2:7, 2:7], (inside - inside.mean()) / inside.std(), atol=1e-4)
    assert (after.data[0, 0] == 0).all()
    np.testing.assert_allclose(undo.image(after.data), data, atol=1e-3)


def test_ranges():
    before = state((1, 4, 5, 6))
    after, undo = normalise(before, ["rescale_0_1"])
    assert after.data.min() == 0
    assert after.data.max() == pytest.approx(1)
    np.testing.assert_allclose(undo.image(after.data), before.data, atol=1e-5)
    with pytest.raises(InputError, match="8-bit"):
        normalise(before, ["rgb_0_1"])


def test_a_constant_channel_becomes_zero():
    after, _ = normalise(State(np.full((1, 2, 2, 2), 7, np.float32), np.eye(3)), ["zscore"])
    assert (after.data == 0).all()


def test_resample_keeps_the_box_and_returns_smooth_images():
    z, y, x = np.meshgrid(*(np.linspace(0, 3, n) for n in (12, 30, 30)), indexing="ij")
    smooth = np.sin(z) + np.cos(y) * x
    before = State(smooth[None].astype(np.float32), np.diag([2.0, 0.8, 0.8]))
    after, undo = resample(before, [1, 1, None])
    assert after.data.shape == (1, 24, 24, 30)
    np.testing.assert_allclose(np.array(after.spacing) * after.data.shape[1:], [24, 24, 24])
    np.testing.assert_allclose(undo.image(after.data), before.data, atol=0.03)
    assert undo.values(after.data).shape == before.data.shape


def test_on_the_way_back_the_files_order_of_axes_decides():
    before = State(np.zeros((1, 4, 10, 10), np.float32), np.diag([5.0, 1.0, 1.0]))
    _, plain = resample(before, [1, 1, 1], anisotropy="nnunet")
    _, nnunet = resample(before, [1, 1, 1], anisotropy="nnunet", file_axes=(1, 2, 0))
    assert (plain.apart, nnunet.apart) == (0, 2)


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (orient, {"axcodes": "RAX"}),
        (orient, {"axcodes": "RLS"}),
        (transpose, {"axes": [0, 1, 1]}),
        (normalise, {"schemes": ["zscore"] * 3}),
        (normalise, {"schemes": ["surprise"]}),
        (normalise, {"schemes": [{"scheme": "ct", "lower": 0}]}),
        (resample, {"spacing": [1, 1]}),
        (resample, {"spacing": [1, 1, 0]}),
        (resample, {"spacing": [1, 1, 1], "order": 9}),
    ],
)
def test_wrong_options_are_refused(step, options):
    with pytest.raises(BundleError):
        step(state(), **options)


def test_a_wrong_voxel_size_does_not_fill_the_memory():
    with pytest.raises(InputError, match="voxel size"):
        resample(State(np.zeros((1, 100, 100, 100), np.float32), np.eye(3) * 50), [0.5, 0.5, 0.5])


@pytest.mark.parametrize("size", [(7, 9), (40, 33), (20, 60)])
def test_resize_is_pillows_antialiased_one(size):
    image = np.random.default_rng(0).random((2, 1, 20, 31)).astype(np.float32)
    state, undo = resize(State(image, np.eye(3)), [None, *size])
    truth = torch.nn.functional.interpolate(torch.from_numpy(image[:, 0])[None], size, mode="bilinear", antialias=True)
    np.testing.assert_allclose(state.data[:, 0], truth[0], atol=1e-5)
    assert undo.values(state.data).shape == image.shape
    np.testing.assert_allclose(state.spacing, (1, 20 / size[0], 31 / size[1]), rtol=1e-5)
    plain, _ = resize(State(image, np.eye(3)), [None, *size], antialias=False)
    truth = torch.nn.functional.interpolate(torch.from_numpy(image[:, 0])[None], size, mode="bilinear")
    np.testing.assert_allclose(plain.data[:, 0], truth[0], atol=1e-5)


def test_a_kept_mask_survives_resampling():
    image = np.zeros((1, 12, 12, 12), np.float32)
    image[0, 3:9, 3:9, 3:9] = 5 + np.random.default_rng(0).random((6, 6, 6))
    image[0, 3, 3, :] = 0  # a part of the box that is empty
    cropped, _ = crop_nonzero(State(image, np.diag([2.0, 1, 1])), keep_mask=True)
    fine, _ = resample(cropped, [1.0, 1.0, 1.0])
    assert fine.mask.shape == fine.data.shape[1:] == (12, 6, 6)
    assert (fine.data[0][~fine.mask] != 0).any()  # splines ring
    data = normalise(fine, [{"scheme": "zscore", "use_mask": True}])[0].data[0]
    assert not data[~fine.mask].any()
    np.testing.assert_allclose((data[fine.mask].mean(), data[fine.mask].std()), (0, 1), atol=1e-5)


def test_statistics_over_nonzero_voxels_and_over_all_channels():
    image = np.zeros((2, 4, 4, 4), np.float32)
    image[0, 1:], image[1, :2] = np.random.default_rng(0).random((3, 4, 4)) + 1, 9
    data = normalise(State(image, np.eye(3)), [{"scheme": "zscore", "nonzero": True}])[0].data
    np.testing.assert_allclose((data[0, 1:].mean(), data[0, 1:].std()), (0, 1), atol=1e-5)
    assert not data[0, 0].any()
    joint = normalise(State(image, np.eye(3)), [{"scheme": "rescale_0_1", "joint": True}])[0].data
    np.testing.assert_allclose(joint, image / 9, rtol=1e-6)


@pytest.mark.parametrize("spacing", [[1.5, 0.7, 2.0], [None, 1.0, 4.0], [0.3, 0.3, 0.3]])
def test_respace_keeps_the_first_voxel_and_comes_back(spacing):
    z, y, x = np.meshgrid(*(np.arange(n) * side for n, side in zip((9, 14, 11), (1, 1, 2), strict=True)), indexing="ij")
    plane = (2 * z - y + 0.5 * x)[None].astype(np.float32)  # of millimetres: linear interpolation is exact on it
    found, undo = respace(State(plane, np.diag([1.0, 1, 2])), spacing)
    sides = [new or old for new, old in zip(spacing, (1, 1, 2), strict=True)]
    np.testing.assert_allclose(found.spacing, sides, rtol=1e-6)
    z, y, x = np.meshgrid(
        *(np.arange(n) * side for n, side in zip(found.data.shape[1:], sides, strict=True)), indexing="ij"
    )
    inside = (z <= 8) & (y <= 13) & (x <= 20)
    np.testing.assert_allclose(found.data[0][inside], (2 * z - y + 0.5 * x)[inside], atol=1e-4)
    assert undo.values(found.data).shape == plane.shape
    np.testing.assert_allclose(undo.values(found.data)[0, :8, :12, :9], plane[0, :8, :12, :9], atol=1e-4)
    assert undo.nearest(np.ones(found.data.shape, np.uint8)).shape == plane.shape


@pytest.mark.parametrize(("top", "told"), [(1.0, True), (200.0, False)])
def test_values_from_0_to_1_are_said_to_be_dark_for_a_network_of_8_bits(top, told):
    data = np.linspace(0, top, 64, dtype=np.float32).reshape(1, 1, 8, 8)
    prepared, _ = normalise(State(data, np.eye(3)), ["rgb_0_1"])
    np.testing.assert_allclose(prepared.data, data / 255)
    assert any("nearly black" in warning for warning in prepared.warnings) is told
