"""Which cases are unlike the others, by the volumes of their classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from napari_mamba.cohort.row import DONE, Row

THRESHOLD = 3.5
"""Above it a case is called an outlier, as Iglewicz and Hoaglin advise."""

FEWEST = 5
"""Of fewer cases nothing is said: their spread is not known."""

_UNITS = ("ml", "1000 voxels")


def robust_z(values: np.ndarray) -> np.ndarray:
    """Distance from the median in robust standard deviations, (n,) → (n,).

    0.6745 (x − median) / MAD. Where more than half of the values are equal the MAD is zero, and the mean absolute
    deviation takes its place, times 1.2533.

    Source: B. Iglewicz and D. Hoaglin, How to Detect and Handle Outliers (1993).

    Examples
    --------
    >>> robust_z(np.array([1.0, 2.0, 3.0, 4.0, 100.0])).round(2).tolist()
    [-1.35, -0.67, 0.0, 0.67, 65.43]
    """
    away = values - np.median(values)
    spread = np.median(np.abs(away)) / 0.6745
    if spread == 0:
        spread = 1.2533 * np.mean(np.abs(away))
    return away / spread if spread > 0 else np.zeros(len(values))


def outlier_scores(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Robust z-score of each class's volume, by case and class; only of finished cases whose unit is the same.

    Returns
    -------
    dict of str to dict of str to float
        Nothing of cases that failed, or where fewer than `FEWEST` can be compared.
    """
    groups: dict[tuple[str, str], list[tuple[str, float]]] = defaultdict(list)
    for row in rows:
        if row.status == DONE and row.unit in _UNITS:
            for name, value in row.values.items():
                groups[row.unit, name].append((row.name, value))
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    for (_, name), members in groups.items():
        if len(members) >= FEWEST:
            for (case, _), z in zip(members, robust_z(np.array([value for _, value in members])), strict=True):
                scores[case][name] = float(z)
    return dict(scores)
