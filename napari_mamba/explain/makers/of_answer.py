"""Maps of an answer: which voxels, tokens and blocks it rests on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from napari_mamba.engine.progress.events import Progress
from napari_mamba.explain.kinds import BLOCKS
from napari_mamba.explain.makers.work import Events, Work
from napari_mamba.explain.methods.attribution import Pick, relevance
from napari_mamba.explain.methods.perturbation import blocks, occlude
from napari_mamba.explain.methods.wider import gradient_weighted
from napari_mamba.explain.recorded.subject import Tile

Drops = Callable[[Tile, Pick, tuple[int, ...], tuple[int, ...]], Iterator[tuple[int, int, np.ndarray]]]
"""Of a tile, its number, the blocks' sides and where the tile begins: how many are done, of how many, the map."""


def attributed(work: Work, method: str) -> Events:
    """Relevance, gradient times input, or integrated gradients."""
    numbers = {"answer": 0.0, "sum": 0.0, "constants": 0.0}

    def one(tile: Tile, pick: Pick) -> np.ndarray:
        found = relevance(work.subject.network, tile.data, pick, method)
        for key in numbers:
            numbers[key] += getattr(found, key)
        return found.map[0].sum(0).cpu().numpy()

    found = yield from work.summed(method, one)
    if found is None:
        return
    work.keep_padded(method, found)
    left = abs(numbers["answer"] - numbers["sum"] - numbers["constants"])
    facts: dict[str, Any] = {**numbers, "missing": left / max(abs(numbers["answer"]), 1e-12)}
    work.found.facts[method] = facts


def class_attention(work: Work) -> Events:
    """Which tokens of the layer the answer draws on."""
    name = work.subject.layer(work.wish.layer)

    def one(tile: Tile, pick: Pick) -> np.ndarray:
        return gradient_weighted(work.subject.network, tile.data, pick, name, positive=False)

    found = yield from work.summed("class_attention", one)
    if found is not None:
        work.keep_padded("class_attention", np.maximum(found, 0))


def occlusion(work: Work) -> Events:
    """How the answer falls where a block is covered."""
    fill = float(work.subject.prepared.data.min())

    def drops(tile: Tile, pick: Pick, sides: tuple[int, ...], shift: tuple[int, ...]) -> Iterator:
        return occlude(work.subject.network, tile.data, pick, sides, fill, shift)

    yield from by_blocks(work, "occlusion", drops)


def by_blocks(work: Work, name: str, drops: Drops) -> Events:
    """How the answer falls block by block: what a block's parts take from the tiles that hold them, summed."""
    subject, dims = work.subject, work.subject.plan.spatial_dims
    parts = yield from work.parts()
    sides = tuple(max(1, -(-n // BLOCKS[dims])) for n in work.tile.grid)
    flat = (1,) * (3 - dims)
    padded = subject.tiling.padded
    coarse = np.zeros([-(-n // side) for n, side in zip(padded, flat + sides, strict=True)], np.float32)
    seen = np.zeros(padded, bool)
    for i, (tile, pick) in enumerate(parts):
        shift = tile.start[3 - dims :]
        found = np.zeros(tile.grid, np.float32)
        for done, count, found in drops(tile, pick, sides, shift):  # noqa: B007
            yield Progress(name, i * count + done, len(parts) * count)
            if work.cancel.is_set():
                return
        for here in blocks(tile.grid, sides, shift):
            corner = tuple(part.start for part in here)
            at = tuple((a + b) // side for a, b, side in zip(corner, shift, sides, strict=True))
            coarse[tile.start[: 3 - dims] + at] += found[corner]
        seen[tile.here] = True
    for axis, side in enumerate(flat + sides):
        coarse = np.repeat(coarse, side, axis)
    work.keep_padded(name, np.where(seen, coarse[tuple(map(slice, padded))], 0))
