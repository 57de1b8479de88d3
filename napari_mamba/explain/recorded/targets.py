"""Which number of a network's answer is explained: a class's logit of an image, at a voxel, or where it is labelled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from napari_mamba.errors import InputError
from napari_mamba.explain.methods.attribution import Pick, first_output, picking
from napari_mamba.explain.recorded.places import cell_at, three_dimensional
from napari_mamba.explain.recorded.subject import Subject, Tile, Voxel


@dataclass(frozen=True)
class Target:
    """What is explained: `pick` from the output to a number, and in words."""

    pick: Pick
    title: str
    channel: int


def target_of(subject: Subject, tile: Tile, voxel: Voxel | None = None, wanted: str | int | None = None) -> Target:
    """The number to explain on a tile.

    Classifiers: the logit of the class `wanted` (its name or index), or of the likeliest. Segmenters: the mean logit of
    the class over the voxels of the tile that it labels; without `wanted` the logit, at the voxel, of the class there.
    Restoration: the value at the voxel.
    """
    with torch.no_grad():
        output = first_output(subject.network(tile.data))
    if output.ndim == 2:
        channel = channel_of(subject, wanted) if wanted is not None else int(output[0].argmax())
        return Target(picking(channel), name_of(subject, channel), channel)
    grid = tuple(output.shape[2:])
    place = None
    if voxel is not None:
        cell = cell_at(tile.place_of(voxel), three_dimensional(grid), tile.size)
        place = tuple(int(n) for n in np.unravel_index(cell, grid))
    if subject.task == "restoration":
        middle = place or tuple(n // 2 for n in grid)
        return Target(picking(0, voxel=middle), "the value at the voxel", 0)
    if wanted is None:
        at = place or tuple(n // 2 for n in grid)
        values = output[0].flatten(1)[:, int(np.ravel_multi_index(at, grid))]
        channel = int(values.argmax())
        return Target(picking(channel, voxel=at), f"{name_of(subject, channel)} at the voxel", channel)
    channel = channel_of(subject, wanted)
    region = output[0, channel] > 0 if subject.activation == "sigmoid" else output[0].argmax(0) == channel
    if not bool(region.any()):
        raise InputError(
            f"nothing is labelled {name_of(subject, channel)} near this voxel: choose another class, or a voxel in it"
        )
    return Target(picking(channel, region=region), f"{name_of(subject, channel)} where it is labelled", channel)


def channel_of(subject: Subject, wanted: str | int) -> int:
    names = [name for _, name in subject.classes]
    indices = [index for index, _ in subject.classes]
    if isinstance(wanted, str) and wanted in names:
        return names.index(wanted)
    if str(wanted).lstrip("-").isdigit() and (int(wanted) in indices or not indices):
        return indices.index(int(wanted)) if indices else int(wanted)
    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    raise InputError(f"{subject.name or 'the network'} has no class {wanted!r}: its classes are {shown}")


def name_of(subject: Subject, channel: int) -> str:
    return subject.classes[channel][1] if channel < len(subject.classes) else f"class {channel}"
