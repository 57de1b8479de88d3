"""Values on their way to a file: of a label map the smallest integer type that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from napari_mamba.errors import OutputError
from napari_mamba.io.labels.naming import Class


def storable(data: Any, classes: Sequence[Class] = ()) -> np.ndarray:
    """The values as an array of a type that every format here and its readers know.

    Parameters
    ----------
    data : array-like, shape (C, Z, Y, X)
    classes : sequence of Class
        If given, `data` is a label map: whole numbers, one channel, stored as uint8, uint16 or uint32.

    Returns
    -------
    ndarray, shape (C, Z, Y, X)
        Of the same values. Label maps, and integers of 64 bits, which many programs do not open, get the smallest
        type that holds them; bool becomes uint8, float16 becomes float32.

    Raises
    ------
    OutputError
        If a label map holds fractions or negative numbers, or the values have no place in an image file.

    Examples
    --------
    >>> storable(np.full((1, 2, 2, 2), 300)).dtype
    dtype('uint16')
    """
    array = np.asarray(data)
    if array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
        raise OutputError(f"values of the type {array.dtype} have no place in an image file: convert them to float32")
    if classes:
        return _label_map(array, max(entry.index for entry in classes))
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype.kind in "ui" and array.dtype.itemsize == 8:
        return array.astype(_smallest(array.min(), array.max()))
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _label_map(array: np.ndarray, largest_index: int) -> np.ndarray:
    if array.shape[0] != 1:
        raise OutputError(f"a label map has one channel, this one has {array.shape[0]}: write them one by one")
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.round(array)).all()):
        raise OutputError("the label map holds values that are no whole numbers: write it without classes")
    if array.min() < 0:
        raise OutputError(f"the label map holds the negative value {array.min()}: write it without classes")
    return array.astype(_smallest(0, max(int(array.max()), largest_index)))


def _smallest(low: int, high: int) -> np.dtype:
    # uint8 and uint16 first: int8 is what readers know least.
    for kind in (np.uint8, np.uint16, np.int16, np.uint32, np.int32, np.uint64):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.int64)
