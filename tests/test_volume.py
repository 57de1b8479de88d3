"""`Volume` refuses what is no image, and keeps its geometry."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mamba.errors import InputError
from napari_mamba.volume import Volume


def test_spacing_is_along_the_index_axes_whatever_the_rotation(oblique_affine):
    volume = Volume(np.zeros((2, 3, 4, 5), np.uint8), oblique_affine)
    np.testing.assert_allclose(volume.spacing, [4.0, 0.7, 0.8])
    assert (volume.shape, volume.channels, volume.spatial_dims) == ((3, 4, 5), 2, 3)


def test_one_slice_is_two_dimensional():
    assert Volume(np.zeros((1, 1, 4, 5))).spatial_dims == 2


@pytest.mark.parametrize(
    ("data", "affine", "says"),
    [
        (np.zeros((3, 4, 5)), np.eye(4), "axes"),
        (np.zeros((1, 0, 4, 5)), np.eye(4), "empty"),
        (np.zeros((1, 3, 4, 5)), np.eye(3), "affine"),
        (np.zeros((1, 3, 4, 5)), np.diag([1.0, 0, 1, 1]), "affine"),
        (np.zeros((1, 3, 4, 5)), np.diag([1.0, np.nan, 1, 1]), "affine"),
        (np.zeros((1, 3, 4, 5)), np.diag([1.0, 1, 1, 2]), "affine"),
    ],
)
def test_what_is_no_volume_is_refused(data, affine, says):
    with pytest.raises(InputError, match=says):
        Volume(data, affine)


def test_small_voxels_are_no_singular_affine():
    spacing = 1e-5  # ten nanometres
    assert Volume(np.zeros((1, 2, 2, 2)), np.diag([spacing] * 3 + [1.0])).spacing[0] == pytest.approx(spacing)


def test_the_affine_cannot_be_changed_from_outside():
    affine = np.eye(4)
    volume = Volume(np.zeros((1, 2, 2, 2)), affine)
    affine[0, 0] = 7
    assert volume.affine[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        volume.affine[0, 0] = 7


def test_as_many_names_as_channels():
    with pytest.raises(InputError, match="2 channel names for 1"):
        Volume(np.zeros((1, 2, 2, 2)), channel_names=("a", "b"))


def test_with_data_keeps_the_place_and_refuses_another_grid(oblique_affine):
    volume = Volume(np.zeros((2, 3, 4, 5)), oblique_affine, ("a", "b"), name="brain")
    labels = volume.with_data(np.ones((1, 3, 4, 5), np.uint8), name="labels")
    np.testing.assert_array_equal(labels.affine, volume.affine)
    assert (labels.channel_names, labels.name, labels.channels) == ((), "labels", 1)
    with pytest.raises(InputError, match="do not lie"):
        volume.with_data(np.ones((1, 3, 4, 6)))
