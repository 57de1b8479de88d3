"""Scores, spread and calibration of classifiers, in NumPy: they are needed where scikit-learn is not installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_expit
from scipy.stats import rankdata


def auc(truth: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve of a yes or no; ties count half. NaN where one of the two answers is missing.

    Parameters
    ----------
    truth : ndarray of bool or {0, 1}, shape (N,)
    score : ndarray, shape (N,)
        Higher means rather yes.

    Examples
    --------
    >>> auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
    0.75
    """
    truth = np.asarray(truth, bool)
    positive, negative = int(truth.sum()), int((~truth).sum())
    if not positive or not negative:
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))


def accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Share of equal entries."""
    return float(np.mean(np.asarray(truth) == np.asarray(predicted)))


def f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    """F1 of a yes or no: harmonic mean of precision and recall; 0 where nothing was both true and found."""
    truth, predicted = np.asarray(truth, bool), np.asarray(predicted, bool)
    found = int((truth & predicted).sum())
    return 2 * found / max(int(truth.sum()) + int(predicted.sum()), 1)


def macro_f1(truth: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """Mean of the F1 of each class, of labels (N,) in 0 … classes - 1; or of yes and no (N, classes)."""
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.ndim == 2:
        return float(np.mean([f1(truth[:, k], predicted[:, k]) for k in range(classes)]))
    return float(np.mean([f1(truth == k, predicted == k) for k in range(classes)]))


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes): row is the true class, column the predicted one."""
    table = np.zeros((classes, classes), int)
    np.add.at(table, (np.asarray(truth, int), np.asarray(predicted, int)), 1)
    return table


def bootstrap(
    score: Callable[[np.ndarray], float],
    groups: Sequence[Any] | np.ndarray,
    *,
    repeats: int = 1000,
    seed: int = 2410,
) -> dict[str, float]:
    """A score and its 95% interval over samples drawn again, group by group.

    Parameters
    ----------
    score : callable
        From row numbers (an int array, rows may come twice) to the score.
    groups : sequence of length N
        Rows of one group (a person, say) are drawn together.

    Returns
    -------
    dict
        "value" over all rows, "low" and "high": 2.5th and 97.5th percentile of the repeats.
    """
    groups = np.asarray(groups)
    rows = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    random = np.random.default_rng(seed)
    drawn = (np.concatenate([rows[i] for i in random.integers(len(rows), size=len(rows))]) for _ in range(repeats))
    values = np.array([score(sample) for sample in drawn])
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return {"value": float(score(np.arange(len(groups)))), "low": float(low), "high": float(high)}


def reliability(truth: np.ndarray, probability: np.ndarray, bins: int = 10) -> list[dict[str, float]]:
    """What was promised and what came true, in bins of equal width of the promised probability.

    Returns
    -------
    list of dict
        Of each bin that holds a case: "n", "promised" (mean probability), "true" (share of yes).
    """
    truth, probability = np.asarray(truth, float), np.asarray(probability, float)
    which = np.minimum((probability * bins).astype(int), bins - 1)
    return [
        {
            "n": int((which == b).sum()),
            "promised": float(probability[which == b].mean()),
            "true": float(truth[which == b].mean()),
        }
        for b in range(bins)
        if (which == b).any()
    ]


def calibration_error(truth: np.ndarray, probability: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: mean distance of promised and true over the bins, weighed by their cases."""
    parts = reliability(truth, probability, bins)
    total = sum(part["n"] for part in parts)
    return sum(part["n"] * abs(part["promised"] - part["true"]) for part in parts) / total


def fit_scaling(logit: np.ndarray, truth: np.ndarray, *, shift: bool = True) -> tuple[float, float]:
    """Scale and shift of a logit that make its probabilities likeliest (Platt, 1999; temperature is 1 / scale).

    Parameters
    ----------
    logit : ndarray, shape (N,)
        Of yes, on cases that training did not see.
    truth : ndarray of {0, 1}, shape (N,)
    shift : bool
        False: temperature scaling alone (Guo et al., 2017).

    Returns
    -------
    scale, shift : float
        The calibrated logit is ``scale * logit + shift``. The scale is kept positive, so no order changes.
    """
    sign = np.where(np.asarray(truth, bool), 1.0, -1.0)

    def negative_log_likelihood(parameters: np.ndarray) -> float:
        moved = np.exp(parameters[0]) * logit + (parameters[1] if shift else 0.0)
        return -float(log_expit(sign * moved).mean())

    found = minimize(negative_log_likelihood, np.zeros(2 if shift else 1), method="Nelder-Mead").x
    return float(np.exp(found[0])), float(found[1]) if shift else 0.0


def draw_reliability(curves: dict[str, list[dict[str, float]]], path: Path, title: str = "") -> Path:
    """Draw reliability curves, one a name, as PNG; a point's size tells its number of cases."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.4), dpi=100)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, curve in curves.items():
        x, y = [part["promised"] for part in curve], [part["true"] for part in curve]
        line = axes.plot(x, y, linewidth=1.2, label=name)[0]
        axes.scatter(x, y, [4 + 2 * part["n"] ** 0.5 for part in curve], color=line.get_color())
    axes.set(xlabel="probability said", ylabel="share that was so", xlim=(0, 1), ylim=(0, 1), title=title)
    if len(curves) > 1:
        axes.legend(fontsize=7, frameon=False)
    figure.tight_layout()
    figure.savefig(path)
    return path


def format_interval(interval: dict[str, float], digits: int = 3) -> str:
    """An interval of `bootstrap` in words: "0.912 (0.871 to 0.947)"."""
    return f"{interval['value']:.{digits}f} ({interval['low']:.{digits}f} to {interval['high']:.{digits}f})"


def last_scores(runs: Mapping[str, Path]) -> dict[str, dict[str, float]]:
    """The last validation of each training run, by variant; what a bundle's metrics hold under "comparison".

    Parameters
    ----------
    runs : mapping of str to Path
        The output folder of `napari_mamba.training.train` for each variant.
    """
    from napari_mamba.training.history import history

    return {name: dict(history(folder)[-1]) for name, folder in runs.items()}


def same_minutes(comparison: Mapping[str, Mapping[str, float]]) -> str:
    """ "the same 6 minutes": for how long each of the networks compared was trained, where that is known."""
    longest = max((one.get("seconds", 0.0) for one in comparison.values()), default=0.0) / 60
    return f"the same {longest:.2g} minutes" if longest else "the same minutes"


def comparison_table(comparison: dict[str, dict[str, float]], rows: dict[str, str], columns: dict[str, str]) -> str:
    """A Markdown table of the variants' validation scores; `rows` and `columns` give the words for the keys."""
    lines = [
        "Networks trained by the same recipe, on the validation data:\n",
        "| network | " + " | ".join(columns.values()) + " | steps |",
        "| --- |" + " --- |" * (len(columns) + 1),
    ]
    for key, words in rows.items():
        if found := comparison.get(key):
            cells = [f"{found[column]:.3f}" for column in columns] + [f"{found['step']:.0f}"]
            lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines)
