"""The affine finds known motions again, and refuses what it cannot align."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from napari_mamba.errors import InputError
from napari_mamba.registration import transforms
from napari_mamba.registration.affine import overlap, register_affine
from napari_mamba.registration.transforms import Transform
from napari_mamba.volume import Volume

SHAPE = (24, 32, 28)


def grid_of(spacing=(2.0, 2.0, 2.0), origin=(-30.0, -30.0, -25.0)):
    grid = np.zeros((4, 4))
    grid[[2, 1, 0], [0, 1, 2]] = spacing
    grid[:3, 3], grid[3, 3] = origin, 1
    return grid


@pytest.fixture(scope="module")
def image():
    """Blobs in a dark surrounding, so that nothing is lost at the rim."""
    noise = gaussian_filter(np.random.default_rng(0).normal(size=SHAPE), 2)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    body = (x / 0.6) ** 2 + (y / 0.7) ** 2 + (z / 0.65) ** 2 < 1
    return Volume((body * (1 + 4 * noise))[None].astype(np.float32), grid_of())


def test_a_known_motion_is_found_again(image):
    true = np.eye(4)
    true[:3, :3] = Rotation.from_euler("xyz", [6, -8, 5], degrees=True).as_matrix() @ np.diag([1.05, 0.97, 1.0])
    true[:3, 3] = [4, -3, 2]
    # A moving image in another contrast, which shows at `true @ p` what the fixed one shows at p.
    moved = transforms.resample(image, image, Transform(np.linalg.inv(true)))
    other = moved.with_data(2 - np.asarray(moved.data) * 0.6)
    found = register_affine(image, other)
    assert found.after > found.before
    points = transforms.world_points(image.affine, SHAPE)[np.asarray(image.data).ravel() > 0.5]
    away = np.linalg.norm(found.transform(points) - Transform(true)(points), axis=1)
    assert away.mean() < 0.6  # mm; a voxel has 2


def test_identical_images_stay(image):
    found = register_affine(image, image)
    points = transforms.world_points(image.affine, SHAPE)
    assert np.linalg.norm(found.transform(points) - points, axis=1).max() < 0.2


def test_images_apart_are_refused_and_masses_bring_them_together(image):
    far = Volume(image.data, grid_of(origin=(500.0, -30.0, -25.0)))
    assert overlap(image, far) == 0
    with pytest.raises(InputError, match="lie apart"):
        register_affine(image, far)
    found = register_affine(image, far, start="masses", rigid_only=True)
    np.testing.assert_allclose(found.transform([[0.0, 0, 0]])[0], [530, 0, 0], atol=0.5)


@pytest.mark.parametrize(("shape", "words"), [((1, 32, 28), "no volume"), ((24, 3, 28), "no volume")])
def test_what_is_no_volume_is_refused(image, shape, words):
    with pytest.raises(InputError, match=words):
        register_affine(image, Volume(np.random.default_rng(0).random((1, *shape)), grid_of()))


def test_an_empty_image_is_refused(image):
    with pytest.raises(InputError, match="one value everywhere"):
        register_affine(Volume(np.ones((1, *SHAPE)), grid_of()), image)


def test_pixels_and_millimetres_are_not_mixed(image):
    unknown = Volume(image.data, image.affine, units="pixel")
    with pytest.raises(InputError, match="millimetres"):
        register_affine(image, unknown)
