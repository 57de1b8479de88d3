"""Tiles of an image on disk: each slab of it is read once, the next while the network computes."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter
from types import TracebackType
from typing import Any

import numpy as np

from napari_mamba.engine.stored.reading.lazy import LazyImage
from napari_mamba.engine.tiling.tiles import Box, Shape, Tiling


class BandReader:
    """Gives the tiles that touch a window, in their order; holds the slabs that tiles of one row need, and one more.

    Slabs are held as they are stored, a quarter of float32 where they are bytes, and scaled tile by tile.

    Parameters
    ----------
    image : LazyImage
        The prepared image, float32.
    tiling : Tiling
    window : tuple of slice

    Attributes
    ----------
    waited : float
        Seconds for which a tile had to be waited for.
    """

    def __init__(self, image: LazyImage, tiling: Tiling, window: Box):
        self.image, self.tiling = image, tiling
        starts = np.array(tiling.starts_within(window))
        before = np.array([pad for pad, _ in tiling.padding])
        low, high = starts.min(axis=0) - before, starts.max(axis=0) + tiling.tile - before
        self.low = np.maximum(low, 0)
        self.high = np.minimum(high, tiling.image)
        cuts = [cut for cut in image.cuts(0) if self.low[0] < cut < self.high[0]]
        edges = [int(self.low[0]), *cuts, int(self.high[0])]
        self.waiting = deque(itertools.pairwise(edges))
        self.slabs: deque[tuple[int, int, np.ndarray]] = deque()
        self.ahead: Future[np.ndarray] | None = None
        self.waited = 0.0
        self.pool = ThreadPoolExecutor(1, "reading")

    def __enter__(self) -> BandReader:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)
        self.slabs.clear()

    def __call__(self, start: Shape) -> np.ndarray:
        """The tile (C, *tile) that begins at `start` of the padded image."""
        corner = [s - pad for s, (pad, _) in zip(start, self.tiling.padding, strict=True)]
        self._hold(corner[0], min(corner[0] + self.tiling.tile[0], int(self.high[0])))
        tile = np.zeros((self.image.channels, *self.tiling.tile), np.float32)
        (of_y, in_y), (of_x, in_x) = (self._plane(axis, corner[axis]) for axis in (1, 2))
        for first, last, slab in self.slabs:
            a, b = max(first, corner[0]), min(last, corner[0] + self.tiling.tile[0])
            if a < b:
                part = slab[:, a - first : b - first, in_y, in_x]
                tile[:, a - corner[0] : b - corner[0], of_y, of_x] = self.image.processed(part)
        return self.tiling.filled(tile)

    def _plane(self, axis: int, corner: int) -> tuple[slice, slice]:
        """What a tile from `corner` on shares with a slab along an axis: as slices of the tile and of the slab."""
        low, high = int(self.low[axis]), int(self.high[axis])
        a, b = max(corner, low), min(corner + self.tiling.tile[axis], high)
        return slice(a - corner, b - corner), slice(a - low, b - low)

    def _hold(self, first: int, last: int) -> None:
        """Have the slices `first` to `last` in memory, and the next slab on its way."""
        while self.slabs and self.slabs[0][1] <= first:
            self.slabs.popleft()
        while self.waiting and self.waiting[0][0] < last:
            since = perf_counter()
            a, b = self.waiting.popleft()
            ahead = self.ahead or self.pool.submit(self._read, a, b)
            self.ahead = None
            self.slabs.append((a, b, ahead.result()))
            self.waited += perf_counter() - since
        if self.waiting and self.ahead is None:
            self.ahead = self.pool.submit(self._read, *self.waiting[0])

    def _read(self, a: int, b: int) -> np.ndarray:
        (_, y, x), (_, yy, xx) = self.low, self.high
        return self.image[:, a:b, int(y) : int(yy), int(x) : int(xx)].stored()


class Prefetched:
    """Has the next tiles made by a thread while a GPU computes, which would wait for the host otherwise.

    Parameters
    ----------
    read : callable
        Gives the tile that begins at a place, or the tiles of a batch; asked for each of `starts`, in their order.
    starts : iterable of tuple of int, or of batches of them
        All that will be asked for.
    ahead : int
        Tiles that are made ahead.

    Attributes
    ----------
    waited : float
        Seconds for which a tile had to be waited for.

    Examples
    --------
    >>> with Prefetched(lambda start: np.full(1, start[0]), [(0, 0, 0), (2, 0, 0)], 1) as read:
    ...     read((0, 0, 0)), read((2, 0, 0))
    (array([0]), array([2]))
    """

    def __init__(self, read: Callable[[Any], Any], starts: Iterable[Any], ahead: int):
        self.read, self.left = read, iter(starts)
        self.waited = 0.0
        self.pool = ThreadPoolExecutor(1, "tiles")
        self.coming: deque[tuple[Any, Future[Any]]] = deque()
        for _ in range(ahead):
            self._next()

    def __enter__(self) -> Prefetched:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)
        self.coming.clear()

    def __call__(self, start: Any) -> Any:
        """The tile that begins at `start`, which is the next one."""
        since = perf_counter()
        expected, tile = self.coming.popleft()
        assert expected == start
        self._next()
        values = tile.result()
        self.waited += perf_counter() - since
        return values

    def _next(self) -> None:
        for start in itertools.islice(self.left, 1):
            self.coming.append((start, self.pool.submit(self.read, start)))
