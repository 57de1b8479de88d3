"""Occlusion: how an answer changes where a block of the image is covered (Zeiler and Fergus, arXiv:1311.2901)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.explain.methods.attribution import Pick, first_output


def occlusion(
    network: nn.Module, inputs: Tensor, pick: Pick, block: int | tuple[int, ...] = 8, fill: float | None = None
) -> np.ndarray:
    """What each block of voxels adds to an answer: the answer less that with the block covered, (*spatial) float32.

    Parameters
    ----------
    network : nn.Module
    inputs : (1, C, *spatial)
    pick : callable
        From the output to the number explained.
    block : int or tuple of int
        Sides in voxels.
    fill : float, optional
        What blocks are covered with; the image's least value, its background, if not given.
    """
    return list(occlude(network, inputs, pick, block, fill))[-1][2]


def occlude(
    network: nn.Module, inputs: Tensor, pick: Pick, block: int | tuple[int, ...] = 8, fill: float | None = None
) -> Iterator[tuple[int, int, np.ndarray]]:
    """`occlusion`, block by block: yields how many are done, of how many, and the map so far."""
    spatial = tuple(inputs.shape[2:])
    sides = (block,) * len(spatial) if isinstance(block, int) else tuple(block)
    if len(sides) != len(spatial) or min(sides) < 1:
        raise InputError(f"a block to cover has {len(spatial)} sides of at least a voxel, not {list(sides)}")
    value = float(inputs.min()) if fill is None else fill
    starts = list(itertools.product(*(range(0, n, side) for n, side in zip(spatial, sides, strict=True))))
    out = np.zeros(spatial, np.float32)
    with torch.no_grad():
        whole = float(pick(first_output(network(inputs))))
        for done, start in enumerate(starts, start=1):
            here = tuple(slice(a, a + side) for a, side in zip(start, sides, strict=True))
            covered = inputs.clone()
            covered[(slice(None), slice(None), *here)] = value
            out[here] = whole if torch.equal(covered, inputs) else float(pick(first_output(network(covered))))
            out[here] = whole - out[here]
            yield done, len(starts), out
