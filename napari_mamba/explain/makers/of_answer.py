"""Maps of an answer: which voxels, tokens and blocks it rests on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_mamba.engine.progress.events import Progress
from napari_mamba.explain.kinds import BLOCKS
from napari_mamba.explain.makers.work import Events, Work
from napari_mamba.explain.methods.attribution import METHODS, Pick, first_output, relevance
from napari_mamba.explain.methods.faithfulness import ends_of, perturbation_curve
from napari_mamba.explain.methods.intervention import cut, knockout
from napari_mamba.explain.methods.perturbation import blocks, occlude
from napari_mamba.explain.methods.wider import gradient_weighted
from napari_mamba.explain.recorded import places
from napari_mamba.explain.recorded.subject import Tile

STEPS = 5
"""Of the curves of deletion and insertion."""


def attributed(work: Work, method: str) -> Events:
    """Relevance, gradient times input, or integrated gradients."""
    numbers = {"answer": 0.0, "sum": 0.0, "constants": 0.0}

    def one(tile: Tile, pick: Pick) -> np.ndarray:
        found = relevance(work.subject.network, tile.data, pick, method)
        for key in numbers:
            numbers[key] += getattr(found, key)
        return found.map[0].sum(0).cpu().numpy()

    yield from _added(work, method, one)
    left = abs(numbers["answer"] - numbers["sum"] - numbers["constants"])
    work.found.facts[method] = {**numbers, "missing": left / max(abs(numbers["answer"]), 1e-12)}


def class_attention(work: Work) -> Events:
    """Which tokens of the layer the answer draws on."""
    name = work.subject.layer(work.wish.layer)

    def one(tile: Tile, pick: Pick) -> np.ndarray:
        return gradient_weighted(work.subject.network, tile.data, pick, name, positive=False)

    yield from _added(work, "class_attention", one, positive=True)


def _added(work: Work, name: str, one: Callable[[Tile, Pick], np.ndarray], positive: bool = False) -> Events:
    """A map of the tile's answer; or of the whole volume's, the sum of those of its tiles."""
    subject = work.subject
    if not work.wish.whole or len(subject.tiling.starts) == 1:
        found = one(work.tile, work.target.pick)
        work.keep(name, np.maximum(found, 0) if positive else found)
        return
    target = yield from work.whole_target()
    total = np.zeros((1, *subject.tiling.padded), np.float32)
    for i, (tile, pick) in enumerate(target.parts):
        yield Progress(name, i, len(target.parts))
        if work.cancel.is_set():
            return
        part = one(tile, pick)
        part = part[None] if part.ndim == subject.plan.spatial_dims else part
        part = part[:, None] if subject.plan.spatial_dims == 2 else part
        total[(slice(None), *tile.here)] += places.enlarge(part, tile.size)
    work.keep_whole(name, subject.from_padded(np.maximum(total, 0) if positive else total))


def _block(tile: Tile) -> tuple[int, ...]:
    return tuple(max(1, -(-n // BLOCKS[len(tile.grid)])) for n in tile.grid)


def occlusion(work: Work) -> Events:
    """How the answer falls where a block is covered."""
    subject = work.subject
    parts: list[tuple[Tile, Pick]]
    if work.wish.whole and len(subject.tiling.starts) > 1:
        parts = (yield from work.whole_target()).parts
    else:
        parts = [(work.tile, work.target.pick)]
    total = np.zeros((1, *subject.tiling.padded), np.float32)
    fill = float(subject.prepared.data.min())
    for tile, pick in parts:
        shift = tile.start[3 - subject.plan.spatial_dims :]
        found = np.zeros(tile.grid, np.float32)
        for done, count, found in occlude(subject.network, tile.data, pick, _block(tile), fill, shift):  # noqa: B007
            yield Progress("occlusion", done, count)
            if work.cancel.is_set():
                return
        total[0][tile.here] += found
    work.keep_whole("occlusion", subject.from_padded(total))


def knocked_out(work: Work) -> Events:
    """Region to region, where regions are given; otherwise what each block's tokens pass on to all others."""
    if work.wish.regions is not None:
        _between_regions(work, work.wish.regions)
        return
    tile, pick, network = work.tile, work.target.pick, work.subject.network
    layers = None if work.wish.layer is None else [work.scan.name]
    with torch.no_grad():
        whole = float(pick(first_output(network(tile.data))))
    out = np.zeros(tile.grid, np.float32)
    every = blocks(tile.grid, _block(tile))
    for done, here in enumerate(every, start=1):
        inside = _in_block(here, tile.grid)
        after, cuts = cut(network, tile.data, inside, lambda grid: ~inside(grid), layers)  # noqa: B023
        out[here] = whole - float(pick(after)) if cuts else 0.0
        yield Progress("knockout", done, len(every))
        if work.cancel.is_set():
            return
    work.keep("knockout", out)


