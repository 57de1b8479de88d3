"""Logistic regression over descriptors, and the weighing of two answers."""

import numpy as np
import pytest

from napari_mamba.training import linear


def test_a_regression_finds_the_weights_that_made_the_labels():
    random = np.random.default_rng(0)
    table = random.normal(size=(4000, 3)) * [1.0, 5.0, 0.2] + [0.0, 30.0, -1.0]
    wanted = 1.5 * table[:, 0] - 0.4 * (table[:, 1] - 30) + 0.5
    truth = random.random(4000) < 1 / (1 + np.exp(-wanted))
    found = linear.fit(table, truth, decay=0.01)
    assert (found.weight / found.deviation).tolist() == pytest.approx([1.5, -0.4, 0.0], abs=0.25)
    assert np.corrcoef(found.margin(table), wanted)[0, 1] > 0.99
    assert np.array_equal(found.mean, found.mean.astype(np.float16))
    held = linear.fit(table, truth, decay=1e6)
    assert abs(held.weight).max() < 0.01
    assert held.bias == pytest.approx(np.log(truth.mean() / (1 - truth.mean())), abs=0.01)


def test_an_answer_that_does_not_help_weighs_nothing():
    random = np.random.default_rng(1)
    truth = random.random(2000) < 0.4
    good, bad = truth + random.normal(size=2000), random.normal(size=2000) - 0.5 * truth
    first, second, _ = linear.fit_stacking(good, bad, truth)
    assert first > 0.5
    assert second == 0
