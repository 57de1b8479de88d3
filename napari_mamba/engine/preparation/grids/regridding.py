"""Steps that interpolate linearly onto another grid: to a number of voxels, or to a spacing as MONAI does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_mamba.engine.preparation.state import Fill, State, Undo
from napari_mamba.errors import BundleError, InputError

Positions = tuple[np.ndarray | None, ...]
"""For each of (z, y, x), where on the grid before the voxels of the grid after lie; None where nothing changes."""


@dataclass(frozen=True)
class UndoRegrid(Undo):
    """Of `resize` and `respace`: interpolates at `back`, the places of the old voxels on the new grid."""

    back: Positions
    exact = False

    def values(self, values: np.ndarray, fill: Fill = 0.0) -> np.ndarray:
        return interpolate(values, self.back)

    def nearest(self, labels: np.ndarray) -> np.ndarray:
        for axis, places in enumerate(self.back, start=1):
            if places is not None:
                indices = np.floor(places + 0.5).astype(int).clip(0, labels.shape[axis] - 1)
                labels = labels.take(indices, axis=axis)
        return labels


def resize(state: State, shape: Sequence[int | None], antialias: bool = True) -> tuple[State, Undo]:
    """Interpolate linearly to a number of voxels (z, y, x) over the same box, None where an axis stays as it is.

    With `antialias` an axis that shrinks is averaged over what falls together, as Pillow and torchvision do.
    """
    if len(shape) != 3 or any(n is not None and not (isinstance(n, int) and n > 0) for n in shape):
        raise BundleError(f"the preparation resizes to three numbers of voxels (z, y, x) or null, not {list(shape)}")
    before = state.data.shape[1:]
    new = tuple(n or old for n, old in zip(shape, before, strict=True))
    if new == before:
        return state, Undo()
    there = tuple(_same_box(old, n) for old, n in zip(before, new, strict=True))
    back = tuple(_same_box(n, old) for old, n in zip(before, new, strict=True))
    widths = tuple(max(old / n, 1.0) if antialias else 1.0 for old, n in zip(before, new, strict=True))
    scaled = state.affine * (np.array(before) / np.array(new))
    return State(interpolate(state.data, there, widths), scaled), UndoRegrid(back)


def respace(state: State, spacing: Sequence[float | None]) -> tuple[State, Undo]:
    """Interpolate linearly to `spacing` (z, y, x) in mm, None where an axis stays; the first voxel keeps its place.

    This is MONAI's `Spacing` (docs.monai.io, transforms), whose grids share their first voxel's centre, where those of
    `resample` share their box. Beyond the image its edge is repeated.
    """
    if len(spacing) != 3 or any(side is not None and not side > 0 for side in spacing):
        raise BundleError(f"the preparation resamples to three positive sizes (z, y, x) in mm, not {list(spacing)}")
    before, sides = state.data.shape[1:], state.spacing
    steps = [target / side if target is not None else 1.0 for target, side in zip(spacing, sides, strict=True)]
    new = tuple(round((old - 1) / step + 1) for old, step in zip(before, steps, strict=True))
    if np.prod(new, dtype=float) > 2**31:
        raise InputError(f"resampled to {list(spacing)} mm this image would have {new} voxels: check its voxel size")
    there, back = [], []
    for old, n, step in zip(before, new, steps, strict=True):
        same = step == 1.0
        there.append(None if same else (np.arange(n) * step).clip(0, old - 1))
        back.append(None if same else (np.arange(old) / step).clip(0, n - 1))
    moved = replace(state, data=interpolate(state.data, tuple(there)), affine=state.affine * np.array(steps), mask=None)
    return moved, UndoRegrid(tuple(back)) if any(places is not None for places in back) else Undo()


def _same_box(old: int, new: int) -> np.ndarray | None:
    return None if old == new else (np.arange(new) + 0.5) * (old / new) - 0.5


def interpolate(values: np.ndarray, places: Positions, widths: Sequence[float] = (1.0, 1.0, 1.0)) -> np.ndarray:
    """Values (C, Z, Y, X) at `places`, axis by axis, weighed by triangles of half width `widths`; edges repeat."""
    for axis, (centres, width) in enumerate(zip(places, widths, strict=True), start=1):
        if centres is None:
            continue
        n = values.shape[axis]
        inside = centres.clip(0, n - 1) if width == 1.0 else centres
        weights = np.clip(1 - np.abs(np.arange(n) - inside[:, None]) / width, 0, None)
        weights /= weights.sum(axis=1, keepdims=True)
        values = np.moveaxis(np.moveaxis(values, axis, -1) @ weights.T.astype(np.float32), -1, axis)
    return values
