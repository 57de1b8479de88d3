"""The step that looks at how large a scan is, in millimetres, before anything is resampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from napari_mamba.engine.preparation.state import State, Undo
from napari_mamba.errors import BundleError, InputError


def field_of_view(state: State, mm: Sequence[float], max_mm: float = 0.0) -> tuple[State, Undo]:
    """Doubt a scan whose sides are outside of what the bundle was made for; change nothing.

    Parameters
    ----------
    state : State
        With voxel sides in mm.
    mm : (smallest, largest)
        Of each side of the scan, for which no warning is given.
    max_mm : float
        A side from which on the voxel size must be wrong; 0 refuses nothing.

    Raises
    ------
    InputError
        If a side is longer than `max_mm`: resampled, such an image would fill the memory for nothing.
    """
    if len(mm) != 2 or not 0 <= mm[0] < mm[1]:
        raise BundleError(f"the preparation's field of view is two sizes in mm, the smaller first, not {list(mm)}")
    view = np.array(state.data.shape[1:]) * np.array(state.spacing)
    shown = " x ".join(f"{side:.0f}" if side < 1e6 else f"{side:.1g}" for side in view)
    if max_mm and view.max() > max_mm:
        raise InputError(
            f"the scan is {shown} mm large by its header, and this bundle expects a field of view of "
            f"{mm[0]:g} to {mm[1]:g} mm: correct the voxel size"
        )
    if view.min() >= mm[0] and view.max() <= mm[1]:
        return state, Undo()
    warning = (
        f"The scan is {shown} mm large; this bundle was made for sides of {mm[0]:g} to {mm[1]:g} mm: check the voxel "
        "size, and that the whole structure is in view."
    )
    return replace(state, warnings=(*state.warnings, warning)), Undo()
