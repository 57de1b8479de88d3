"""Fitting what a bundle keeps about the images of its training; see `napari_mamba.bundles.guards.familiarity`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from napari_mamba.bundles.guards.familiarity import Kinds, Reference, clipped

MOST_COMPONENTS = 12
FLOORS: Mapping[str, float] = {
    "its size": 0.1,  # of logarithms: 10%
    "its voxel size": 0.25,
    "its grey values": 0.03,
    "what lies where in it": 0.1,
    "its sharpness": 0.1,
    "its symmetry": 0.05,
    "its outline": 0.1,
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


def fit_kinds(
    features: np.ndarray, kinds: Sequence[str], least: np.ndarray, shrinkage: float = 0.02, right: str = ""
) -> Kinds:
    """A softmax regression that tells images of other kinds from those of the right one; its limit is still infinite.

    Parameters
    ----------
    features : ndarray, shape (N, F)
    kinds : sequence of str
        What each of the images is; `right` for the right kind. Each kind weighs the same, the right one as much as all
        others together.
    least : ndarray, shape (F,)
        Least spread of each feature.
    shrinkage : float
        Of the weights: half their squares' sum, this times.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> features = random.normal(size=(90, 4)) + np.repeat([0, 3, -3], 30)[:, None]
    >>> kinds = fit_kinds(features, ["right"] * 30 + ["one"] * 30 + ["other"] * 30, np.full(4, 0.1), right="right")
    >>> kinds.distance(np.zeros(4)) < 0.7 < kinds.distance(np.full(4, 3.0)), kinds.strangest(np.full(4, -3.0))
    (True, ['other'])
    """
    from scipy.optimize import minimize

    names = tuple(sorted(set(kinds) - {right}))
    index = np.array([0 if kind == right else 1 + names.index(kind) for kind in kinds])
    mean, scale = features.mean(0), np.maximum(features.std(0), least)
    seen = clipped(features, mean, scale)
    share = np.where(index == 0, 0.5, 0.5 / len(names)) / np.bincount(index, minlength=1 + len(names))[index]
    wanted = np.eye(1 + len(names))[index][:, 1:]

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        weights, offsets = np.split(values.reshape(len(names), -1), [seen.shape[1]], axis=1)
        logits = np.column_stack([np.zeros(len(seen)), seen @ weights.T + offsets.T])
        likely = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
        off = share[:, None] * (np.exp(likely[:, 1:]) - wanted)
        slope = np.column_stack([off.T @ seen + shrinkage * weights, off.sum(0)])
        return float(-share @ likely[np.arange(len(seen)), index] + shrinkage * np.sum(weights**2) / 2), slope.ravel()

    found = minimize(loss, np.zeros(len(names) * (1 + seen.shape[1])), jac=True, method="L-BFGS-B")
    weights, offsets = np.split(found.x.reshape(len(names), -1), [seen.shape[1]], axis=1)
    return Kinds(names, mean, scale, weights, offsets[:, 0], float("inf"))
