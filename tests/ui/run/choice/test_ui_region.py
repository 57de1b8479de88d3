"""A run on a box of the image, and its answer in the whole: against boxes that are cut by hand."""

from __future__ import annotations

import dask.array
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Layer
from qtpy.QtCore import Qt

from napari_mamba.engine import Result
from napari_mamba.errors import InputError
from napari_mamba.ui.layers import layers_to_volume, volume_to_layers
from napari_mamba.ui.run.choice.inputs import SELECTED
from napari_mamba.ui.run.choice.layer_jobs import layer_job
from napari_mamba.ui.run.choice.options import Options
from napari_mamba.ui.run.choice.region import draw_region, region_of, same_units
from napari_mamba.ui.run.session import RunSession
from napari_mamba.ui.run.views.region_view import DRAW
from napari_mamba.volume import Volume

VALUES = np.random.default_rng(0).random((1, 20, 24, 28)).astype(np.float32)
GRIDS = {
    "RAS": np.diag([2.0, 1.0, 0.5, 1.0])[[2, 1, 0, 3]],
    "permuted": np.array([[0, -0.9, 0, 20.0], [0, 0, -0.9, 10], [1.5, 0, 0, -5], [0, 0, 0, 1]])[[1, 2, 0, 3]],
}


@pytest.fixture(params=GRIDS)
def viewer(request) -> ViewerModel:
    viewer = ViewerModel()
    viewer.add_layer(Layer.create(*volume_to_layers(Volume(VALUES, GRIDS[request.param], name="scan"))[0]))
    return viewer


def labels_at(viewer: ViewerModel, box) -> Layer:
    """A labels layer in the place of the scan, drawn in a box of its voxels."""
    scan = viewer.layers["scan"]
    _, place = layers_to_volume([scan])
    drawn = np.zeros(scan.data.shape, np.uint8)
    drawn[box] = 3
    return viewer.add_labels(drawn, name="box", **place.transforms)


def test_the_run_sees_the_box_and_its_answer_lies_in_the_whole(viewer, tiny):
    scan = viewer.layers["scan"]
    box = (slice(4, 9), slice(5, 15), slice(6, 20))
    labels_at(viewer, box)
    job, _ = layer_job(viewer, [scan], tiny, Options(region="box"))
    part, (whole, place) = job.read(), layers_to_volume([scan])
    np.testing.assert_array_equal(place.to_layer_axes(whole.data[0])[box], place.to_layer_axes(part.data[0]))
    corner = (part.affine @ [0, 0, 0, 1])[:3]
    index = np.linalg.solve(whole.affine, [*corner, 1])[:3]
    np.testing.assert_allclose(whole.data[0][tuple(np.round(index).astype(int))], part.data[0, 0, 0, 0])
    answer = Result(labels=part.with_data(np.ones(part.data.shape, np.uint8)))
    labels = place.to_layer_axes(job.finish(answer, part).labels.data[0])
    expected = np.zeros(scan.data.shape, np.uint8)
    expected[box] = 1
    np.testing.assert_array_equal(labels, expected)


def test_a_restored_part_stays_a_part_in_its_place(viewer, tiny):
    scan = viewer.layers["scan"]
    box = (slice(4, 9), slice(5, 15), slice(6, 20))
    labels_at(viewer, box)
    job, _ = layer_job(viewer, [scan], tiny, Options(region="box"))
    part = job.read()
    result = job.finish(Result(image=part), part)
    place = job.place.of_grid(result.image.affine)
    layer = Layer.create(place.to_layer_axes(result.image.data[0]), dict(place.transforms), "image")
    np.testing.assert_allclose(layer.data_to_world((0, 0, 0)), scan.data_to_world((4, 5, 6)), atol=1e-6)
    np.testing.assert_array_equal(layer.data, scan.data[box])


def test_a_shape_drawn_in_a_slice_goes_through_all_slices(viewer):
    scan = viewer.layers["scan"]
    volume, place = layers_to_volume([scan])
    corners = [(7, 3, 4), (7, 3, 15), (7, 12, 15), (7, 12, 4)]
    world = [scan.data_to_world(corner) for corner in corners]
    shapes = viewer.add_shapes([np.array(world)], shape_type="polygon", name="drawn")
    region = region_of(shapes, volume, scan, [place.order.index(axis) for axis in range(3)])
    part = place.to_layer_axes(region.of(volume).data[0])
    np.testing.assert_array_equal(part, scan.data[:, 3:13, 4:16])


