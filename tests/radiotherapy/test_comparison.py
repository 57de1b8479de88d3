"""Isodose lines, the difference of two doses, the gamma index."""

import sys

import numpy as np
import pytest

from napari_mamba.errors import InputError
from napari_mamba.radiotherapy.comparison import check_dose, difference, gamma, on_grid
from napari_mamba.radiotherapy.isodose import DEFAULT, levels, lines
from napari_mamba.volume import Volume


def cone(shift: float = 0.0, scale: float = 1.0, step: float = 2.0) -> Volume:
    """60 Gy in the middle, falling by 1 Gy a millimetre; 80 mm wide."""
    n = round(80 / step) + 1
    axis = step * np.arange(n) - 40
    z, y, x = np.meshgrid(axis[::4], axis, axis - shift, indexing="ij")
    values = scale * (60 - np.sqrt(z**2 + y**2 + x**2)).clip(min=0)
    affine = np.diag([4 * step, step, step, 1.0])
    affine[:3, 3] = -40
    return Volume(values[np.newaxis], affine)


def test_levels_in_percent_and_gray_hottest_first():
    found = levels("20, 95%, 60 Gy", 70.0)
    assert [(level.dose, level.label) for level in found] == [(66.5, "95%"), (60, "60 Gy"), (20, "20 Gy")]
    assert len(levels(DEFAULT, 70.0)) == 9


@pytest.mark.parametrize(("text", "says"), [("hot", "no isodose"), ("0", "no isodose"), ("95%", "prescription")])
def test_levels_that_are_none(text, says):
    with pytest.raises(InputError, match=says):
        levels(text)


def test_a_line_runs_where_the_dose_has_its_level():
    dose = cone(step=1.0)
    middle = dose.data[0, dose.shape[0] // 2]
    (_, none), (level, (line,)) = lines(middle, levels("40, 65"))
    assert (level.dose, none) == (40, [])
    np.testing.assert_allclose(np.linalg.norm(line - 40, axis=1), 20, atol=0.05)


def test_the_difference_is_on_the_reference_s_grid():
    coarse, fine = cone(scale=1.0, step=2.0), cone(scale=1.1, step=1.0)
    apart = difference(fine, coarse)
    assert apart.shape == coarse.shape
    np.testing.assert_allclose(apart.data[0, ::1], 0.1 * coarse.data[0], atol=0.35)


def test_beyond_the_dose_s_grid_there_is_none():
    small = Volume(np.ones((1, 2, 2, 2)), np.eye(4))
    wide = Volume(np.zeros((1, 2, 2, 6)), np.eye(4))
    assert on_grid(small, wide)[0, 0].tolist() == [1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_a_grid_turned_by_whole_voxels_takes_the_very_values(order):
    values = 1 + np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
    affine = np.array([[0, 0, 4, 3], [0, 3, 0, -2], [2, 0, 0, 5], [0, 0, 0, 1.0]])
    turn = np.eye(4)[:, [*order, 3]] @ np.diag([1, -1, -1, 1.0])
    turn[:3, 3] = [1, 4, 3]  # a part of the grid lies beyond
    found = on_grid(Volume(values[np.newaxis], affine), Volume(np.zeros((1, 6, 6, 6)), affine @ turn))
    for voxel in np.ndindex(found.shape):
        place = tuple((turn @ [*voxel, 1])[:3].astype(int))
        inside = all(0 <= p < n for p, n in zip(place, values.shape, strict=True))
        assert found[voxel] == (values[place] if inside else 0)


def test_gamma_of_equal_doses_and_of_a_shift_and_a_scale():
    pytest.importorskip("pymedphys")
    reference = cone()
    assert gamma(reference, reference).pass_rate == 100
    # Of a shift on a slope of 1 Gy/mm, where 3 mm or 1.8 Gy count as one: the shortest way in both together.
    shifted = gamma(cone(shift=2.0), reference, cutoff=50).index
    assert np.nanmax(shifted) == pytest.approx(2 / np.hypot(3, 1.8), abs=0.02)
    hotter = gamma(cone(scale=1.02), reference, distance=0.01, cutoff=50).index
    assert np.nanmax(hotter) == pytest.approx(2 / 3, abs=0.02)
    assert gamma(cone(shift=8.0, step=4.0), cone(step=4.0), cutoff=50).pass_rate < 60


def test_gamma_judges_what_is_above_the_cutoff():
    pytest.importorskip("pymedphys")
    reference = cone()
    judged = np.isfinite(gamma(reference, reference, cutoff=50).index)
    np.testing.assert_array_equal(judged, reference.data[0] >= 30)


def test_gamma_without_its_library_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymedphys", None)
    with pytest.raises(InputError, match="radiotherapy"):
        gamma(cone(), cone())


@pytest.mark.parametrize(
    ("change", "says"),
    [(lambda d: d * 100, "cGy"), (lambda d: d - 1024, "never negative"), (lambda d: d * np.nan, "no numbers"),
     (lambda d: np.concatenate([d, d]), "one channel")],
)  # fmt: skip
def test_what_is_no_dose(change, says):
    dose = cone()
    with pytest.raises(InputError, match=says):
        check_dose(Volume(change(dose.data), dose.affine))
    check_dose(dose)


def test_gamma_on_another_grid_is_the_library_s_own():
    """Finer voxels, axes in another order and direction: as PyMedPhys has it from the dose's own voxels."""
    pymedphys = pytest.importorskip("pymedphys")

    def places(shape, spacing):
        return tuple(side * (np.arange(n) - (n - 1) / 2) for n, side in zip(shape, spacing, strict=True))

    def blob(shape, spacing, shift):
        z, y, x = np.meshgrid(*places(shape, spacing), indexing="ij")
        return 60 * np.exp(-((z - shift) ** 2 + y**2 + x**2) / 15**2)

    def centred(shape, spacing):
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = [-side * (n - 1) / 2 for n, side in zip(shape, spacing, strict=True)]
        return affine

    (coarse, wide), (fine, narrow) = ((8, 9, 10), (3.0, 3.0, 3.0)), ((10, 11, 12), (2.5, 2.5, 2.5))
    true, seen = blob(coarse, wide, 0), blob(fine, narrow, 2.5)
    reference = Volume(true[np.newaxis].astype(np.float32), centred(coarse, wide))
    turned = centred(fine, narrow)[:, [2, 0, 1, 3]]  # the axes are x, z, y, and z runs downwards
    turned[:3, 3] += turned[:3, 1] * 9
    turned[:3, 1] *= -1
    dose = Volume(seen.transpose(2, 0, 1)[np.newaxis, :, ::-1].astype(np.float32), turned)
    axes = [places(coarse, wide), places(fine, narrow)]
    expected = pymedphys.gamma(
        axes[0], true, axes[1], seen, 3, 3, lower_percent_dose_cutoff=10, max_gamma=1.5, quiet=True
    )
    np.testing.assert_allclose(gamma(dose, reference).index, expected, atol=1e-4)
