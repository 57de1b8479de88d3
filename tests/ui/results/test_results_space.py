"""Slices, letters, positions, contrast, surfaces and figures against the geometry that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Layer

from napari_mamba.errors import InputError
from napari_mamba.ui.layers import volume_to_layers
from napari_mamba.ui.results.maps.look import UNCERTAINTY, map_colormap, map_look, note_measure, signed_look
from napari_mamba.ui.results.maps.scores import scores_of
from napari_mamba.ui.results.maps.tour import find_places, go_to
from napari_mamba.ui.results.space.figure import slice_picture
from napari_mamba.ui.results.space.orientation import Orientation
from napari_mamba.ui.results.space.position import letters, ras_of
from napari_mamba.ui.results.space.slices import compose, finest, layers_to_draw, plane_through, sample
from napari_mamba.ui.results.space.surfaces import make_surfaces, show_surfaces, shown_classes, surface_layer
from napari_mamba.ui.results.space.window_level import PRESETS, WindowLevel, dragged, limits_of, target, window_level
from napari_mamba.volume import Volume


def position_image(affine, shape=(9, 11, 13)) -> Volume:
    """Channels hold each voxel's own R, A and S."""
    index = np.stack([*np.indices(shape), np.ones(shape)]).reshape(4, -1)
    return Volume((affine @ index)[:3].reshape(3, *shape), affine, ("R", "A", "S"))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("kind", ["straight", "oblique"])
def test_a_slice_shows_each_voxel_where_it_lies(axis, kind, viewer, oblique_affine):
    """Sampled values are RAS coordinates: they must be those of the pixel, to half a voxel."""
    straight = np.array([[0, 0, 1.1, -3], [0, -0.9, 0, 7], [2.5, 0, 0, 4], [0, 0, 0, 1]])
    affine = oblique_affine if kind == "oblique" else straight
    layers = [Layer.create(*entry) for entry in volume_to_layers(position_image(affine))]
    point = layers[0].data_to_world((4, 5, 6))
    plane = plane_through(layers, axis, point, finest(layers) / 2)
    grid = np.zeros((3, len(plane.rows), len(plane.columns)))
    rows, columns = (a for a in range(3) if a != axis)
    grid[axis], grid[rows], grid[columns] = plane.at, plane.rows[:, None], plane.columns[None, :]
    ras = ras_of(layers[0], grid.reshape(3, -1).T).T.reshape(3, *grid.shape[1:])
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    found = np.stack([sample(layer, plane)[0] for layer in layers])
    inside = sample(layers[0], plane)[1]
    assert inside.mean() > 0.3
    offset = np.linalg.inv(affine[:3, :3]) @ (found - ras)[:, inside]
    assert np.abs(offset).max() <= 0.5 + 1e-6, f"in voxels of {spacing} mm"


def test_composing_follows_contrast_opacity_colours_and_outlines(viewer, image, labels):
    image.contrast_limits = (0, 200)
    labels.opacity = 1.0
    point = image.data_to_world((6, 10, 7))
    plane = plane_through(layers_to_draw(viewer), 0, point, 1.0)
    picture = compose(layers_to_draw(viewer), plane)
    values = sample(labels, plane)[0]
    assert (picture[values == 1] == [0xAA, 0x33, 0x11]).all()
    background = sample(image, plane)[0] / 200 * 255
    np.testing.assert_allclose(picture[values == 0][:, 0], np.clip(background[values == 0], 0, 255), atol=2)
    labels.opacity = 0.5
    mixed = compose(layers_to_draw(viewer), plane)[values == 1][:, 0].mean()
    assert mixed == pytest.approx((0xAA + 127) / 2, abs=3)
    labels.opacity, labels.contour = 1.0, 1
    outlined = compose(layers_to_draw(viewer), plane)
    area, line = (values == 1).sum(), (outlined[values == 1] == [0xAA, 0x33, 0x11]).all(axis=-1).sum()
    assert 0.1 * area < line < 0.6 * area
    labels.visible = False
    assert layers_to_draw(viewer) == [image]


