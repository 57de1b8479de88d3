"""Whether an array is a label map or an image."""

from __future__ import annotations

from typing import Any

import numpy as np


def looks_like_labels(data: Any) -> bool:
    """Whether values are a label map's: few whole numbers, and mostly the same from voxel to voxel.

    Integer images are not: their neighbours differ. What a file or a layer says of itself should be asked first.

    Parameters
    ----------
    data : array-like, shape (Z, Y, X)

    Examples
    --------
    >>> looks_like_labels(np.repeat([0, 1, 1, 3], 10)[None, None])
    True
    >>> looks_like_labels(np.arange(40)[None, None])
    False
    """
    array = np.asarray(data)
    if array.dtype.kind == "b":
        return True
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or (array != np.round(array)).any():
            return False
    elif array.dtype.kind not in "ui":
        return False
    if array.min() < 0 or len(np.unique(array)) > 1000:
        return False
    left, right = array[..., :-1], array[..., 1:]
    foreground = left != 0
    if not foreground.any():
        return not array[..., -1].any()
    return bool((left == right)[foreground].mean() > 0.5)
