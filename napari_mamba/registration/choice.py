"""Which of several affines is right, where searches from several starts ended in several places.

The one that the search likes best, unless it turns further than bodies lie apart in scanners: then a measure that no
search has climbed must agree. Self-similarities (`similarity`) are such a one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import binary_dilation

from napari_mamba.registration.information import BINS, Coarse
from napari_mamba.registration.search import DARK, MARGIN_MM, Search, sampled
from napari_mamba.registration.similarity import dissimilarity, self_similarity

USUAL_TURN = 30.0
"""Degrees that the images of two bodies lie apart at most, usually: scanners know which way is up."""
TURN = 0.1
"""What a squared turn in radians costs in nats: one of 15 degrees, a usual one, as much as a scale by 0.06."""


def turn(matrix: np.ndarray) -> float:
    """By how many degrees an affine (4, 4) turns; scales and shears aside.

    Examples
    --------
    >>> float(turn(np.array([[0.0, -2, 0, 5], [2, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])))
    90.0
    """
    left, _, right = np.linalg.svd(matrix[:3, :3])
    return float(np.degrees(np.arccos(np.clip((np.trace(left @ right) - 1) / 2, -1, 1))))


def right_one(search: Search, motions: Sequence[np.ndarray]) -> np.ndarray:
    """The motion that is right, of those at which a search of two images ended from several starts."""
    degrees = [turn(search.matrix(motion)) for motion in motions]
    prices = [search.loss(one) + TURN * np.radians(angle) ** 2 for one, angle in zip(motions, degrees, strict=True)]
    order = np.argsort(prices, kind="stable")
    best, *small = [n for n in order if n == order[0] or degrees[n] <= USUAL_TURN]
    if degrees[best] > USUAL_TURN and small:
        told = [unlikeness(search.still, search.other, search.matrix(motions[n])) for n in (best, small[0])]
        best = best if told[0] < told[1] else small[0]
    return motions[best]


def unlikeness(still: Coarse, other: Coarse, matrix: np.ndarray) -> float:
    """Mean squared difference of the two images' self-similarities near what either shows, under an affine (4, 4)."""
    shape = still.values.shape
    index = np.indices(shape).reshape(3, -1).astype(float)
    way = np.linalg.inv(other.affine) @ matrix @ still.affine
    moved = sampled(torch.from_numpy(other.values)[None, None], way[:3, :3] @ index + way[:3, 3:]).reshape(shape)
    side = float(np.linalg.norm(still.affine[:3, :3], axis=0).max())
    shown = np.maximum(still.values, moved) > DARK * (BINS - 1)
    near = binary_dilation(shown, iterations=max(1, round(MARGIN_MM / side)))
    first, second = (self_similarity(torch.from_numpy(one)[None, None]) for one in (still.values, moved))
    return float(dissimilarity(first, second, torch.from_numpy(near)[None, None].float()))
