"""The affine finds known motions again, and refuses what it cannot align."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from napari_mamba.errors import InputError
from napari_mamba.registration import choice, transforms
from napari_mamba.registration.affine import overlap, register_affine
from napari_mamba.registration.information import Coarse, coarse, edges
from napari_mamba.registration.search import Search, agreement
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


def turned(degrees):
    """(4, 4): a turn about the middle of the image, top to the left."""
    true, middle = np.eye(4), transforms.world_points(grid_of(), SHAPE).mean(0)
    true[:3, :3] = Rotation.from_euler("y", degrees, degrees=True).as_matrix()
    true[:3, 3] = middle - true[:3, :3] @ middle
    return true


def test_a_large_turn_is_found_again(image):
    true = turned(60)
    moved = transforms.resample(image, image, Transform(np.linalg.inv(true)))
    found = register_affine(image, moved.with_data(2 * np.asarray(moved.data)), rigid_only=True)
    assert choice.turn(found.transform.affine) == pytest.approx(60, abs=2)
    np.testing.assert_allclose(found.transform.affine[:3, :3], true[:3, :3], atol=0.05)


def test_edges_agree_whatever_the_contrast(image):
    values = np.asarray(image.data)[0]
    first, second = edges(Coarse(values, image.affine)), edges(Coarse(3 - 2 * values, image.affine))
    np.testing.assert_allclose(first, -second, atol=1e-5)  # opposite ways: from dark to bright, from bright to dark
    assert agreement(first.reshape(3, -1), second.reshape(3, -1)) == pytest.approx(1, abs=1e-3)
    further = np.roll(second, 3, axis=1).reshape(3, -1)
    assert agreement(first.reshape(3, -1), further) < 0.5


def test_edges_of_a_ramp_point_up_the_ramp_in_the_world():
    grid = np.array([[0, -2.0, 0, 5], [0, 0, 3.0, 6], [1.5, 0, 0, 7], [0, 0, 0, 1]])
    values = (transforms.world_points(grid, (5, 6, 7)) @ [0.3, -0.7, 0.5]).reshape(5, 6, 7).astype(np.float32)
    found = edges(Coarse(values, grid))
    np.testing.assert_allclose(found[:, 2, 2, 2], np.array([0.3, -0.7, 0.5]) / np.sqrt(2 * 0.83), atol=1e-5)


def test_edges_of_a_turned_image_are_turned_along(image):
    """They agree under the true motion as they do not without it, nor if they were left as they lie."""
    true = turned(90)
    moved = transforms.resample(image, image, Transform(np.linalg.inv(true)))
    both, alone = (
        Search(coarse(image, 2.0), coarse(moved, 2.0), np.zeros(3), 20.0, edges=worth) for worth in (1.0, 0.0)
    )
    gained = [both.gain(matrix) - alone.gain(matrix) for matrix in (true, np.eye(4))]
    assert gained[0] > 0.9 > 0.6 > gained[1]


@pytest.mark.parametrize(("unlike", "expected"), [((0.2, 0.1), 60), ((0.1, 0.2), 10)])
def test_a_large_turn_has_to_be_better_by_two_measures(image, monkeypatch, unlike, expected):
    """The search likes the turn by 60 degrees best; what the images' self-similarities say decides."""
    search = Search(coarse(image, 4.0), coarse(image, 4.0), np.zeros(3), 20.0)
    motions = [np.array([0, np.radians(angle) * 20, 0, 0, 0, 0.0]) for angle in (10, 60, 45)]
    monkeypatch.setattr(search, "gain", lambda matrix: choice.turn(matrix) / 10)
    monkeypatch.setattr(choice, "unlikeness", lambda still, other, matrix: unlike[choice.turn(matrix) > 30])
    right = choice.right_one(search, motions)
    assert choice.turn(search.matrix(right)) == pytest.approx(expected)
    assert choice.right_one(search, motions[1:]) is motions[1]


def test_a_head_of_another_size_is_found(image):
    """A turn and a scale at once, from images whose middles lie on each other."""
    points = transforms.world_points(image.affine, SHAPE)
    true, middle = turned(15), points.mean(0)
    true[:3, :3] *= 1.2
    true[:3, 3] = middle - true[:3, :3] @ middle
    moved = transforms.resample(image, image, Transform(np.linalg.inv(true)))
    found = register_affine(image, moved)
    inside = points[np.asarray(image.data).ravel() > 0.5]
    away = np.linalg.norm(found.transform(inside) - Transform(true)(inside), axis=1)
    assert away.mean() < 1.5  # mm; a voxel has 2, and without a scale it is 2.6
    assert np.linalg.svd(found.transform.affine[:3, :3], compute_uv=False).min() > 1.05


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
