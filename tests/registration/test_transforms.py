"""Transforms take a point to where SimpleITK takes it, whatever the grid."""

import numpy as np
import pytest
import SimpleITK as sitk

from napari_mamba.errors import InputError, OutputError
from napari_mamba.registration import transforms
from napari_mamba.registration.transforms import Transform
from napari_mamba.volume import Volume

FLIP = np.array([-1.0, -1.0, 1.0])
AFFINE = np.array([[1.1, 0.1, 0, 4], [-0.05, 0.95, 0.02, -3], [0, 0.04, 1.02, 2], [0, 0, 0, 1.0]])


@pytest.fixture
def transform(grid, smooth_mm):
    return Transform(AFFINE, smooth_mm, grid)


def points_in(grid, shape, count=200, beyond=0.0):
    index = np.random.default_rng(1).uniform(-beyond, np.array(shape) - 1 + beyond, (count, 3))
    return index @ grid[:3, :3].T + grid[:3, 3]


def itk_points(itk_transform, points):
    return np.array([itk_transform.TransformPoint((p * FLIP).tolist()) for p in points]) * FLIP


def test_points_go_where_simpleitk_takes_them(transform, grid, smooth_mm):
    points = points_in(grid, smooth_mm.shape[:3], beyond=2.0)  # some lie outside of the field
    expected = itk_points(transforms.to_simpleitk(transform), points)
    np.testing.assert_allclose(transform(points), expected, atol=1e-3)
    assert np.abs(transform(points) - points @ AFFINE[:3, :3].T - AFFINE[:3, 3]).max() > 1  # the field does something


@pytest.mark.parametrize("name", ["warp.h5", "warp.tfm"])
def test_files_are_read_back_by_simpleitk(transform, grid, smooth_mm, tmp_path, name):
    path = transforms.write(transform, tmp_path / name)
    points = points_in(grid, smooth_mm.shape[:3])
    np.testing.assert_allclose(itk_points(sitk.ReadTransform(str(path)), points), transform(points), atol=4e-3)


def test_h5_is_small_and_says_the_same(tmp_path):
    """A smooth warp of two million numbers: every point within a hundredth of a millimetre of where it was sent."""
    pytest.importorskip("h5py")
    axes = np.meshgrid(*[np.linspace(0, 3, n) for n in (80, 96, 90)], indexing="ij")
    field = np.stack([6 * np.sin(a + 2 * b) for a, b in zip(axes, axes[1:] + axes[:1], strict=True)], -1)
    big = Transform(
        AFFINE, field.astype(np.float32), np.array([[0, 0, 1.0, 5], [0, 1, 0, 6], [1, 0, 0, 7], [0, 0, 0, 1]])
    )
    path = transforms.write(big, tmp_path / "warp.h5")
    assert path.stat().st_size < field.astype(np.float64).nbytes / 5
    points = points_in(big.grid, field.shape[:3], count=500)
    away = itk_points(sitk.ReadTransform(str(path)), points) - itk_points(transforms.to_simpleitk(big), points)
    assert np.linalg.norm(away, axis=1).max() < 0.004


def test_h5_without_h5py_is_itk_s_own(transform, grid, smooth_mm, tmp_path, monkeypatch):
    monkeypatch.setattr(transforms, "find_spec", lambda name: None)
    path = transforms.write(transform, tmp_path / "warp.h5")
    points = points_in(grid, smooth_mm.shape[:3])
    np.testing.assert_allclose(itk_points(sitk.ReadTransform(str(path)), points), transform(points), atol=1e-3)


def test_displacement_file_holds_the_whole_transform(transform, grid, smooth_mm, tmp_path):
    shape = smooth_mm.shape[:3]
    path = transforms.write_displacement(transform, tmp_path / "field.nii.gz", grid, shape)
    image = sitk.ReadImage(str(path), sitk.sitkVectorFloat64)
    assert image.GetSize() == shape[::-1]
    read = sitk.DisplacementFieldTransform(image)
    voxels = transforms.world_points(grid, shape)[::37]
    np.testing.assert_allclose(itk_points(read, voxels), transform(voxels), atol=1e-3)


