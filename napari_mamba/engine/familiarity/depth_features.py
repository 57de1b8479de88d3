"""What lies how deep below the surface of what an image shows, which tells a CT from MR when its units are gone.

In a CT kept as a picture, in a window of grey values, bone is brightest and saturates, soft tissues hardly differ, and
nothing but air is dark; in MR fat comes first and bone is dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

STEP_MM = 3.0
DEPTHS = (0.1, 3, 6, 9, 12, 15, 20, 25)
"""Mm below the surface, from one to the next; what is deeper than the last is the inside."""
_LEAST_INSIDE = 200
"""Places that an inside has at least: a small box of a head has none."""


def depth_features(image: np.ndarray, spacing: Sequence[float] | np.ndarray) -> np.ndarray | None:
    """Numbers of each depth, whatever the scale of the values; None where the image shows no inside.

    Parameters
    ----------
    image : ndarray, shape (Z, Y, X)
    spacing : sequence of three floats
        Mm.

    Returns
    -------
    ndarray, shape (24,), float64, or None
        How much the inside's values spread (two), its median, the share of places that are exactly as bright as the
        brightest of all; of each depth the mean and the share of the dark, and of all but the deepest that of
        the bright.

    Examples
    --------
    >>> z, y, x = np.ogrid[-40:41, -40:41, -40:41]
    >>> ball = np.where(z * z + y * y + x * x < 35**2, 1.0, 0.0)
    >>> depth_features(ball, (2.0, 2.0, 2.0)).shape
    (24,)
    """
    from scipy import ndimage

    steps = np.maximum(np.rint(STEP_MM / np.maximum(spacing, 1e-3)), 1).astype(int)
    seen = np.asarray(image[tuple(slice(step // 2, None, step) for step in steps)], np.float32)
    if min(seen.shape) < 3 or not np.isfinite(seen).all():
        return None
    low, high = np.percentile(seen, (1, 99))
    if high <= low:
        return None
    values = np.clip((seen - low) / (high - low), 0, 1)
    body = _filled(values > 0.1)
    # What the field of view cuts off is no surface.
    depth = ndimage.distance_transform_edt(np.pad(body, 1, mode="edge"), sampling=np.asarray(spacing) * steps)
    depth = depth[1:-1, 1:-1, 1:-1]
    inside = values[depth > DEPTHS[-1]]
    if inside.size < _LEAST_INSIDE:
        return None
    low_end, quarter, middle, three_quarters, high_end = np.percentile(inside, (10, 25, 50, 75, 90))
    layers = [values[(depth > a) & (depth <= b)] for a, b in pairwise(DEPTHS)]
    layers = [layer if layer.size else np.zeros(1, np.float32) for layer in layers]
    means = [np.log(np.clip(layer.mean() / max(middle, 0.02), 0.1, 5)) for layer in layers]
    dark = [np.mean(layer < 0.5 * middle) for layer in layers]
    far = middle + 2 * max(three_quarters - quarter, 0.02)
    bright = [np.mean(layer > far) for layer in layers[:-1]]
    saturated = np.mean(seen[body] >= seen.max())
    spread = [np.log(three_quarters - quarter + 0.01), np.log(high_end - low_end + 0.01)]
    return np.array([*spread, middle, np.log(saturated + 0.002), *means, *dark, *bright], np.float64)


def _filled(mask: np.ndarray) -> np.ndarray:
    """The largest piece, its gaps closed and its holes filled in each plane of each direction."""
    from scipy import ndimage

    closed = ndimage.binary_closing(np.pad(mask, 3), iterations=2)[3:-3, 3:-3, 3:-3]
    pieces, count = ndimage.label(closed)
    if count == 0:
        return closed
    piece = pieces == 1 + int(np.bincount(pieces.ravel())[1:].argmax())
    for axis in range(3):
        planes = [ndimage.binary_fill_holes(plane) for plane in np.moveaxis(piece, axis, 0)]
        piece = np.moveaxis(np.array(planes, bool), 0, axis)
    return piece
