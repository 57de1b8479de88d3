"""The challenge's two scores of all patients together."""

from __future__ import annotations

from typing import Any

import numpy as np


def summary(cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Both scores over all patients, and the mean difference of each structure's measures; Gy."""
    errors = np.array([scores["dose"] for scores in cases.values()])
    rows: dict[str, list[float]] = {}
    for scores in cases.values():
        for key, value in scores.items():
            if key != "dose":
                rows.setdefault(key, []).append(value)
    every = [value for values in rows.values() for value in values]
    return {
        "patients": len(cases),
        "dose_score": float(errors.mean()),
        "dose_score_sd": float(errors.std(ddof=1)) if len(errors) > 1 else 0.0,
        "dvh_score": float(np.mean(every)),
        "measures": {key: float(np.mean(values)) for key, values in rows.items()},
    }