def test_what_marks_nothing_is_told(viewer):
    scan = viewer.layers["scan"]
    volume, _ = layers_to_volume([scan])
    empty = viewer.add_labels(np.zeros(scan.data.shape, np.uint8), name="empty")
    with pytest.raises(InputError, match="'empty' is empty: draw a box"):
        region_of(empty, volume, scan, (0, 1, 2))
    far = viewer.add_labels(np.ones((3, 3, 3), np.uint8), name="far", translate=(1e4, 1e4, 1e4))
    with pytest.raises(InputError, match="lies outside of 'scan'"):
        region_of(far, volume, scan, (0, 1, 2))
    huge = viewer.add_labels(dask.array.ones((2000, 2000, 2000), dtype=np.uint8), name="huge")
    with pytest.raises(InputError, match="'huge' does not lie in memory"):
        region_of(huge, volume, scan, (0, 1, 2))
    with pytest.raises(InputError, match="'nothing' is empty"):
        region_of(viewer.add_shapes(name="nothing", ndim=3), volume, scan, (0, 1, 2))


def test_a_coarser_level_is_run_on_in_its_place(tiny):
    """Of a pyramid: each voxel of the second level lies in the middle of the eight that it is the mean of."""
    fine = np.random.default_rng(0).random((24, 16, 20)).astype(np.float32)
    coarse = fine.reshape(12, 2, 8, 2, 10, 2).mean(axis=(1, 3, 5))
    viewer = ViewerModel()
    layer = viewer.add_image([fine, coarse], multiscale=True, name="pyramid", scale=(2, 1, 1), translate=(5, 0, 0),
                             units=("mm",) * 3)  # fmt: skip
    job, volume = layer_job(viewer, [layer], tiny, Options(level="1"))
    np.testing.assert_array_equal(volume.data[0], coarse)
    np.testing.assert_allclose(volume.spacing, (4, 2, 2))
    whole, _ = layers_to_volume([layer])
    middle = whole.affine @ [2.5, 4.5, 6.5, 1]  # of the fine voxels 2 and 3, 4 and 5, 6 and 7
    np.testing.assert_allclose(volume.affine @ [1, 2, 3, 1], middle)
    assert (job.level, job.title) == (1, "pyramid")
    labels = viewer.add_labels(np.zeros(coarse.shape, np.uint8), **job.place.transforms)
    np.testing.assert_allclose(labels.data_to_world((1, 2, 3)), layer.data_to_world((2.5, 4.5, 6.5)))
    assert layer_job(viewer, [layer], tiny, Options())[1].shape == fine.shape
    with pytest.raises(InputError, match="has 2 levels, 0 to 1"):
        layer_job(viewer, [layer], tiny, Options(level="2"))
    with pytest.raises(InputError, match="has one level, 0"):
        layer_job(viewer, [viewer.add_image(fine, name="flat")], tiny, Options(level="1"))


def rectangle(z: int) -> np.ndarray:
    """Corners in a slice, as a drag of the pointer makes them."""
    return np.array([(z, 3, 4), (z, 3, 15), (z, 12, 15), (z, 12, 4)], float)


@pytest.mark.parametrize(("units", "factor"), [("micrometer", 1000.0), ("cm", 0.1), ("mm", 1.0), ("pixel", 1.0)])
def test_a_shape_counts_in_its_own_units(viewer, units, factor):
    """In a viewer of micrometres and millimetres napari gives new layers the smaller ones."""
    scan = viewer.layers["scan"]
    volume, place = layers_to_volume([scan])
    world = np.array([scan.data_to_world(at) for at in [(2, 3, 4), (2, 12, 15), (8, 12, 15), (8, 3, 4)]])
    shapes = viewer.add_shapes([world * factor], shape_type="polygon", units=(units,) * 3)
    region = region_of(shapes, volume, scan, [place.order.index(axis) for axis in range(3)])
    np.testing.assert_array_equal(place.to_layer_axes(region.of(volume).data[0]), scan.data[2:9, 3:13, 4:16])


