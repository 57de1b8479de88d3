"""The step that resamples to a voxel size by splines.

Semantics follow nnU-Net v2 (Isensee et al., Nature Methods 18, 2021; github.com/MIC-DKFZ/nnUNet, version
2.1.1, preprocessing/).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_mamba.engine.preparation.grids import resampling
from napari_mamba.engine.preparation.state import Fill, State, Undo
from napari_mamba.errors import BundleError, InputError


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
    keep: Sequence[Sequence[float]] = (),
) -> tuple[State, Undo]:
    """Resample to `spacing` in mm, (z, y, x), None where an axis stays as it is.

    `anisotropy` ("none", "nnunet", "separate") says whether a coarse axis is resampled apart, with `order_z`; see
    `resampling.separate_axis`. `file_axes` reproduces nnU-Net 2.1.1, which on the way back compares with the spacing in
    the file's order of axes even where it has transposed them. `keep` has a range of voxel sides (smallest, largest)
    for each axis, within which it stays as it is too.
    """
    plan = plan_resampling(state, spacing, order, order_z, anisotropy, order_probabilities, file_axes, keep)
    if plan is None:
        return state, Undo()
    if np.prod(plan.shape, dtype=float) > 2**31:
        raise InputError(
            f"resampled to {plan.target} mm this image would have {plan.shape} voxels: check its voxel size"
        )
    data = _resample(state.data, plan.shape, plan.apart, order, order_z)
    mask = state.mask
    if mask is not None:
        mask = _resample(mask[None].astype(np.float32), plan.shape, plan.apart, 1, 0)[0] >= 0.5
    return State(data, plan.affine, mask), plan.undo


@dataclass(frozen=True)
class Resampling:
    """What `resample` is going to do.

    Attributes
    ----------
    shape : tuple of int
        Voxels (z, y, x) afterwards.
    target : tuple of float
        Their sides in mm.
    apart : int or None
        The axis that is resampled apart.
    affine : ndarray, shape (3, 3)
    undo : UndoResample
    """

    shape: tuple[int, ...]
    target: tuple[float, ...]
    apart: int | None
    affine: np.ndarray
    undo: UndoResample


def plan_resampling(
    state: State,
    spacing: Sequence[float | None],
    order: int = 3,
    order_z: int = 0,
    anisotropy: str = "none",
    order_probabilities: int = 1,
    file_axes: Sequence[int] = (0, 1, 2),
    keep: Sequence[Sequence[float]] = (),
) -> Resampling | None:
    """What `resample` with these options does, None where it changes nothing. No values are looked at."""
    if len(spacing) != 3 or any(side is not None and not side > 0 for side in spacing):
        raise BundleError(f"the preparation resamples to three positive sizes (z, y, x) in mm, not {list(spacing)}")
    if anisotropy not in ("none", "nnunet", "separate") or not {order, order_z, order_probabilities} <= set(range(6)):
        raise BundleError("the preparation's resampling has an unknown 'anisotropy' or a spline order outside 0 to 5")
    before = state.spacing
    spacing = wanted_spacing(spacing, before, keep)
    target = tuple(float(t) if t is not None else s for t, s in zip(spacing, before, strict=True))
    shape = resampling.new_shape(state.data.shape[1:], before, target)
    if shape == state.data.shape[1:]:
        return None
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
    return Resampling(shape, target, resampling.separate_axis(anisotropy, before, target), scaled, undo)


def wanted_spacing(
    spacing: Sequence[float | None], sides: Sequence[float], keep: Sequence[Sequence[float]] = ()
) -> list[float | None]:
    """The spacing that `resample` goes to, mm; None where an axis stays, as its voxel side lies in its range of `keep`.

    Examples
    --------
    >>> wanted_spacing([2.5, 4.0, 4.0], [3.0, 1.0, 1.0], [[1.5, 3.3], [3.0, 5.5], [3.0, 5.5]])
    [None, 4.0, 4.0]
    """
    if not keep:
        return list(spacing)
    if len(keep) != 3 or any(len(one) != 2 or not 0 <= one[0] <= one[1] for one in keep):
        raise BundleError("the preparation keeps voxel sides within three ranges (smallest, largest) in mm")
    ranges = zip(spacing, sides, keep, strict=True)
    return [None if low <= side <= high else wanted for wanted, side, (low, high) in ranges]


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
