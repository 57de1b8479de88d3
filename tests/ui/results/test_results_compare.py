"""Two layers against each other, in a viewer without a window."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
from napari.layers import Image

from napari_mamba.errors import InputError
from napari_mamba.ui.layers import KEY
from napari_mamba.ui.results.classes.record import classes_of, set_classes
from napari_mamba.ui.results.compare.beside import SideBySide, is_view_only
from napari_mamba.ui.results.compare.differences import (
    ONLY_FIRST,
    ONLY_SECOND,
    OTHER_CLASS,
    Pair,
    image_difference,
    label_difference,
    measure_layers,
)
from napari_mamba.ui.results.compare.overlaid import Blink, Fade
from napari_mamba.ui.results.compare.plot import ticks
from napari_mamba.ui.results.compare.profile import ProfileLine
from napari_mamba.ui.results.compare.swipe import Swipe


@pytest.fixture
def second(viewer, image, labels, label_data, add_labels):
    """The same organs two voxels to the side, one of them called another."""
    data = np.roll(label_data, 2, axis=2)
    data[data == 2] = 5
    return add_labels(viewer, image, data, "second")


@pytest.fixture
def restored(viewer, image):
    transforms = {name: getattr(image, name) for name in ("affine", "scale", "translate", "units", "axis_labels")}
    return viewer.add_image(np.asarray(image.data) + 3, name="restored", **transforms)


def tiles(viewer) -> list[list[str]]:
    grid = viewer.canvas.grid
    return [
        [viewer.layers[i].name for i in contents if viewer.layers[i].visible]
        for _, contents in grid.iter_viewboxes(viewer.layers)
    ]


def state(viewer):
    grid = viewer.canvas.grid
    return (
        [(layer.name, layer.visible, layer.opacity) for layer in viewer.layers],
        grid.enabled,
        grid.stride,
        grid.shape,
        tuple(viewer.scene.camera.center),
        viewer.scene.camera.zoom,
    )


@pytest.mark.parametrize(
    ("first", "other", "expected"),
    [
        ("scan", "labels", [["scan"], ["scan (beside)", "labels"]]),
        ("labels", "second", [["scan", "labels"], ["scan (beside)", "second"]]),
        ("scan", "restored", [["scan"], ["restored"]]),
        ("second", "restored", [["scan", "second"], ["restored"]]),
    ],
)
def test_side_by_side_shows_what_was_asked_for_and_puts_all_back(
    viewer, image, labels, second, restored, first, other, expected
):
    second.visible = False
    viewer.add_image(np.zeros((2, 2, 2)), name="far away", translate=(0, 0, 5000))
    viewer.scene.camera.center, viewer.scene.camera.zoom = (0, 7, 9), 3
    before = state(viewer)
    shown = SideBySide(viewer, viewer.layers[first], viewer.layers[other])
    shown.start()
    shown.fit()
    assert viewer.scene.camera.center[2] < 1000  # the two alone count
    assert tiles(viewer) == expected
    image.contrast_limits = (10, 90)
    twin = next(
        (layer for layer in viewer.layers if layer.name in ("restored", "scan (beside)") and layer.visible), None
    )
    assert tuple(twin.contrast_limits) == (10, 90), "one contrast for both"
    shown.end()
    assert state(viewer) == before
    image.contrast_limits = (0, 50)
    assert tuple(restored.contrast_limits) != (0, 50), "and no longer linked afterwards"


def test_a_layer_removed_meanwhile_leaves_the_rest_in_order(viewer, image, labels, second):
    shown = SideBySide(viewer, labels, second)
    shown.start()
    viewer.layers.remove(second)
    shown.end()
    assert [layer.name for layer in viewer.layers] == ["scan", "labels"]
    assert not viewer.canvas.grid.enabled


def test_swipe_shows_the_first_on_the_left_of_the_screen(viewer, image, restored):
    swipe = Swipe(viewer, image, restored, share=0.25)
    swipe.start()
    layer = viewer.layers[-1]
    assert is_view_only(layer)
    assert not image.visible
    world_x = np.array([layer.data_to_world((0, 0, i))[2] for i in range(24)])
    from_first = np.isclose(layer.data[0, 0], image.data[0, 0])
    assert sorted(world_x[from_first]) == sorted(world_x)[:6], "napari draws x to the right"
    swipe.move(0.75)
    assert np.isclose(layer.data[5, 5], image.data[5, 5]).sum() == 18
    swipe.move(0.5)
    expected = np.where(np.argsort(np.argsort(world_x)) < 12, image.data, restored.data)
    np.testing.assert_allclose(layer.data, expected)
    viewer.dims.order = (2, 0, 1)  # another plane: now y runs to the right
    swipe.move(0.5)
    world_y = np.array([layer.data_to_world((0, i, 0))[1] for i in range(20)])
    left = np.isclose(layer.data[0, :, 0], image.data[0, :, 0])
    assert sorted(world_y[left]) == sorted(world_y)[:10]
    swipe.end()
    assert layer not in viewer.layers
    assert image.visible
    assert restored.visible


def test_swiping_labels_over_an_image_uncovers_it(viewer, image, labels):
    swipe = Swipe(viewer, image, labels, share=1.0)
    swipe.start()
    assert not viewer.layers[-1].data.any()
    assert image.visible
    swipe.move(0.0)
    np.testing.assert_array_equal(viewer.layers[-1].data, labels.data)


def test_fade_and_blink_end_as_they_began(viewer, image, labels, second):
    before = state(viewer)
    fade = Fade(viewer, second, labels)
    fade.start()
    assert viewer.layers.index(labels) > viewer.layers.index(second)
    fade.move(0.2)
    assert labels.opacity == pytest.approx(0.2)
    fade.end()
    assert state(viewer) == before
    blink = Blink(viewer, labels, second)
    blink.start()
    assert (blink.step(), blink.step(), blink.step()) == ("second", "labels", "second")
    assert [labels.visible, second.visible] == [False, True]
    blink.end()
    assert state(viewer) == before


def test_label_difference_tells_three_kinds(viewer, labels, second, label_data):
    layer = label_difference(labels, second)
    a, b = np.asarray(labels.data), np.asarray(second.data)
    np.testing.assert_array_equal(layer.data == ONLY_FIRST, (a > 0) & (b == 0))
    np.testing.assert_array_equal(layer.data == ONLY_SECOND, (a == 0) & (b > 0))
    np.testing.assert_array_equal(layer.data == OTHER_CLASS, (a > 0) & (b > 0) & (a != b))
    np.testing.assert_allclose(layer.data_to_world((1, 2, 3)), labels.data_to_world((1, 2, 3)))
    assert next(c["name"] for c in layer.metadata[KEY]["classes"]) == "only in labels"


def test_image_difference_is_second_minus_first_and_no_input(viewer, image, restored):
    layer = image_difference(image, restored)
    np.testing.assert_allclose(layer.data, 3, atol=1e-4)
    low, high = layer.contrast_limits
    assert low == -high
    assert layer.colormap.map(0.5).ravel()[3] == 0, "clear where nothing differs"
    assert layer.metadata[KEY]["role"] == "map"


def test_measuring_by_names_and_csv(viewer, labels, second):
    measured = measure_layers(labels, second, 1.0)
    by_name = {row.name: row for row in measured.rows}
    a, b = np.asarray(labels.data) == 1, np.asarray(second.data) == 1
    assert by_name["liver"].dice == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert by_name["liver"].hausdorff95_mm == pytest.approx(2)  # two pixels of 1 mm
    assert by_name["spleen"].dice == 0
    rows = list(csv.DictReader(measured.csv().splitlines()))
    assert rows[0]["class"] == "liver"
    assert rows[1]["hausdorff95_mm"] == ""
    with pytest.raises(InputError, match="two of a kind"):
        measure_layers(viewer.layers["scan"], labels)


def test_layers_that_number_their_classes_differently_are_matched_by_name(
    viewer, image, labels, label_data, add_labels
):
    names = {c.index: c.name for c in classes_of(labels)}
    turned = {1: 2, 2: 1}
    other = add_labels(viewer, image, np.array([0, 2, 1], np.uint8)[label_data], "other")
    classes = [replace(c, name=names[turned.get(c.index, c.index)]) for c in classes_of(labels)]
    set_classes(other, classes)
    measured = measure_layers(labels, other)
    assert {row.dice for row in measured.rows} == {1}
    assert "matched by their names" in measured.note
    assert not np.asarray(label_difference(labels, other).data).any()


def test_measuring_layers_whose_axes_lie_otherwise(viewer, image, labels):
    """The same voxels, stored the other way round, as another program might have written them."""
    flipped = viewer.add_labels(
        np.asarray(labels.data)[:, :, ::-1].copy(),
        affine=np.asarray(labels.affine),
        scale=labels.scale * [1, 1, -1],
        translate=[0, 0, labels.scale[2] * (labels.data.shape[2] - 1)],
        units=labels.units,
    )
    np.testing.assert_allclose(flipped.data_to_world((0, 0, 0)), labels.data_to_world((0, 0, 23)))
    assert all(row.dice == 1 for row in measure_layers(labels, flipped).rows)


def test_a_pair_knows_what_it_is(viewer, image, labels, second):
    assert Pair(image, labels).kind == "mixed"
    assert Pair(labels, second).kind == "labels"
    assert Pair(labels, labels).kind == ""
    assert Pair(labels, None).kind == ""


def test_a_line_in_the_world_reads_both_images(viewer, image, restored):
    line = ProfileLine(viewer)
    assert line.profiles([image]) == []
    moved = []
    hear = lambda: moved.append(1)  # noqa: E731
    line.moved.connect(hear)
    ends = [image.data_to_world((6, 9, 0)), image.data_to_world((6, 9, 23))]
    line.set_line(image, ends)
    assert moved
    one, two = line.profiles([image, restored])
    assert one.distance_mm[-1] == pytest.approx(23)
    np.testing.assert_allclose(two.values - one.values, 3, atol=1e-4)
    np.testing.assert_allclose(one.values[::2], np.asarray(image.data)[6, 9], atol=1e-4)
    viewer.layers.remove(line.layer)
    assert line.profiles([image]) == []


def test_ticks_are_round_and_inside():
    for low, high in ((0, 97), (-3.2, 0.4), (1e-7, 9e-7), (1e5, 1.2e5)):
        found = ticks(low, high, 5)
        assert 2 <= len(found) <= 8
        assert low - 1e-12 <= found[0]
        assert found[-1] <= high * (1 + 1e-9) + 1e-12


def test_view_only_layers_are_images_like_others(viewer, image, labels):
    shown = SideBySide(viewer, image, labels)
    shown.start()
    copies = [layer for layer in viewer.layers if is_view_only(layer)]
    assert copies
    assert all(isinstance(layer, Image) and layer.metadata[KEY]["role"] == "map" for layer in copies)
    assert copies[0].data is image.data, "no second copy in memory"
