"""Knockout: how an answer falls where a block or a region passes nothing on inside the scans."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from napari_mamba.engine.progress.events import Progress
from napari_mamba.engine.tiling.tiles import gaussian_weights
from napari_mamba.explain.makers.of_answer import by_blocks
from napari_mamba.explain.makers.work import Events, Work
from napari_mamba.explain.methods.attribution import Pick, first_output
from napari_mamba.explain.methods.intervention import Knockout, Region, cut, knockout
from napari_mamba.explain.methods.perturbation import blocks
from napari_mamba.explain.recorded.subject import Tile


def knocked_out(work: Work) -> Events:
    """Region to region, where regions are given; otherwise what each block's tokens pass on to all others.

    Tokens are cut off from each other inside of a tile: between tiles nothing is passed on in any case.
    """
    layers = None if work.wish.layer is None else [work.scan.name]
    if work.wish.regions is not None:
        yield from _between_regions(work, work.wish.regions, layers)
        return
    network = work.subject.network

    def drops(tile: Tile, pick: Pick, sides: tuple[int, ...], shift: tuple[int, ...]) -> Iterator:
        with torch.no_grad():
            whole = float(pick(first_output(network(tile.data))))
        out = np.zeros(tile.grid, np.float32)
        every = blocks(tile.grid, sides, shift)
        for done, here in enumerate(every, start=1):
            inside = _in_block(here, tile.grid)
            after, cuts = cut(network, tile.data, inside, lambda grid: ~inside(grid), layers)  # noqa: B023
            out[here] = whole - float(pick(after)) if cuts else 0.0
            yield done, len(every), out

    yield from by_blocks(work, "knockout", drops)


def _between_regions(work: Work, regions: np.ndarray, layers: list[str] | None) -> Events:
    """Cut what region 1 passes on to region 2 (to all else where there is no 2), and see the answer change."""
    subject = work.subject
    picks = {tile.start: pick for tile, pick in (yield from work.parts())}
    channel = (yield from work.whole_target()).channel if work.whole else work.target.channel
    starts = subject.tiling.starts if work.whole else [work.tile.start]
    answer, after, cuts = 0.0, 0.0, 0
    change, weights = np.zeros((2, *subject.tiling.padded), np.float32)
    mine = gaussian_weights(subject.tiling.tile, subject.tiling.half).astype(np.float32)
    is_map = False
    for i, start in enumerate(starts):
        yield Progress("knockout", i, len(starts))
        if work.cancel.is_set():
            return
        tile = subject.tile(start)
        found = _cut_off(subject.network, tile, regions, layers)
        if tile.start in picks:
            answer += float(picks[tile.start](found.before))
            after += float(picks[tile.start](found.after))
        cuts += found.cuts
        is_map = found.before.ndim > 2
        if is_map:
            fall = (found.before - found.after)[0, channel].cpu().numpy()
            change[tile.here] += mine * fall.reshape(tile.size)
            weights[tile.here] += mine
    work.found.facts["knockout"] = {"answer": answer, "after": after, "cuts": cuts}
    if not cuts:
        where = "in this image" if work.whole else "on this tile"
        work.found.sentences.append(f"No scan has tokens in both regions {where}: nothing was cut.")
    if is_map:
        work.keep_padded("knockout", change / np.maximum(weights, 1e-12))


def _cut_off(network: torch.nn.Module, tile: Tile, regions: np.ndarray, layers: list[str] | None) -> Knockout:
    """The answers on a tile before and after region 1 is cut off from region 2, or from all else."""

    def of(value: int) -> Region:
        return lambda grid: torch.from_numpy(_labels_on(tile, regions, grid) == value)

    other = of(2) if (regions == 2).any() else lambda grid: ~of(1)(grid)
    return knockout(network, tile.data, of(1), other, layers)


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
