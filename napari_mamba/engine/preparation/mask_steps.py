"""Preparation steps for masks: from a drawn structure to the signed distance to its surface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from napari_mamba.engine.preparation.state import State, Undo
from napari_mamba.errors import BundleError, InputError

MIN_PART_FRACTION = 0.15
"""A share of the mask's voxels from which on a separate part counts as a second structure."""


def binarise(state: State, smallest: int = 0, ml: Sequence[float] = ()) -> tuple[State, Undo]:
    """1 where a mask is drawn, 0 elsewhere.

    Parameters
    ----------
    state : State
        What is not 0 counts as drawn.
    smallest : int
        Voxels the mask must have at least.
    ml : (low, high), optional
        Volumes in millilitres that the training data had; outside of them a warning is given.

    Raises
    ------
    InputError
        If fewer voxels than `smallest` are drawn.
    """
    from scipy.ndimage import label

    mask = state.data != 0
    voxels = int(np.count_nonzero(mask))
    if voxels < max(smallest, 1):
        raise InputError(
            f"the mask has {voxels} voxels, and at least {max(smallest, 1)} are needed to judge a shape: draw the "
            "whole structure, at a finer resolution if need be"
        )
    warnings = list(state.warnings)
    volume = voxels * abs(float(np.linalg.det(state.affine))) / 1000
    if len(ml) == 2 and not ml[0] <= volume <= ml[1]:
        warnings.append(
            f"The mask has {volume:.3g} ml; in training they had {ml[0]:g} to {ml[1]:g} ml: check the voxel size, and "
            "that the mask holds this one structure."
        )
    parts, count = label(mask[0])
    sizes = np.bincount(parts.ravel())[1:]
    if count > 1 and np.sort(sizes)[-2] > MIN_PART_FRACTION * voxels:
        warnings.append("The mask falls into several large parts: give one structure (one side) at a time.")
    return replace(state, data=mask.astype(np.float32), warnings=tuple(warnings)), Undo()


def signed_distance(state: State, limit: float) -> tuple[State, Undo]:
    """Distance to a mask's surface in mm, positive inside, cut off at ± `limit` and divided by it.

    The surface runs halfway between two voxels: a voxel beside it has half a voxel's side.
    """
    from scipy.ndimage import find_objects

    if not limit > 0:
        raise BundleError(f"the preparation's distances are cut off at a positive number of mm, not {limit}")
    sides = np.asarray(state.spacing)
    out = np.full(state.data.shape, -1.0, np.float32)
    for channel, mask in zip(out, state.data > 0, strict=True):
        found = find_objects(mask.astype(np.uint8))
        if not found:
            continue
        reach = [int(np.ceil(limit / side)) + 1 for side in sides]  # farther away all is cut off
        box = tuple(slice(max(0, s.start - r), s.stop + r) for s, r in zip(found[0], reach, strict=True))
        channel[box] = np.clip(distance(mask[box], sides) / limit, -1, 1)
    return replace(state, data=out), Undo()


def distance(mask: np.ndarray, sides: Sequence[float] | np.ndarray = (1.0, 1.0, 1.0)) -> np.ndarray:
    """Signed distance (Z, Y, X) float32 in mm to the surface of `mask` (Z, Y, X) bool, positive inside.

    Beyond the array's border nothing is drawn.

    Examples
    --------
    >>> distance(np.array([[[False, True, True, True, False]]]))[0, 0].tolist()
    [-0.5, 0.5, 0.5, 0.5, -0.5]
    """
    from scipy.ndimage import distance_transform_edt

    half = float(min(sides)) / 2
    padded = np.pad(mask, 1)
    inside = distance_transform_edt(padded, sides)[1:-1, 1:-1, 1:-1]
    if not mask.any():
        return np.full(mask.shape, -np.inf, np.float32)
    outside = distance_transform_edt(~mask, sides)
    return np.where(mask, inside - half, half - outside).astype(np.float32)
