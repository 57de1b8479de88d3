"""Postprocessing of label maps: islands, and sentences of doubt."""

import numpy as np
import pytest

from napari_mamba.engine.answers.postprocessing import postprocess
from napari_mamba.engine.preparation.field_of_view import field_of_view
from napari_mamba.engine.preparation.prepare import prepare
from napari_mamba.engine.preparation.state import State
from napari_mamba.errors import BundleError, InputError
from napari_mamba.volume import Volume

NAMES = {0: "background", 1: "left", 2: "right"}


def two_structures() -> np.ndarray:
    """1 and 2 side by side, an island of 1 inside 2, and an island of 2 far outside."""
    labels = np.zeros((10, 10, 24), np.uint8)
    labels[2:8, 2:8, 2:8], labels[2:8, 2:8, 8:14] = 1, 2
    labels[5, 5, 11] = 1
    labels[5, 5, 20] = 2
    return labels


def test_islands_take_the_label_around_them():
    labels, doubts = postprocess(two_structures(), (1, 1, 1), NAMES, [{"step": "keep_largest"}])
    assert labels[5, 5, 11] == 2
    assert labels[5, 5, 20] == 0
    assert (labels == 1).sum() == (labels == 2).sum() == 216
    assert doubts == []


def test_together_keeps_what_touches():
    labels, _ = postprocess(two_structures(), (1, 1, 1), NAMES, [{"step": "keep_largest", "as_one_structure": True}])
    assert labels[5, 5, 11] == 1
    assert labels[5, 5, 20] == 0


def test_only_the_named_labels_are_cleaned():
    labels, _ = postprocess(two_structures(), (1, 1, 1), NAMES, [{"step": "keep_largest", "indices": [2]}])
    assert labels[5, 5, 11] == 1
    assert labels[5, 5, 20] == 0


@pytest.mark.parametrize(("spacing", "doubted"), [((1, 1, 1), False), ((2, 2, 2), True), ((0.1, 1, 1), True)])
def test_a_volume_that_cannot_be_is_doubted(spacing, doubted):
    step = {"step": "warn_volume", "ml": [0.2, 1.0], "what": "a pair"}
    labels, doubts = postprocess(two_structures(), spacing, NAMES, [step])
    assert bool(doubts) == doubted
    assert np.array_equal(labels, two_structures())


def test_missing_structures_are_named():
    labels = np.where(two_structures() == 2, 0, two_structures())
    _, doubts = postprocess(labels, (1, 1, 1), NAMES, [{"step": "warn_missing"}])
    assert "(right)" in doubts[0]
    assert "Of 2 structures 1" in doubts[0]
    assert postprocess(labels, (1, 1, 1), NAMES, [{"step": "warn_missing", "allowed": 1}])[1] == []


def test_an_unknown_step_or_option_is_refused():
    with pytest.raises(BundleError, match="not known"):
        postprocess(two_structures(), (1, 1, 1), NAMES, [{"step": "polish"}])
    with pytest.raises(BundleError, match="wrong options"):
        postprocess(two_structures(), (1, 1, 1), NAMES, [{"step": "keep_largest", "colour": 1}])


def test_a_field_of_view_is_doubted_or_refused():
    def state(side: float) -> State:
        return State(np.zeros((1, 100, 100, 100), np.float32), np.eye(3) * side)

    assert field_of_view(state(2.0), [80, 400], 700)[0].warnings == ()
    assert "50 x 50 x 50 mm" in field_of_view(state(0.5), [80, 400], 700)[0].warnings[0]
    assert "500 x" in field_of_view(state(5.0), [80, 400])[0].warnings[0]
    with pytest.raises(InputError, match="voxel size"):
        field_of_view(state(8.0), [80, 400], 700)


def test_percentiles_scale_and_clip():
    data = np.arange(1001, dtype=np.float32).reshape(1, 7, 11, 13)
    step = {"step": "normalise", "schemes": [{"scheme": "percentile", "lower": 10, "upper": 90}]}
    prepared = prepare(Volume(data), [step]).data
    assert prepared.min() == 0
    assert prepared.max() == 1
    assert prepared.reshape(-1)[500] == pytest.approx(0.5)
    assert np.count_nonzero(prepared == 0) == 101


def test_percentiles_of_a_nearly_empty_image_still_show_it():
    data = np.zeros((1, 20, 20, 20), np.float32)
    data[0, 10, 10, 10] = 5
    prepared = prepare(Volume(data), [{"step": "normalise", "schemes": ["percentile"]}]).data
    assert prepared[0, 10, 10, 10] == 1
    assert prepared.sum() == 1


def test_percentiles_the_wrong_way_round_are_refused():
    step = {"step": "normalise", "schemes": [{"scheme": "percentile", "lower": 90, "upper": 10}]}
    with pytest.raises(BundleError, match="lower first"):
        prepare(Volume(np.ones((1, 4, 4, 4), np.float32)), [step])
