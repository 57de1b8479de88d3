"""Fields: composed, integrated, inverted, and where they fold."""

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.ndimage import map_coordinates

from napari_mamba.nn import fields

SIZE = (16, 18, 20)


def linear_field(matrix: np.ndarray) -> torch.Tensor:
    """x -> matrix (x - centre), (1, 3, *SIZE)."""
    centre = torch.tensor([(n - 1) / 2 for n in SIZE]).view(1, 3, 1, 1, 1)
    return torch.einsum("ij,bjzyx->bizyx", torch.from_numpy(matrix).float(), fields.identity(SIZE) - centre)


def inner(field: torch.Tensor) -> np.ndarray:
    return field[0, :, 4:-4, 4:-4, 4:-4].numpy()


@pytest.fixture
def smooth():
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randn(1, 3, 4, 4, 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, SIZE, mode="trilinear", align_corners=True)


def test_warp_agrees_with_scipy(smooth):
    image = torch.rand(1, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    places = (fields.identity(SIZE) + smooth)[0].numpy()
    expected = map_coordinates(image[0, 0].numpy(), places, order=1, mode="nearest")
    np.testing.assert_allclose(fields.warp(image, smooth, padding="border")[0, 0], expected, atol=1e-4)


def test_integral_of_a_linear_velocity_is_its_matrix_exponential():
    velocity = np.array([[0.05, 0.1, 0], [-0.1, 0.02, 0.03], [0, -0.04, -0.06]])
    found = fields.integrate(linear_field(velocity))
    expected = linear_field(expm(velocity) - np.eye(3))
    np.testing.assert_allclose(inner(found), inner(expected), atol=0.01)


def test_composition_of_linear_maps_is_their_product():
    first, then = np.diag([0.1, -0.05, 0.08]), np.array([[0, 0.1, 0], [0, 0, -0.1], [0.05, 0, 0]])
    found = fields.compose(linear_field(first), linear_field(then))
    expected = linear_field((np.eye(3) + then) @ (np.eye(3) + first) - np.eye(3))
    np.testing.assert_allclose(inner(found), inner(expected), atol=1e-3)


def test_a_warp_and_its_inverse_cancel(smooth):
    displacement = fields.integrate(smooth)
    assert np.abs(inner(displacement)).max() > 1
    for back in (fields.integrate(-smooth), fields.inverted(displacement, 40)):
        left = np.abs(inner(fields.compose(displacement, back)))
        assert left.mean() < 0.05  # voxels; what stays is the interpolation's
        assert left.max() < 0.3


def test_integrated_fields_do_not_fold_and_raw_ones_may(smooth):
    assert fields.folded_share(4 * smooth) > 1
    assert fields.folded_share(fields.integrate(4 * smooth)) < fields.folded_share(4 * smooth) / 5


def test_resized_moves_to_the_same_place():
    shift = torch.tensor([1.0, -2.0, 0.5]).view(1, 3, 1, 1, 1).expand(1, 3, 6, 7, 8)
    fine = fields.resized(shift, (12, 14, 16))
    np.testing.assert_allclose(fine[0, :, 3, 3, 3], [2.0, -4.0, 1.0])


def test_jacobian_agrees_with_a_linear_map():
    matrix = np.array([[0.1, 0.2, 0], [0, -0.1, 0.1], [0.05, 0, 0.2]])
    found = fields.jacobian_determinant(linear_field(matrix))
    np.testing.assert_allclose(found, np.linalg.det(np.eye(3) + matrix), rtol=1e-4)