def test_letters_of_each_plane(viewer, image):
    assert letters(viewer) == ("R", "L", "A", "P")  # axial, the patient's right on the left
    viewer.dims.order = (1, 0, 2)
    assert letters(viewer) == ("R", "L", "S", "I")
    viewer.dims.order = (2, 0, 1)
    assert letters(viewer) == ("A", "P", "S", "I")
    viewer.dims.ndisplay = 3
    assert letters(viewer) == ("", "", "", "")


def test_no_letters_where_nothing_is_known(viewer):
    viewer.add_image(np.zeros((4, 5, 6)))
    assert letters(viewer) == ("", "", "", "")


def test_letters_and_position_come_to_the_canvas_and_go(viewer, image):
    before = set(viewer.canvas.overlays)
    orientation = Orientation(viewer)
    orientation.shown = True
    overlays = viewer.canvas.overlays
    assert overlays["napari_mamba_middle_left"].text == "R"
    viewer.cursor.position = image.data_to_world((0, 0, 0))  # of the file: R -10, A -20, S 30
    text = overlays["napari_mamba_position"].text
    ras = ras_of(image, [image.data_to_world((0, 0, 0))])[0]
    np.testing.assert_allclose(sorted(np.abs(ras)), sorted(np.abs(ras)))
    assert f"{abs(ras[0]):.1f}" in text
    viewer.dims.ndisplay = 3
    assert not overlays["napari_mamba_middle_left"].visible
    viewer.layers.clear()
    assert not overlays["napari_mamba_position"].visible
    orientation.shown = False
    assert set(viewer.canvas.overlays) == before


def test_window_and_level():
    assert limits_of(*window_level((-160, 240))) == (-160, 240)
    assert dragged((0, 100), 200, 0, 50, (100, 100)) == (100, 200), "down raises the level"
    low, high = dragged((0, 100), 200, -10_000, 0, (100, 100))
    assert high > low, "the window never closes"
    assert limits_of(*PRESETS["Soft tissue"]) == (-160, 240)


def test_dragging_sets_the_contrast_of_the_right_layer_and_the_camera_stays(viewer, image, labels):
    tool = WindowLevel(viewer)
    tool.on = True
    assert not viewer.scene.camera.mouse_pan
    assert target(viewer) is image, "the selected layer is labels: the image below counts"

    class Event:
        type, button, modifiers, pos, handled = "mouse_press", 1, (), np.array([10.0, 10.0]), False

    event, before = Event(), image.contrast_limits
    drag = viewer.mouse_drag_callbacks[-1](viewer, event)
    next(drag)
    event.type, event.pos = "mouse_move", np.array([60.0, 10.0])
    next(drag)
    assert np.ptp(image.contrast_limits) > np.ptp(before)
    event.type = "mouse_release"
    assert list(drag) == []
    labels.mode, event.type = "paint", "mouse_press"
    assert list(viewer.mouse_drag_callbacks[-1](viewer, event)) == [], "a brush keeps its drags"
    tool.on = False
    assert viewer.scene.camera.mouse_pan
    assert len([c for c in viewer.mouse_drag_callbacks if c == tool._drag]) == 0


def test_maps_are_clear_where_they_say_nothing_and_never_opaque():
    alpha = np.asarray(map_colormap().map(np.linspace(0, 1, 101)))[:, 3]
    assert alpha[0] == 0
    assert (np.diff(alpha) >= -1e-6).all()
    assert alpha[-1] <= 0.85
    assert signed_look(np.zeros((2, 2)))["contrast_limits"] == (-1, 1)


@pytest.fixture
def doubt(viewer, image):
    data = np.zeros(image.data.shape, np.float32)
    data[2:4, 3:6, 3:6], data[8:10, 12:16, 15:19] = 0.9, 0.6
    transforms = {name: getattr(image, name) for name in ("affine", "scale", "translate", "units", "axis_labels")}
    layer = viewer.add_image(data, name="doubt", **map_look(), **transforms)
    note_measure(layer, UNCERTAINTY)
    return layer


