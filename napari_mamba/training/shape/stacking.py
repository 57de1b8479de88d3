"""Logistic regression over the shape descriptors, and how its answer and the network's are weighed.

The regression is convex and its shapes need no augmentation (no descriptor sees mirroring), so it is fitted by itself,
to the glands that a member trains on. A logistic regression over the two answers for glands that neither has seen then
weighs them; it is the calibration too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from napari_mamba.nn.granulometry import describe

DECAY = 10.0
"""Of the squared weights of standardised descriptors, half of it added to the summed cross-entropy."""


def descriptors(masks: np.ndarray, device: torch.device) -> np.ndarray:
    """`describe` of masks (N, Z, Y, X): (N, K) float64."""
    batch = 1 if device.type == "cpu" else 16  # one shape stays in a processor's cache
    parts = [describe(some.to(device)).cpu().double() for some in torch.from_numpy(masks > 0).split(batch)]
    return torch.cat(parts).numpy()


@dataclass(frozen=True)
class Regression:
    """What a `Granulometry` holds, for the margin of class 1 over class 0: all (K,), and the bias."""

    mean: np.ndarray
    deviation: np.ndarray
    weight: np.ndarray
    bias: float

    def margin(self, table: np.ndarray) -> np.ndarray:
        """Logit (N,) of class 1 for descriptors (N, K)."""
        return (table - self.mean) / self.deviation @ self.weight + self.bias


def fit(table: np.ndarray, truth: np.ndarray, decay: float = DECAY) -> Regression:
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

    def surprise(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weight, margin = parameters[:-1], sign * (inputs @ parameters[:-1] + parameters[-1])
        slope = -sign * expit(-margin)
        gradient = np.append(inputs.T @ slope + decay * weight, slope.sum())
        return float(-log_expit(margin).sum() + 0.5 * decay * weight @ weight), gradient

    found = minimize(surprise, np.zeros(inputs.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 2000}).x
    return found[:-1], float(found[-1])


def weigh(network: np.ndarray, shape: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """Factors of the network's and of the descriptors' margin (N,) on unseen glands, and the shift, that fit best.

    No factor is negative: an answer that does not help is left out.
    """
    both = np.stack([network, shape], axis=1)
    factors, shift = logistic(both, truth, 0.0)
    for kept in (0, 1):
        if factors[1 - kept] < 0:
            (factor,), shift = logistic(both[:, [kept]], truth, 0.0)
            factors = np.eye(2)[kept] * max(factor, 0.0)
    return float(factors[0]), float(factors[1]), shift


def weighed(network: np.ndarray, shape: np.ndarray, truth: np.ndarray, fold: Sequence[int] | np.ndarray) -> np.ndarray:
    """Logit (N,) of class 1 from both margins; the factors for a fold come from the other folds."""
    fold, answer = np.asarray(fold), np.empty(len(truth))
    for part in np.unique(fold):
        there, others = fold == part, fold != part
        first, second, shift = weigh(network[others], shape[others], truth[others])
        answer[there] = first * network[there] + second * shape[there] + shift
    return answer
