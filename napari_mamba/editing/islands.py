"""Pieces that belong not to the whole, and holes in it."""

from __future__ import annotations

import numpy as np

from napari_mamba.editing.structures import Structures


def keep_largest_island(mask: np.ndarray) -> np.ndarray:
    """The largest connected piece; voxels that touch at a face, an edge or a corner are connected.

    Examples
    --------
    >>> keep_largest_island(np.array([True, True, False, True])).tolist()
    [True, True, False, False]
    """
    seen = Structures(np.ascontiguousarray(mask).view(np.uint8))
    pieces, sizes = seen.pieces([1])
    if len(sizes) <= 2:
        return mask.copy()
    kept = np.zeros(mask.shape, bool)
    kept.reshape(-1)[seen.runs.only(pieces == sizes.argmax()).voxels] = True
    return kept


def remove_islands(mask: np.ndarray, least_voxels: int) -> np.ndarray:
    """The mask without its connected pieces of fewer than `least_voxels` voxels.

    Examples
    --------
    >>> remove_islands(np.array([True, True, False, True]), 2).tolist()
    [True, True, False, False]
    """
    from scipy.ndimage import label

    pieces, _ = label(mask, np.ones((3,) * mask.ndim))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return sizes[pieces] >= max(least_voxels, 1)


def fill_holes(mask: np.ndarray, *, axis: int | None = None) -> np.ndarray:
    """The mask with what it encloses.

    Parameters
    ----------
    mask : ndarray of bool
    axis : int, optional
        Fill slice by slice along this axis: also holes that are open in the neighbouring slices. Without it, only
        what is closed on all sides.

    Examples
    --------
    >>> ring = np.ones((3, 3), bool)
    >>> ring[1, 1] = False
    >>> bool(fill_holes(ring).all())
    True
    """
    from scipy.ndimage import binary_fill_holes, generate_binary_structure

    if axis is None or mask.ndim == 2:
        return binary_fill_holes(mask)
    structure = generate_binary_structure(mask.ndim, 1)
    structure &= np.indices(structure.shape)[axis] == 1
    # slices at the rim of the array count as closed: pad across them is not needed, since the structure stays in-plane
    return binary_fill_holes(mask, structure)
