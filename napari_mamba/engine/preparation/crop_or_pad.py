"""Preparation steps that show a network a window of fixed size, the same way up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_mamba.engine.preparation.axes import transpose
from napari_mamba.engine.preparation.state import Fill, State, Undo
from napari_mamba.errors import BundleError

MIN_SLICE_RATIO = 1.2
"""Times the next voxel side from which on an axis is the one across slices."""


def slice_axis_first(state: State) -> tuple[State, Undo]:
    """Put the axis across thick slices first; an image of even voxels stays as it is."""
    thinnest, next_one, thickest = np.argsort(state.spacing)
    if state.spacing[thickest] < MIN_SLICE_RATIO * state.spacing[next_one]:
        return state, Undo()
    return transpose(state, [int(thickest), *(int(axis) for axis in sorted((thinnest, next_one)))])


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

    def extended(self, values: np.ndarray) -> np.ndarray:
        """(K, *size) back on the grid, the window's border repeated outside of it."""
        grid, window = self.overlap()
        around = [(part.start, length - part.stop) for part, length in zip(grid, self.shape, strict=True)]
        return np.pad(values[(slice(None), *window)], [(0, 0), *around], mode="edge")

    @property
    def cuts(self) -> bool:
        """Whether the grid reaches beyond the window."""
        return any(part.stop - part.start < n for part, n in zip(self.overlap()[0], self.shape, strict=True))


def centre(
    state: State, size: Sequence[int], min_coverage: float = 0.0, require_whole: bool = False
) -> tuple[State, Undo]:
    """Cut a window of `size` voxels (z, y, x) about the centre of mass of what is above 0, and pad with the minimum.

    A warning says where the image covers less than the share `min_coverage` of the window along an axis, and, if it
    has to be seen whole (`require_whole`), where what is above 0 does not fit into it.
    """
    from scipy.ndimage import center_of_mass

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
    warnings = (*state.warnings, *coverage_warnings(shape, size, state.spacing, min_coverage))
    if require_whole and np.count_nonzero(drawn[grid]) < np.count_nonzero(drawn):
        warnings += (
            f"The structure is larger than the {_mm(size, state.spacing)} mm that the network sees: check the voxel "
            "size, and that the mask holds this one structure.",
        )
    return replace(state, data=data, warnings=warnings), undo


def coverage_warnings(
    shape: Sequence[int], size: Sequence[int], spacing: Sequence[float], min_coverage: float
) -> tuple[str, ...]:
    """A sentence where an image of `shape` covers less than `min_coverage` of a window of `size` along an axis."""
    if all(n >= min_coverage * wanted for n, wanted in zip(shape, size, strict=True)):
        return ()
    return (
        f"The image covers {_mm(shape, spacing)} mm, much less than the {_mm(size, spacing)} mm of training: give the "
        "whole scan.",
    )


def _mm(shape: Sequence[int], spacing: Sequence[float]) -> str:
    return " x ".join(f"{n * side:.0f}" for n, side in zip(shape, spacing, strict=True))
