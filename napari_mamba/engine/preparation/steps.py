"""The steps that prepare a volume for a network, each with what undoes it.

A step is a function of a `State` and its options that returns the next `State` and an `Undo`. They know nothing of one
another. Semantics follow nnU-Net v2 (Isensee et al., Nature Methods 18, 2021; github.com/MIC-DKFZ/nnUNet, version
2.1.1, preprocessing/) where it has the step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import binary_fill_holes

from napari_mamba.engine.preparation import crop_or_pad as windows
from napari_mamba.engine.preparation import mask_steps, regridding, resampling
from napari_mamba.engine.preparation.field_of_view import field_of_view
from napari_mamba.engine.preparation.normalising import normalise
from napari_mamba.engine.preparation.state import Fill, State, Undo
from napari_mamba.engine.preparation.upsampling import append_upsampling_channel, refine
from napari_mamba.errors import BundleError, InputError

__all__ = ["STEPS", "Fill", "State", "Undo", "UndoAxes", "crop_nonzero", "normalise", "resample"]


@dataclass(frozen=True)
class UndoAxes(Undo):
    """Of `orient` and `transpose`: flips the axes in `flipped`, then permutes by `order`."""

    order: tuple[int, ...]
    flipped: tuple[int, ...] = ()

    def values(self, values: np.ndarray, fill: Fill = 0.0) -> np.ndarray:
        values = np.flip(values, tuple(axis + 1 for axis in self.flipped)) if self.flipped else values
        return values.transpose(0, *(axis + 1 for axis in self.order))


def transpose(state: State, axes: Sequence[int]) -> tuple[State, Undo]:
    """Permute (z, y, x): new axis i is old axis `axes[i]`."""
    axes = tuple(axes)
    if sorted(axes) != [0, 1, 2]:
        raise BundleError(f"the preparation's transpose needs the axes 0, 1 and 2 in some order, not {list(axes)}")
    data = state.data.transpose(0, *(axis + 1 for axis in axes))
    return State(data, state.affine[:, axes]), UndoAxes(tuple(int(axis) for axis in np.argsort(axes)))


def orient(state: State, axcodes: str) -> tuple[State, Undo]:
    """Flip and permute axes, so that x, y, z run closest to the world directions of `axcodes`, such as "RAS".

    Which array axis belongs to which world axis is decided as `nibabel.orientations.io_orientation` does.
    """
    pairs = ("LR", "PA", "IS")
    wanted = [next((n for n, pair in enumerate(pairs) if code in pair), -1) for code in axcodes.upper()]
    if sorted(wanted) != [0, 1, 2]:
        raise BundleError(f"the preparation's orientation {axcodes!r} is not three letters such as RAS or LPS")
    world, sign = _nearest_axes(state.affine)
    order = tuple(world.index(axis) for axis in reversed(wanted))  # old axis of each new (z, y, x)
    new = State(state.data.transpose(0, *(axis + 1 for axis in order)), state.affine[:, order])
    codes = axcodes.upper()[::-1]
    flipped = tuple(i for i, old in enumerate(order) if sign[old] * (1 if codes[i] == pairs[world[old]][1] else -1) < 0)
    affine = new.affine.copy()
    affine[:, flipped] *= -1
    data = np.flip(new.data, tuple(axis + 1 for axis in flipped)) if flipped else new.data
    return State(data, affine), UndoAxes(tuple(int(axis) for axis in np.argsort(order)), flipped)


def _nearest_axes(affine: np.ndarray) -> tuple[list[int], list[int]]:
    """World axis (0, 1, 2 for R, A, S) nearest to each array axis (z, y, x), and 1 if it runs along it, else -1."""
    # nibabel looks at array axes in the order x, y, z, each taking the best world axis still free.
    directions = affine[:, ::-1] / np.linalg.norm(affine[:, ::-1], axis=0)
    left, _, right = np.linalg.svd(directions, full_matrices=False)
    rotation = left @ right
    world, sign = [], []
    for axis in range(3):
        column = rotation[:, axis]
        best = int(np.argmax(np.abs(column)))
        world.append(best)
        sign.append(1 if column[best] > 0 else -1)
        rotation[best] = 0
    return world[::-1], sign[::-1]


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
    kept = binary_fill_holes(mask)[tuple(box)] if keep_mask else None
    return replace(state, data=state.data[(slice(None), *box)], mask=kept), UndoCrop(mask.shape, tuple(box))


@dataclass(frozen=True)
class UndoResample(Undo):
    """Of `resample`: back to `shape`; outputs with `order_values`, images with `order`, along `apart` by `order_z`."""

    shape: tuple[int, ...]
    apart: int | None
    order: int
    order_values: int
    order_z: int
    exact = False

    def values(self, values: np.ndarray, fill: Fill = 0.0) -> np.ndarray:
        return _resample(values, self.shape, self.apart, self.order_values, self.order_z)

    def image(self, image: np.ndarray) -> np.ndarray:
        return _resample(image, self.shape, self.apart, self.order, self.order_z)

    def nearest(self, labels: np.ndarray) -> np.ndarray:
        return np.stack([resampling.resize(one, self.shape, order=0) for one in labels])


def resample(
    state: State,
    spacing: Sequence[float | None],
    order: int = 3,
    order_z: int = 0,
    anisotropy: str = "none",
    order_probabilities: int = 1,
    file_axes: Sequence[int] = (0, 1, 2),
) -> tuple[State, Undo]:
    """Resample to `spacing` in mm, (z, y, x), None where an axis stays as it is.

    `anisotropy` ("none", "nnunet", "separate") says whether a coarse axis is resampled apart, with `order_z`; see
    `resampling.separate_axis`. `file_axes` reproduces nnU-Net 2.1.1, which on the way back compares with the spacing in
    the file's order of axes even where it has transposed them.
    """
    if len(spacing) != 3 or any(side is not None and not side > 0 for side in spacing):
        raise BundleError(f"the preparation resamples to three positive sizes (z, y, x) in mm, not {list(spacing)}")
    if anisotropy not in ("none", "nnunet", "separate") or not {order, order_z, order_probabilities} <= set(range(6)):
        raise BundleError("the preparation's resampling has an unknown 'anisotropy' or a spline order outside 0 to 5")
    before = state.spacing
    target = tuple(float(t) if t is not None else s for t, s in zip(spacing, before, strict=True))
    shape = resampling.new_shape(state.data.shape[1:], before, target)
    if np.prod(shape, dtype=float) > 2**31:
        raise InputError(f"resampled to {target} mm this image would have {shape} voxels: check its voxel size")
    if shape == state.data.shape[1:]:
        return state, Undo()
    apart = resampling.separate_axis(anisotropy, before, target)
    data = _resample(state.data, shape, apart, order, order_z)
    mask = state.mask
    if mask is not None:
        mask = _resample(mask[None].astype(np.float32), shape, apart, 1, 0)[0] >= 0.5
    in_file = [before[axis] for axis in file_axes]
    back_from = [float(t) if t is not None else s for t, s in zip(spacing, in_file, strict=True)]
    undo = UndoResample(
        shape=state.data.shape[1:],
        apart=resampling.separate_axis(anisotropy, back_from, in_file),
        order=order,
        order_values=order_probabilities,
        order_z=order_z,
    )
    scaled = state.affine * (np.array(state.data.shape[1:]) / np.array(shape))
    return State(data, scaled, mask), undo


def _resample(values: np.ndarray, shape: Sequence[int], apart: int | None, order: int, order_z: int) -> np.ndarray:
    if values.shape[1:] == tuple(shape):
        return values
    whole = np.empty((len(values), *shape), np.float32)
    for target, channel in zip(whole, values, strict=True):
        channel = np.ascontiguousarray(channel, np.float32)
        if apart is None:
            target[...] = resampling.resize(channel, shape, order)
        else:
            target[...] = resampling.resize_separate_z(channel, shape, apart, order, order_z)
    return whole


STEPS: Mapping[str, Callable[..., tuple[State, Undo]]] = {
    "orient": orient,
    "transpose": transpose,
    "crop_nonzero": crop_nonzero,
    "normalise": normalise,
    "field_of_view": field_of_view,
    "resample": resample,
    "refine": refine,
    "append_upsampling_channel": append_upsampling_channel,
    "resize": regridding.resize,
    "respace": regridding.respace,
    "binarise": mask_steps.binarise,
    "signed_distance": mask_steps.signed_distance,
    "centre": windows.centre,
    "slice_axis_first": windows.slice_axis_first,
}
