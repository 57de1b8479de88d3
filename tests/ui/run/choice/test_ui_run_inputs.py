"""Which layers a run takes: what is chosen stays, and what cannot be taken says why. No window."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_mamba.bundles import Channel
from napari_mamba.ui.run.choice.inputs import EACH_SELECTED, NO_IMAGE, NO_MASK, SELECTED, Inputs

T1, FLAIR, MASK = Channel("T1", "MR"), Channel("FLAIR", "MR"), Channel("mask of one structure", "MASK")
MAP = {"napari_mamba": {"role": "map"}}


@pytest.fixture
def viewer() -> ViewerModel:
    """Two images and a map that this plugin made, uppermost and active."""
    viewer = ViewerModel()
    viewer.add_image(np.zeros((3, 4, 5)), name="left")
    viewer.add_image(np.zeros((3, 4, 5)), name="right")
    viewer.add_image(np.zeros((3, 4, 5)), name="left uncertainty", metadata=MAP)
    return viewer


@pytest.fixture
def inputs(viewer) -> Inputs:
    inputs = Inputs(viewer)
    inputs.set_channels([T1])
    return inputs


def names(inputs: Inputs) -> list:
    return [choice if isinstance(choice, str | None) else choice.name for choice in inputs.chosen]


def test_maps_are_neither_offered_nor_taken(inputs, viewer):
    assert [layer.name for layer in inputs.layers] == ["right", "left"]
    assert names(inputs) == ["right"]
    inputs.choose(0, SELECTED)
    assert viewer.layers.selection.active.name == "left uncertainty"
    assert inputs.runs == []
    assert "'left uncertainty' is selected" in inputs.problem


def test_the_chosen_layer_stays_whatever_comes(inputs, viewer):
    inputs.choose(0, viewer.layers["left"])
    inputs.set_channels([Channel("MR of the head, any contrast", "MR")])  # another model
    viewer.add_image(np.zeros((3, 4, 5)), name="new")  # a new layer, which becomes the active one
    viewer.add_labels(np.zeros((3, 4, 5), int), name="left result")  # a finished run
    viewer.layers.selection = {viewer.layers["right"]}
    viewer.layers.move(0, 3)
    viewer.layers["left"].name = "renamed"
    inputs.set_channels([T1, FLAIR])
    inputs.set_channels([T1])
    assert names(inputs) == ["renamed"]
    viewer.layers.remove("renamed")
    assert names(inputs) != ["renamed"]
    assert inputs.chosen[0] in inputs.layers


def test_models_of_masks_and_of_images_keep_a_choice_each(inputs, viewer):
    inputs.choose(0, viewer.layers["left"])
    inputs.set_channels([MASK])
    assert names(inputs) == ["right"], "without labels an image stands there, and says what is wrong"
    labels = viewer.add_labels(np.ones((3, 4, 5), int), name="gland")
    inputs.choose(0, labels)
    inputs.set_channels([T1])
    assert names(inputs) == ["left"]
    inputs.set_channels([MASK])
    assert names(inputs) == ["gland"]


def test_the_selected_layer_is_whichever_is_selected(inputs, viewer):
    told = []
    inputs.choose(0, SELECTED)
    inputs.changed.connect(lambda: told.append(inputs.runs))
    for name in ("left", "right"):
        viewer.layers.selection = {viewer.layers[name]}
        assert told[-1] == [[viewer.layers[name]]]
    viewer.layers.selection.clear()
    assert "No layer is selected" in inputs.problem


def test_each_selected_layer_is_a_run(inputs, viewer):
    inputs.choose(0, EACH_SELECTED)
    viewer.layers.selection = set(viewer.layers)
    assert inputs.runs == [[viewer.layers["left"]], [viewer.layers["right"]]]
    viewer.layers.selection = {viewer.layers["left uncertainty"]}
    assert inputs.runs == []
    assert inputs.problem.startswith("None of the selected layers")


def test_another_model_of_several_channels_finds_its_names_where_nothing_was_chosen_by_hand(viewer):
    viewer.layers.clear()
    for name in ("ct", "target"):
        viewer.add_image(np.zeros((3, 4, 5)), name=name)
    inputs = Inputs(viewer, (Channel("first"), Channel("second")))
    assert names(inputs) == ["target", "ct"], "any two, the active one first"
    inputs.set_channels((Channel("ct"), Channel("target")))
    assert names(inputs) == ["ct", "target"]
    inputs.choose(0, viewer.layers["target"])
    inputs.choose(1, viewer.layers["ct"])
    inputs.set_channels((Channel("a"), Channel("b")))
    inputs.set_channels((Channel("ct"), Channel("target")))
    assert names(inputs) == ["target", "ct"], "chosen by hand"


def test_channels_take_the_layers_of_their_names_or_of_nnunets_numbers(viewer):
    inputs = Inputs(viewer)
    viewer.add_image(np.zeros((3, 4, 5)), name="patient FLAIR")
    inputs.set_channels([T1, FLAIR])
    assert names(inputs)[1] == "patient FLAIR"
    viewer.layers.clear()
    viewer.add_image(np.zeros((3, 4, 5)), name="case_0001")
    viewer.add_image(np.zeros((3, 4, 5)), name="case_0000")
    viewer.layers.move(0, 2)
    assert names(inputs) == ["case_0000", "case_0001"]


def test_one_layer_is_not_two_channels(viewer):
    inputs = Inputs(viewer)
    inputs.set_channels([T1, FLAIR])
    inputs.choose(0, viewer.layers["left"])
    inputs.choose(1, viewer.layers["left"])
    assert inputs.problem == "'left' is chosen for two channels: choose another layer for one of them."
    viewer.layers.remove("right")
    inputs.set_channels([T1])
    inputs.set_channels([T1, FLAIR])
    viewer.layers.remove("left")
    only = viewer.add_image(np.zeros((3, 4, 5)), name="only")
    assert inputs.chosen == [only, None]
    assert inputs.problem.startswith("No layer is chosen for FLAIR")


def test_where_nothing_is_open_it_says_what_to_open(viewer):
    inputs = Inputs(viewer)
    viewer.layers.clear()
    inputs.set_channels([T1])
    assert inputs.problem == NO_IMAGE
    inputs.set_channels([MASK])
    assert inputs.problem == NO_MASK


def test_colour_and_films_are_suggested_only_where_there_is_nothing_else(viewer):
    inputs = Inputs(viewer)
    viewer.add_image(np.zeros((4, 5, 3), np.uint8), rgb=True, name="photo")
    inputs.set_channels([T1])
    assert names(inputs) == ["right"]
    for name in ("left", "right"):
        viewer.layers.remove(name)
    assert names(inputs) == ["photo"]


def test_after_closing_it_listens_no_more(inputs, viewer):
    inputs.close()
    before = inputs.chosen
    viewer.layers.clear()
    assert inputs.chosen is before


def test_a_colour_layer_is_the_one_input_of_a_model_of_colours(inputs, viewer):
    colours = [Channel("red"), Channel("green"), Channel("blue")]
    inputs.set_channels(colours)
    assert len(inputs.chosen) == 3
    assert inputs.problem  # two grey images are no three channels
    viewer.add_image(np.zeros((4, 5, 3), np.uint8), rgb=True, name="photo")
    assert names(inputs) == ["photo"]
    assert [[layer.name for layer in run] for run in inputs.runs] == [["photo"]]
    viewer.layers.remove("photo")
    assert len(inputs.chosen) == 3


def test_a_colour_picture_is_run_on_and_comes_back_in_colour(viewer):
    from napari_mamba.bundles import BundleSpec, Network, Tile
    from napari_mamba.engine.result import Result
    from napari_mamba.ui.results.layers import make_layers
    from napari_mamba.ui.run.choice.layer_jobs import layer_job
    from napari_mamba.ui.run.choice.options import Options

    channels = tuple(Channel(name) for name in ("red", "green", "blue"))
    bundle = BundleSpec("rgb", "1", "Rgb", "restoration", Network("none"), channels, (), Tile((16, 16)), "none")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 14, 4), np.uint8)
    photo = viewer.add_image(pixels, rgb=True, name="photo", scale=(2, 3))
    job, volume = layer_job(viewer, [photo], bundle, Options())
    np.testing.assert_array_equal(volume.data[:, 0], np.moveaxis(pixels[..., :3], -1, 0))
    assert volume.channel_names == ("red", "green", "blue")
    assert volume.spacing[1:].tolist() == [2, 3]
    (made,) = make_layers(viewer, Result(image=volume.with_data(volume.data, volume.channel_names)), bundle, job.place)
    assert made.rgb
    np.testing.assert_array_equal(made.data, pixels[..., :3])
    np.testing.assert_allclose(made.extent.world, photo.extent.world)


def test_a_fused_image_lies_beside_both(viewer):
    """Two layers of an oblique grid are the channels; the fused one is on their grid, from 0 to 1."""
    from napari_mamba.bundles import BundleSpec, Network, Tile
    from napari_mamba.engine.result import Result
    from napari_mamba.ui.results.layers import make_layers
    from napari_mamba.ui.run.choice.layer_jobs import layer_job
    from napari_mamba.ui.run.choice.options import Options

    bundle = BundleSpec("fuse", "1", "F", "fusion", Network("none"), (T1, FLAIR), (), Tile((16, 16)), "none")
    turned = {"rotate": (0, 20, 0), "scale": (2, 1, 1), "translate": (5, 6, 7)}
    pair = [viewer.add_image(np.random.default_rng(n).random((3, 8, 9)), name=f"m{n}", **turned) for n in range(2)]
    job, volume = layer_job(viewer, pair, bundle, Options())
    assert volume.channels == 2
    read = job.read()
    fused = volume.with_data(np.asarray(read.data).mean(axis=0, keepdims=True), ("fused",))
    (made,) = make_layers(viewer, Result(image=fused), bundle, job.place)
    viewer.add_layer(made)
    np.testing.assert_allclose(made.data, (pair[0].data + pair[1].data) / 2)
    np.testing.assert_allclose(made.extent.world, pair[0].extent.world)
    assert list(made.contrast_limits) == [0, 1]
    assert [layer.name for layer in viewer.layers][-3:] == ["m0", "m1", "fuse: m0"]
