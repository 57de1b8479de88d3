"""Polygons of one plane filled: holes, islands, pieces beside one another, and what real files have besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WITHIN = 0.9
"""Share of a contour's area that lies in another one: then it is within it, for rounded corners' sake."""


def filled(polygons: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Which pixels' centres lie inside an odd number of polygons.

    Parameters
    ----------
    polygons : sequence of (N, 2) array
        Corners (y, x) in pixels.
    shape : (int, int)

    Returns
    -------
    (Y, X) bool array

    Examples
    --------
    >>> square = np.array([[0.5, 0.5], [0.5, 3.5], [3.5, 3.5], [3.5, 0.5]])
    >>> int(filled([square], (5, 5)).sum())
    9
    """
    height, width = shape
    if not len(polygons):
        return np.zeros(shape, bool)
    start = np.concatenate(polygons)
    end = np.concatenate([np.roll(polygon, -1, axis=0) for polygon in polygons])
    low, high = (
        np.clip(np.ceil(side(start[:, 0], end[:, 0])), 0, height).astype(int) for side in (np.minimum, np.maximum)
    )
    counts = high - low  # rows that an edge crosses: low <= row < high
    edge = np.repeat(np.arange(len(start)), counts)
    rows = np.arange(len(edge)) + np.repeat(low - np.cumsum(counts) + counts, counts)
    (y0, x0), (y1, x1) = start[edge].T, end[edge].T
    crossing = x0 + (rows - y0) * (x1 - x0) / (y1 - y0)
    columns = np.clip(np.ceil(crossing), 0, width).astype(int)
    changes = np.bincount(rows * (width + 1) + columns, minlength=height * (width + 1)).reshape(height, width + 1)
    return np.cumsum(changes, axis=1)[:, :width] % 2 == 1


def combined(polygons: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """The region of a structure's contours on one plane.

    A contour within another is a hole in it, one within that an island. Contours that cross are pieces of one region:
    where they overlap belongs to it. A contour that is there twice counts once.

    Parameters
    ----------
    polygons : sequence of (N, 2) array
        Corners (y, x) in pixels.
    shape : (int, int)

    Returns
    -------
    (Y, X) bool array

    Examples
    --------
    >>> square = np.array([[0.5, 0.5], [0.5, 3.5], [3.5, 3.5], [3.5, 0.5]])
    >>> [int(combined(both, (9, 9)).sum()) for both in ([square, square], [square, square + 2])]
    [9, 17]
    """
    if not _touching(polygons):
        return filled(polygons, shape)
    mask = np.zeros(shape, bool)
    for part in sorted(_nested([_part(polygon, shape) for polygon in polygons]), key=lambda part: part.depth):
        window = mask[part.box]
        window[part.pixels] = part.depth % 2 == 0
    return mask


@dataclass(eq=False)
class _Part:
    """A filled contour: the pixels within a box, their number, and how deep it lies within others."""

    box: tuple[slice, slice]
    pixels: np.ndarray
    area: int
    depth: int = 0

    def shared(self, other: _Part) -> int:
        """Pixels that two parts have in common."""
        both = [(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(self.box, other.box, strict=True)]
        if any(start >= stop for start, stop in both):
            return 0
        one, two = (part._within(both) for part in (self, other))
        return int(np.count_nonzero(one & two))

    def _within(self, box: Sequence[tuple[int, int]]) -> np.ndarray:
        (top, bottom), (left, right) = box
        y, x = (part.start for part in self.box)
        return self.pixels[top - y : bottom - y, left - x : right - x]


def _part(polygon: np.ndarray, shape: tuple[int, int]) -> _Part:
    low = np.clip(np.floor(polygon.min(0)), 0, shape).astype(int)
    high = np.maximum(np.clip(np.ceil(polygon.max(0)) + 1, 0, shape).astype(int), low)
    pixels = filled([polygon - low], (int(high[0] - low[0]), int(high[1] - low[1])))
    return _Part((slice(low[0], high[0]), slice(low[1], high[1])), pixels, int(np.count_nonzero(pixels)))


def _nested(parts: Sequence[_Part]) -> list[_Part]:
    """The parts with their depths; copies and those without a pixel are left out."""
    found: list[_Part] = []
    for part in sorted(parts, key=lambda one: -one.area):
        if not part.area:
            continue
        shared = [part.shared(other) for other in found]
        if any(common == part.area == other.area for common, other in zip(shared, found, strict=True)):
            continue
        around = [other.depth for common, other in zip(shared, found, strict=True) if common >= WITHIN * part.area]
        part.depth = 1 + max(around, default=-1)
        found.append(part)
    return found


def _touching(polygons: Sequence[np.ndarray]) -> bool:
    """Whether the boxes of any two polygons overlap."""
    if len(polygons) < 2:
        return False
    low, high = (np.array([side(polygon, axis=0) for polygon in polygons]) for side in (np.min, np.max))
    apart = ((low[:, np.newaxis] > high) | (high[:, np.newaxis] < low)).any(-1)
    return not (apart | np.eye(len(polygons), dtype=bool)).all()
