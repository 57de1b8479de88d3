"""Overlap and distance of label maps, through MONAI's metrics, and their summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch


def dice(predicted: np.ndarray, truth: np.ndarray, classes: Sequence[int]) -> list[float]:
    """Dice of each class; NaN where neither map holds it.

    Parameters
    ----------
    predicted, truth : ndarray of int, shape (Z, Y, X)
    classes : sequence of int
        Label values.

    Examples
    --------
    >>> a = np.zeros((4, 4, 4), int)
    >>> a[:2] = 1
    >>> dice(a, a, [1])
    [1.0]
    """
    from monai.metrics import compute_dice  # where it is used: MONAI takes a second to import

    return compute_dice(_one_hot(predicted, classes), _one_hot(truth, classes), ignore_empty=True)[0].tolist()


def hausdorff95(
    predicted: np.ndarray, truth: np.ndarray, classes: Sequence[int], spacing: Sequence[float]
) -> list[float]:
    """95th percentile of the symmetric surface distance of each class, in millimetres.

    `spacing` is (z, y, x) in millimetres. Infinite or NaN where one map lacks the class.
    """
    from monai.metrics import compute_hausdorff_distance

    distance = compute_hausdorff_distance(
        _one_hot(predicted, classes),
        _one_hot(truth, classes),
        include_background=True,
        percentile=95,
        spacing=list(map(float, spacing)),
    )
    return distance[0].tolist()


def summary(values: Sequence[float]) -> dict[str, float]:
    """Mean, standard deviation, median, minimum and maximum of the finite values, and how many there were."""
    finite = np.asarray([v for v in values if np.isfinite(v)], float)
    if not len(finite):
        return {"n": 0}
    spread = float(finite.std(ddof=1)) if len(finite) > 1 else 0.0
    return {
        "n": len(finite),
        "mean": float(finite.mean()),
        "sd": spread,
        "median": float(np.median(finite)),
        "min": float(finite.min()),
        "max": float(finite.max()),
    }


def format_summary(found: Mapping[str, float], digits: int = 3) -> str:
    """Mean ± SD (minimum to maximum) of what `summary` gives, for a card.

    >>> format_summary(summary([0.8, 0.9]), 2)
    '0.85 ± 0.07 (0.80 to 0.90)'
    """
    mean, sd, least, most = (f"{found[key]:.{digits}f}" for key in ("mean", "sd", "min", "max"))
    return f"{mean} ± {sd} ({least} to {most})"


def _one_hot(labels: np.ndarray, classes: Sequence[int]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(labels == c) for c in classes])[None].float()
