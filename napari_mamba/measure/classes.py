"""What lies in each class of a label map: size, place and intensity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ClassStatistics:
    """One value of a label map.

    Parameters
    ----------
    index : int
    voxels : int
    centre : tuple of float or None
        Mean index (z, y, x) of its voxels.
    mean, spread : float or None
        Mean and standard deviation of the image over its voxels; None without an image or without voxels.
    """

    index: int
    voxels: int
    centre: tuple[float, float, float] | None = None
    mean: float | None = None
    spread: float | None = None


def class_statistics(labels: Any, image: Any = None) -> dict[int, ClassStatistics]:
    """Voxels, centre, mean and standard deviation of every value but 0.

    One pass over the slices along the first axis, so lazy arrays are read a slice at a time and a worker thread leaves
    the others room to run.

    Parameters
    ----------
    labels : array-like of integers, shape (Z, Y, X)
    image : array-like, shape (Z, Y, X), optional
        On the same grid. Voxels that are NaN are left out of mean and spread.

    Returns
    -------
    dict of int to ClassStatistics
        Of the values that occur.

    Examples
    --------
    >>> labels = np.array([[[0, 5, 5]]])
    >>> class_statistics(labels, np.array([[[9.0, 1.0, 3.0]]]))[5]
    ClassStatistics(index=5, voxels=2, centre=(0.0, 0.0, 1.5), mean=2.0, spread=1.0)
    """
    sums: dict[int, Any] = {}
    shift: float | None = None
    for z in range(labels.shape[0]):
        slice_labels = np.asarray(labels[z])
        if not slice_labels.any():
            continue
        values, flat = _numbered(slice_labels)
        bins = len(values)
        rows = np.zeros((bins, 7))  # voxels, z, y, x, n, sum, sum of squares
        rows[:, 0] = np.bincount(flat, minlength=bins)
        rows[:, 1] = z * rows[:, 0]
        grid = np.indices(slice_labels.shape).reshape(2, -1)
        rows[:, 2], rows[:, 3] = (np.bincount(flat, weights=axis, minlength=bins) for axis in grid)
        if image is not None:
            intensities = np.asarray(image[z], dtype=np.float64).ravel()
            known = np.isfinite(intensities)
            if shift is None and known.any():
                shift = float(intensities[known].mean())  # sums of squares around 0 lose the spread of bright images
            intensities = np.where(known, intensities - (shift or 0.0), 0.0)
            rows[:, 4] = np.bincount(flat, weights=known, minlength=bins)
            rows[:, 5] = np.bincount(flat, weights=intensities, minlength=bins)
            rows[:, 6] = np.bincount(flat, weights=intensities**2, minlength=bins)
        for value, row in zip(values.tolist(), rows, strict=True):
            if value != 0 and row[0]:
                sums[value] = sums.get(value, 0) + row
    return {value: _statistics(value, row, shift or 0.0) for value, row in sorted(sums.items())}


def _numbered(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values, and for each voxel which of them it has; small values are their own numbers, which needs no sorting."""
    if labels.min() >= 0 and labels.max() < _FEW:
        return np.arange(int(labels.max()) + 1), labels.ravel().astype(np.intp)
    values, flat = np.unique(labels, return_inverse=True)
    return values, flat.ravel()


_FEW = 4096


def _statistics(index: int, row: np.ndarray, shift: float) -> ClassStatistics:
    voxels, known = int(row[0]), row[4]
    z, y, x = (float(total) / voxels for total in row[1:4])
    if not known:
        return ClassStatistics(index, voxels, (z, y, x))
    mean = row[5] / known
    spread = float(np.sqrt(max(row[6] / known - mean**2, 0.0)))
    return ClassStatistics(index, voxels, (z, y, x), float(mean + shift), spread)


def central_voxel(labels: Any, index: int, statistics: ClassStatistics) -> tuple[int, int, int]:
    """A voxel of the class near its centre: in the slice nearest to the centre that holds the class.

    The centre itself may lie outside of a curved structure.
    """
    assert statistics.centre is not None
    centre = np.array(statistics.centre)
    order = sorted(range(labels.shape[0]), key=lambda z: abs(z - centre[0]))
    for z in order:
        found = np.argwhere(np.asarray(labels[z]) == index)
        if len(found):
            y, x = found[np.argmin(((found - centre[1:]) ** 2).sum(axis=1))].tolist()
            return z, y, x
    raise ValueError(f"the labels hold no voxel of the value {index}")
