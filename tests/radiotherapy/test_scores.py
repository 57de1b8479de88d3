"""The challenge's two scores, on cases worked out by hand."""

import numpy as np
import pytest

from napari_mamba.radiotherapy.scores import (
    dose_score,
    dvh_score,
    measure_differences,
    organ_measures,
    target_measures,
)


def patient():
    truth = np.random.default_rng(0).uniform(0, 70, (10, 12, 14))
    organs = {"spinal cord": truth > 60, "larynx": truth < 3}
    return truth, organs, {"PTV70": (truth > 20) & (truth < 40)}


def test_a_constant_offset_of_one_gray_scores_one_gray():
    truth, organs, targets = patient()
    differences = measure_differences(truth + 1, truth, organs, targets, 38.0)
    assert len(differences) == 2 * 2 + 3
    assert dvh_score([differences]) == pytest.approx(1)
    assert dose_score(truth + 1, truth, np.ones(truth.shape, bool)) == pytest.approx(1)


def test_the_dose_score_divides_by_the_voxels_that_can_have_dose():
    truth, predicted = np.zeros((4, 4)), np.zeros((4, 4))
    possible = np.zeros((4, 4), bool)
    possible[:2] = True
    predicted[0] = 3
    assert dose_score(predicted, truth, possible) == pytest.approx(12 / 8)


def test_the_hottest_tenth_of_a_cubic_centimetre():
    # 25 mm³ a voxel: 4 of 401 voxels, so the 397th of 400 steps from the coldest, and between no two
    doses = np.random.default_rng(1).permutation(np.arange(401.0))
    measured = organ_measures(doses, 25.0)
    assert measured["D0.1cc"] == pytest.approx(400 * (1 - 4 / 401))
    assert measured["mean"] == pytest.approx(200)


def test_a_voxel_larger_than_a_tenth_of_a_cubic_centimetre_counts_as_one():
    assert organ_measures(np.arange(100.0), 500.0)["D0.1cc"] == pytest.approx(99 * 0.99)


def test_an_organ_smaller_than_a_tenth_of_a_cubic_centimetre_gives_its_coldest_voxel():
    assert organ_measures(np.array([5.0, 7.0]), 1.0)["D0.1cc"] == pytest.approx(5)


def test_a_target_s_doses():
    measured = target_measures(np.random.default_rng(2).permutation(np.arange(101.0)))
    assert measured == pytest.approx({"D99": 1, "D95": 5, "D1": 99})


def test_a_structure_that_nobody_drew_is_left_out():
    truth, organs, targets = patient()
    organs["oesophagus"] = np.zeros(truth.shape, bool)
    assert ("oesophagus", "mean") not in measure_differences(truth, truth, organs, targets, 38.0)


def test_every_measure_of_every_patient_weighs_the_same():
    assert dvh_score([{("a", "mean"): 1.0}, {("a", "mean"): 2.0, ("b", "D99"): 6.0}]) == pytest.approx(3)
