"""A beat's numbers against shapes whose volume is known."""

import csv
import io

import numpy as np
import pytest

from napari_mamba.errors import InputError
from napari_mamba.heart.beat import DENSITY, measure_beat
from napari_mamba.heart.report import draw, summary_csv, to_csv

SPACING = (2.0, 0.7, 0.9)
SIZE = (34, 92, 72)


def ball(radius: float) -> np.ndarray:
    """Voxels of a grid of `SPACING` within `radius` mm of its middle."""
    axes = [(np.arange(n) - (n - 1) / 2) * side for n, side in zip(SIZE, SPACING, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z**2 + y**2 + x**2 <= radius**2


def volume_ml(radius: float) -> float:
    return 4 / 3 * np.pi * radius**3 / 1000


@pytest.fixture(scope="module")
def radii():
    return [28.0, 26.0, 22.0, 20.0, 23.0, 27.0]


@pytest.fixture(scope="module")
def beating(radii):
    """A ball that shrinks and grows in a shell; the shell's outside stays where it is at the largest ball."""
    labels = np.zeros((len(radii), *SIZE), np.uint8)
    for t, radius in enumerate(radii):
        labels[t][ball(31.0)] = 2
        labels[t][ball(radius)] = 1
    return labels


def test_a_shrinking_sphere_gives_its_ejection_fraction(beating, radii):
    beat = measure_beat(beating, SPACING, times=[0, 50, 110, 160, 300, 500])
    assert (beat.diastole, beat.systole, beat.time_unit) == (0, 3, "ms")
    np.testing.assert_allclose(beat.cavity_ml, [volume_ml(r) for r in radii], rtol=0.01)
    assert beat.ejection_fraction == pytest.approx(100 * (1 - (20 / 28) ** 3), abs=0.5)
    assert beat.stroke_ml == pytest.approx(volume_ml(28) - volume_ml(20), rel=0.02)
    assert beat.wall_g == pytest.approx(DENSITY * (volume_ml(31) - volume_ml(28)), rel=0.03)
    assert beat.doubts == ()


def test_spacing_scales_volumes_and_not_the_fraction(beating):
    small, large = measure_beat(beating, SPACING), measure_beat(beating, [2 * side for side in SPACING])
    assert large.end_diastolic_ml == pytest.approx(8 * small.end_diastolic_ml)
    assert large.ejection_fraction == pytest.approx(small.ejection_fraction)
    assert small.time_unit == "phase"


def test_no_wall_is_no_mass(beating):
    beat = measure_beat(np.where(beating == 2, 0, beating), SPACING)
    assert beat.wall_g is None
    assert "wall_mass_g,\n" in summary_csv(beat)


def test_a_missing_slice_is_told(beating):
    broken = beating.copy()
    broken[0, 17] = 0
    assert any("slice 17" in doubt and "end diastole" in doubt for doubt in measure_beat(broken, SPACING).doubts)


def test_phases_out_of_order_are_doubted_or_refused(beating):
    order = [0, 3, 1, 2, 5, 4, 0, 3]
    assert any("out of order" in doubt for doubt in measure_beat(beating[order], SPACING).doubts)
    with pytest.raises(InputError, match="out of order"):
        measure_beat(beating, SPACING, times=[0, 50, 40, 160, 300, 500])


def test_a_still_image_is_doubted(beating):
    assert any("hardly changes" in doubt for doubt in measure_beat(beating[[0, 0, 0]], SPACING).doubts)


def test_a_phase_without_cavity_is_told(beating):
    broken = beating.copy()
    broken[2] = 0
    assert any("phase 2 no cavity" in doubt for doubt in measure_beat(broken, SPACING).doubts)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda labels: (labels[:1], SPACING, None), "at least two phases, this has 1"),
        (lambda labels: (labels[0], SPACING, None), "at least two phases, this has 1"),
        (lambda labels: (labels * 0, SPACING, None), "no left ventricular cavity"),
        (lambda labels: (labels, (0, 1, 1), None), "above zero"),
        (lambda labels: (labels, SPACING, [0, 1]), "2 times do not belong to 6 phases"),
    ],
)
def test_refusals(beating, change, words):
    with pytest.raises(InputError, match=words):
        measure_beat(*change(beating))


def test_the_table_is_read_back(beating):
    beat = measure_beat(beating, SPACING, times=[0, 50, 110, 160, 300, 500])
    rows = list(csv.DictReader(io.StringIO(to_csv(beat))))
    assert [float(row["time_ms"]) for row in rows] == [0, 50, 110, 160, 300, 500]
    np.testing.assert_allclose([float(row["cavity_ml"]) for row in rows], beat.cavity_ml, atol=1e-3)
    assert [row["mark"] for row in rows] == ["end diastole", "", "", "end systole", "", ""]
    numbers = dict(line.split(",") for line in summary_csv(beat).splitlines()[1:])
    assert float(numbers["ejection_fraction_percent"]) == pytest.approx(beat.ejection_fraction, abs=1e-3)


def test_the_curve_is_drawn(beating, tmp_path):
    pytest.importorskip("matplotlib")
    beat = measure_beat(beating, SPACING)
    assert draw(beat, tmp_path / "beat.png").read_bytes().startswith(b"\x89PNG")
