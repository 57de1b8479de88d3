"""Passes over an image that does not fit into memory: what a preparation has to know of all of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from napari_mamba.engine.stored.reading.lazy import LazyImage
from napari_mamba.engine.tiling.tiles import Box

MOST_VOXELS = 2**22
"""Of a block in one channel, unless a single chunk is larger."""

Watch = Callable[[int, int], None]
"""Called after each block with how many are done and how many there are; it may raise to stop the pass."""


def boxes(image: LazyImage, most: int = MOST_VOXELS) -> list[Box]:
    """Boxes that cover an image, cut where its chunks are, several chunks each where they are small."""
    along = [image.cuts(axis) for axis in range(3)]
    for axis in (2, 1, 0):
        others = int(np.prod([max(b - a for a, b in itertools.pairwise(along[i])) for i in range(3) if i != axis]))
        along[axis] = _merged(along[axis], max(int(most // max(others, 1)), 1))
    parts = [[slice(a, b) for a, b in itertools.pairwise(cuts)] for cuts in along]
    return [(z, y, x) for z in parts[0] for y in parts[1] for x in parts[2]]


def _merged(cuts: list[int], longest: int) -> list[int]:
    kept = [cuts[0]]
    for here, after in itertools.pairwise(cuts[1:]):
        if after - kept[-1] > longest:
            kept.append(here)
    return [*kept, cuts[-1]]


def blocks(
    image: LazyImage, watch: Watch = lambda done, total: None, over: Iterable[Box] | None = None
) -> Iterator[tuple[Box, np.ndarray]]:
    """The blocks (C, z, y, x) of an image, box by box; the next is read while one is looked at."""
    every = list(over) if over is not None else boxes(image)
    with ThreadPoolExecutor(1, "passing") as pool:
        ahead = pool.submit(np.asarray, image[(slice(None), *every[0])])
        for number, box in enumerate(every, 1):
            block = ahead.result()
            if number < len(every):
                ahead = pool.submit(np.asarray, image[(slice(None), *every[number])])
            yield box, block
            watch(number, len(every))


def sampled(block: np.ndarray, box: Box, shape: tuple[int, ...], stride: int, offset: int = 0) -> np.ndarray:
    """Every `stride`-th value of an image of `shape` (Z, Y, X), counted from `offset`, that lies in a block of it.

    Of all blocks together these are ``image.reshape(-1)[::stride]``, in another order.

    >>> sampled(np.arange(8).reshape(2, 2, 2), (slice(0, 2), slice(0, 2), slice(0, 2)), (2, 2, 2), 3).tolist()
    [0, 3, 6]
    """
    _, height, width = shape
    z, y, x = box
    rows = (np.arange(z.start, z.stop)[:, None] * height + np.arange(y.start, y.stop)) * width + x.start + offset
    length = x.stop - x.start
    places = ((-rows) % stride)[..., None] + np.arange(-(-length // stride)) * stride
    there = places < length
    at_z, at_y, _ = np.nonzero(there)
    return block[at_z, at_y, places[there]]


@dataclass
class Moments:
    """Number, mean, squares about it, smallest and largest of values that come in parts.

    Parts are joined as by Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances", 1979: to float64's rounding the mean and deviation of all values at once.

    Examples
    --------
    >>> moments = Moments()
    >>> for part in ([1.0, 2.0], [6.0]):
    ...     moments.add(np.array(part))
    >>> moments.mean, round(moments.std, 3), moments.high
    (3.0, 2.16, 6.0)
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = np.inf
    high: float = -np.inf

    def add(self, values: np.ndarray) -> None:
        """Take more values in; NaN are not to be among them."""
        if not values.size:
            return
        mean = float(values.mean(dtype=np.float64))
        squares = float(values.var(dtype=np.float64)) * values.size
        total = self.count + values.size
        apart = mean - self.mean
        self.squares += squares + apart * apart * self.count * values.size / total
        self.mean += apart * values.size / total
        self.count = total
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    @property
    def std(self) -> float:
        """Of all values, as NumPy's."""
        return float(np.sqrt(self.squares / max(self.count, 1)))


@dataclass
class Extent:
    """The smallest box (z, y, x) that holds every voxel where any channel is not zero."""

    low: list[int] = field(default_factory=lambda: [2**62] * 3)
    high: list[int] = field(default_factory=lambda: [0] * 3)

    def add(self, box: Box, block: np.ndarray) -> None:
        """Look at a block (C, z, y, x)."""
        filled = (block != 0).any(axis=0)
        for axis, part in enumerate(box):
            inside = np.flatnonzero(filled.any(axis=tuple(a for a in range(3) if a != axis)))
            if len(inside):
                self.low[axis] = min(self.low[axis], part.start + int(inside[0]))
                self.high[axis] = max(self.high[axis], part.start + int(inside[-1]) + 1)

    def box(self, shape: tuple[int, ...]) -> Box:
        """The box; all of an image of `shape` (Z, Y, X) where nothing is filled."""
        if not self.high[0]:
            z, y, x = (slice(0, n) for n in shape)
        else:
            z, y, x = (slice(a, b) for a, b in zip(self.low, self.high, strict=True))
        return z, y, x
