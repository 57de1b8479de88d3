"""What is explained of a whole volume: an answer that is blended from tiles, as a sum of numbers, one a tile.

A segmenter's logit at a voxel is the weighted mean of the tiles that hold it, so the mean logit of a class over its
voxels is a sum over tiles of weighted logits. A map of each of these numbers on its tile, added up, is a map of the
blended answer, and what is conserved on a tile is conserved on the whole.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from napari_mamba.engine.progress.events import Progress
from napari_mamba.engine.tiling.tiles import gaussian_weights
from napari_mamba.errors import InputError
from napari_mamba.explain.methods.attribution import Pick, first_output, picking
from napari_mamba.explain.recorded import places
from napari_mamba.explain.recorded.subject import Subject, Tile, Voxel
from napari_mamba.explain.recorded.targets import channel_of, name_of


@dataclass
class WholeTarget:
    """What is explained, in words; the class's channel; and for each tile that has a part in it, its number."""

    title: str
    channel: int
    parts: list[tuple[Tile, Pick]]


def whole_target(
    subject: Subject, voxel: Voxel, wanted: str | int | None = None
) -> Generator[Progress, None, WholeTarget]:
    """As `target_of`, of the whole volume; yields progress, as the tiles have to be run once to know the labels."""
    channel = None if wanted is None else channel_of(subject, wanted)
    if subject.task == "classification":
        return (yield from _of_scores(subject, channel))
    region = np.zeros(subject.tiling.padded, bool)
    region[_padded_index(subject, voxel)] = True
    if subject.task == "restoration":
        return WholeTarget("the value at the voxel", 0, _parts(subject, region, 0))
    labels = yield from _labels(subject, channel)
    if channel is None:
        channel = int(labels[_padded_index(subject, voxel)])
        return WholeTarget(f"{name_of(subject, channel)} at the voxel", channel, _parts(subject, region, channel))
    region = labels == channel
    if not region.any():
        raise InputError(f"nothing is labelled {name_of(subject, channel)} in this image: choose another class")
    title = f"{name_of(subject, channel)} where it is labelled"
    return WholeTarget(title, channel, _parts(subject, region, channel))


def _of_scores(subject: Subject, channel: int | None) -> Generator[Progress, None, WholeTarget]:
    tiles = [subject.tile(start) for start in subject.tiling.starts]
    if channel is None:
        total: Tensor | None = None
        for i, tile in enumerate(tiles):
            with torch.no_grad():
                logits = first_output(subject.network(tile.data))[0]
            total = logits if total is None else total + logits
            yield Progress("scores", i + 1, len(tiles))
        assert total is not None
        channel = int(total.argmax())
    pick = picking(channel, weights=1 / len(tiles))
    return WholeTarget(name_of(subject, channel), channel, [(tile, pick) for tile in tiles])


def _labels(subject: Subject, channel: int | None) -> Generator[Progress, None, np.ndarray]:
    """The blended answer's channels, -1 where none is above 0 (activation "sigmoid"), on the padded image."""
    labels = np.full(subject.tiling.image, -1, np.int16)

    def sink(z: int, values: Tensor) -> None:
        found = values.argmax(0)
        if subject.activation == "sigmoid":
            found = torch.where((values if channel is None else values[channel : channel + 1]).amax(0) > 0, found, -1)
            found = found if channel is None else torch.where(values[channel] > 0, channel, -1)
        labels[z : z + values.shape[1]] = found.cpu().numpy()

    total = len(subject.tiling.starts)
    for done, _ in enumerate(subject.blend(lambda x: first_output(subject.network(x)), sink), start=1):
        yield Progress("labels", done, total)
    return np.pad(labels, subject.tiling.padding, constant_values=-1)


def _parts(subject: Subject, region: np.ndarray, channel: int) -> list[tuple[Tile, Pick]]:
    """The tiles that hold a region of the padded image, each with its share of the blended mean logit over it."""
    tiling, dims = subject.tiling, subject.plan.spatial_dims
    weights = gaussian_weights(tiling.tile, tiling.half).astype(np.float32)
    norm = np.zeros(tiling.padded, np.float32)
    tiles = [subject.tile(start) for start in tiling.starts]
    for tile in tiles:
        norm[tile.here] += weights
    parts = []
    for tile in tiles:
        if region[tile.here].any():
            share = np.where(region[tile.here], weights / norm[tile.here], 0) / region.sum()
            parts.append((tile, picking(channel, weights=share[0] if dims == 2 else share)))
    return parts


def _padded_index(subject: Subject, voxel: Voxel) -> tuple[int, ...]:
    before = np.array([pad for pad, _ in subject.tiling.padding])
    at = np.round(places.apply(subject.to_prepared, voxel)).astype(int) + before
    return tuple(int(n) for n in np.clip(at, 0, np.array(subject.tiling.padded) - 1))
