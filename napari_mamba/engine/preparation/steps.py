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
from napari_mamba.engine.preparation.grids.upsampling import PROFILES, append_upsampling_channel, refine
from napari_mamba.engine.preparation.normalising import normalise
from napari_mamba.engine.preparation.state import State, Undo
from napari_mamba.errors import InputError
from napari_mamba.io import acquisition, slice_thickness
from napari_mamba.volume import Volume

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


def preparation_steps(
    bundle: Any, spacing: float | Sequence[float] | None = None, slice_profile: str | None = None
) -> list[dict[str, Any]]:
    """A bundle's steps, with the voxel size that the user asks for, and the profile that slices are known to have.

    Raises
    ------
    InputError
        If one is asked for and the bundle answers on the image's own grid.
    """
    steps = [dict(step) for step in bundle.preparation]
    finer = [step for step in steps if step.get("step") == "refine"]
    if not finer and (spacing is not None or slice_profile is not None):
        what = "voxel size" if spacing is not None else "slices' profile"
        raise InputError(f"{bundle.name} answers on the image's own grid: leave the {what} away")
    if spacing is not None:
        finer[0]["spacing"] = spacing
    if slice_profile in PROFILES:
        finer[0]["data_consistency"] = slice_profile
    return steps


def known_profile(volume: Volume, bundle: Any, asked: str | None) -> str | None:
    """The profile of a volume's slices: the one that is asked for, or a sinc where its header says that it is 3D.

    The slices of a 3D acquisition are sampled in k-space, as rows and columns are. Those that lie closer together than
    they are thick were interpolated afterwards.
    """
    if asked is not None or not any(step.get("step") == "refine" for step in bundle.preparation):
        return asked
    thick, apart = slice_thickness(volume), float(volume.spacing[0])
    close = thick is not None and abs(thick - apart) < 0.1 * apart
    return "sinc" if close and acquisition(volume) == "3D" else None
