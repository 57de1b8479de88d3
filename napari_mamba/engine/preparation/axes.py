"""Steps that flip and permute axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_mamba.engine.preparation.state import Fill, State, Undo
from napari_mamba.errors import BundleError


@dataclass(frozen=True)
class UndoAxes(Undo):
    """Of `orient` and `transpose`: flips the axes in `flipped`, then permutes by `order`."""

    order: tuple[int, ...]
    flipped: tuple[int, ...] = ()

    def values(self, values: np.ndarray, fill: Fill = 0.0) -> np.ndarray:
        values = np.flip(values, tuple(axis + 1 for axis in self.flipped)) if self.flipped else values
        return values.transpose(0, *(axis + 1 for axis in self.order))


def transpose(state: State, axes: Sequence[int]) -> tuple[State, Undo]:
    """Permute (z, y, x): new axis i is old axis `axes[i]`."""
    axes = tuple(axes)
    if sorted(axes) != [0, 1, 2]:
        raise BundleError(f"the preparation's transpose needs the axes 0, 1 and 2 in some order, not {list(axes)}")
    data = state.data.transpose(0, *(axis + 1 for axis in axes))
    return State(data, state.affine[:, axes]), UndoAxes(tuple(int(axis) for axis in np.argsort(axes)))


def orient(state: State, axcodes: str) -> tuple[State, Undo]:
    """Flip and permute axes, so that x, y, z run closest to the world directions of `axcodes`, such as "RAS".

    Which array axis belongs to which world axis is decided as `nibabel.orientations.io_orientation` does.
    """
    pairs = ("LR", "PA", "IS")
    wanted = [next((n for n, pair in enumerate(pairs) if code in pair), -1) for code in axcodes.upper()]
    if sorted(wanted) != [0, 1, 2]:
        raise BundleError(f"the preparation's orientation {axcodes!r} is not three letters such as RAS or LPS")
    world, sign = _nearest_axes(state.affine)
    order = tuple(world.index(axis) for axis in reversed(wanted))  # old axis of each new (z, y, x)
    new = State(state.data.transpose(0, *(axis + 1 for axis in order)), state.affine[:, order])
    codes = axcodes.upper()[::-1]
    flipped = tuple(i for i, old in enumerate(order) if sign[old] * (1 if codes[i] == pairs[world[old]][1] else -1) < 0)
    affine = new.affine.copy()
    affine[:, flipped] *= -1
    data = np.flip(new.data, tuple(axis + 1 for axis in flipped)) if flipped else new.data
    return State(data, affine), UndoAxes(tuple(int(axis) for axis in np.argsort(order)), flipped)


def _nearest_axes(affine: np.ndarray) -> tuple[list[int], list[int]]:
    """World axis (0, 1, 2 for R, A, S) nearest to each array axis (z, y, x), and 1 if it runs along it, else -1."""
    # nibabel looks at array axes in the order x, y, z, each taking the best world axis still free.
    directions = affine[:, ::-1] / np.linalg.norm(affine[:, ::-1], axis=0)
    left, _, right = np.linalg.svd(directions, full_matrices=False)
    rotation = left @ right
    world, sign = [], []
    for axis in range(3):
        column = rotation[:, axis]
        best = int(np.argmax(np.abs(column)))
        world.append(best)
        sign.append(1 if column[best] > 0 else -1)
        rotation[best] = 0
    return world[::-1], sign[::-1]
