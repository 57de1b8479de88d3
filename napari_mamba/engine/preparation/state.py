"""An image between two steps of its preparation, and the way back through one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_mamba.engine.preparation.grids import resampling

Fill = float | Sequence[float]


@dataclass(frozen=True)
class State:
    """An image between two steps: `data` (C, Z, Y, X) float32, and `affine` (3, 3) from (z, y, x) steps to RAS mm.

    `mask` (Z, Y, X), bool, is what `crop_nonzero` found not to be empty, where a later step is to know it. `warnings`
    are sentences for the user about what the steps so far have seen. `upsampling_factor` is how many times finer
    `refine` made the axis that gained most.
    """

    data: np.ndarray
    affine: np.ndarray
    mask: np.ndarray | None = None
    warnings: tuple[str, ...] = ()
    upsampling_factor: float = 1.0

    @property
    def spacing(self) -> tuple[float, ...]:
        return resampling.rounded_spacing(np.linalg.norm(self.affine, axis=0))


class Undo:
    """The way back through one step. `exact` steps only move voxels; the default changes nothing."""

    exact = True

    def values(self, values: np.ndarray, fill: Fill = 0.0) -> np.ndarray:
        """Network outputs (K, Z, Y, X) back on the grid before the step; `fill` where there were none."""
        return values

    def extended(self, values: np.ndarray) -> np.ndarray:
        """Like `values`; a step that cuts a window out repeats the window's border around it."""
        return self.values(values)

    def image(self, image: np.ndarray) -> np.ndarray:
        """An image (C, Z, Y, X) in the step's output scale back in the scale and on the grid before it."""
        return self.values(image)

    def nearest(self, labels: np.ndarray) -> np.ndarray:
        """A label map (1, Z, Y, X) back on the grid before the step, 0 where there was none."""
        return self.values(labels)

    def grid(self, affine: np.ndarray) -> np.ndarray:
        """The affine (4, 4) of the grid that `image` leaves an image on, from that of the grid before the step."""
        return affine
