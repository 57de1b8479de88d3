"""Images and their labels on the grid that the network sees, by the bundle's own preparation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from napari_mamba.engine.preparation.axes import UndoAxes
from napari_mamba.engine.preparation.crop_or_pad import Window
from napari_mamba.engine.preparation.cropping import UndoCrop
from napari_mamba.engine.preparation.grids import resampling
from napari_mamba.engine.preparation.state import State, Undo
from napari_mamba.engine.preparation.steps import STEPS
from napari_mamba.training.adaptation.loss import UNKNOWN
from napari_mamba.volume import Volume


def prepare_pair(
    volume: Volume, channels: np.ndarray, steps: Sequence[Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """Carry out the preparation on an image, and move its labels with it.

    Parameters
    ----------
    volume : Volume
        Data (C, Z, Y, X).
    channels : ndarray of int16, shape (Z, Y, X)
        The channel of each voxel, `UNKNOWN` where nobody painted.
    steps : sequence of mapping
        As `napari_mamba.engine.preparation.prepare.prepare` takes them.

    Returns
    -------
    image : ndarray, shape (C, *grid), float32
        What `prepare` gives.
    labels : ndarray, shape grid, int16
        The nearest voxel's channel; `UNKNOWN` where the image was padded.
    """
    state = State(np.asarray(volume.data).astype(np.float32), np.array(volume.affine[:3, :3]))
    for step in steps:
        options = {key: value for key, value in step.items() if key != "step"}
        state, undo = STEPS[step["step"]](state, **options)
        channels = _follow(channels, undo, state.data.shape[1:])
    return np.ascontiguousarray(state.data), np.ascontiguousarray(channels, np.int16)


def _follow(channels: np.ndarray, undo: Undo, shape: tuple[int, ...]) -> np.ndarray:
    if isinstance(undo, UndoAxes):
        turned = channels.transpose(tuple(int(axis) for axis in np.argsort(undo.order)))
        return np.flip(turned, undo.flipped) if undo.flipped else turned
    if isinstance(undo, UndoCrop):
        return channels[undo.box]
    if isinstance(undo, Window):
        grid, window = undo.overlap()
        whole = np.full(shape, UNKNOWN, channels.dtype)
        whole[window] = channels[grid]
        return whole
    return resampling.resize(channels, shape, order=0)
