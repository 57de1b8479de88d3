"""The step that shows a network the patient alone: planning CTs have a couch, a mask and much air about them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from napari_mamba.engine.preparation.crop_or_pad import Window
from napari_mamba.engine.preparation.state import State, Undo
from napari_mamba.errors import BundleError, InputError
from napari_mamba.radiotherapy.planning import TISSUE, patient_in

AIR = -1000.0
"""HU."""


def crop_to_body(state: State, margin: float = 30.0, multiple: int = 16) -> tuple[State, Undo]:
    """Make everything about the patient air, and cut out the box that the patient fills.

    Parameters
    ----------
    state : State
        Hounsfield units; the first channel shows the patient, and the first axis runs along the body.
    margin : float
        mm about the patient that stay in the box, where the image has them.
    multiple : int
        The box has a multiple of so many voxels along each axis; where the image is too short, air is added.

    Raises
    ------
    InputError
        If nothing in the image is as dense as tissue.

    Examples
    --------
    >>> data = np.full((1, 8, 40, 40), -1000, np.float32)
    >>> data[0, :, 10:20, 10:20] = 40
    >>> crop_to_body(State(data, np.eye(3)), margin=2, multiple=8)[0].data.shape
    (1, 8, 16, 16)
    """
    from scipy import ndimage

    if margin < 0 or multiple < 1:
        raise BundleError("the preparation step 'crop_to_body' has a margin in mm and a positive multiple of voxels")
    patient = ndimage.binary_dilation(patient_in(state.data[0]), iterations=1)  # the skin is partly air
    if not patient.any():
        raise InputError(
            f"no patient is to be seen in the image, nothing is above {TISSUE:g}: give a CT in Hounsfield units"
        )
    shape = state.data.shape[1:]
    places = [_box(patient, axis, margin / state.spacing[axis], multiple) for axis in range(3)]
    undo = Window(shape, tuple(start for start, _ in places), tuple(length for _, length in places))
    grid, window = undo.overlap()
    data = np.full((len(state.data), *undo.size), AIR, np.float32)
    data[(slice(None), *window)] = np.where(patient[grid], state.data[(slice(None), *grid)], AIR)
    return replace(state, data=data, mask=None), undo


def rounded_up(length: int, multiple: int) -> int:
    """The next multiple, from a length on."""
    return -(-length // multiple) * multiple


def _box(patient: np.ndarray, axis: int, margin: float, multiple: int) -> tuple[int, int]:
    """First voxel and length of a box about the patient; within the image where that is long enough."""
    size = patient.shape[axis]
    occupied = np.flatnonzero(patient.any(axis=tuple({0, 1, 2} - {axis})))
    first, last = max(int(occupied[0] - margin), 0), min(int(np.ceil(occupied[-1] + margin)), size - 1)
    length = rounded_up(last + 1 - first, multiple)
    start = (first + last + 1 - length) // 2
    return (min(max(start, 0), size - length) if length <= size else start), length
