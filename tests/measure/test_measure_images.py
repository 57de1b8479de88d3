"""Images compared, sampled along a line and searched for doubtful places."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mamba.errors import InputError
from napari_mamba.measure import image_agreement, line_profile, uncertain_places
from napari_mamba.volume import Volume


def test_psnr_by_hand():
    data = np.zeros((1, 12, 12, 12))
    data[..., 6:] = 100
    result = image_agreement(Volume(data), Volume(data + 1))
    assert result.psnr_db == pytest.approx(40.0)  # 10 log10(100^2 / 1)
    assert result.mean_absolute_error == pytest.approx(1)
    assert image_agreement(Volume(data), Volume(data)).psnr_db == float("inf")


def test_ssim_by_hand(rng):
    """The formula of Wang et al. at the middle voxel, with weights written out here."""
    from napari_mamba.measure.images import _ssim

    one = rng.normal(size=(11, 11, 11))
    two = one + rng.normal(scale=0.3, size=one.shape)
    span = 5.0
    line = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    weights = line[:, None, None] * line[None, :, None] * line
    weights /= weights.sum()
    m1, m2 = (weights * one).sum(), (weights * two).sum()
    v1, v2 = (weights * one**2).sum() - m1**2, (weights * two**2).sum() - m2**2
    cov = (weights * one * two).sum() - m1 * m2
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    by_hand = (2 * m1 * m2 + c1) * (2 * cov + c2) / ((m1**2 + m2**2 + c1) * (v1 + v2 + c2))
    assert _ssim(one, two, span) == pytest.approx(by_hand, rel=1e-6)  # of 11 voxels only the middle one counts


def test_what_cannot_be_compared_is_said(rng):
    fine = Volume(rng.normal(size=(1, 12, 12, 12)))
    with pytest.raises(InputError, match="one value everywhere"):
        image_agreement(Volume(np.ones((1, 12, 12, 12))), fine)
    with pytest.raises(InputError, match="NaN"):
        image_agreement(fine, Volume(np.full((1, 12, 12, 12), np.nan)))
    with pytest.raises(InputError, match="fewer than 11"):
        image_agreement(Volume(rng.normal(size=(1, 12, 12, 5))), Volume(rng.normal(size=(1, 12, 12, 5))))


def test_a_profile_through_an_oblique_image_follows_world_coordinates(oblique_affine):
    """An image whose values are its own RAS x coordinate: the profile is the line's x coordinate."""
    index = np.stack([*np.indices((12, 20, 24)), np.ones((12, 20, 24))]).reshape(4, -1)
    data = (oblique_affine @ index)[0].reshape(1, 12, 20, 24)
    ends = [(oblique_affine @ [2, 3, 4, 1])[:3], (oblique_affine @ [9, 15, 20, 1])[:3]]
    profile = line_profile(Volume(data, oblique_affine, name="x"), ends)
    share = profile.distance_mm / profile.distance_mm[-1]
    np.testing.assert_allclose(profile.values, ends[0][0] + share * (ends[1][0] - ends[0][0]), atol=1e-9)
    assert profile.distance_mm[-1] == pytest.approx(np.linalg.norm(ends[1] - ends[0]))


def test_a_profile_is_empty_outside_and_bends(oblique_affine):
    ramp = Volume(np.arange(5.0).reshape(1, 1, 1, 5), affine=np.eye(4)[[2, 1, 0, 3]])
    beyond = line_profile(ramp, [[-2, 0, 0], [2, 0, 0]], samples=5)
    np.testing.assert_array_equal(np.isnan(beyond.values), [True, True, False, False, False])
    there_and_back = line_profile(ramp, [[0, 0, 0], [4, 0, 0], [0, 0, 0]], samples=9)
    assert there_and_back.values.tolist() == [0, 1, 2, 3, 4, 3, 2, 1, 0]
    with pytest.raises(InputError, match="no length"):
        line_profile(ramp, [[1, 1, 1], [1, 1, 1]])


def test_doubtful_places_come_worst_first_and_small_ones_not():
    doubt = np.zeros((10, 40, 40))
    doubt[4:6, 5:9, 5:9] = 0.6  # 32 voxels, 19.2
    doubt[4:6, 30:33, 30:33] = 0.9  # 18 voxels, 16.2
    doubt[8, 20, 20] = 1.0  # a speck
    doubt[0, 0, 0] = np.nan
    places = uncertain_places(doubt, threshold=0.5)
    assert [p.voxels for p in places] == [32, 18]
    assert places[1].peak == pytest.approx(0.9, abs=1e-6)
    assert 30 <= places[1].index[1] < 33
    assert uncertain_places(doubt, threshold=0.95) == []


def test_a_long_rim_is_divided():
    doubt = np.zeros((3, 10, 100))
    doubt[1, 5, :] = 0.7 + 0.2 * np.sin(np.arange(100) / 100 * 8 * np.pi) ** 2
    places = uncertain_places(doubt, apart=10)
    assert len(places) >= 5
    assert sum(p.voxels for p in places) == 100