def test_a_box_to_draw_lies_in_the_image_and_keeps_the_viewers_units(viewer):
    scan = viewer.layers["scan"]
    volume, place = layers_to_volume([scan])
    drawn = draw_region(viewer, scan)
    assert drawn.mode == "add_rectangle"
    assert viewer.layers.extent.units == scan.units
    drawn.add_rectangles([rectangle(2), rectangle(8)])
    region = region_of(drawn, volume, scan, [place.order.index(axis) for axis in range(3)])
    np.testing.assert_array_equal(place.to_layer_axes(region.of(volume).data[0]), scan.data[2:9, 3:13, 4:16])


def test_shapes_without_units_take_those_of_the_image_and_stay_where_they_are(viewer):
    scan = viewer.layers["scan"]
    shapes = viewer.add_shapes([np.array([[0.0, 3, 4], [0, 12, 15]])], shape_type="line", scale=(2, 1, 1))
    assert viewer.layers.extent.units is None, "napari warns, and draws no scale bar"
    before = shapes.data_to_world((1, 2, 3))
    same_units(viewer, shapes, scan)
    assert viewer.layers.extent.units == scan.units
    assert shapes.data_to_world((1, 2, 3)) == before
    metres = viewer.add_shapes(ndim=3, units=("m",) * 3)
    same_units(viewer, metres, scan)
    assert str(metres.units[0]) == "meter"


def test_what_is_said_follows_the_box_that_is_drawn(viewer, tiny):
    session = RunSession(viewer)
    session.choose_bundle(tiny)
    drawn = draw_region(viewer, viewer.layers["scan"])
    session.options.region = "region"
    assert "'region' is empty" in session.remarks()[0].text
    told = []
    session.changed.connect(lambda: told.append(session.ready))
    drawn.add_rectangles(rectangle(2))
    assert told == [True]
    session.options.region = ""
    told.clear()
    drawn.add_rectangles(rectangle(2))
    assert not told


def test_levels_are_listed_with_their_sizes_and_none_counts_that_is_not_shown(qtbot, widget):
    """One that was chosen for an image of several levels would refuse the next image, out of sight."""
    view, options = widget.options.level, widget.session.options
    assert view.isHidden()
    fine = np.zeros((24, 16, 20), np.float32)
    layer = widget.viewer.add_image([fine, fine[::2, ::2, ::2]], multiscale=True, name="pyramid", units=("mm",) * 3)
    widget.session.inputs.choose(0, layer)
    entries = [view.combo.itemText(i) for i in range(view.combo.count())]
    assert entries == ["0: 24 x 16 x 20 voxels", "1: 12 x 8 x 10 voxels"]
    assert not view.isHidden()
    view.combo.setCurrentIndex(1)
    assert options.level == "1"
    assert widget.session.job_of([layer])[1].shape == (12, 8, 10)
    widget.session.inputs.choose(0, widget.viewer.layers["scan"])
    assert options.level == ""
    assert view.isHidden()


def test_a_box_is_drawn_from_the_list_and_the_image_stays_chosen(qtbot, widget):
    combo, inputs = widget.options.region.combo, widget.session.inputs
    inputs.choose(0, SELECTED)
    index = combo.findData(DRAW)
    assert combo.itemText(index) == "Draw a box…"
    combo.setCurrentIndex(index)
    combo.activated.emit(index)
    assert (combo.currentText(), widget.session.options.region) == ("Around 'region'", "region")
    assert inputs.runs == [[widget.viewer.layers["scan"]]]
    qtbot.waitUntil(lambda: "'region' is empty" in widget.before.text(), timeout=5000)
    widget.viewer.layers["region"].add_rectangles(rectangle(2))
    qtbot.waitUntil(lambda: widget.run_button.isEnabled(), timeout=5000)
    widget.viewer.layers.remove("region")
    assert (combo.currentText(), widget.session.options.region) == ("The whole image", "")
    widget.viewer.layers.clear()
    draw = combo.model().index(combo.findData(DRAW), 0)
    assert not combo.model().flags(draw) & Qt.ItemFlag.ItemIsEnabled