def test_displacement_file_is_nifti_with_lps_vectors(transform, grid, smooth_mm, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    shape = smooth_mm.shape[:3]
    path = transforms.write_displacement(transform, tmp_path / "field.nii", grid, shape)
    file = nibabel.load(path)
    assert file.header["intent_code"] == 1007  # NIFTI_INTENT_VECTOR
    stored = np.asarray(file.dataobj)[:, :, :, 0].transpose(2, 1, 0, 3) * FLIP
    np.testing.assert_allclose(stored, transforms.total_displacement(transform, grid, shape), atol=1e-4)


def test_resampling_shows_what_lies_where_points_go(transform, grid, smooth_mm):
    shape = smooth_mm.shape[:3]
    moving_grid = np.diag([1.0, 1.0, 1.5, 1.0])[:, [2, 1, 0, 3]]
    moving_grid[:3, 3] = transform(transforms.world_points(grid, shape)).mean(0) - [45, 45, 45]
    # A moving image whose value is a linear function of its place is interpolated without error.
    place = transforms.world_points(moving_grid, (60, 90, 90))
    values = (place @ [0.3, -0.7, 0.5]).reshape(1, 60, 90, 90)
    moved = transforms.resample(Volume(values, moving_grid), Volume(np.zeros((1, *shape)), grid), transform)
    expected = (transform(transforms.world_points(grid, shape)) @ [0.3, -0.7, 0.5]).reshape(shape)
    inside = np.asarray(moved.data)[0] != 0
    assert inside.mean() > 0.5
    np.testing.assert_allclose(np.asarray(moved.data)[0][inside], expected[inside], atol=2e-2)


def test_inverse_leads_back(transform, grid, smooth_mm):
    shape = smooth_mm.shape[:3]
    moving_grid = AFFINE @ grid
    back = transforms.inverse(transform, moving_grid, shape)
    inner = np.array(shape) - 5
    points = points_in(grid, inner) + grid[:3, :3] @ [2.0, 2.0, 2.0]
    there = transform(points)
    assert np.abs(there - points).max() > 2
    left = np.linalg.norm(back(there) - points, axis=1)
    assert left.mean() < 0.05  # mm; voxels have 0.9 to 2.5
    assert left.max() < 0.3


def test_voxels_and_millimetres_are_inverse(grid):
    field = np.random.default_rng(0).normal(size=(3, 4, 5, 6))
    np.testing.assert_allclose(transforms.to_voxels(transforms.from_voxels(field, grid)), field, atol=1e-5)


def test_one_voxel_step_is_one_voxel_in_the_world(grid):
    field = np.zeros((3, 4, 5, 6))
    field[0] = 1  # along z
    moved = transforms.from_voxels(field, grid)([grid[:3, 3]])
    np.testing.assert_allclose(moved[0], grid[:3, 3] + grid[:3, 0], atol=1e-5)


def test_jacobian_of_a_scaling_is_its_volume(grid):
    shape = (6, 7, 8)
    points = transforms.world_points(grid, shape)
    shrinking = (-0.25 * (points - points.mean(0))).reshape(*shape, 3).astype(np.float32)
    found = transforms.jacobian_determinant(Transform(np.diag([2.0, 1, 1, 1]), shrinking, grid))
    np.testing.assert_allclose(found, 2 * 0.75**3, rtol=1e-4)


def test_refusals(tmp_path, smooth_mm):
    with pytest.raises(OutputError, match=r"\.h5 or \.tfm"):
        transforms.write(Transform(), tmp_path / "warp.mat")
    with pytest.raises(OutputError, match="could not be written"):
        transforms.write(Transform(), tmp_path / "nowhere" / "warp.h5")
    with pytest.raises(InputError, match=r"shape \(Z, Y, X, 3\)"):
        Transform(displacement=np.zeros((3, 4, 5, 6), np.float32))
    sheared = np.eye(4)
    sheared[0, 1] = 0.5
    with pytest.raises(InputError, match="right angles"):
        transforms.to_simpleitk(Transform(np.eye(4), smooth_mm, sheared))
