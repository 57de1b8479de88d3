"""The step that crops to what is not zero.

Semantics follow nnU-Net v2 (Isensee et al., Nature Methods 18, 2021; github.com/MIC-DKFZ/nnUNet, version
2.1.1, preprocessing/).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from napari_mamba.engine.preparation.state import Fill, State, Undo


@dataclass(frozen=True)
class UndoCrop(Undo):
    """Of `crop_nonzero`: puts values into the box `box` of a grid of `shape`."""

    shape: tuple[int, ...]
    box: tuple[slice, ...]

    def values(self, values: np.ndarray, fill: Fill = 0.0) -> np.ndarray:
        if values.shape[1:] == self.shape:
            return values
        whole = np.empty((len(values), *self.shape), values.dtype)
        whole[...] = np.reshape(np.asarray(fill, values.dtype), (-1, 1, 1, 1))
        whole[(slice(None), *self.box)] = values
        return whole


def crop_nonzero(state: State, keep_mask: bool = False) -> tuple[State, Undo]:
    """Crop to the smallest box that holds every voxel where any channel is not zero; an empty image stays whole.

    With `keep_mask` the region, holes filled, stays known to `normalise` after a `resample`, as in nnU-Net v1.
    """
    mask = (state.data != 0).any(axis=0)
    box = []
    for axis in range(3):
        inside = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, mask.shape[axis]))
    kept = None
    if keep_mask:
        from scipy.ndimage import binary_fill_holes

        kept = binary_fill_holes(mask)[tuple(box)]
    return replace(state, data=state.data[(slice(None), *box)], mask=kept), UndoCrop(mask.shape, tuple(box))
