"""A class list and a labels layer follow each other; what is painted, undone and locked."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap

from napari_mamba.errors import InputError
from napari_mamba.ui.layers import KEY
from napari_mamba.ui.results.classes.corrections import TOOLS, Corrections, correct, corrected_copy
from napari_mamba.ui.results.classes.link import ClassLink
from napari_mamba.ui.results.classes.record import classes_of, origin_of, record_of, set_classes


@pytest.fixture
def link(viewer, image, labels):
    link = ClassLink(viewer, labels)
    link.take(link.count())
    link.told = 0

    def tell():
        link.told += 1

    link.tell = tell
    link.stale.connect(tell)
    return link


def shown(layer, index) -> bool:
    return bool(np.atleast_2d(layer.colormap.map(index))[0, 3] > 0)


def stroke(layer, value, box):
    """Paint a box as a stroke of the mouse does: what is told comes after the data have changed."""
    mask = np.zeros(layer.data.shape, bool)
    mask[tuple(slice(a, b) for a, b in box)] = True
    with layer.block_history():
        layer.data_setitem(np.nonzero(mask), value)


def dab(layer, value, size=40):
    """A huge round brush in the middle of the layer."""
    layer.brush_size, layer.n_edit_dimensions = size, 3
    with layer.block_history():
        layer.paint(tuple(n // 2 for n in layer.data.shape), value)


def test_numbers_of_a_layer(link, label_data):
    rows = {row.name: row for row in link.model.rows()}
    assert list(rows) == ["liver", "spleen"]
    assert rows["liver"].voxels == 480
    assert rows["liver"].size == pytest.approx(0.96)  # 2 mm3 a voxel
    assert rows["liver"].mean == pytest.approx(100, abs=0.2)
    assert rows["spleen"].spread == pytest.approx(1, abs=0.2)


def test_hiding_solo_and_outline_reach_the_layer(link, labels):
    link.model.toggle_shown(1)
    assert not shown(labels, 1)
    assert shown(labels, 2)
    link.model.toggle_solo(1)
    assert shown(labels, 1)
    assert not shown(labels, 2)
    link.model.outlined = True
    assert labels.contour == 1
    labels.contour = 0
    assert not link.model.outlined
    link.disconnect()
    assert shown(labels, 1)
    assert shown(labels, 2), "nothing stays hidden behind a list that is gone"


def test_a_class_is_chosen_as_the_brush_and_back(link, labels):
    link.model.selected = 2
    assert labels.selected_label == 2
    labels.selected_label = 1
    assert link.model.selected == 1


def test_a_new_label_gets_a_line_and_a_colour_before_it_is_painted(link, labels):
    labels.selected_label = 9
    assert "label 9" in [c.name for c in link.model.classes]
    assert shown(labels, 9)
    assert [e["index"] for e in labels.metadata[KEY]["classes"]] == [1, 2, 5, 9]


def test_going_to_a_class_moves_slices_and_camera(link, viewer, labels):
    link.jump_to(2)
    index = tuple(round(i) for i in labels.world_to_data(viewer.dims.point))
    assert labels.data[index] == 2
    np.testing.assert_allclose(viewer.scene.camera.center[1:], viewer.dims.point[1:])
    with pytest.raises(InputError, match="no voxel"):
        link.jump_to(5)


def test_painting_undo_redo_fill_and_new_data_make_the_numbers_stale(link, labels, viewer):
    before = labels.data.copy()
    stroke(labels, 2, ((0, 2), (0, 3), (0, 4)))
    assert link.told == 1
    assert link.count()[2].voxels == 120 + 24
    labels.undo()
    assert link.told == 2
    np.testing.assert_array_equal(labels.data, before)
    labels.redo()
    assert link.told == 3
    labels.fill((0, 0, 0), 1)
    assert link.told == 4
    labels.data = before
    assert link.told >= 5
    link.told = 0
    viewer.dims.set_point(0, viewer.dims.point[0] + 4)
    labels.visible = False
    labels.name = "another"
    assert link.told == 0, "a move through the slices changes no number"


def test_locked_classes_lose_and_gain_nothing_and_one_undo_takes_back_the_stroke(link, labels):
    before = labels.data.copy()
    refused = []
    hear = refused.append
    link.refused.connect(hear)
    link.model.toggle_lock(2)
    stroke(labels, 1, ((0, 12), (0, 20), (0, 24)))
    assert (labels.data == 2).sum() == 120
    assert (labels.data == 1).sum() == labels.data.size - 120
    assert refused == ["spleen is locked and stays as it was"]
    labels.undo()
    np.testing.assert_array_equal(labels.data, before)
    labels.redo()
    assert (labels.data == 2).sum() == 120, "redo keeps the lock"
    labels.undo()
    dab(labels, 1)
    assert (labels.data == 1).sum() > 2000
    assert (labels.data == 2).sum() == 120
    labels.undo()
    np.testing.assert_array_equal(labels.data, before)
    labels.paint(tuple(np.argwhere(labels.data == 2)[0]), 0)  # told before the data change
    assert (labels.data == 2).sum() == 120
    stroke(labels, 2, ((0, 2), (0, 3), (0, 4)))
    assert (labels.data == 2).sum() == 120, "a locked class gains nothing"


def test_overlapping_strokes_give_back_what_was_there_first(link, labels):
    before = labels.data.copy()
    link.model.toggle_lock(2)
    labels.brush_size, labels.n_edit_dimensions = 30, 3
    with labels.block_history():
        for value in (1, 5):
            labels.paint((6, 10, 12), value)
    np.testing.assert_array_equal(labels.data == 2, before == 2)


def test_a_renamed_class_reaches_the_record_and_the_status_bar(link, labels):
    link.model.rename(1, "hepar")
    assert classes_of(labels)[0].name == "hepar"
    assert labels.features.set_index("index").loc[1, "name"] == "hepar"
    assert classes_of(labels)[0].code == "SCT:10200004"


def test_layers_of_other_plugins_keep_their_colours(viewer, image, label_data):
    layer = viewer.add_labels(label_data.copy(), name="theirs")
    own = layer.colormap
    link = ClassLink(viewer, layer)
    link.take(link.count())
    assert [c.name for c in link.model.classes] == ["label 1", "label 2"]
    assert layer.colormap is own
    np.testing.assert_allclose(
        [int(link.model.classes[0].color[i : i + 2], 16) / 255 for i in (1, 3, 5)], own.map(1).ravel()[:3], atol=0.003
    )
    link.model.toggle_shown(1)
    assert isinstance(layer.colormap, DirectLabelColormap)
    link.model.toggle_shown(1)
    assert layer.colormap is own


def test_a_flat_layer_and_one_of_four_axes(viewer):
    flat = viewer.add_labels(np.eye(8, dtype=int), name="flat")
    link = ClassLink(viewer, flat)
    assert link.count()[1].voxels == 8
    link.take(link.count())
    link.jump_to(1)
    with pytest.raises(InputError, match="4 axes"):
        ClassLink(viewer, viewer.add_labels(np.ones((2, 3, 4, 5), int)))


# ---- corrections


@pytest.mark.parametrize("tool", list(TOOLS))
def test_each_tool_is_one_step_that_can_be_undone_and_is_remembered(link, labels, tool):
    if tool in ("keep_largest", "remove_islands"):
        labels.data[0, 0, 0] = 1
    if tool == "fill_holes":
        labels.data[tuple(np.round(link.count()[1].centre).astype(int))] = 0
    if tool == "interpolate":
        labels.data[5] = 0
    before = labels.data.copy()
    link.model.selected = 1
    changed = correct(link, tool, Corrections(island_ml=0.01, smooth_mm=2, margin_mm=2))
    assert changed == (labels.data != before).sum() > 0
    assert (labels.data[before == 2] == 2).all()
    assert labels.metadata[KEY]["edits"] == [{"what": TOOLS[tool][2], "class": 1, "voxels": changed}]
    labels.undo()
    np.testing.assert_array_equal(labels.data, before)
    assert "corrected" not in origin_of(labels)
    labels.redo()
    assert "corrected in 1 step" in origin_of(labels)


def test_what_is_undone_is_no_correction(link, labels):
    """Also where strokes are one entry, after something else was painted, and with other data."""
    record = record_of(labels)
    for z in (3, 4):
        labels.paint((z, 2, 2), 1)
    assert [edit["what"] for edit in record["edits"]] == ["painted"]
    both = record["edits"][0]["voxels"]
    labels.undo()
    assert 0 < record["edits"][0]["voxels"] < both
    labels.redo()
    assert record["edits"][0]["voxels"] == both
    labels.undo()
    labels.undo()
    assert "edits" not in record
    labels.paint((5, 2, 2), 2)
    assert [edit["class"] for edit in record["edits"]] == [2]
    labels.undo()
    labels.data = labels.data.copy()
    assert "edits" not in record


def test_margins_are_millimetres_on_the_layers_own_axes(link, labels):
    link.model.selected = 2
    correct(link, "grow", Corrections(margin_mm=2))
    centre = np.argwhere(labels.data == 2)
    size = np.ptp(centre, axis=0) + 1
    assert size.tolist() == [4 + 2, 5 + 4, 6 + 4]  # slices of 2 mm, pixels of 1 mm


def test_what_cannot_be_corrected_is_said(link, labels, viewer):
    link.model.selected = None
    with pytest.raises(InputError, match="no class is selected"):
        correct(link, "grow", Corrections())
    link.model.selected = 5
    with pytest.raises(InputError, match="no voxel"):
        correct(link, "grow", Corrections())
    link.model.selected = 1
    link.model.toggle_lock(1)
    with pytest.raises(InputError, match="locked"):
        correct(link, "grow", Corrections())
    import dask.array

    lazy = viewer.add_labels(dask.array.from_array(np.ones((4, 5, 6), int)), name="lazy")
    other = ClassLink(viewer, lazy)
    other.take(other.count())
    other.model.selected = 1
    with pytest.raises(InputError, match="cannot be changed"):
        correct(other, "grow", Corrections())


def test_a_corrected_copy_remembers_where_it_came_from(labels):
    copy = corrected_copy(labels)
    record_of(copy)["edits"] = [{"what": "smoothed", "class": 1, "voxels": 12}]
    assert copy.metadata[KEY]["corrected_from"] == "labels"
    assert "edits" not in labels.metadata[KEY], "the original's record is its own"
    copy.data[0, 0, 0] = 7
    assert labels.data[0, 0, 0] == 0
    assert origin_of(copy) == "Made by organs 1.2, from 'scan', corrected in 1 step"
    assert [c.name for c in classes_of(copy)] == ["liver", "spleen", "pancreas"]


def test_names_and_colours_survive_duplication_and_napari_plain_data():
    layer = Labels(np.array([[[0, 3]]]))
    from napari_mamba.bundles import LabelClass

    set_classes(layer, [LabelClass(3, "aorta", "#112233", "SCT:15825003")])
    again = Labels(*layer.as_layer_data_tuple()[:1], **layer.as_layer_data_tuple()[1])
    assert classes_of(again) == [LabelClass(3, "aorta", "#112233", "SCT:15825003")]
    foreign = Labels(np.array([[[0, 3]]]), features={"index": [0, 3], "name": ["background", "aorta"]})
    assert [c.name for c in classes_of(foreign)] == ["aorta"]
