"""Doses looked at together, structures as label maps, the goals to begin with, and the phantom they are tried on."""

from __future__ import annotations

import numpy as np
import pytest

from napari_mamba.errors import InputError
from napari_mamba.radiotherapy.dvh.goals import Goal, usual
from napari_mamba.radiotherapy.dvh.review import review
from napari_mamba.radiotherapy.isodose import level
from napari_mamba.radiotherapy.labels import packed, structures_in
from napari_mamba.radiotherapy.phantom import phantom
from napari_mamba.radiotherapy.structures import Structure, StructureSet
from napari_mamba.volume import Volume

FAR = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1e4], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def made():
    return phantom()


def test_two_doses_stand_beside_each_other(made):
    found = review(made.doses, made.structures, [Goal("spinal cord", "mean", "<=", 10)])
    cord = made.structures["spinal cord"].mask
    means = [row["mean"] for row in found.rows if row["structure"] == "spinal cord"]
    assert means == pytest.approx([dose.data[0][cord].mean() for dose in made.doses.values()])
    assert [one[0].met for one in found.goals.values()] == [mean <= 10 for mean in means] == [True, False]
    assert {len(curves) for curves in found.curves.values()} == {len(made.structures)}


def test_a_dose_on_a_coarser_grid_measures_nearly_the_same(made):
    fine = made.doses["A"]
    affine = fine.affine @ np.diag([2.0, 2, 2, 1])
    coarse = Volume(np.asarray(fine.data)[:, ::2, ::2, ::2], affine)
    one, other = review({"fine": fine, "coarse": coarse}, made.structures).curves.values()
    apart = [abs(float(np.interp(50, a.volume[::-1], a.dose[::-1]) - np.interp(50, b.volume[::-1], b.dose[::-1])))
             for a, b in zip(one, other, strict=True)]  # fmt: skip
    assert max(apart) < 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda dose: dose.with_data(np.asarray(dose.data) * 100), "cGy"),
        (lambda dose: dose.with_data(np.asarray(dose.data) - 1000), "is this a CT"),
        (lambda dose: Volume(dose.data, FAR @ dose.affine), "beside the structures"),
    ],
)
def test_doses_that_are_refused(made, change, says):
    with pytest.raises(InputError, match=says):
        review({"A": change(made.doses["A"])}, made.structures)


def test_a_dose_that_ends_within_structures_is_told(made):
    whole, start = made.doses["A"], np.eye(4)
    start[2, 3] = 30
    cut = Volume(np.asarray(whole.data)[..., 30:], whole.affine @ start)  # without the patient's right
    assert review({"whole": whole}, made.structures).notes == ()
    (note,) = review({"cut": cut}, made.structures).notes
    left = [one.name for one in made.structures if one.mask[..., :29].any() and one.name != "Body"]
    assert note == f"cut ends within {', '.join(left)}: what lies beyond its grid counts as 0 Gy"
    assert left
    assert "left parotid" not in left


def test_without_structures(made):
    with pytest.raises(InputError, match="no structures"):
        review(made.doses, StructureSet((), np.eye(4)))


def test_structures_come_back_from_label_maps_voxel_by_voxel(made):
    maps = packed(made.structures)
    assert len(maps) < len(made.structures)
    assert [s.name for s in maps[-1].structures.values()] == ["Body"]
    back = [one for labels in maps for one in structures_in(labels.values, labels.structures)]
    assert {one.name for one in back} == {one.name for one in made.structures}
    for one in back:
        same = made.structures[one.name]
        assert (one.mask == same.mask).all()
        assert (one.kind, one.color, one.prescription) == (same.kind, same.color, same.prescription)


def test_an_empty_structure_keeps_its_place_and_unknown_numbers_get_a_name():
    nobody = Structure("larynx", np.zeros((1, 2, 2), bool), kind="ORGAN")
    (labels,) = packed(StructureSet((nobody,), np.eye(4)))
    assert labels.structures[1].name == "larynx"
    found = structures_in(np.array([[[0, 3], [0, 0]]]), labels.structures)
    assert [(one.name, int(one.mask.sum())) for one in found] == [("larynx", 0), ("label 3", 1)]


def test_the_usual_goals_go_by_name_and_prescription(made):
    said = [str(goal) for goal in usual(made.structures)]
    assert "PTV70 D99 >= 66.5 Gy" in said
    assert "spinal cord D0.1cc <= 45 Gy" in said
    assert not any(goal.startswith("Body") for goal in said)


def test_a_level_in_percent_needs_a_prescription():
    assert level("50%", "#123456", 60.0).dose == 30
    with pytest.raises(InputError, match="needs a prescription"):
        level("50%", "#123456")


def test_the_phantom_s_right_is_the_patient_s(made):
    for name, side in (("right parotid", 1), ("left parotid", -1)):
        middle = np.argwhere(made.structures[name].mask).mean(0)
        assert np.sign((made.ct.affine @ [*middle, 1])[0]) == side


def test_the_phantom_is_a_ct_and_its_doses_are_doses(made):
    assert made.ct.data.min() < -500 < 200 < made.ct.data.max()
    outside = ~made.structures["Body"].mask
    for dose in made.doses.values():
        assert dose.data.min() == 0
        assert dose.data[0][outside].max() == 0
        assert np.median(dose.data[0][made.structures["PTV70"].mask]) == pytest.approx(70, abs=2)


def test_a_dose_in_percent_is_doubted_by_its_target(made):
    dose = made.doses["A"]
    percent = dose.with_data(dose.data / 70 * 100)
    assert not review({"plan": dose}, made.structures).notes
    (note,) = review({"plan": percent}, made.structures).notes
    assert "half of PTV70 gets 1" in note
