"""Scores of folds against sums done by hand, the paired test against SciPy's tables, the comparison's table."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from made_labels import made, write

from napari_mamba.errors import InputError
from napari_mamba.training.nnunet.options import Run
from napari_mamba.training.nnunet.results import comparison_rows, table_text, write_table
from napari_mamba.training.nnunet.scores import CaseScore, compare, score_folder, summarise


def score(case: str, person: str, dice: float) -> CaseScore:
    return CaseScore(case, person, {"ball": dice}, {"ball": 1.0}, {"ball": dice})


def test_a_folder_of_predictions_is_scored_class_by_class(tmp_path: Path) -> None:
    truth = made(0)[1]
    shifted = np.roll(truth, 1, axis=2)
    write(tmp_path / "truth" / "a.nii.gz", truth)
    write(tmp_path / "mine" / "a.nii.gz", np.where(shifted == 1, 1, 0).astype(np.uint8))
    (one,) = score_folder(tmp_path / "mine", tmp_path / "truth", {"a": "anna"}, {1: "ball", 2: "box"}, 0.5)
    both, first, second = ((truth == 1) & (shifted == 1)).sum(), (truth == 1).sum(), (shifted == 1).sum()
    assert one.dice["ball"] == pytest.approx(2 * both / (first + second))
    assert one.dice["box"] == 0
    assert one.hausdorff95_mm["ball"] == 1.0
    assert np.isnan(one.hausdorff95_mm["box"])
    assert (one.case, one.person) == ("a", "anna")
    assert summarise([one])["missed"] == 1


def test_unknown_voxels_do_not_count(tmp_path: Path) -> None:
    truth = made(0)[1]
    predicted = truth.copy()
    predicted[-2:] = 1
    truth[-2:] = 3
    write(tmp_path / "truth" / "a.nii.gz", truth)
    write(tmp_path / "mine" / "a.nii.gz", predicted)
    (known,) = score_folder(tmp_path / "mine", tmp_path / "truth", {}, {1: "ball"}, 1.0, ignore=3)
    (all_,) = score_folder(tmp_path / "mine", tmp_path / "truth", {}, {1: "ball"}, 1.0)
    assert known.dice["ball"] == 1.0
    assert all_.dice["ball"] < 1.0


def test_a_fold_without_predictions(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not finished"):
        list(score_folder(tmp_path, tmp_path, {}, {1: "ball"}, 1.0))


def test_a_persons_images_count_once() -> None:
    found = summarise([score("a1", "a", 0.2), score("a2", "a", 0.4), score("b1", "b", 0.9)])
    assert (found["people"], found["images"]) == (2, 3)
    assert found["dice"]["mean"] == pytest.approx((0.3 + 0.9) / 2)


def test_wilcoxon_of_six_people_that_all_gain() -> None:
    # all signs alike among six: 2 of the 2^6 equally likely signings are as extreme
    first = [score(c, c, 0.5) for c in "abcdef"]
    better = [score(c, c, 0.6 + n / 100) for n, c in enumerate("abcdef")]
    same = [score(c, c, 0.5) for c in "abcdef"]
    worse = [score(c, c, 0.3 - n / 100) for n, c in enumerate("abcdef")]
    found = compare({"first": first, "better": better, "same": same, "worse": worse})
    assert found["better"].p == pytest.approx(2 / 2**6)
    assert found["better"].p_holm == pytest.approx(2 * 2 / 2**6), "of two that can be tested"
    assert found["better"].dice == pytest.approx(0.125)
    assert np.isnan(found["same"].p)
    assert found["worse"].dice < 0


def test_the_comparisons_table(tmp_path: Path) -> None:
    runs = (Run("umamba_bot"), Run("umamba_bot", "s4d"), Run("nnunet"))
    facts = {
        "minutes": 2.0,
        "seconds_per_epoch": 3.0,
        "peak_memory_bytes": 4e9,
        "parameters": 5_000_000,
        "device": "cpu",
    }
    scores = {run.name: [score(c, c, 0.5 + n / 10) for c in "abcdef"] for n, run in enumerate(runs)}
    rows = comparison_rows(
        {run.name: facts for run in runs}, {name: summarise(of) for name, of in scores.items()}, compare(scores), runs
    )
    write_table(rows, tmp_path)
    (first, second, third) = csv.DictReader((tmp_path / "comparison.csv").open())
    assert (first["network"], first["mixer"], first["p"]) == ("umamba_bot", "mamba", "")
    assert float(second["dice_difference"]) == pytest.approx(0.1)
    assert (third["network"], third["mixer"]) == ("nnunet", "-")
    assert (
        "| umamba_bot | s4d | 0.600 ± 0.000 | 1.00 | 0.600 | 0 | +0.100 | 0.062 | 2.0 | 3.0 | 4.0 | 5.00 |"
        in table_text(rows)
    )
