"""The sample volumes are what sample_data/README.md says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from napari_mamba import io


@pytest.fixture(scope="module")
def template(sample_data):
    return io.read(sample_data / "icbm2009a_t1.nii.gz")


def in_template(volume, template) -> np.ndarray:
    """Indices into the template, (3, voxels), of the voxels of another volume."""
    index = np.stack([axis.ravel() for axis in np.indices(volume.shape)] + [np.ones(np.prod(volume.shape))])
    return np.linalg.solve(template.affine, volume.affine @ index)[:3]


@pytest.mark.parametrize("side", ["left", "right"])
def test_crops_lie_in_the_template(sample_data, template, side):
    crop = io.read(sample_data / f"hippocampus_{side}.nii.gz")
    place = in_template(crop, template)
    index = np.round(place).astype(int)
    np.testing.assert_allclose(place, index, atol=1e-6)
    np.testing.assert_array_equal(template.data[0][tuple(index)], crop.data.ravel())
    assert (crop.affine[0, 3] + crop.shape[2] / 2 < 0) == (side == "left")


def test_the_oblique_copy_shows_the_same_place(sample_data, template):
    tilted = io.read(sample_data / "hippocampus_left_oblique.nii.gz")
    assert np.linalg.det(tilted.affine[:3, :3][:, ::-1]) < 0, "left-handed"
    np.testing.assert_allclose(tilted.spacing, [1.5, 0.9, 0.9], atol=1e-6)
    expected = map_coordinates(template.data[0].astype(float), in_template(tilted, template), order=1)
    assert np.abs(expected - tilted.data.ravel()).max() < 1.01


def test_the_notice_is_kept(sample_data):
    assert (
        "Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre"
        in (sample_data / "NOTICE.txt").read_text()
    )
