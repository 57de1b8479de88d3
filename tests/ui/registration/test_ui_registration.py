"""Registration in the window: the choice, the run, the views, what is saved."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels, Layer
from scipy.ndimage import gaussian_filter

from napari_mamba.engine.registering.options import Registered
from napari_mamba.registration.transforms import Transform, jacobian_determinant, resample, world_points
from napari_mamba.ui.layers import placement, volume_to_layers
from napari_mamba.ui.registration import pictures, scene
from napari_mamba.ui.registration.model import RegistrationModel
from napari_mamba.ui.run.process.outcome import Outcome
from napari_mamba.volume import Volume

SHAPE = (20, 30, 28)
# a sagittal stack: the volume's first axis is the patient's left
GRID = np.array([[2.0, 0, 0, -20], [0, 2.0, 0, -30], [0, 0, 2.0, -28], [0, 0, 0, 1]])
SHIFT = np.array([4.0, -2.0, 6.0])


def body(seed=0):
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 2)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    inside = ((x / 0.6) ** 2 + (y / 0.7) ** 2 + (z / 0.65) ** 2 < 1) * (1 + 4 * noise)
    return Volume(inside[None].astype(np.float32), GRID, name="still")


def shifted(volume):
    grid = np.array(GRID)
    grid[:3, 3] += SHIFT
    return Volume(volume.data, grid, name="other")


def registered(fixed, moving):
    """What the engine would find, exactly."""
    found = Registered(transform=Transform(np.vstack([np.c_[np.eye(3), SHIFT], [0, 0, 0, 1]])))
    way = np.broadcast_to(SHIFT.astype(np.float32), (*SHAPE, 3))
    found.moved = resample(moving, fixed, found.transform)
    found.displacement = fixed.with_data(np.moveaxis(way, -1, 0), ("x", "y", "z"))
    change = jacobian_determinant(Transform(displacement=way, grid=fixed.affine))
    found.jacobian = fixed.with_data(change[None], ("volume change",))
    found.facts = {"longest_mm": 7.5, "folded_percent": 0.0}
    return found


@pytest.fixture
def viewer():
    viewer = ViewerModel()
    fixed = body()
    for volume in (fixed, shifted(fixed)):
        viewer.add_layer(Layer.create(*volume_to_layers(volume)[0]))
    return viewer


@pytest.fixture
def model(viewer):
    model = RegistrationModel(viewer)
    yield model
    model.close()


def ended(model):
    from napari_mamba.ui.registration.model import Finished

    pair = model.pair()
    found = registered(pair.fixed, pair.moving)
    carried = tuple(np.asarray(found.carry(one, pair.fixed).data)[0] for _, one, _ in pair.labels)
    return model.end(Outcome(Finished(pair, found, carried)))


def test_two_images_are_suggested_in_their_order(model, viewer):
    assert [model.fixed.name, model.moving.name] == ["still", "other"]
    assert model.problem == ""
    model.swap()
    assert [model.fixed.name, model.moving.name] == ["other", "still"]
    model.choose(moving=model.fixed)
    assert "two different images" in model.problem
    del viewer.layers["other"]
    assert "Open two 3D images" in model.problem


def test_what_was_added_is_not_suggested_as_input(model, viewer):
    finished = ended(model)
    viewer.add_layer(scene.view_layer(finished, "checkerboard", 0))
    assert "checkerboard" not in " ".join(layer.name for layer in model.images)


def test_the_moved_image_lies_on_the_fixed_one(model, viewer):
    finished = ended(model)
    (moved,) = scene.result_layers(finished)
    fixed = viewer.layers["still"]
    np.testing.assert_allclose(placement(moved).affine, placement(fixed).affine)
    inner = (slice(6, -6),) * 3
    assert np.corrcoef(moved.data[inner].ravel(), fixed.data[inner].ravel())[0, 1] > 0.99


def test_labels_are_carried_with_their_colours(model, viewer):
    other = viewer.layers["other"]
    keywords = {name: getattr(other, name) for name in ("affine", "scale", "units", "axis_labels")}
    drawn = (np.asarray(other.data) > 1).astype(np.uint8) * 3
    labels = viewer.add_layer(Labels(drawn, name="drawn", metadata=dict(other.metadata), **keywords))
    assert model.label_layers == [labels]
    model.choose(labels=[labels])
    image, carried = scene.result_layers(ended(model))
    assert carried.name == "moved: drawn"
    assert set(np.unique(carried.data)) == {0, 3}
    inside = carried.data == 3
    assert np.asarray(image.data)[inside].mean() > np.asarray(image.data)[~inside].mean() + 0.5


def test_labels_on_another_grid_are_refused(model, viewer):
    labels = viewer.add_layer(Labels(np.ones(viewer.layers["other"].data.shape, np.uint8), name="elsewhere"))
    model.choose(labels=[labels])
    with pytest.raises(Exception, match="another grid"):
        model.pair()


def test_the_checkerboard_takes_both_in_turn():
    ones, ramp = np.linspace(0, 1, 512).reshape(8, 8, 8), np.linspace(1, 0, 512).reshape(8, 8, 8)
    board = pictures.checkerboard(ones, ramp, (2, 2, 2), side_mm=4)
    np.testing.assert_allclose(board[0, 0, :4], [*pictures.scaled(ones)[0, 0, :2], *pictures.scaled(ramp)[0, 0, 2:4]])
    np.testing.assert_allclose(board[2, 0, 0], pictures.scaled(ramp)[2, 0, 0])


def test_grid_lines_lie_where_the_moving_images_lines_are_seen():
    """Of a shift by 4 mm, lines 10 mm apart are seen 4 mm earlier."""
    volume = Volume(np.zeros((3, 24, 41, 4), np.float32), np.diag([1.0, 1, 1, 1])[[2, 1, 0, 3]])
    still = pictures.warped_grid(volume, across=2)
    moved = np.zeros_like(volume.data)
    moved[1] = 4.0  # along y, which is the volume's second axis
    shifted_grid = pictures.warped_grid(volume.with_data(moved), across=2)
    rows = np.flatnonzero(still[3, :, 2] > 0.5)
    assert np.diff(rows).min() >= 9
    assert {row - 4 for row in rows if row >= 4} == set(np.flatnonzero(shifted_grid[3, :, 2] > 0.5))


def test_arrows_point_to_where_the_place_is_seen_in_the_moving_image():
    fixed = body()
    found = registered(fixed, shifted(fixed))
    arrows = pictures.vectors(found.displacement, fixed.data[0], across=0)
    assert 0 < len(arrows) <= pictures.MOST_VECTORS
    start, way = arrows[:, 0], arrows[:, 1]
    np.testing.assert_allclose(way @ GRID[:3, :3].T, np.broadcast_to(SHIFT, way.shape), atol=1e-4)
    assert len(np.unique(start[:, 0])) > 8, "each slice has arrows of its own"
    assert (fixed.data[0][tuple(start.astype(int).T)] != 0).all(), "none starts in the dark"


def test_arrows_of_a_large_image_are_thinned(monkeypatch):
    monkeypatch.setattr(pictures, "MOST_VECTORS", 50)
    fixed = body()
    found = registered(fixed, shifted(fixed))
    assert 0 < len(pictures.vectors(found.displacement, fixed.data[0], across=1)) <= 50


def test_arrows_lie_in_the_layers_axes(model):
    """In the world an arrow's way is the displacement, whatever axes the volume and the layer have."""
    finished = ended(model)
    layer = scene.view_layer(finished, "vectors", 0)
    start, way = layer.data[0]
    world = np.subtract(layer.data_to_world(start + way), layer.data_to_world(start))
    np.testing.assert_allclose(world, -SHIFT[::-1], atol=1e-4)  # napari's world: RAS reversed and negated
    points = world_points(GRID, SHAPE)
    assert np.abs(points @ np.eye(3) + np.array(layer.data_to_world(start))[::-1]).sum(axis=1).min() < 1e-3


