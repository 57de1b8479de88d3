"""Is this image a scan at all, or the labels of one? Labels are flat pieces of a few whole numbers."""

from __future__ import annotations

import numpy as np

LIMIT = 0.6
"""Share of neighbours of one value above which an image is taken for labels: scans in eight bits have up to a quarter,
label maps from 0.84 (atlases of whole heads, a macaque's, masks)."""
_PLACES = 40
_MOST_VALUES = 1000


def share_of_equal_neighbours(image: np.ndarray) -> float:
    """How many voxels have the value of the next one along an axis, among those that are not the commonest value.

    Some 64,000 places are looked at, spread over the image. The darkest and the brightest value do not count either,
    as a window of grey values leaves them in flat pieces; an image of values that are no whole numbers, or of more than
    a thousand of them, has none.

    Parameters
    ----------
    image : ndarray, shape (Z, Y, X)

    Returns
    -------
    float
        From 0 to 1; 1 for a mask, which has two values.

    Examples
    --------
    >>> labels = np.repeat(np.arange(4), 8)[:, None, None] * np.ones((1, 12, 12), int)
    >>> share_of_equal_neighbours(labels) > 0.9
    True
    >>> share_of_equal_neighbours(np.random.default_rng(0).integers(0, 255, (24, 24, 24))) < 0.1
    True
    """
    equal, counted = 0, 0
    values, numbers = np.unique(np.asarray(_seen(image, 0, 0)), return_counts=True)
    if len(values) > _MOST_VALUES or not np.array_equal(values, np.rint(values)):
        return 0.0
    if len(values) <= 2:
        return 1.0
    left_out = [values[0], values[-1], values[numbers.argmax()]]
    for axis, n in enumerate(image.shape):
        if n < 2:
            continue
        one, other = (np.asarray(_seen(image, axis, step)) for step in (0, 1))
        inside = ~np.isin(one, left_out)
        counted += int(inside.sum())
        equal += int((one == other)[inside].sum())
    return equal / counted if counted else 0.0


def _seen(image: np.ndarray, axis: int, step: int) -> np.ndarray:
    """At most forty places along each axis, `step` voxels on along one of them."""
    places = []
    for a, n in enumerate(image.shape):
        last = n - 1 if a == axis and n > 1 else n
        some = np.unique(((np.arange(_PLACES) + 0.5) * last / _PLACES).astype(int))
        places.append(some + (step if a == axis else 0))
    return image[np.ix_(*places)]
