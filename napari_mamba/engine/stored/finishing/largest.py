"""The largest connected part of labels on disk: parts of boxes, joined where they touch, in two passes.

Components of each box are found by themselves and made one where boxes meet, as in He et al., "The connected-component
labeling problem: a review of state-of-the-art algorithms", Pattern Recognition 70, 2017, section 5. Held are one box,
the last slice of the boxes before it, and four numbers a component.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import ndimage, sparse

from napari_mamba.engine.stored.answers import StoredLabels
from napari_mamba.engine.stored.journal import Journal
from napari_mamba.engine.stored.reading.passes import Watch
from napari_mamba.engine.stored.work import Work
from napari_mamba.engine.tiling.tiles import Box, Shape

_TOUCHING = np.ones((3, 3, 3), bool)
"""Voxels that share a corner belong together, as in `napari_mamba.editing.parts`."""

_KEPT = "parts/kept"
"""The journal's entry when it is done."""
LONGEST = 256
"""Voxels along each side of a box, rounded to whole chunks."""


def boxes_of(shape: Sequence[int], chunks: Sequence[int]) -> list[Box]:
    """Boxes of whole chunks that cover a grid, x fastest."""
    steps = [max(LONGEST // chunk, 1) * chunk for chunk in chunks]
    along = [[slice(a, min(a + s, n)) for a in range(0, n, s)] for n, s in zip(shape, steps, strict=True)]
    return [(z, y, x) for z, y, x in itertools.product(*along)]


@dataclass
class _Components:
    """What is known of all components so far: voxels and first voxel of each, and which ones touch."""

    voxels: list[np.ndarray] = field(default_factory=list)
    first: list[np.ndarray] = field(default_factory=list)
    touching: list[np.ndarray] = field(default_factory=list)
    count: int = 0

    def largest(self) -> np.ndarray:
        """Whether each component, by its number from 1, is of the largest part; of equal ones the first."""
        kept = np.zeros(self.count + 1, bool)
        if not self.count:
            return kept
        pairs = np.concatenate(self.touching) if self.touching else np.zeros((0, 2), np.int64)
        graph = sparse.coo_array((np.ones(len(pairs), bool), pairs.T), shape=kept.shape * 2)
        _, part = sparse.csgraph.connected_components(graph, directed=False)
        sizes = np.bincount(part[1:], np.concatenate(self.voxels), part.max() + 1)
        first = np.full(part.max() + 1, np.iinfo(np.int64).max)
        np.minimum.at(first, part[1:], np.concatenate(self.first))
        winner = min(np.flatnonzero(sizes == sizes.max()), key=lambda number: first[number])
        kept[1:] = part[1:] == winner
        return kept


def _numbered(mask: Any, shape: Shape, boxes: Sequence[Box], found: _Components) -> Iterator[tuple[Box, np.ndarray]]:
    """Each box with the number of the component (z, y, x) that each voxel is of, 0 outside; `found` grows."""
    above = np.zeros((2, *shape[1:]), np.int64)  # the slice before the boxes of this layer, and their own last one
    before = np.zeros((0, 0), np.int64)
    left = np.zeros((0, 0), np.int64)
    for z, y, x in boxes:
        if (y.start, x.start) == (0, 0):
            above = np.stack([above[1], np.zeros(shape[1:], np.int64)])
        if x.start == 0:
            behind, before = (before, np.zeros((z.stop - z.start, shape[2]), np.int64))
        own = mask((z, y, x))
        pad = [int(one.start > 0) for one in (z, y, x)]
        joined = np.zeros([n + p for n, p in zip(own.shape, pad, strict=True)], np.int64)
        high = slice(max(y.start - 1, 0), y.stop), slice(max(x.start - 1, 0), x.stop)
        if pad[0]:
            joined[0] = above[0][high]
        if pad[1]:
            joined[pad[0] :, 0] = behind[:, high[1]]
        if pad[2]:
            joined[pad[0] :, pad[1] :, 0] = left
        inner = tuple(slice(p, None) for p in pad)
        beside = joined > 0
        beside[inner] = own
        parts, count = ndimage.label(beside, _TOUCHING)
        touching = (joined > 0) & (parts > 0)
        pairs = np.unique(np.stack([parts[touching] + found.count, joined[touching]], 1), axis=0)
        numbers = np.where(own, parts[inner].astype(np.int64) + found.count, 0)
        _tell(found, parts[inner] * own, count, pairs, (z, y, x), shape)
        above[1][y, x], before[:, x], left = numbers[-1], numbers[:, -1], numbers[:, :, -1]
        yield (z, y, x), numbers


def _tell(found: _Components, parts: np.ndarray, count: int, pairs: np.ndarray, box: Box, shape: Shape) -> None:
    found.voxels.append(np.bincount(parts.ravel(), minlength=count + 1)[1:])
    first = np.full(count + 1, np.iinfo(np.int64).max)
    there, places = np.unique(parts, return_index=True)
    corner = np.unravel_index(places, parts.shape)
    first[there] = np.ravel_multi_index([a + one.start for a, one in zip(corner, box, strict=True)], shape)
    found.first.append(first[1:])
    found.touching.append(pairs)
    found.count += count


def keep_largest(labels: Any, chosen: Sequence[int], chunks: Sequence[int], watch: Watch) -> Iterator[tuple[Box, Any]]:
    """Boxes of labels on disk that change where the largest part of some of them, as one structure, alone is kept.

    Parameters
    ----------
    labels : array-like, shape (1, Z, Y, X)
        Not to change in what was yielded before but by what is yielded.
    chosen : sequence of int
        Labels that are the structure; its smaller parts become background.
    chunks : sequence of int
        (z, y, x) of the array on disk.
    watch : callable
        Told how many boxes are done.

    Yields
    ------
    box : tuple of slice
    values : ndarray, shape (1, z, y, x)
        As it is to be written.
    """
    z, y, x = labels.shape[1:]
    shape, boxes = (z, y, x), boxes_of(labels.shape[1:], chunks)

    def structure(box: Box) -> np.ndarray:
        return np.isin(np.asarray(labels[(0, *box)]), chosen)

    found = _Components()
    for number, _ in enumerate(_numbered(structure, shape, boxes, found), 1):
        watch(number, 2 * len(boxes))
    kept = found.largest()
    if kept[1:].all():
        return
    for number, (box, numbers) in enumerate(_numbered(structure, shape, boxes, _Components()), 1):
        stray = (numbers > 0) & ~kept[numbers]
        if stray.any():
            values = np.array(labels[(slice(None), *box)])
            values[0][stray] = 0
            yield box, values
        watch(len(boxes) + number, 2 * len(boxes))


def wanted(work: Work) -> bool:
    """Whether the bundle keeps the largest parts of structures, which is done when all blocks are there."""
    return isinstance(work.answer, StoredLabels) and bool(work.answer.structures)


def keep_in_store(work: Work, journal: Journal, watch: Watch) -> None:
    """Smaller parts of a bundle's structures become background, and blocks are counted anew; once, however often."""
    done, answer, layout = journal.done(), work.answer, work.job.layout
    if _KEPT in done:
        return
    assert isinstance(answer, StoredLabels)
    assert layout is not None
    labels, every = work.target.levels[0], [int(c.index) for c in work.job.bundle.classes if c.index]
    for structure in answer.structures:
        for box, values in keep_largest(labels, structure or every, layout.chunks, watch):
            work.target.write(0, box, values)
    for key, box in layout.boxes().items():  # all: which were changed before a stop is not known
        if done.get(key):
            block, given = (np.asarray(one[(slice(None), *box)]) for one in (labels, work.volume.data))
            journal.note(key, answer.facts(block, given))
    journal.note(_KEPT, {"kept": True})
