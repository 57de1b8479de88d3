"""How an answer is cut into blocks that are computed by themselves, within a budget of memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from napari_mamba.engine import memory
from napari_mamba.engine.stored.reading.placement import Placement, ResampledPlacement
from napari_mamba.engine.tiling.tiles import Box, Shape, Tiling

CHUNK, LAYER = 128, 64
"""Voxels of a chunk across and along the axis on which tiles move on."""
MOST_MEMORY = 768 * 2**20
"""Bytes for sums, slabs and blocks that wait to be written; the network and PyTorch come on top."""


@dataclass(frozen=True)
class Layout:
    """Blocks of the answer's grid, (z, y, x).

    Parameters
    ----------
    shape : tuple of int
        Of the grid.
    axis : int
        Along which tiles move on.
    chunks : tuple of int
        Of the array on disk.
    block : tuple of int
        Voxels of a block: one chunk along `axis`, some across.
    """

    shape: Shape
    axis: int
    chunks: Shape
    block: Shape

    def boxes(self) -> dict[str, Box]:
        """Every block by its key."""
        along = [
            [slice(a, min(a + step, n)) for a in range(0, n, step)]
            for n, step in zip(self.shape, self.block, strict=True)
        ]
        return {
            f"0/{i}.{j}.{k}": (z, y, x)
            for i, z in enumerate(along[0])
            for j, y in enumerate(along[1])
            for k, x in enumerate(along[2])
        }

    def columns(self, keys: Iterable[str]) -> list[list[str]]:
        """Blocks that lie in a row along `axis`, without gaps."""
        places = sorted((tuple(int(n) for n in key[2:].split(".")) for key in keys), key=self._across)
        groups: list[list[tuple[int, ...]]] = []
        for place in places:
            last = groups[-1][-1] if groups else None
            beside = last is not None and self._across(last)[:-1] == self._across(place)[:-1]
            if beside and place[self.axis] == groups[-1][-1][self.axis] + 1:
                groups[-1].append(place)
            else:
                groups.append([place])
        return [["0/" + ".".join(map(str, place)) for place in group] for group in groups]

    def _across(self, place: Sequence[int]) -> tuple[int, ...]:
        return (*(n for axis, n in enumerate(place) if axis != self.axis), place[self.axis])

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> Layout:
        """From `to_dict`."""
        shape, chunks, block = (tuple(facts[name]) for name in ("shape", "chunks", "block"))
        return cls(shape, int(facts["axis"]), chunks, block)  # type: ignore[arg-type]


def lay_out(
    shape: Shape,
    placement: Placement | ResampledPlacement,
    tiling: Tiling,
    channels: int,
    read_bytes: int,
    written_bytes: int,
) -> Layout:
    """Blocks as wide as the budget allows, so that few tiles are computed for two of them.

    Parameters
    ----------
    shape : tuple of int
        Of the answer's grid (z, y, x).
    placement : Placement
        Of the prepared grid on it.
    tiling : Tiling
        Over the prepared grid.
    channels : int
        That the network answers.
    read_bytes, written_bytes : int
        Of one voxel of the input, and of what waits to be written.
    """
    axis = placement.axis(0)
    chunks = tuple(min(LAYER if a == axis else CHUNK, n) for a, n in enumerate(shape))
    needed = held_bytes(shape, chunks[axis], tiling, channels, read_bytes, written_bytes)
    free = memory.available_bytes()
    budget = MOST_MEMORY if free is None else min(MOST_MEMORY, int(free * 0.4))
    most = max(int(budget / needed), 1)
    block = _widest(shape, chunks, axis, most, [tiling.tile[i] for i in range(3)], placement)
    return Layout(shape, axis, chunks, block)  # type: ignore[arg-type]


def held_bytes(shape: Shape, layer: int, tiling: Tiling, channels: int, read_bytes: int, written_bytes: int) -> float:
    """Bytes held for each voxel of a block's cross-section: sums of tiles, slabs of the image, blocks to be written.

    Parameters
    ----------
    shape, tiling, channels, read_bytes, written_bytes
        As of `lay_out`.
    layer : int
        Voxels of a block along the axis on which tiles move on.
    """
    density, deep = max(math.prod(tiling.image) / math.prod(shape), 1.0), tiling.tile[0]
    sums = 4 * (channels + 1) * deep
    slabs = read_bytes * (deep + 2 * LAYER)
    waiting = written_bytes * 3 * layer
    if density > 1:  # resampled to smaller voxels, and held as float32
        slabs *= 4
    return density * (sums + slabs + waiting)


def _widest(
    shape: Shape,
    chunks: Sequence[int],
    axis: int,
    most: int,
    tile: Sequence[int],
    placement: Placement | ResampledPlacement,
) -> Shape:
    """Of all footprints of whole chunks and at most so many voxels that with the fewest tiles computed twice."""
    length = [0, 0, 0]  # of a tile along the answer's axes
    for prepared in range(3):
        length[placement.axis(prepared)] = tile[prepared]
    one, other = (a for a in range(3) if a != axis)
    best, least = (chunks[one], chunks[other]), float("inf")
    for a, b in itertools.product(_even(shape[one], chunks[one]), _even(shape[other], chunks[other])):
        work = 1.0
        for size, side, n in ((a, length[one], shape[one]), (b, length[other], shape[other])):
            parts = -(-n // size)
            work *= (n + (parts - 1) * side) / n
        if (a * b <= most or (a, b) == best) and work < least:
            best, least = (a, b), work
    block = list(chunks)
    block[one], block[other] = best
    return block[0], block[1], block[2]


def _even(size: int, chunk: int) -> list[int]:
    """Lengths of whole chunks that cut an axis into parts as even as can be."""
    count = -(-size // chunk)
    return sorted({-(-count // parts) * chunk for parts in range(1, count + 1)})


PIECES = 8
"""Of a block, at least, that are written beside one another, where it has as many rows of chunks."""


def pieces_of(box: Box, chunks: Shape, count: int = PIECES) -> list[Box]:
    """A box cut into about `count` pieces of whole chunks, along y before x before z.

    >>> len(pieces_of((slice(0, 4), slice(8, 16), slice(0, 8)), (4, 4, 4), 3))
    4
    """
    along: list[list[slice]] = [[], [], []]
    have = 1
    for axis in (1, 2, 0):
        one, chunk = box[axis], chunks[axis]
        rows = -(-(one.stop - one.start) // chunk)
        step = -(-rows // min(rows, -(-count // have))) * chunk
        along[axis] = [slice(a, min(a + step, one.stop)) for a in range(one.start, one.stop, step)]
        have *= len(along[axis])
    return [(z, y, x) for z in along[0] for y in along[1] for x in along[2]]


def split(columns: Sequence[Sequence[str]], pieces: int, shortest: int = 2) -> list[list[str]]:
    """Columns cut so that there are about `pieces` of them, each of at least so many blocks.

    >>> split([["a", "b", "c", "d"]], 2)
    [['a', 'b'], ['c', 'd']]
    """
    total = sum(map(len, columns))
    longest = max(-(-total // max(pieces, 1)), shortest)
    found = []
    for column in columns:
        parts = max(-(-len(column) // longest), 1)
        size = -(-len(column) // parts)
        found += [list(column[i : i + size]) for i in range(0, len(column), size)]
    return found
