"""Overlap and distance against values worked out by hand."""

import math

import numpy as np
import pytest

from napari_mamba.training.scoring.scores import dice, hausdorff95, summary


def boxes():
    truth, predicted = np.zeros((12, 12, 12), int), np.zeros((12, 12, 12), int)
    truth[2:6, 2:10, 2:10] = 1
    predicted[2:8, 2:10, 2:10] = 1
    return predicted, truth


def test_dice_of_overlapping_boxes():
    predicted, truth = boxes()
    assert dice(predicted, truth, [1]) == [pytest.approx(2 * 4 / (4 + 6))]


def test_dice_where_a_class_is_absent_from_both_is_nan_and_from_one_is_zero():
    predicted, truth = boxes()
    assert math.isnan(dice(predicted, truth, [2])[0])
    predicted[0, 0, 0] = 2
    assert not dice(predicted, truth, [2])[0] > 0


def test_hausdorff_counts_millimetres_along_the_right_axis():
    predicted, truth = boxes()
    assert hausdorff95(predicted, truth, [1], (1, 1, 1)) == [pytest.approx(2)]
    assert hausdorff95(predicted, truth, [1], (3, 1, 1)) == [pytest.approx(6, abs=2)]


def test_summary_leaves_out_what_is_not_finite():
    result = summary([1.0, 3.0, float("nan"), float("inf")])
    assert (result["n"], result["mean"], result["median"]) == (2, 2.0, 2.0)
    assert result["sd"] == pytest.approx(math.sqrt(2))
    assert summary([]) == {"n": 0}
