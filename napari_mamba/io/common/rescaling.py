"""Stored values to real ones, as DICOM's rescale and ImageJ's calibration have it."""

from __future__ import annotations

import numpy as np


def rescaled(plane: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Values times a slope plus an intercept, in integers where both are; a slope of 0 counts as 1."""
    if slope in (0, 1) and intercept == 0:
        return plane
    slope = slope or 1.0  # nobody means that all values are one; readers say what was assumed
    if plane.dtype.kind == "f":
        return _linear(plane.astype(plane.dtype), slope, intercept)
    if slope == int(slope) and intercept == int(intercept) and max(abs(slope), abs(intercept)) < 2**31:
        limits = np.iinfo(plane.dtype)
        ends = [int(end) * int(slope) + int(intercept) for end in (limits.min, limits.max)]
        for kind in ("int16", "int32", "int64"):
            if np.iinfo(kind).min <= min(ends) and max(ends) <= np.iinfo(kind).max:
                return _linear(plane.astype(kind), int(slope), int(intercept))
    exact = np.float32 if plane.dtype.itemsize <= 2 else np.float64
    return _linear(plane.astype(exact), slope, intercept)


def _linear(values: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    np.multiply(values, values.dtype.type(slope), out=values)
    return np.add(values, values.dtype.type(intercept), out=values)
