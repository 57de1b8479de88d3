"""Scores of classifiers against scikit-learn, spread and calibration against what is known."""

import numpy as np
import pytest
from sklearn import metrics

from napari_mamba.training.scoring import classification as scores


@pytest.fixture
def answers():
    random = np.random.default_rng(4)
    truth = random.integers(0, 2, 300)
    return truth, np.round(truth * 0.7 + random.normal(size=300), 1)  # rounded: ties


def test_auc_is_that_of_scikit_learn_with_ties(answers):
    assert scores.auc(*answers) == pytest.approx(metrics.roc_auc_score(*answers))
    assert np.isnan(scores.auc(np.ones(4), np.arange(4)))


def test_f1_and_confusion_are_those_of_scikit_learn():
    random = np.random.default_rng(5)
    truth, predicted = random.integers(0, 4, 200), random.integers(0, 4, 200)
    assert scores.macro_f1(truth, predicted, 4) == pytest.approx(metrics.f1_score(truth, predicted, average="macro"))
    assert np.array_equal(scores.confusion(truth, predicted, 4), metrics.confusion_matrix(truth, predicted))
    many, said = random.random((90, 3)) < 0.4, random.random((90, 3)) < 0.5
    assert scores.macro_f1(many, said, 3) == pytest.approx(metrics.f1_score(many, said, average="macro"))


def test_the_interval_of_a_mean_is_about_two_standard_errors_wide():
    values = np.random.default_rng(6).normal(size=400)
    found = scores.bootstrap(lambda rows: values[rows].mean(), np.arange(400), repeats=2000)
    assert found["value"] == pytest.approx(values.mean())
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_rows_of_a_group_are_drawn_together():
    groups = np.repeat(np.arange(5), 10)
    counts = []
    scores.bootstrap(lambda rows: counts.append(np.bincount(groups[rows], minlength=5)) or 0.0, groups, repeats=20)
    assert all((count % 10 == 0).all() and count.sum() == 50 for count in counts)


def test_calibration_error_of_the_calibrated_is_small_and_of_the_confident_is_known():
    random = np.random.default_rng(7)
    probability = random.random(20_000)
    truth = random.random(20_000) < probability
    assert scores.calibration_error(truth, probability) < 0.015
    assert scores.calibration_error(np.arange(10) < 7, np.full(10, 0.95)) == pytest.approx(0.25)


def test_scaling_finds_the_scale_and_shift_that_were_put_in():
    random = np.random.default_rng(8)
    logit = random.normal(size=40_000) * 2
    truth = random.random(40_000) < 1 / (1 + np.exp(-(0.5 * logit + 0.8)))
    assert scores.fit_scaling(logit, truth) == pytest.approx((0.5, 0.8), abs=0.04)
    scale, shift = scores.fit_scaling(logit, truth, shift=False)
    assert shift == 0.0
    assert 0.3 < scale < 0.7


def test_a_reliability_figure_is_drawn(tmp_path):
    curve = scores.reliability(np.array([0, 1, 1]), np.array([0.2, 0.7, 0.9]))
    path = scores.draw_reliability({"a": curve, "b": curve}, tmp_path / "calibration.png")
    assert path.read_bytes().startswith(b"\x89PNG")
