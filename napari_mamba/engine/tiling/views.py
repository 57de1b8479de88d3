"""A 2D network on a volume: slice by slice along a chosen axis, or along all three and averaged (2.5D).

Averaging the views along three orthogonal axes follows Roth et al., MICCAI 2014 (arXiv:1406.2639), and, over whole
slices, FastSurfer (Henschel et al., NeuroImage 219, 2020). Here logits are averaged, as those of an ensemble are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from napari_mamba.engine.memory import host_array
from napari_mamba.engine.options import AXES
from napari_mamba.engine.plan import Plan
from napari_mamba.engine.preparation.axes import UndoAxes
from napari_mamba.engine.preparation.prepare import Prepared
from napari_mamba.engine.tiling.infer import Ensemble, Passes, entropy_of, predict_tiles, probabilities_of
from napari_mamba.engine.tiling.tiles import Sink
from napari_mamba.errors import InputError
from napari_mamba.volume import Volume

# Voxels whose longest side is at most so many times the shortest pass for cubes.
MAX_ANISOTROPY = 1.5


def choose_view(prepared: Prepared, axis: str | None) -> tuple[Prepared, list[str]]:
    """The prepared image with `axis` first, and warnings about its slices.

    Parameters
    ----------
    prepared : Prepared
    axis : str or None
        "z", "y" or "x" of the image *as given*, whatever its preparation has turned. "all" and None change nothing.

    Returns
    -------
    prepared : Prepared
        The other axes in their order; its way back leads to the same grid as before.
    warnings : list of str
    """
    if axis is None or axis == "all":
        return prepared, _view_warnings(prepared) if axis else []
    first = AXES.index(axis)
    for undo in prepared.undos:
        if isinstance(undo, UndoAxes):
            first = undo.order[first]
    if first == 0:
        return prepared, []
    order = (first, *(a for a in range(3) if a != first))
    back = UndoAxes(tuple(int(a) for a in np.argsort(order)))
    data = axis_first(prepared.data, first)
    view = replace(
        prepared,
        data=np.ascontiguousarray(data) if isinstance(data, np.ndarray) else data,
        undos=(*prepared.undos, back),
        spacing=tuple(prepared.spacing[a] for a in order),
    )
    return view, _view_warnings(prepared)


def axis_first(data: np.ndarray, axis: int) -> np.ndarray:
    """`data` (C, Z, Y, X) with the spatial axis `axis` first, the others in their order; a view."""
    return np.moveaxis(data, axis + 1, 1)


def check_axis(volume: Volume, axis: str | None) -> None:
    """Raise `InputError` where a single slice is to be cut along one of its own axes."""
    if volume.spatial_dims == 2 and axis not in (None, "z"):
        raise InputError(f"this image is a single slice, which cannot be cut along {axis}: leave the axis away")


def _view_warnings(prepared: Prepared) -> list[str]:
    """Warning where slices along another axis than the bundle's have pixels of other proportions."""
    sides = prepared.spacing
    if max(sides) <= MAX_ANISOTROPY * min(sides):
        return []
    shown = " x ".join(f"{side:.3g}" for side in sides)
    return [
        f"After preparation voxels measure {shown} mm: slices along another axis than the bundle's own have "
        "stretched pixels, which the network never saw in training; take the bundle's axis or an image of cubic voxels."
    ]


def infer_views(data: np.ndarray, ensemble: Ensemble, plan: Plan, sink: Sink, activation: str = "") -> Passes:
    """Run a 2D network along each of the three axes and hand the mean of the answers to `sink`, slice by slice.

    Parameters
    ----------
    data : ndarray, shape (C, Z, Y, X), float32
    ensemble : Ensemble
        Without entropy: that of the three views together is taken here.
    plan : Plan
    sink : callable
        As in `predict_tiles`; called when all views are there. The mean of K classes over the whole image is held.
    activation : str
        If not empty, hand on one more channel: the entropy of the probabilities, averaged over the views.

    Yields
    ------
    None
        Once a pass of a network.
    """
    mean = Mean(data.shape[1:])
    spread = Mean(data.shape[1:])
    for axis in range(3):
        view = np.ascontiguousarray(axis_first(data, axis))

        def add(start: int, values: torch.Tensor, axis: int = axis) -> None:
            values = values.float()
            mean.add(axis, start, values)
            if activation:
                spread.add(axis, start, probabilities_of(values[None], activation)[0])

        yield from predict_tiles(
            view, ensemble, plan.tiling(view.shape[1:]), add, batch_size=plan.batch_size, blend_device=plan.blend_device
        )
    for z in range(data.shape[1]):
        values = mean.slice(z)
        if activation:
            values = torch.cat([values, entropy_of(spread.slice(z)[None], activation)[0]])
        sink(z, values)


class Mean:
    """Mean over the three views of what comes in slices along one axis after the other, (K, Z, Y, X) float32."""

    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape
        self.sums: Any = None

    def add(self, axis: int, start: int, values: torch.Tensor) -> None:
        """Add values (K, n, ...) of the slices along `axis` from `start` on."""
        if self.sums is None:
            self.sums = host_array((len(values), *self.shape), np.float32)
            self.sums.fill(0)
        axis_first(self.sums, axis)[:, start : start + values.shape[1]] += values.cpu().numpy()

    def slice(self, z: int) -> torch.Tensor:
        """The mean (K, 1, Y, X) in one slice along the first axis."""
        return torch.from_numpy(self.sums[:, z : z + 1] / 3)


def count_passes(data: np.ndarray, ensemble: Ensemble, plan: Plan, count: Callable[[Any], int]) -> int:
    """Passes over all three views, `count` telling how many batches a tiling makes."""
    return sum(count(plan.tiling(axis_first(data, axis).shape[1:])) for axis in range(3)) * ensemble.passes
