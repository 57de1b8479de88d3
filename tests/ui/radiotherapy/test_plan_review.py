"""The model behind the page "Plan", and isodoses in a viewer: no window, no Qt."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from napari_mamba.errors import InputError
from napari_mamba.radiotherapy.dvh.goals import Goal
from napari_mamba.radiotherapy.isodose import Level
from napari_mamba.radiotherapy.structures import StructureSet
from napari_mamba.ui.layers import KEY
from napari_mamba.ui.radiotherapy.layers import check_frames, dose_of, is_dose, is_image, structures_of
from napari_mamba.ui.radiotherapy.plan.isodoses import NAME, Isodoses, wash_colormap
from napari_mamba.ui.radiotherapy.plan.review import PlanReview


@pytest.fixture
def plan(opened) -> PlanReview:
    """Both doses in all structures, measured."""
    review = PlanReview(*opened.doses, layers=tuple(opened.structures))
    review.goals = (Goal("left parotid", "mean", "<=", 26.0), Goal("bladder", "mean", "<=", 40.0))
    review.take(review.measure())
    return review


def test_layers_give_back_what_they_were_made_of(opened):
    found = structures_of(opened.structures)
    for one in opened.made.structures:
        assert (found[one.name].mask == one.mask).all()
        assert (found[one.name].kind, found[one.name].prescription) == (one.kind, one.prescription)
    assert np.allclose(dose_of(opened.doses[0]).data, opened.made.doses["A"].data)
    assert np.allclose(found.affine, opened.made.ct.affine)
    assert [is_dose(layer) for layer in (opened.ct, *opened.doses)] == [False, True, True]
    assert not any(is_image(layer) for layer in opened.structures)


def test_a_layer_in_centigray_is_divided(opened):
    layer = opened.doses[0]
    before = dose_of(layer).data.max()
    layer.metadata[KEY]["dose_unit"] = "cGy"
    assert dose_of(layer).data.max() == pytest.approx(before / 100)


def test_the_table_has_both_doses_of_each_structure_targets_first(plan, opened):
    rows = plan.rows()
    assert [(row.structure, row.letter) for row in rows[:4]] == [
        ("PTV70", "A"), ("PTV70", "B"), ("PTV56", "A"), ("PTV56", "B")
    ]  # fmt: skip
    assert rows[-1].structure == "Body"
    mask = opened.made.structures["PTV70"].mask
    assert rows[1].values[-2] == pytest.approx(opened.made.doses["B"].data[0][mask].mean(), rel=1e-5)
    assert plan.prescription == 70


def test_goals_are_judged_for_each_dose_and_absent_structures_told(plan):
    (parotid_a, parotid_b), absent = plan.judged()
    assert (parotid_a.met, parotid_b.met) == (True, False)
    assert [one.met for one in absent] == [None, None]


def test_hidden_structures_have_no_curve(plan):
    everything = {line.curve.name for line in plan.lines()}
    plan.hidden = frozenset({"Body"})
    plan.selected = "PTV70"
    assert {line.curve.name for line in plan.lines()} == everything - {"Body"}
    assert {line.number for line in plan.lines() if line.strong} == {0, 1}


def test_the_middle_of_a_structure_lies_in_it(plan, opened):
    for one in opened.made.structures:
        index = np.linalg.inv(opened.made.ct.affine) @ [*plan.center(one.name), 1]
        assert one.mask[tuple(np.rint(index[:3]).astype(int))]


def test_isodoses_need_a_prescription_only_where_they_are_in_percent(opened):
    review = PlanReview(opened.doses[0], isodoses=(("20 Gy", "#ffffff"), ("95%", "#ff0000")))
    with pytest.raises(InputError, match="needs a prescription"):
        _ = review.levels
    review.prescription = 60
    assert [level.dose for level in review.levels] == [57, 20]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda plan, opened: setattr(plan, "dose", None), "Open a dose"),
        (lambda plan, opened: setattr(plan, "other", plan.dose), "same dose"),
        (lambda plan, opened: setattr(plan, "layers", ()), "Open an RTSTRUCT"),
        (lambda plan, opened: setattr(plan, "dose", opened.ct), "is this a CT"),
        (lambda plan, opened: setattr(opened.doses[0], "data", opened.doses[0].data * 100), "cGy"),
    ],
)
def test_what_cannot_be_measured_is_said(opened, change, says):
    plan = PlanReview(*opened.doses, layers=tuple(opened.structures))
    change(plan, opened)
    with pytest.raises(InputError, match=says):
        plan.measure()


def test_layers_of_another_frame_of_reference_are_refused(opened):
    opened.doses[0].metadata[KEY]["frame"] = "1.2.3"
    opened.structures[0].metadata[KEY]["frame"] = "1.2.4"
    with pytest.raises(InputError, match="another frame of reference"):
        check_frames([opened.ct, opened.doses[0], opened.structures[0]])


def test_two_layers_that_disagree_about_a_structure_are_refused(opened):
    from napari.layers import Layer

    copy = Layer.create(*opened.structures[-1].as_layer_data_tuple())
    copy.data = np.roll(np.asarray(copy.data), 3, axis=1)
    with pytest.raises(InputError, match="disagree about"):
        structures_of([opened.structures[-1], copy])


def test_two_doses_are_compared(plan, opened):
    a, b = (opened.made.doses[name].data[0] for name in "AB")
    assert np.allclose(plan.difference().data[0], a - b, atol=1e-5)
    plan.other = None
    with pytest.raises(InputError, match="two doses"):
        plan.difference()


def test_tables_and_curves_are_written(plan, tmp_path):
    written = plan.write_tables(tmp_path / "dvh")
    assert [path.name for path in written] == ["dvh.csv", "dvh_curves_A.csv", "dvh_curves_B.csv"]
    rows = list(csv.DictReader(written[0].open()))
    assert len(rows) == len(plan.rows())
    assert float(rows[0]["mean"]) == pytest.approx(plan.measured.reviewed.rows[0]["mean"], rel=1e-4)


def test_a_picture_is_written(plan, tmp_path):
    pytest.importorskip("matplotlib")
    assert plan.write_picture(tmp_path / "dvh").read_bytes().startswith(b"\x89PNG")


# ---- isodoses over the picture


def test_the_wash_has_each_level_s_colour_up_to_the_next():
    colors = wash_colormap([Level(20, "", "#0000ff"), Level(40, "", "#ff0000")], 80.0)
    clear, cold, hot = colors.map(np.array([0.2, 0.3, 0.9]))
    assert clear[3] == 0
    assert cold[:3].tolist() == [0, 0, 1]
    assert hot[:3].tolist() == [1, 0, 0]


def test_lines_lie_where_the_dose_has_their_level_and_follow_the_slice(opened):
    viewer, dose = opened.viewer, opened.doses[0]
    drawn = Isodoses(viewer)
    drawn.show(dose, [Level(50, "50 Gy", "#ff0000")], wash=False, line=True)
    layer = viewer.layers[NAME]
    hot = dose.data_to_world(np.argwhere(np.asarray(dose.data) > 60).mean(0))
    for axis, value in enumerate(hot):
        viewer.dims.set_point(axis, value)
    for order in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
        viewer.dims.order = order
        at = drawn.slice
        assert layer.nshapes > 0
        for path in layer.data:
            assert (path[:, order[0]] == at).all()
            low, high = np.floor(path).astype(int), np.ceil(path).astype(int)
            ends = np.stack([dose.data[tuple(low.T)], dose.data[tuple(high.T)]])
            assert (ends.min(0) <= 50.001).all()
            assert (ends.max(0) >= 49.999).all()
    viewer.dims.ndisplay = 3
    assert layer.nshapes == 0


def test_the_dose_gets_its_own_colours_back(opened):
    dose, drawn = opened.doses[0], Isodoses(opened.viewer)
    before = dose.colormap.name, dose.contrast_limits
    drawn.show(dose, [Level(50, "", "#ff0000")], wash=True, line=True)
    assert dose.colormap.name == "isodoses"
    drawn.show(opened.doses[1], [Level(50, "", "#ff0000")], wash=True, line=True)
    assert (dose.colormap.name, dose.contrast_limits) == before
    drawn.close()
    assert opened.doses[1].colormap.name == "dose"
    assert NAME not in opened.viewer.layers


def test_a_dose_that_is_removed_takes_its_lines_along(opened):
    drawn = Isodoses(opened.viewer)
    drawn.show(opened.doses[0], [Level(50, "", "#ff0000")], wash=True, line=True)
    opened.viewer.layers.remove(opened.doses[0])
    assert NAME not in opened.viewer.layers


def test_lines_are_not_drawn_anew_while_the_layers_go(opened):
    drawn, added = Isodoses(opened.viewer), []
    for axis in range(3):
        opened.viewer.dims.set_point(
            axis, opened.doses[0].data_to_world(np.array(opened.doses[0].data.shape) // 2)[axis]
        )
    drawn.show(opened.doses[0], [Level(50, "", "#ff0000")], wash=True, line=True)
    opened.viewer.layers.events.inserted.connect(lambda event: added.append(event.value))
    opened.viewer.layers.clear()
    assert not added
    assert not opened.viewer.layers


def test_structures_on_another_grid_are_brought_onto_the_first(opened):
    from napari.layers import Labels

    from napari_mamba.ui.layers import layers_to_volume, volume_to_layers

    first = opened.structures[-1]
    volume, _ = layers_to_volume([first])
    shifted = volume.affine.copy()
    shifted[:3, 3] += volume.affine[:3, 0] * 2
    other = volume.with_data((np.asarray(volume.data) > 0).astype(np.uint8))
    moved = type(other)(other.data, shifted, ("x",))
    data, keywords, _ = volume_to_layers(moved)[0]
    found = structures_of([first, Labels(data, **{**keywords, "name": "moved"})])
    assert isinstance(found, StructureSet)
    mask = (np.asarray(volume.data[0]) > 0).astype(int)
    assert (found["label 1"].mask[2:] == mask[:-2].astype(bool)).all()
    assert any("another grid" in note for note in found.notes)
