"""Logistic regression over descriptors, in SciPy, and how its answer and a network's are weighed.

Both are convex and small: they are fitted by themselves, where gradient steps through a network would take long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit


@dataclass(frozen=True)
class Regression:
    """A yes or no from descriptors: `mean`, `deviation` and `weight` (K,), `bias`."""

    mean: np.ndarray
    deviation: np.ndarray
    weight: np.ndarray
    bias: float

    def margin(self, table: np.ndarray) -> np.ndarray:
        """Logit (N,) of yes for descriptors (N, K)."""
        return (table - self.mean) / self.deviation @ self.weight + self.bias


def fit(table: np.ndarray, truth: np.ndarray, decay: float) -> Regression:
    """Logistic regression with a quadratic penalty over standardised descriptors (N, K); `truth` (N,) of {0, 1}.

    Mean and deviation are rounded to float16 first, in which a bundle keeps them, so that the weights make up for it.
    """
    mean = table.mean(0).astype(np.float16).astype(np.float64)
    deviation = np.maximum(table.std(0), 1e-3).astype(np.float16).astype(np.float64)
    weight, bias = logistic((table - mean) / deviation, truth, decay)
    return Regression(mean, deviation, weight, bias)


def logistic(inputs: np.ndarray, truth: np.ndarray, decay: float) -> tuple[np.ndarray, float]:
    """Weights (K,) and bias that minimise the summed cross-entropy of inputs (N, K) plus half `decay` times |w|²."""
    sign = np.where(np.asarray(truth, bool), 1.0, -1.0)

    def negative_log_likelihood(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weight, margin = parameters[:-1], sign * (inputs @ parameters[:-1] + parameters[-1])
        slope = -sign * expit(-margin)
        gradient = np.append(inputs.T @ slope + decay * weight, slope.sum())
        return float(-log_expit(margin).sum() + 0.5 * decay * weight @ weight), gradient

    found = minimize(
        negative_log_likelihood, np.zeros(inputs.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 2000}
    ).x
    return found[:-1], float(found[-1])


def fit_stacking(
    first: np.ndarray, second: np.ndarray, truth: np.ndarray, decay: float = 0.0
) -> tuple[float, float, float]:
    """Factors of two margins (N,) for cases that neither was fitted to, and the shift, that fit best.

    No factor is negative: an answer that does not help is left out. `decay` as of `logistic`.
    """
    both = np.stack([first, second], axis=1)
    factors, shift = logistic(both, truth, decay)
    for kept in (0, 1):
        if factors[1 - kept] < 0:
            (factor,), shift = logistic(both[:, [kept]], truth, decay)
            factors = np.eye(2)[kept] * max(factor, 0.0)
    return float(factors[0]), float(factors[1]), shift
