"""Fitting what a bundle keeps about the images of its training; see `napari_mamba.bundles.guards.familiarity`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from napari_mamba.bundles.guards.familiarity import Reference

MOST_COMPONENTS = 12
FLOORS: Mapping[str, float] = {
    "its size": 0.1,  # of logarithms: 10%
    "its voxel size": 0.25,
    "its grey values": 0.03,
    "what lies where in it": 0.1,
    "its sharpness": 0.1,
    "its symmetry": 0.05,
}
"""Least spread of a group's features: training scans of one scanner may all have the same voxel size, say."""
FLOOR = 0.05
"""That of other groups: the network's."""
SLACK = 1.6
"""A limit is at most so many times the distance of the farthest familiar images."""


def fit_reference(
    features: np.ndarray, groups: Mapping[str, int], left_out: np.ndarray, floors: Mapping[str, float] = FLOORS
) -> Reference:
    """Mean, spread and directions of the features of a kind of image; its limit is still infinite.

    Parameters
    ----------
    features : ndarray, shape (N, F)
        Of the training images.
    groups : mapping of str to int
        What is looked at, and how many features it has. Each group weighs the same.
    left_out : ndarray, shape (M, F)
        Of images of other people: they tell how far a new image usually is.
    floors : mapping of str to float
        Least spread of a group's features.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> reference = fit_reference(random.normal(size=(60, 4)), {"a": 4}, random.normal(size=(30, 4)))
    >>> bool(reference.distance(np.zeros(4)) < 1 < reference.distance(np.full(4, 9.0)))
    True
    """
    sizes = list(groups.values())
    least = np.repeat([floors.get(name, FLOOR) for name in groups], sizes)
    mean = features.mean(0)
    scale = np.maximum(features.std(0), least) * np.sqrt(np.repeat(sizes, sizes))
    off = (features - mean) / scale
    count = min(MOST_COMPONENTS, max(1, len(features) // 5), features.shape[1] - 1)
    components = np.linalg.svd(off, full_matrices=False)[2][:count]
    others = (left_out - mean) / scale
    along = others @ components.T
    rest = others - along @ components
    variances = np.maximum((along**2).mean(0), ((off @ components.T) ** 2).mean(0))
    return Reference(groups, mean, scale, components, variances, float((rest**2).sum(1).mean()), float("inf"))


def choose_limit(familiar: np.ndarray, others: np.ndarray, most_false: float = 0.02) -> float:
    """Between the distances (N,) of familiar images and those (M,) of images of other kinds.

    At least the distance that a share `most_false` of the familiar exceeds; above it, as far as the others leave room.
    """
    low = float(np.quantile(familiar, 1 - most_false))
    high = float(np.quantile(others, 0.05)) if len(others) else low
    return min(float(np.sqrt(low * max(high, low))), SLACK * low)
