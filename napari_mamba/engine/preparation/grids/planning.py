"""The step that brings a plan's channels onto the grid that a dose network sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_mamba.engine.preparation.state import Fill, State, Undo
from napari_mamba.errors import BundleError
from napari_mamba.radiotherapy.comparison import on_grid
from napari_mamba.radiotherapy.planning import network_channels, network_grid
from napari_mamba.volume import Volume


@dataclass(frozen=True)
class UndoPlanningGrid(Undo):
    """Of `planning_grid`: interpolates from the grid `after` onto the grid `before`."""

    before: Volume
    after: Volume
    exact = False

    def values(self, values: np.ndarray, fill: Fill = 0.0) -> np.ndarray:
        return self._back(values, 1)

    def nearest(self, labels: np.ndarray) -> np.ndarray:
        return self._back(labels, 0).astype(labels.dtype)

    def _back(self, values: np.ndarray, order: int) -> np.ndarray:
        return np.stack([on_grid(self.after.with_data(one[np.newaxis]), self.before, order) for one in values])


def planning_grid(
    state: State, sides: Sequence[float], slices: Sequence[float], usual: Sequence[float]
) -> tuple[State, Undo]:
    """A plan's channels along the patient's axes, at voxel sizes that the network knows; two channels more.

    See `napari_mamba.radiotherapy.planning`: `planned` makes the channels, `network_grid` has the options (mm).
    """
    if [len(sides), len(slices), len(usual)] != [2, 2, 3] or min(*sides, *slices, *usual) <= 0:
        raise BundleError("the preparation step 'planning_grid' has two sides, two slices and three usual sizes in mm")
    affine = np.eye(4)
    affine[:3, :3] = state.affine
    plan = Volume(state.data, affine)
    grid = network_grid(plan, sides, slices, usual)
    before = Volume(np.broadcast_to(np.float32(0), (1, *plan.shape)), affine)  # not the plan: it would stay in memory
    moved = replace(state, data=network_channels(plan, grid), affine=grid.affine[:3, :3], mask=None)
    return moved, UndoPlanningGrid(before, grid)
