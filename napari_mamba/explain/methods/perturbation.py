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
    network: nn.Module,
    inputs: Tensor,
    pick: Pick,
    block: int | tuple[int, ...] = 8,
    fill: float | None = None,
    shift: tuple[int, ...] = (),
) -> Iterator[tuple[int, int, np.ndarray]]:
    """`occlusion`, block by block: yields how many are done, of how many, and the map so far.

    `shift` is where the inputs begin in a larger image, whose blocks are covered.
    """
    spatial = tuple(inputs.shape[2:])
    sides = (block,) * len(spatial) if isinstance(block, int) else tuple(block)
    if len(sides) != len(spatial) or min(sides) < 1:
        raise InputError(f"a block to cover has {len(spatial)} sides of at least a voxel, not {list(sides)}")
    value = float(inputs.min()) if fill is None else fill
    starts = blocks(spatial, sides, shift)
    out = np.zeros(spatial, np.float32)
    with torch.no_grad():
        whole = float(pick(first_output(network(inputs))))
        for done, here in enumerate(starts, start=1):
            covered = inputs.clone()
            covered[(slice(None), slice(None), *here)] = value
            out[here] = whole if torch.equal(covered, inputs) else float(pick(first_output(network(covered))))
            out[here] = whole - out[here]
            yield done, len(starts), out


def blocks(spatial: tuple[int, ...], sides: tuple[int, ...], shift: tuple[int, ...] = ()) -> list[tuple[slice, ...]]:
    """The blocks of an image that begins at `shift` of a larger one, in which blocks begin at multiples of `sides`.

    Examples
    --------
    >>> blocks((5,), (4,), (2,))
    [(slice(0, 2, None),), (slice(2, 5, None),)]
    """
    parts = []
    for n, side, before in zip(spatial, sides, shift or (0,) * len(spatial), strict=True):
        edges = [0, *range(side - before % side, n, side), n]
        parts.append([slice(a, b) for a, b in itertools.pairwise(edges)])
    return list(itertools.product(*parts))
