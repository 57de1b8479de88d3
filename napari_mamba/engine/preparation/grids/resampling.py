"""Interpolation onto another number of voxels, with nnU-Net's rules for anisotropic volumes.

Voxel centres of both grids span the same box: output voxel i lies at `(i + 0.5) * n_in / n_out - 0.5` of the input,
edges repeat. Values are those of `skimage.transform.resize(mode="edge", anti_aliasing=False)`, which nnU-Net calls
(Isensee et al., Nature Methods 18, 2021; github.com/MIC-DKFZ/nnUNet, preprocessing/resampling). Splines are separable,
so here they are applied axis by axis as matrices, in float32: the same numbers in a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

Shape = tuple[int, ...]
ANISOTROPIC = 3.0
"""Beyond this ratio of the coarsest to the finest voxel side, nnU-Net resamples the coarse axis apart."""


def resize(values: np.ndarray, shape: Sequence[int], order: int) -> np.ndarray:
    """Interpolate `values` onto a grid of `shape` over the same box.

    Parameters
    ----------
    values : ndarray, float32
        2D or 3D.
    shape : sequence of int
        As many as `values` has axes.
    order : int
        Of the spline, 0 to 5. From 2 on the result is clipped to the range of `values`, which splines overshoot.

    Returns
    -------
    ndarray of `shape`, float32

    Examples
    --------
    >>> resize(np.array([[0, 1]], np.float32), (1, 4), order=1).tolist()
    [[0.0, 0.25, 0.75, 1.0]]
    """
    if tuple(shape) == values.shape:
        return values
    if order == 0:
        for axis, n in enumerate(shape):
            values = _nearest(values, n, axis)
        return values
    if order == 1:
        return _linear(values, shape)
    low, high = values.min(), values.max()
    for axis in sorted(
        range(values.ndim), key=lambda a: shape[a] / values.shape[a]
    ):  # the axis that shrinks most first
        values = _along(values, shape[axis], axis, order)
    return np.clip(values, low, high, out=values)


def resize_separate_z(
    values: np.ndarray, shape: Sequence[int], axis: int, order: int, order_separate: int
) -> np.ndarray:
    """Interpolate each slice across `axis` by itself, then along `axis` with the spline order `order_separate`.

    Parameters and the result are as in `resize`; `values` is 3D.
    """
    if tuple(shape) == values.shape:
        return values
    plane = [n for a, n in enumerate(shape) if a != axis]
    slices = np.moveaxis(values, axis, 0)
    if order == 1:
        flat = _linear(np.ascontiguousarray(slices), (len(slices), *plane))
    else:
        flat = np.stack([resize(np.ascontiguousarray(one), plane, order) for one in slices])
    if order_separate == 0:
        flat = _nearest(flat, shape[axis], 0)
    elif shape[axis] != len(flat):
        flat = _along(flat, shape[axis], 0, order_separate)
    return np.moveaxis(flat, 0, axis)


def new_shape(shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]) -> Shape:
    """Voxels that a box of `shape` voxels of size `spacing` has at the size `target`; at least one an axis.

    >>> new_shape((10, 10, 10), (2.0, 1.0, 1.0), (1.0, 1.0, 4.0))
    (20, 10, 2)
    """
    return tuple(max(1, round(float(s) / float(t) * n)) for n, s, t in zip(shape, spacing, target, strict=True))


def separate_axis(rule: str, current: Sequence[float], new: Sequence[float]) -> int | None:
    """Which axis is resampled apart, if any.

    Parameters
    ----------
    rule : {"none", "nnunet", "separate"}
        "nnunet": where voxels are anisotropic before or else after; "separate": always, by the spacing before.
    current, new : sequence of float
        Spacing before and after.
    """
    if rule == "none":
        return None
    if rule == "separate" or max(current) / min(current) > ANISOTROPIC:
        spacing = current
    elif max(new) / min(new) > ANISOTROPIC:
        spacing = new
    else:
        return None
    coarsest = [axis for axis, side in enumerate(spacing) if side == max(spacing)]
    return coarsest[0] if len(coarsest) == 1 else None


def rounded_spacing(spacing: Sequence[float]) -> tuple[float, ...]:
    """Voxel sizes freed of the last digits that a norm over the affine's columns leaves.

    Files hold sizes as float32 or as short decimals; a size within 1e-12 of the one is it, and so is that of the
    other. Where a shape is the rounding of a quotient of sizes, the last digit can decide.
    """
    return tuple(_round_spacing(float(side)) for side in spacing)


def _round_spacing(side: float) -> float:
    single = float(np.float32(side))
    return single if abs(single - side) <= 1e-12 * side else float(f"{side:.12g}")


def _nearest(values: np.ndarray, n: int, axis: int) -> np.ndarray:
    size = values.shape[axis]
    if n == size:
        return values
    places = size / n * (np.arange(n) + 0.5) - 0.5
    return np.take(values, np.clip(np.floor(places + 0.5).astype(int), 0, size - 1), axis=axis)


def _linear(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    import torch  # here, since this room is imported by those who need no torch

    mode = "trilinear" if values.ndim == 3 else "bilinear"
    source = torch.from_numpy(np.ascontiguousarray(values))[None, None]
    with torch.inference_mode():
        return torch.nn.functional.interpolate(source, tuple(shape), mode=mode, align_corners=False)[0, 0].numpy()


def _along(values: np.ndarray, n: int, axis: int, order: int) -> np.ndarray:
    if n == values.shape[axis]:
        return values
    matrix = _matrix(values.shape[axis], n, order)
    moved = np.moveaxis(values, axis, -2 if axis < values.ndim - 1 else -1)
    if axis == values.ndim - 1:
        return moved @ matrix.T
    return np.moveaxis(np.matmul(matrix, moved), -2, axis)


@lru_cache(maxsize=32)
def _matrix(size: int, n: int, order: int) -> np.ndarray:
    """The linear map (n, size) that SciPy's spline zoom of `size` values to `n` is, float32."""
    from scipy import ndimage

    unit = np.zeros(size)
    matrix = np.empty((n, size), np.float32)
    for column in range(size):
        unit[column] = 1.0
        matrix[:, column] = ndimage.zoom(unit, n / size, order=order, mode="nearest", grid_mode=True)
        unit[column] = 0.0
    return matrix
