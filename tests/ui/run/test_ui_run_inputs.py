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
