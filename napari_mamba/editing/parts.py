"""Connected parts of labels, by cc3d: those of all labels in one pass over the image; and strays relabelled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np

Box = tuple[slice, ...]
CONNECTED: Final = 26
"""Voxels that share a corner belong together."""
MARGIN: Final = 1
"""Voxels around a stray part in which its nearest neighbours are.

On a line of voxels to the nearest neighbour all are nearer than it, so stray, and so of the same part: it touches it.
"""


def components(labels: np.ndarray, connectivity: Literal[6, 18, 26] = CONNECTED) -> np.ndarray:
    """The number of each voxel's connected part, in the order in which they are met; 0 where labels are.

    Parameters
    ----------
    labels : ndarray of int or bool, of up to three dimensions
        Voxels of one label belong together where they touch.
    connectivity : {6, 18, 26}
        Where voxels touch: at faces, edges too, or corners too.

    Returns
    -------
    ndarray of unsigned int, of the same shape

    Examples
    --------
    >>> components(np.array([7, 7, 0, 9])).tolist()
    [1, 1, 0, 2]

    Notes
    -----
    W. Silversmith, cc3d (github.com/seung-lab/connected-components-3d), after Wu, Otoo and Suzuki (2005).
    """
    import cc3d

    values: Any = np.ascontiguousarray(labels)  # cc3d is faster where it is told that there are two values, by bool
    solid = values.reshape((1,) * (3 - values.ndim) + values.shape)
    return cc3d.connected_components(solid, connectivity=connectivity).reshape(labels.shape)


def strays(sizes: np.ndarray, owners: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
    """Which parts are of one of the labels `chosen` and not its largest, of equal ones the first: bool (P + 1,).

    Examples
    --------
    >>> strays(np.array([0, 5, 9, 2, 1]), np.array([0, 1, 1, 2, 2]), [1]).tolist()
    [False, True, False, False, False]
    """
    stray = np.isin(owners, chosen) & (np.arange(len(sizes)) > 0)
    for index in np.unique(owners[stray]):
        own = np.flatnonzero(stray & (owners == index))
        stray[own[np.argmax(sizes[own])]] = False
    return stray


def relabelled(labels: np.ndarray, voxels: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Labels (Z, Y, X) where stray voxels take the nearest label that is not stray.

    Parameters
    ----------
    labels : ndarray of int, shape (Z, Y, X)
    voxels : ndarray of int, shape (V,)
        The strays' places in the flat labels; one at least.
    spacing : sequence of float
        (z, y, x) in mm.
    """
    from scipy import ndimage

    mended, stray = labels.copy(), np.zeros(labels.shape, bool)
    stray.reshape(-1)[voxels] = True
    places = np.stack(np.unravel_index(voxels, labels.shape))
    whole = _around(places.min(1), places.max(1) + 1, labels.shape)
    inside = tuple(place - one.start for place, one in zip(places, whole, strict=True))
    order, firsts = _by_part(components(stray[whole])[inside])
    places = places[:, order]
    low, high = np.minimum.reduceat(places, firsts, axis=1), np.maximum.reduceat(places, firsts, axis=1) + 1
    low = np.maximum(low - MARGIN, 0)
    high = np.minimum(high + MARGIN, np.array(labels.shape)[:, None])
    ends = [*firsts[1:], len(voxels)]
    if (high - low).prod(0).sum() > _voxels(whole):  # so many parts that all at once are less work
        low, high = (np.array([[getattr(one, end)] for one in whole]) for end in ("start", "stop"))
        firsts, ends = firsts[:1], ends[-1:]
    nearest: dict[tuple[Any, bytes], np.ndarray] = {}  # of what is stray in a box; most strays are a voxel or two
    for corner, opposite, first, end in zip(low.T.tolist(), high.T.tolist(), firsts, ends, strict=True):
        box = tuple(map(slice, corner, opposite))
        around = np.ascontiguousarray(stray[box])
        key = around.shape, around.tobytes()
        if key not in nearest:
            nearest[key] = ndimage.distance_transform_edt(
                around, sampling=list(spacing), return_distances=False, return_indices=True
            )
        own = places[:, first:end]
        mended[tuple(own)] = labels[box][tuple(nearest[key][(slice(None), *(own - np.array(corner)[:, None]))])]
    return mended


def _by_part(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An order in which voxels of one part follow each other, and where each part begins in it."""
    order = np.argsort(numbers, kind="stable")
    return order, np.flatnonzero(np.diff(numbers[order], prepend=0))


def _around(low: np.ndarray, high: np.ndarray, shape: Sequence[int]) -> Box:
    sides = zip(low, high, shape, strict=True)
    return tuple(slice(max(int(a) - MARGIN, 0), min(int(b) + MARGIN, n)) for a, b, n in sides)


def _voxels(box: Box) -> int:
    return math.prod(one.stop - one.start for one in box)