def test_a_tour_goes_from_the_worst_place_to_the_next_and_round(viewer, doubt):
    tour = find_places(doubt)
    assert not doubt.colorbar.visible, "napari's own crashes where such a layer is removed and another added"
    assert [p.voxels for p in tour.places] == [32, 18]
    seen = []
    for by in (1, 1, 1, -1):
        place = tour.step(by)
        go_to(viewer, doubt, place)
        at = tuple(round(i) for i in doubt.world_to_data(viewer.dims.point))
        seen.append(round(float(doubt.data[at]), 1))
    assert seen == [0.6, 0.9, 0.6, 0.9]
    assert tour.words().startswith("Place 2 of 2: up to 0.9")
    assert find_places(doubt, share=0.95).step() is None
    assert find_places(doubt, share=0.95).words() == "No place reaches 0.95."


def test_scores_say_what_such_an_answer_was_worth():
    metrics = {
        "test": {
            "curve": [{"n": 40, "promised": 0.9, "true": 0.7}, {"n": 0, "promised": 0.5, "true": 0}, {"odd": 1}],
            "calibration_error": 0.05,
        }
    }
    scores = scores_of({"normal": 0.12, "blur": 0.88}, metrics)
    assert [bar.name for bar in scores.bars] == ["blur", "normal"]
    assert scores.words() == "On test data, of 40 answers of about 90%, 70% were right."
    assert scores.bars[1].known is None, "no bin is near"
    assert "not measured" in scores_of({"a": 1.0}, {"test": "none"}).words()
    assert scores_of({}).words() == ""


def test_shipped_classifiers_have_their_curves():
    from napari_mamba import bundles

    for name in ("mr-quality", "adrenal-shape"):
        metrics = bundles.load(name).metrics
        assert scores_of({"a": 0.9, "b": 0.1}, metrics).bars[0].known is not None, name


def test_surfaces_lie_on_the_labels_they_were_made_of(viewer, labels):
    assert [c.name for c in shown_classes(labels)] == ["liver", "spleen"]
    surfaces = make_surfaces(labels, shown_classes(labels), smoothing=0)
    layer = surface_layer(surfaces[1], labels)
    voxels = np.array([labels.data_to_world(i) for i in np.argwhere(labels.data == 2)])
    np.testing.assert_allclose(layer.data[0].mean(axis=0), voxels.mean(axis=0), atol=0.3)
    np.testing.assert_allclose(layer.data[0].min(axis=0), voxels.min(axis=0) - np.abs(labels.scale) / 2, atol=1e-6)
    assert [str(u) for u in layer.units] == [str(u) for u in labels.units]
    show_surfaces(viewer, surfaces, labels)
    show_surfaces(viewer, surfaces, labels)
    assert [x.name for x in viewer.layers if x.name.startswith("surface")] == ["surface: liver", "surface: spleen"]
    assert viewer.dims.ndisplay == 3
    with pytest.raises(InputError, match="no class is shown"):
        make_surfaces(labels, [])


def test_a_figure_holds_the_plane_that_is_shown(viewer, image, labels):
    from napari_mamba.ui.results.classes.link import ClassLink

    viewer.dims.order = (1, 0, 2)
    viewer.dims.set_point(1, image.data_to_world((6, 10, 16))[1])
    picture = slice_picture(viewer)
    assert picture.letters == ("R", "L", "S", "I")
    assert [name for name, _ in picture.legend] == ["liver", "spleen"]
    height, width = (n * mm for n, mm in zip(picture.rgb.shape[:2], picture.pixel_mm, strict=True))
    assert (round(height), round(width)) == (22, 23)  # between voxel centres: 11 slices of 2 mm, 23 pixels of 1 mm
    assert max(picture.rgb.shape) >= 900
    assert picture.caption.startswith("coronal, ")
    link = ClassLink(viewer, labels)
    link.model.toggle_shown(1)
    assert [name for name, _ in slice_picture(viewer).legend] == ["spleen"], "hidden classes are not in the legend"
    viewer.dims.ndisplay = 3
    with pytest.raises(InputError, match="switch to 2D"):
        slice_picture(viewer)
    viewer.layers.clear()
    with pytest.raises(InputError, match="nothing to draw"):
        slice_picture(viewer)
