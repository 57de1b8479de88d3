"""How far a predicted dose is from the true one: the two scores of the OpenKBP challenge.

Babier et al., OpenKBP: The open-access knowledge-based planning grand challenge and dataset (Medical Physics 48:5549,
2021); its definitions as in github.com/ababier/open-kbp, `provided_code/dose_evaluation_class.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np


def dose_score(predicted: np.ndarray, truth: np.ndarray, possible: np.ndarray) -> float:
    """Mean absolute difference in Gy over the voxels where there can be dose.

    The differences of all voxels are summed, as the challenge does; `possible` alone is counted.

    Parameters
    ----------
    predicted, truth : array
        Gy, of one shape.
    possible : bool array

    Examples
    --------
    >>> dose_score(np.full((2, 2), 3.0), np.full((2, 2), 2.0), np.ones((2, 2), bool))
    1.0
    """
    return float(np.abs(predicted.astype(np.float64) - truth).sum() / possible.sum())


def organ_measures(doses: np.ndarray, voxel: float) -> dict[str, float]:
    """What the challenge compares of an organ: the dose that its hottest 0.1 cm³ get at least, and the mean.

    Parameters
    ----------
    doses : array
        Gy, of the organ's voxels in any order; one at least.
    voxel : float
        Volume of a voxel, mm³.
    """
    hottest = max(1.0, np.round(100 / voxel))
    return {
        "D0.1cc": float(np.percentile(doses, max(0.0, 100 - 100 * hottest / doses.size))),
        "mean": float(doses.mean()),
    }


def target_measures(doses: np.ndarray) -> dict[str, float]:
    """What the challenge compares of a target: the doses that 99, 95 and 1 percent of its volume get at least.

    `doses` are those of the target's voxels in any order, Gy; one at least.
    """
    d99, d95, d1 = np.percentile(doses, [1, 5, 99])
    return {"D99": float(d99), "D95": float(d95), "D1": float(d1)}


def measure_differences(
    predicted: np.ndarray,
    truth: np.ndarray,
    organs: Mapping[str, np.ndarray],
    targets: Mapping[str, np.ndarray],
    voxel: float,
) -> dict[tuple[str, str], float]:
    """Absolute differences in Gy by structure and measure; structures without voxels have none.

    Parameters
    ----------
    predicted, truth : array
        Gy, of one shape.
    organs, targets : mapping of name to index
        Masks, or anything else that picks voxels of the two.
    voxel : float
        Volume of a voxel, mm³.
    """
    differences: dict[tuple[str, str], float] = {}
    for name, place in {**organs, **targets}.items():
        values, true = predicted[place], truth[place]
        if not true.size:
            continue
        both = [organ_measures(v, voxel) if name in organs else target_measures(v) for v in (values, true)]
        differences |= {(name, measure): abs(both[0][measure] - both[1][measure]) for measure in both[1]}
    return differences


def dvh_score(patients: Iterable[Mapping[tuple[str, str], float]]) -> float:
    """Mean in Gy of every patient's `measure_differences`, each as heavy as the next."""
    return float(np.mean([value for differences in patients for value in differences.values()]))