@pytest.mark.parametrize("view", scene.VIEWS)
def test_each_view_lies_on_the_fixed_image(model, view, viewer):
    layer = scene.view_layer(ended(model), view, 0)
    fixed = viewer.layers["still"]
    np.testing.assert_allclose(layer.affine.affine_matrix, fixed.affine.affine_matrix)
    np.testing.assert_allclose(layer.scale, fixed.scale)
    assert layer.units == fixed.units


def test_colours_of_the_jacobian_are_centred_on_one(model):
    layer = scene.view_layer(ended(model), "jacobian", 0)
    assert sum(layer.contrast_limits) == pytest.approx(2)


def test_the_transform_is_saved_as_itk_reads_it(model, tmp_path):
    import SimpleITK as sitk

    ended(model)
    model.save_transform(tmp_path / "t.tfm")
    assert model.kind == "good"
    point = np.array([3.0, 4.0, 5.0])
    went = np.subtract(sitk.ReadTransform(str(tmp_path / "t.tfm")).TransformPoint(point.tolist()), point)
    np.testing.assert_allclose(went, SHIFT * (-1, -1, 1))
    model.save_transform(tmp_path / "d.nii.gz")
    field = sitk.ReadImage(str(tmp_path / "d.nii.gz"))
    np.testing.assert_allclose(field.GetPixel(5, 5, 5), SHIFT * (-1, -1, 1), atol=1e-5)
    model.save_transform(tmp_path / "t.txt")
    assert (model.kind, "endings" in model.message) == ("error", True)


