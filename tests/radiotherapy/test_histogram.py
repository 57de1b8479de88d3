"""Histograms, tables and goals, against values worked out by hand."""

import numpy as np
import pytest

from napari_mamba.errors import InputError
from napari_mamba.radiotherapy.dvh.goals import Goal, judged, read_goals, write_goals
from napari_mamba.radiotherapy.dvh.histogram import cumulative, curves, table
from napari_mamba.radiotherapy.dvh.measures import measure
from napari_mamba.radiotherapy.structures import (
    Structure,
    StructureSet,
    joined,
    prescription_of,
    prescriptions,
    required,
)


@pytest.fixture
def plan():
    """A hundred voxels of 50 mm³ from 0 to 99 Gy; a target in the hotter half, a cord in the colder one."""
    dose = np.arange(100.0).reshape(1, 10, 10)
    half = dose >= 50
    nothing = np.zeros_like(half)
    structures = (Structure("PTV70", half), Structure("Spinal Cord", ~half, kind="ORGAN"), Structure("Larynx", nothing))
    return dose, StructureSet(structures, np.diag([2.0, 5.0, 5.0, 1.0]))


def test_a_curve_falls_from_all_to_nothing(plan):
    target, cord = curves(*plan, step=1.0)
    assert (target.name, cord.name, target.size) == ("PTV70", "Spinal Cord", pytest.approx(2.5))
    np.testing.assert_allclose(target.volume[[0, 50, 75, 99]], [100, 100, 50, 2])
    np.testing.assert_allclose(cord.volume[[0, 25, 49, 50]], [100, 50, 2, 0])


def test_a_curve_is_the_share_of_voxels_that_get_so_much():
    doses = np.random.default_rng(0).gamma(4, 10, 1000)
    grid, volume = cumulative(doses, 0.5)
    assert grid[-1] >= doses.max() > grid[-2]
    np.testing.assert_allclose(volume, [100 * np.mean(doses >= dose) for dose in grid])


@pytest.mark.parametrize(
    ("what", "value"),
    [("D95", 52.45), ("d 95 %", 52.45), ("D50", 74.5), ("D1", 98.51), ("mean", 74.5), ("Dmean", 74.5), ("max", 99.0),
     ("Dmin", 50.0), ("V75", 50.0), ("V75Gy", 50.0), ("D0.1cc", 97.04), ("D2.5cc", 50.0),
     ("D95%[Gy]", 52.45), ("D_95%", 52.45), ("Mean dose", 74.5), ("D2.5 cm3 (Gy)", 50.0), ("V75Gy[%]", 50.0),
     ("V7500cGy", 50.0), ("V75Gy[cc]", 1.25), ("V75(cm³)", 1.25)],
)  # fmt: skip
def test_measures(plan, what, value):
    dose, structures = plan
    assert measure(dose[structures["PTV70"].mask], what, 50.0) == pytest.approx(value)


def test_a_volume_at_a_share_of_the_prescription(plan):
    doses = plan[0][plan[1]["PTV70"].mask]
    assert measure(doses, "V95%", 50.0, 70.0) == pytest.approx(100 * np.mean(doses >= 66.5))
    assert measure(doses, "V95%[cc]", 50.0, 70.0) == pytest.approx(0.05 * np.sum(doses >= 66.5))
    with pytest.raises(InputError, match="percent of a prescription"):
        measure(doses, "V95%", 50.0)


@pytest.mark.parametrize("what", ["V95%[Gy]", "D95[%]", "D", "D101", "X5", "", "Dmode", "V"])
def test_what_is_no_measure(what):
    with pytest.raises(InputError, match="no measure"):
        measure(np.ones(3), what, 1.0)


def test_a_table_has_every_structure(plan):
    rows = table(*plan)
    assert [row["structure"] for row in rows] == ["PTV70", "Spinal Cord", "Larynx"]
    assert rows[1]["mean"] == pytest.approx(24.5)
    assert (rows[0]["volume"], rows[2]["volume"]) == (pytest.approx(2.5), 0)
    assert np.isnan(rows[2]["D95"])


def test_a_dose_on_another_grid(plan):
    with pytest.raises(InputError, match="grid"):
        table(plan[0][:, :5], plan[1])


def test_goals_come_back_from_a_file(tmp_path):
    goals = [Goal("Spinal Cord", "D0.1cc", "<=", 45.0), Goal("PTV70", "V66.5", ">=", 95.0)]
    assert read_goals(write_goals(goals, tmp_path / "goals.csv")) == goals


def test_goals_as_a_spreadsheet_in_other_countries_writes_them(tmp_path):
    (tmp_path / "g.csv").write_text("﻿Structure;Measure;Relation;Limit\n# ours\nCord;max;≤;45,5 Gy\n", "utf-8")
    assert read_goals(tmp_path / "g.csv") == [Goal("Cord", "max", "<=", 45.5)]


