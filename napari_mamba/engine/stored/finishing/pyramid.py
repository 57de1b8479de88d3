"""Coarser levels of a store, each from the one before: every second voxel of labels, means of an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_mamba.engine.tiling.tiles import Box, Shape

COARSEST = 256
"""Voxels along the longest axis of the last level, at most."""
PART = 128
"""Voxels along each side of what is computed together, from eight times as many."""


def factors(shape: Sequence[int], spacing: Sequence[float]) -> list[Shape]:
    """By how much each level is coarser than the first, (z, y, x); thick slices are joined when pixels are as large.

    >>> factors((64, 2048, 2048), (4.0, 1.0, 1.0))
    [(1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 8, 8)]
    """
    found: list[Shape] = [(1, 1, 1)]
    sides, here, now = np.array(spacing, float), np.array(shape), np.ones(3, int)
    while here.max() > COARSEST:
        halved = (here > 1) & (sides < 2 * sides[here > 1].min())
        if not halved[here > COARSEST].any():
            halved = here > COARSEST
        now, sides, here = (
            np.where(halved, now * 2, now),
            np.where(halved, sides * 2, sides),
            here - halved * (here // 2),
        )
        found.append((int(now[0]), int(now[1]), int(now[2])))
    return found


def coarser(shape: Sequence[int], factor: Sequence[int]) -> Shape:
    """Voxels that a grid has at a level."""
    z, y, x = (-(-n // f) for n, f in zip(shape, factor, strict=True))
    return z, y, x


def sides_of(chunks: Sequence[int]) -> Shape:
    """Voxels along each side of a part, whole chunks."""
    z, y, x = (max(PART // chunk, 1) * chunk for chunk in chunks)
    return z, y, x


def keys_within(box: Box, level: int, sides: Sequence[int]) -> list[str]:
    """Keys of the blocks or parts of a level, of so many voxels along each side, that a box of it meets.

    >>> keys_within((slice(0, 9), slice(8, 16), slice(0, 8)), 1, (8, 8, 8))
    ['1/0.1.0', '1/1.1.0']
    """
    z, y, x = (range(one.start // side, -(-one.stop // side)) for one, side in zip(box, sides, strict=True))
    return [f"{level}/{i}.{j}.{k}" for i in z for j in y for k in x]


def parts(shape: Shape, level: int, chunks: Shape) -> dict[str, Box]:
    """Boxes of whole chunks that cover a level, by their keys in the journal."""
    steps = sides_of(chunks)
    along = [[slice(a, min(a + s, n)) for a in range(0, n, s)] for n, s in zip(shape, steps, strict=True)]
    return {
        f"{level}/{i}.{j}.{k}": (z, y, x)
        for i, z in enumerate(along[0])
        for j, y in enumerate(along[1])
        for k, x in enumerate(along[2])
    }


def finer_box(box: Box, step: Sequence[int], shape: Sequence[int]) -> Box:
    """The box of the finer level that a box of the next one is made of."""
    z, y, x = (slice(b.start * s, min(b.stop * s, n)) for b, s, n in zip(box, step, shape, strict=True))
    return z, y, x


def halved(block: np.ndarray, step: Sequence[int], labels: bool) -> np.ndarray:
    """A block (C, z, y, x) with every `step` voxels (1 or 2 along each axis) as one.

    Labels: the first of them, since means of labels are other labels. Images: their mean, of those that there are.
    """
    if labels:
        return block[:, :: step[0], :: step[1], :: step[2]]
    for axis, size in enumerate(step, 1):
        if size == 2:
            if block.shape[axis] % 2:
                last = np.take(block, [-1], axis=axis)
                block = np.concatenate([block, last], axis=axis)
            even = [slice(None)] * 4
            odd = [slice(None)] * 4
            even[axis], odd[axis] = slice(0, None, 2), slice(1, None, 2)
            block = (block[tuple(even)] + block[tuple(odd)]) * np.float32(0.5)
    return block
