"""The steps that prepare a volume for a network, by the names that bundles call them.

A step is a function of a `State` and its options that returns the next `State` and an `Undo`. They know nothing of one
another; each file beside this one holds one kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from napari_mamba.engine.preparation import crop_or_pad, mask_steps
from napari_mamba.engine.preparation.axes import orient, transpose
from napari_mamba.engine.preparation.body import crop_to_body
from napari_mamba.engine.preparation.cropping import crop_nonzero
from napari_mamba.engine.preparation.field_of_view import field_of_view
from napari_mamba.engine.preparation.grids import regridding
from napari_mamba.engine.preparation.grids.planning import planning_grid
from napari_mamba.engine.preparation.grids.spacing import resample
from napari_mamba.engine.preparation.grids.upsampling import append_upsampling_channel, refine
from napari_mamba.engine.preparation.normalising import normalise
from napari_mamba.engine.preparation.state import State, Undo
from napari_mamba.errors import InputError

STEPS: Mapping[str, Callable[..., tuple[State, Undo]]] = {
    "orient": orient,
    "transpose": transpose,
    "crop_nonzero": crop_nonzero,
    "crop_to_body": crop_to_body,
    "normalise": normalise,
    "field_of_view": field_of_view,
    "resample": resample,
    "refine": refine,
    "append_upsampling_channel": append_upsampling_channel,
    "resize": regridding.resize,
    "respace": regridding.respace,
    "binarise": mask_steps.binarise,
    "signed_distance": mask_steps.signed_distance,
    "centre": crop_or_pad.centre,
    "slice_axis_first": crop_or_pad.slice_axis_first,
    "planning_grid": planning_grid,
}


def preparation_steps(bundle: Any, spacing: float | Sequence[float] | None = None) -> list[dict[str, Any]]:
    """A bundle's steps, with the voxel size that the user asks for.

    Raises
    ------
    InputError
        If one is asked for and the bundle answers on the image's own grid.
    """
    steps = [dict(step) for step in bundle.preparation]
    if spacing is not None:
        finer = [step for step in steps if step.get("step") == "refine"]
        if not finer:
            raise InputError(f"{bundle.name} answers on the image's own grid: leave the voxel size away")
        finer[0]["spacing"] = spacing
    return steps