def test_goals_in_every_unit_that_is_meant(tmp_path):
    lines = [
        "PTV_6000,D95%,=>,95%", "cord,D0.03cc,=<,4500 cGy", "lung,V20Gy,<,30 %", "lung,V20Gy[cc],at most,300cc",
        "PTV70,V95%,at least,98",
    ]  # fmt: skip
    text = "\n".join(["structure\tmeasure\trelation\tlimit", *(line.replace(",", "\t") for line in lines)])
    (tmp_path / "g.txt").write_text(text, "utf-16")  # as a spreadsheet's "Unicode text"
    assert [str(goal) for goal in read_goals(tmp_path / "g.txt")] == [
        "PTV_6000 D95% >= 57 Gy", "cord D0.03cc <= 45 Gy", "lung V20Gy <= 30 %", "lung V20Gy[cc] <= 300 cm³",
        "PTV70 V95% >= 98 %",
    ]  # fmt: skip


def test_a_goal_of_the_prescription_takes_the_structure_s_own(plan):
    dose, structures = plan
    assert [one.value for one in judged([Goal("PTV70", "V95%", ">=", 98)], dose, structures)] == [66.0]
    with pytest.raises(InputError, match="there is none"):
        judged([Goal("Spinal Cord", "V95%", "<=", 1)], dose, structures)


def test_goals_are_judged(plan):
    goals = [Goal("spinal_cord", "max", "<=", 45), Goal("PTV70", "D95", ">=", 50), Goal("Lens", "max", "<=", 5)]
    goals += [Goal("Larynx", "mean", "<=", 40)]
    results = judged(goals, *plan)
    assert [result.met for result in results] == [False, True, None, None]
    assert results[0].value == 49


@pytest.mark.parametrize(
    ("line", "says"),
    [("cord,D0.1cc,about,45", "write <="), ("cord,D0.1cc,<=,much", "no number"), ("cord,X,<=,45", "no measure"),
     ("cord,max,<=,-4", "positive"), ("cord,max", "columns"), ("cord,D95,>=,95%", "in Gy"),
     ("cord,V20,<=,30Gy", "in %"), ("cord,max,<=,nan", "positive"), ("cord,max,<=,45 cc", "in Gy"),
     ("cord,max,<=,45,5", r"write 45\.5")],
)  # fmt: skip
def test_a_wrong_goal_names_its_line(tmp_path, line, says):
    (tmp_path / "g.csv").write_text(f"structure,measure,relation,limit\n\n{line}\n")
    with pytest.raises(InputError, match=f"line 3: .*{says}"):
        read_goals(tmp_path / "g.csv")


@pytest.mark.parametrize("text", ["", "# no\n", "structure,measure\ncord,max\n", "structure,measure,relation,limit\n"])
def test_a_file_without_goals(tmp_path, text):
    (tmp_path / "g.csv").write_text(text)
    with pytest.raises(InputError, match=r"g\.csv"):
        read_goals(tmp_path / "g.csv")


def test_prescriptions(plan):
    assert prescriptions(plan[1]) == {"PTV70": 70.0}


@pytest.mark.parametrize(
    ("name", "dose"),
    [
        ("CTV 59.4", 59.4), ("ptv_5600", 56.0), ("gtv-66", 66.0), ("HN PTV54,25", 54.25), ("PTV2_66Gy", 66.0),
        ("PTV_High_7000_3mm", 70.0), ("PTV_3mm_70", 70.0), ("PTV60x1", 60.0), ("PTV_2x35", 70.0), ("PTV", None),
        ("PTV1", None), ("PTV_700", None), ("PTV 15mm", None), ("Parotid_R", None), ("Larynx - PTV70", None),
        ("NT minus PTV60", None), ("mydptv70", None), ("PTV 35 x 2.0 Gy", 70.0), ("60 Gy PTV", 60.0), ("PTV 95%", None),
        ("PTV 20240101", None), ("Ring_PTV70", None), ("PTV70 + 5mm", None), ("Hot spot PTV70", None),
    ],
)  # fmt: skip
def test_a_prescription_in_a_name(name, dose):
    assert prescription_of(name) == dose
    target = name not in (
        "Parotid_R", "Larynx - PTV70", "NT minus PTV60", "mydptv70", "Ring_PTV70", "PTV70 + 5mm", "Hot spot PTV70",
    )  # fmt: skip
    assert Structure(name, np.ones((1, 1, 1), bool)).target == target


def test_targets_that_cannot_be_planned(plan):
    mask = np.ones((1, 2, 2), bool)

    def of(*structures):
        return StructureSet(structures, np.eye(4))

    for structures, says in (
        (of(Structure("cord", mask)), "no structure is a target"),
        (of(Structure("PTV", mask)), "no prescription"),
        (of(Structure("PTV", mask, prescription=-70.0)), "-70 Gy"),
        (of(Structure("boost", mask, kind="PTV", prescription=7000.0)), "7000 Gy"),
    ):
        with pytest.raises(InputError, match=says):
            prescriptions(structures)
    with pytest.raises(InputError, match="lack Larynx"):
        required(plan[1], ["PTV70", "Larynx"])


def test_two_files_that_disagree(plan):
    other = StructureSet(
        (Structure("ptv 70", ~plan[1]["PTV70"].mask), Structure("Lens", plan[1]["PTV70"].mask)), np.eye(4)
    )
    with pytest.raises(InputError, match="disagree about 'PTV70'"):
        joined([plan[1], other])
    alike = StructureSet((plan[1]["PTV70"], other["Lens"]), np.eye(4))
    assert [s.name for s in joined([plan[1], alike])] == ["PTV70", "Spinal Cord", "Larynx", "Lens"]
