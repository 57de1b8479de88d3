"""Connected parts of labels, by cc3d: those of all labels in one pass over the image; and strays relabelled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from scipy import ndimage

Box = tuple[slice, slice, slice]
CONNECTED: Final = 26
"""Voxels that share a corner belong together."""
_FEW = 4096
"""Parts up to which a list of them for each slice costs little."""
MARGIN: Final = 8
"""Voxels around a stray part in which its nearest neighbours are looked for."""


def parts_of(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The connected parts of every label at once.

    Parameters
    ----------
    labels : ndarray of int or bool, of up to three dimensions

    Returns
    -------
    parts : ndarray of int, of the same shape
        0 where labels are, else the number of the voxel's part, in the order in which they are met.
    sizes : ndarray of int, shape (P + 1,)
        Voxels of each part.
    owners : ndarray, shape (P + 1,)
        The label of each part.

    Examples
    --------
    >>> parts, sizes, owners = parts_of(np.array([7, 7, 0, 9]))
    >>> parts.tolist(), sizes.tolist(), owners.tolist()
    ([1, 1, 0, 2], [1, 2, 1], [0, 7, 9])

    Notes
    -----
    W. Silversmith, cc3d (github.com/seung-lab/connected-components-3d), after Wu, Otoo and Suzuki (2005).
    """
    import cc3d

    values: Any = np.ascontiguousarray(labels.view(np.uint8) if labels.dtype == bool else labels)
    solid = values.reshape((1,) * (3 - values.ndim) + values.shape)
    parts = cc3d.connected_components(solid, connectivity=CONNECTED).reshape(labels.shape)
    sizes = counted(parts)
    owners = np.zeros(len(sizes), labels.dtype)
    owners[parts.ravel()] = labels.ravel()
    return parts, sizes, owners


def counted(parts: np.ndarray, least: int = 1) -> np.ndarray:
    """How often each number from 0 is in an array, as NumPy's bincount, for `least` numbers at least.

    Slice by slice where there are few, since bincount makes an int64 copy of what it counts.

    Examples
    --------
    >>> counted(np.array([[[1, 1], [0, 3]]])).tolist()
    [1, 2, 0, 1]
    """
    count = max(int(parts.max(initial=0)) + 1, least)
    if count > _FEW or parts.ndim < 3:
        return np.bincount(parts.ravel(), minlength=count)
    sizes = np.zeros(count, np.int64)
    for one in parts:
        sizes += np.bincount(one.ravel(), minlength=count)
    return sizes


def centres_of(labels: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
    """The middles (z, y, x) of labels that are there, in voxels, (len(wanted), 3): all of them in one pass.

    Examples
    --------
    >>> centres_of(np.array([[[1, 1, 0, 2]]], np.uint8), [2, 1]).tolist()
    [[0.0, 0.0, 3.0], [0.0, 0.0, 0.5]]
    """
    import cc3d

    values: Any = np.ascontiguousarray(labels if labels.dtype.kind == "u" else labels.astype(np.uint32))
    return np.asarray(cc3d.statistics(values)["centroids"])[list(wanted)]


def stray_parts(labels: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
    """Where labels (Z, Y, X) are one of `chosen` and not its largest part, bool."""
    parts, sizes, owners = parts_of(labels)
    stray = np.isin(owners, chosen) & (np.arange(len(sizes)) > 0)
    for index in np.unique(owners[stray]):
        own = np.flatnonzero(stray & (owners == index))
        stray[own[np.argmax(sizes[own])]] = False
    return stray[parts] if stray.any() else np.zeros(labels.shape, bool)


def relabelled(labels: np.ndarray, stray: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Labels (Z, Y, X) where voxels that are `stray` take the nearest label that is not; `spacing` in mm.

    Looked for within eight voxels around each stray part, or around all where that is less work.
    """
    mended = labels.copy()
    whole = _around(ndimage.find_objects(stray.astype(np.uint8))[0], labels.shape)
    parts, _, _ = parts_of(stray[whole])
    around = [_around(box, parts.shape) for box in ndimage.find_objects(parts)]
    if sum(map(_voxels, around)) > parts.size:
        around = [(slice(0, parts.shape[0]), slice(0, parts.shape[1]), slice(0, parts.shape[2]))]
        parts = (parts > 0).astype(np.uint8)
    for number, box in enumerate(around, 1):
        nearest = ndimage.distance_transform_edt(
            stray[whole][box], sampling=list(spacing), return_distances=False, return_indices=True
        )
        own = parts[box] == number
        mended[whole][box][own] = labels[whole][box][tuple(nearest)][own]
    return mended


def _around(box: Box, shape: Sequence[int]) -> Box:
    z, y, x = (
        slice(max(one.start - MARGIN, 0), min(one.stop + MARGIN, size)) for one, size in zip(box, shape, strict=True)
    )
    return z, y, x


def _voxels(box: Box) -> int:
    return math.prod(one.stop - one.start for one in box)
