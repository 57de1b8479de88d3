"""Tiles over a volume: where they lie, how they are weighted, and their blending in bounded memory.

Positions, weights and padding follow nnU-Net's sliding window (Isensee et al., Nature Methods 18, 2021;
github.com/MIC-DKFZ/nnUNet, nnunetv2/inference), so that a network trained there answers here as it does there.
MONAI's `sliding_window_inference` spaces tiles and centres its Gaussian differently, holds every class of the whole
volume at once, and can neither be cancelled nor report how far it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from napari_mamba.engine import memory

Shape = tuple[int, int, int]
Box = tuple[slice, slice, slice]
Sink = Callable[[int, torch.Tensor], None]


def tile_starts(size: int, tile: int, overlap: float = 0.5) -> list[int]:
    """First voxels of the tiles along one axis: evenly spaced, the last one flush with the end.

    Parameters
    ----------
    size, tile : int
        Voxels of the image (at least `tile`) and of a tile.
    overlap : float
        Smallest share of a tile that the next one covers too.

    Examples
    --------
    >>> tile_starts(110, 64)
    [0, 23, 46]
    """
    count = math.ceil((size - tile) / (tile * (1 - overlap))) + 1
    count = min(count, size - tile + 1)  # steps of less than a voxel would repeat tiles: slices, of one voxel, all
    step = (size - tile) / max(count - 1, 1)
    return [round(step * i) for i in range(count)]


def fitted_tile_length(size: int, tile: int, overlap: float, divisor: int) -> int:
    """The shortest side, a multiple of `divisor`, with which as many tiles cover an image along one axis.

    They overlap by as many voxels at least as those of the side `tile` have to.

    Examples
    --------
    >>> fitted_tile_length(171, 128, 0.125, 4)  # two of 96 instead of two of 128
    96
    >>> fitted_tile_length(30, 128, 0.125, 4)
    32
    """
    shared = tile - int(tile * (1 - overlap))
    count = len(tile_starts(max(size, tile), tile, overlap))
    return min(tile, -(-(size + (count - 1) * shared) // (count * divisor)) * divisor)


def times(sizes: Shape, factors: Shape) -> Shape:
    """Each size times its factor."""
    z, y, x = (n * f for n, f in zip(sizes, factors, strict=True))
    return z, y, x


def gaussian_weights(tile: Shape, half: bool = False) -> np.ndarray:
    """Weight of each voxel of a tile: a Gaussian about its centre, sigma an eighth of the side.

    Returns
    -------
    ndarray, shape `tile`, float32
        At most 1 and never 0. With `half` float16 and at most 10, as nnU-Net has them: what would underflow is 6e-8.
    """
    weights = np.ones((1, 1, 1))
    for axis, n in enumerate(tile):
        weights = weights * _gaussian(n).reshape([-1 if a == axis else 1 for a in range(3)])
    weights = weights / weights.max()
    weights = (weights * 10).astype(np.float16) if half else weights.astype(np.float32)
    return np.maximum(weights, weights[weights > 0].min())


def _gaussian(n: int) -> np.ndarray:
    """What a Gaussian filter of sigma n / 8, four sigma wide, makes of n values that are 1 at n // 2 and else 0.

    The bits of SciPy's `gaussian_filter1d`, without SciPy, which not every run needs.
    """
    sigma = n / 8
    reach = int(4.0 * sigma + 0.5)
    away = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 / (sigma * sigma) * away**2)
    kernel = kernel / kernel.sum()
    places: np.ndarray = np.arange(n) - n // 2
    return np.where(np.abs(places) <= reach, kernel[np.clip(places + reach, 0, 2 * reach)], 0.0)


@dataclass(frozen=True)
class Tiling:
    """Tiles over an image of the shape `image`, padded on both sides where a tile is larger: with zeros, or mirrored.

    Parameters
    ----------
    image, tile : tuple of int
        Voxels along (z, y, x); a 2D network's tile has z = 1.
    overlap : float
    half : bool
        Sum overlapping tiles in half precision, as nnU-Net does. In an image's corners, where a single tile's smallest
        weights are all there is, its rounding moves a probability by up to 0.1.
    margins : tuple of (int, int), optional
        The padding, where it is not what the sizes make it.
    reflect : bool
        The padding is the image's mirror image, without its border twice.
    """

    image: Shape
    tile: Shape
    overlap: float = 0.5
    half: bool = False
    margins: tuple[tuple[int, int], ...] | None = None
    reflect: bool = False

    def enlarged(self, factors: Shape) -> Tiling:
        """The tiling of answers that have `factors` times as many voxels along (z, y, x)."""
        if factors == (1, 1, 1):
            return self
        margins = tuple((a * f, b * f) for (a, b), f in zip(self.padding, factors, strict=True))
        return replace(self, image=times(self.image, factors), tile=times(self.tile, factors), margins=margins)

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """Voxels to add before and after, per axis; the odd one after."""
        if self.margins is not None:
            return self.margins
        missing = [max(t - n, 0) for n, t in zip(self.image, self.tile, strict=True)]
        return tuple((m // 2, m - m // 2) for m in missing)

    @property
    def padded(self) -> Shape:
        """Shape of the padded image."""
        z, y, x = (max(n, t) for n, t in zip(self.image, self.tile, strict=True))
        return z, y, x

    @property
    def starts(self) -> list[Shape]:
        """First voxel of each tile in the padded image, z slowest."""
        zs, ys, xs = (tile_starts(n, t, self.overlap) for n, t in zip(self.padded, self.tile, strict=True))
        return [(z, y, x) for z in zs for y in ys for x in xs]

    @property
    def whole(self) -> Box:
        """The box that is the image."""
        z, y, x = (slice(0, n) for n in self.image)
        return z, y, x

    def starts_within(self, window: Box) -> list[Shape]:
        """First voxels of those tiles that touch a box of the image, in the order of `starts`."""
        along = []
        for axis, box in enumerate(window):
            first, last = (self.padding[axis][0] + end for end in (box.start, box.stop))
            starts = tile_starts(self.padded[axis], self.tile[axis], self.overlap)
            along.append([start for start in starts if start < last and start + self.tile[axis] > first])
        return [(z, y, x) for z in along[0] for y in along[1] for x in along[2]]

    def batches(self, size: int, window: Box | None = None) -> Iterator[list[Shape]]:
        """The starts in groups of at most `size`; only tiles of one slice may be grouped across z.

        With a `window` only those of tiles that touch it.
        """
        batch: list[Shape] = []
        for start in self.starts if window is None else self.starts_within(window):
            if batch and (len(batch) == size or (start[0] != batch[0][0] and self.tile[0] > 1)):
                yield batch
                batch = []
            batch.append(start)
        yield batch

    def pad(self, data: np.ndarray) -> np.ndarray:
        """`data` (C, Z, Y, X) with its padding; itself where there is none."""
        if not any(before or after for before, after in self.padding):
            return data
        return np.pad(data, ((0, 0), *self.padding), mode="reflect" if self.reflect else "constant")

    def filled(self, tile: np.ndarray) -> np.ndarray:
        """A tile (C, *tile) whose padding is zero, with what `pad` would have put there."""
        padded = [(before, after) for before, after in self.padding]
        if not self.reflect or not any(map(any, padded)):
            return tile
        sides = zip(padded, tile.shape[1:], strict=True)
        inside = tuple(slice(before, n - after) for (before, after), n in sides)
        return np.pad(tile[(slice(None), *inside)], ((0, 0), *padded), mode="reflect")


class RollingBlend:
    """Weighted mean of overlapping tiles that come in the order of z, held only where tiles may still come.

    The sums are a ring of `depth` slices, so that memory does not grow with the image's z: of 33 classes on
    200x240x200 voxels a tile of 96 keeps 0.6 GB instead of 1.3. Nor does it grow with y and x where the image is
    blended window by window: each voxel then sums the same tiles in the same order, and has the same mean to the bit.

    Parameters
    ----------
    tiling : Tiling
    channels : int
    depth : int
        Slices that the tiles of one batch can span.
    device : torch.device
        Where the sums are kept.
    window : tuple of slice, optional
        The box (z, y, x) of the image to blend; all of it if not given.
    """

    @torch.inference_mode()
    def __init__(self, tiling: Tiling, channels: int, depth: int, device: torch.device, window: Box | None = None):
        self.tiling = tiling
        self.window = window or tiling.whole
        (self.top, self.bottom), self.rows, self.columns = (
            (box.start + before, box.stop + before)
            for box, (before, _) in zip(self.window, tiling.padding, strict=True)
        )
        plane = (self.rows[1] - self.rows[0], self.columns[1] - self.columns[0])
        if device.type == "cpu":
            memory.require(4 * channels * depth * math.prod(plane))
        self.weights = torch.from_numpy(gaussian_weights(tiling.tile, tiling.half)).to(device)
        self.sums = torch.zeros((channels, depth, *plane), device=device, dtype=self.weights.dtype)
        self.norm = torch.zeros((depth, *plane), device=device, dtype=self.weights.dtype)
        self.released = self.top

    @torch.inference_mode()
    def add(self, start: Shape, prediction: torch.Tensor) -> None:
        """Add one tile's prediction (channels, *tile), its first voxel at `start` of the padded image."""
        z, y, x = start
        tz, ty, tx = self.tiling.tile
        (of_y, in_y), (of_x, in_x) = _shared(y, ty, self.rows), _shared(x, tx, self.columns)
        prediction = prediction.to(self.sums.device, torch.float32)
        for ring, rows in self._ring(max(z, self.top), min(z + tz, self.bottom)):
            here = (slice(rows.start - z, rows.stop - z), of_y, of_x)
            weights = self.weights[here]
            sums = self.sums[:, ring, in_y, in_x]
            if self.tiling.half:  # weighted in float32, rounded once a tile
                sums += prediction[(slice(None), *here)] * weights
            else:
                sums.addcmul_(prediction[(slice(None), *here)], weights)
            self.norm[ring, in_y, in_x] += weights

    @torch.inference_mode()
    def release(self, stop: int, sink: Sink) -> None:
        """Hand the slices before `stop`, which no tile will touch again, to `sink(z, values)`.

        `values` (channels, n, Y, X) are the weighted means over n slices of the window, from slice z of the unpadded
        image on. They are the ring's own memory, cleared afterwards: the sink takes what it needs.
        """
        before = self.tiling.padding[0][0]
        for ring, rows in self._ring(self.released, min(stop, self.bottom)):
            self.sums[:, ring] /= self.norm[ring]
            sink(rows.start - before, self.sums[:, ring])
            self.sums[:, ring] = 0
            self.norm[ring] = 0
        self.released = max(stop, self.released)

    def _ring(self, start: int, stop: int) -> Iterator[tuple[slice, slice]]:
        """Pieces of the slices `start` to `stop`: where each lies in the ring, and which slices they are."""
        depth = self.norm.shape[0]
        while start < stop:
            place = start % depth
            count = min(stop - start, depth - place)
            yield slice(place, place + count), slice(start, start + count)
            start += count


def _shared(start: int, size: int, bounds: tuple[int, int]) -> tuple[slice, slice]:
    """What a tile of `size` from `start` on shares with `bounds`: as slices of the tile and of the bounds."""
    first, last = max(start, bounds[0]), min(start + size, bounds[1])
    return slice(first - start, last - start), slice(first - bounds[0], last - bounds[0])


def enlarged_box(window: Box, factors: Shape) -> Box:
    """A box on a grid of `factors` times as many voxels.

    >>> enlarged_box((slice(0, 2), slice(1, 3), slice(0, 1)), (1, 2, 4))
    (slice(0, 2, None), slice(2, 6, None), slice(0, 4, None))
    """
    z, y, x = (slice(box.start * f, box.stop * f) for box, f in zip(window, factors, strict=True))
    return z, y, x
