"""Preparation steps for masks: from a drawn structure to its signed distance, in a window about its centre."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import center_of_mass, distance_transform_edt, find_objects, label

from napari_mamba.engine.state import Fill, State, Undo
from napari_mamba.errors import BundleError, InputError

SMALLEST_PART = 0.15
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
        Volumes in millilitres that the training data had; outside of them a doubt is noted.

    Raises
    ------
    InputError
        If fewer voxels than `smallest` are drawn.
    """
    mask = state.data != 0
    voxels = int(np.count_nonzero(mask))
    if voxels < max(smallest, 1):
        raise InputError(
            f"the mask has {voxels} voxels, and at least {max(smallest, 1)} are needed to judge a shape: draw the "
            "whole structure, at a finer resolution if need be"
        )
    doubts = list(state.doubts)
    volume = voxels * abs(float(np.linalg.det(state.affine))) / 1000
    if len(ml) == 2 and not ml[0] <= volume <= ml[1]:
        doubts.append(
            f"The mask has {volume:.3g} ml; in training they had {ml[0]:g} to {ml[1]:g} ml: check the voxel size, and "
            "that the mask holds this one structure."
        )
    parts, count = label(mask[0])
    sizes = np.bincount(parts.ravel())[1:]
    if count > 1 and np.sort(sizes)[-2] > SMALLEST_PART * voxels:
        doubts.append("The mask falls into several large parts: give one structure (one side) at a time.")
    return replace(state, data=mask.astype(np.float32), doubts=tuple(doubts)), Undo()


def signed_distance(state: State, limit: float) -> tuple[State, Undo]:
    """Distance to a mask's surface in mm, positive inside, cut off at ± `limit` and divided by it.

    The surface runs halfway between two voxels: a voxel beside it has half a voxel's side.
    """
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
    half = float(min(sides)) / 2
    padded = np.pad(mask, 1)
    inside = distance_transform_edt(padded, sides)[1:-1, 1:-1, 1:-1]
    if not mask.any():
        return np.full(mask.shape, -np.inf, np.float32)
    outside = distance_transform_edt(~mask, sides)
    return np.where(mask, inside - half, half - outside).astype(np.float32)


@dataclass(frozen=True)
class Window(Undo):
    """Of `centre`: where a grid of `shape` lies in its window, which begins at voxel `start` and has `size`."""

    shape: tuple[int, ...]
    start: tuple[int, ...]
    size: tuple[int, ...]

    def overlap(self) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """What both share, as slices of the grid and of the window."""
        grid, window = [], []
        for length, start, size in zip(self.shape, self.start, self.size, strict=True):
            first, last = max(start, 0), min(start + size, length)
            grid.append(slice(first, last))
            window.append(slice(first - start, last - start))
        return tuple(grid), tuple(window)

    def values(self, values: np.ndarray, fill: Fill = 0.0) -> np.ndarray:
        """(K, *size) back on the grid: (K, *shape), `fill` outside of the window."""
        whole = np.empty((len(values), *self.shape), values.dtype)
        whole[...] = np.reshape(np.asarray(fill, values.dtype), (-1, 1, 1, 1))
        grid, window = self.overlap()
        whole[(slice(None), *grid)] = values[(slice(None), *window)]
        return whole


def centre(state: State, size: Sequence[int]) -> tuple[State, Undo]:
    """Cut a window of `size` voxels (z, y, x) about the centre of mass of what is above 0, and pad with the minimum.

    A doubt is noted where the structure does not fit into the window.
    """
    if len(size) != 3 or min(size) < 1:
        raise BundleError(f"the preparation's window has three positive sizes, not {list(size)}")
    drawn: np.ndarray = np.any(state.data > 0, axis=0)
    shape = state.data.shape[1:]
    middle = center_of_mass(drawn) if drawn.any() else [(n - 1) / 2 for n in shape]
    start = tuple(round(float(m) - (n - 1) / 2) for m, n in zip(middle, size, strict=True))
    undo = Window(shape, start, tuple(size))
    grid, window = undo.overlap()
    data = np.full((len(state.data), *size), state.data.min(), np.float32)
    data[(slice(None), *window)] = state.data[(slice(None), *grid)]
    doubts = state.doubts
    if np.count_nonzero(drawn[grid]) < np.count_nonzero(drawn):
        sides = " x ".join(f"{n * s:.0f}" for n, s in zip(size, state.spacing, strict=True))
        doubts += (f"The structure is larger than the {sides} mm that the network sees: check the voxel size.",)
    return replace(state, data=data, doubts=doubts), undo