def test_how_it_ended_is_said(model):
    assert model.end(Outcome(error="The fixed image has one value everywhere.")) is None
    assert model.kind == "error"
    assert model.end(Outcome(Registered())) is None
    assert "Cancelled" in model.message


@pytest.fixture
def widget(qtbot, viewer, monkeypatch):
    from napari_mamba.ui.registration import widget as module
    from napari_mamba.ui.run.process.engine_process import EngineThread

    monkeypatch.setattr(module, "make_engine", EngineThread)
    widget = module.RegistrationWidget(viewer)
    qtbot.addWidget(widget)
    yield widget
    widget.close()


def test_a_network_s_warp_is_kept_where_that_is_asked(widget):
    widget.keep_warp.setChecked(True)
    assert widget.model.options().keep_warp
    widget.bundle.setCurrentIndex(widget.bundle.findData("none"))
    assert not widget.keep_warp.isEnabled()
    assert not widget.model.options().keep_warp
    widget.bundle.setCurrentIndex(widget.bundle.findData("auto"))
    assert widget.model.options().keep_warp


def test_a_run_in_the_window_adds_the_moved_image_and_views(widget, viewer, qtbot):
    """The real engine, an affine alone."""
    widget.refine.setChecked(False)
    assert widget.model.refine is False
    with qtbot.waitSignal(widget.work.ended, timeout=60_000):
        widget.row.start_button.click()
        assert not widget.row.start_button.isEnabled()
    assert "moved: other" in viewer.layers
    way = widget.model.finished.found.transform(np.zeros((1, 3)))[0]
    np.testing.assert_allclose(way, SHIFT, atol=1.0)
    qtbot.waitUntil(lambda: "checkerboard: other" in viewer.layers, timeout=60_000)
    assert not viewer.layers["still"].visible
    widget.views["overlay"].setChecked(True)
    qtbot.waitUntil(lambda: "overlay: other" in viewer.layers, timeout=60_000)
    assert "checkerboard: other" not in viewer.layers
    widget.opacity.setValue(0)
    assert (viewer.layers["overlay: still"].opacity, viewer.layers["overlay: other"].opacity) == (1, 0)
    widget.views["grid"].setChecked(True)
    qtbot.waitUntil(lambda: "grid: other" in viewer.layers, timeout=60_000)
    before = viewer.layers["grid: other"]
    viewer.dims.order = (1, 0, 2)
    qtbot.waitUntil(lambda: "grid: other" in viewer.layers and viewer.layers["grid: other"] is not before)
    del viewer.layers["grid: other"]
    assert not widget.views["grid"].isChecked()
    widget.views["overlay"].setChecked(False)
    assert viewer.layers["still"].visible


def test_cancel_adds_nothing(widget, viewer, qtbot, monkeypatch):
    import threading

    from napari_mamba.ui.run.process import work

    begun = threading.Event()

    def slow(cancel, *arguments):
        from napari_mamba.engine.progress.events import Progress

        while not cancel.is_set():
            begun.set()
            yield Progress("refining", 1, 9)
            cancel.wait(0.01)
        return Registered()

    monkeypatch.setitem(work.WORK, "register", slow)
    widget.row.start_button.click()
    qtbot.waitUntil(begun.is_set)
    with qtbot.waitSignal(widget.work.ended, timeout=60_000):
        widget.row.stop_button.click()
    assert "Cancelled" in widget.notice.text()
    assert len(viewer.layers) == 2


def test_a_fault_is_a_sentence(widget, qtbot, monkeypatch):
    from napari_mamba.ui.run.process import work

    def broken(cancel, *arguments):
        raise RuntimeError("odd")
        yield

    monkeypatch.setitem(work.WORK, "register", broken)
    with qtbot.waitSignal(widget.work.ended, timeout=60_000):
        widget.row.start_button.click()
    assert "please report this" in widget.notice.text()