def _between_regions(work: Work, regions: np.ndarray) -> None:
    """Cut what region 1 passes on to region 2 (to all else where there is no 2), and see the answer change."""
    tile, target = work.tile, work.target

    def of(value: int) -> Callable[[tuple[int, ...]], Tensor]:
        return lambda grid: torch.from_numpy(_labels_on(tile, regions, grid) == value)

    other = of(2) if (regions == 2).any() else lambda grid: ~of(1)(grid)
    layers = None if work.wish.layer is None else [work.scan.name]
    found = knockout(work.subject.network, tile.data, of(1), other, layers)
    numbers: dict[str, Any] = {"answer": float(target.pick(found.before)), "after": float(target.pick(found.after))}
    work.found.facts["knockout"] = {**numbers, "cuts": found.cuts}
    if not found.cuts:
        work.found.sentences.append("No scan has tokens in both regions on this tile: nothing was cut.")
    if found.before.ndim > 2:
        work.keep("knockout", (found.before - found.after)[0, target.channel].cpu().numpy())


def _labels_on(tile: Tile, regions: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """Which region each cell of a grid lies in, by the voxel at its centre, (cells,); 0 outside of the image."""
    index = np.round(tile.voxels(np.arange(int(np.prod(grid))), grid)).astype(int)
    inside = ((index >= 0) & (index < np.array(regions.shape))).all(axis=1)
    z, y, x = np.clip(index, 0, np.array(regions.shape) - 1).T
    return np.where(inside, regions[z, y, x], 0)


def _in_block(here: tuple[slice, ...], spatial: tuple[int, ...]) -> Callable[[tuple[int, ...]], Tensor]:
    """The cells of a grid that a block of voxels touches."""

    def flags(grid: tuple[int, ...]) -> Tensor:
        inside = np.ones(grid, bool)
        for axis, (part, n, cells) in enumerate(zip(here, spatial, grid, strict=True)):
            edges = np.arange(cells + 1) * n / cells
            line = (edges[1:] > part.start) & (edges[:-1] < part.stop)
            inside &= line.reshape([-1 if a == axis else 1 for a in range(len(grid))])
        return torch.from_numpy(inside.ravel())

    return flags


def faithfulness(work: Work) -> Events:
    """Deletion and insertion curves of the three maps of the answer, on the tile."""
    tile, pick, network = work.tile, work.target.pick, work.subject.network
    areas: dict[str, dict[str, float]] = {}
    shown: dict[str, dict[str, np.ndarray]] = {"deletion": {}, "insertion": {}}
    whole, gone = ends_of(network, tile.data, pick)
    total, done = 3 * len(METHODS), 0
    for method in METHODS:
        found = relevance(network, tile.data, pick, method).map
        areas[method] = {}
        for side, ends in (("deletion", (whole, gone)), ("insertion", (gone, whole))):
            done += 1
            yield Progress("faithfulness", done, total)
            if work.cancel.is_set():
                return
            curve = perturbation_curve(network, tile.data, pick, found, STEPS, side == "insertion", ends)
            shown[side] |= {"share": curve.shares, method: curve.kept}
            areas[method][side] = curve.area
        done += 1
    work.found.curves |= shown
    work.found.facts["faithfulness"] = areas
