"""The shape descriptors of many glands, and what they and the network say of glands that neither has seen.

No descriptor sees mirroring, so the regression over them needs no augmentation: it is fitted by itself, to the glands
that a member trains on. A logistic regression over the two answers for unseen glands weighs them, which is the
calibration too (`napari_mamba.training.linear`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from napari_mamba.nn.descriptors.granulometry import describe
from napari_mamba.training.linear import fit_stacking

DECAY = 10.0
"""Of the squared weights of standardised descriptors, half of it added to the summed cross-entropy."""


def descriptors(masks: np.ndarray, device: torch.device) -> np.ndarray:
    """`describe` of masks (N, Z, Y, X): (N, K) float64."""
    batch = 1 if device.type == "cpu" else 16  # one shape stays in a processor's cache
    parts = [describe(some.to(device)).cpu().double() for some in torch.from_numpy(masks > 0).split(batch)]
    return torch.cat(parts).numpy()


def weighed(network: np.ndarray, shape: np.ndarray, truth: np.ndarray, fold: Sequence[int] | np.ndarray) -> np.ndarray:
    """Logit (N,) of class 1 from both margins; the factors for a fold come from the other folds."""
    fold, answer = np.asarray(fold), np.empty(len(truth))
    for part in np.unique(fold):
        there, others = fold == part, fold != part
        first, second, shift = fit_stacking(network[others], shape[others], truth[others])
        answer[there] = first * network[there] + second * shape[there] + shift
    return answer
