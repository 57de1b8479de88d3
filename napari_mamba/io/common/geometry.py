"""Affines: what file headers say, as a matrix from (z, y, x) voxel index to RAS+ millimetres, and back."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import ArrayLike

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

# Written as OME-XML, UDUNITS-2 (OME-Zarr), NRRD and ImageJ write them, lower case.
_MILLIMETRES = {
    "km": 1e6,
    "kilometer": 1e6,
    "m": 1e3,
    "meter": 1e3,
    "metre": 1e3,
    "dm": 1e2,
    "decimeter": 1e2,
    "cm": 10.0,
    "centimeter": 10.0,
    "mm": 1.0,
    "millimeter": 1.0,
    "millimetre": 1.0,
    "um": 1e-3,
    "µm": 1e-3,  # U+00B5, the micro sign
    "μm": 1e-3,  # U+03BC, the Greek letter
    "micron": 1e-3,
    "micrometer": 1e-3,
    "micrometre": 1e-3,
    "nm": 1e-6,
    "nanometer": 1e-6,
    "pm": 1e-9,
    "picometer": 1e-9,
    "å": 1e-7,
    "angstrom": 1e-7,
    "inch": 25.4,
    "inches": 25.4,
    "in": 25.4,
    "foot": 304.8,
    "ft": 304.8,
    "yard": 914.4,
    "thou": 0.0254,
}
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")  # as ImageJ writes letters that are not ASCII
_SHORTEST_PLURAL = 4  # "ms" are no metres


def millimetres(unit: str | None) -> float | None:
    """Millimetres in one `unit`, or None where the name is no length (absent, "pixel")."""
    name = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), (unit or "").strip().strip('"')).lower()
    if name not in _MILLIMETRES and len(name) > _SHORTEST_PLURAL:
        name = name.removesuffix("s")
    return _MILLIMETRES.get(name)


def other_unit(names: set[str]) -> str:
    """A doubt where a NRRD or MetaImage counts in another length than mm, which ITK does not look at; else empty."""
    found = sorted(name for name in names if millimetres(name) not in (None, 1.0))
    if not found:
        return ""
    return (
        f"The image's header counts lengths in {found[0].strip()}; 3D Slicer and other programs of ITK take its "
        "numbers as millimetres and show it, but not a result on it, that much larger or smaller."
    )


def from_xyz_ras(matrix: np.ndarray) -> np.ndarray:
    """An (x, y, z) index to RAS affine, as NIfTI has it, with its index axes in the order (z, y, x)."""
    return np.asarray(matrix, dtype=np.float64)[:, [2, 1, 0, 3]]


def to_xyz_ras(affine: np.ndarray) -> np.ndarray:
    """The inverse of `from_xyz_ras` (the permutation is its own inverse)."""
    return from_xyz_ras(affine)


def from_itk(spacing: np.ndarray, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Affine of an image in ITK's terms: spacing and origin (x, y, z), direction (3, 3) columns, all in LPS."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.asarray(direction, dtype=np.float64).reshape(3, 3) * np.asarray(spacing, dtype=np.float64)
    matrix[:3, 3] = origin
    return from_xyz_ras(LPS_TO_RAS @ matrix)


def to_itk(affine: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spacing (3,), origin (3,) and direction (3, 3) in LPS and (x, y, z), ITK's terms, of an affine."""
    matrix = LPS_TO_RAS @ to_xyz_ras(affine)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    return spacing, matrix[:3, 3], matrix[:3, :3] / spacing


def without_orientation(spacing: ArrayLike, translation: ArrayLike = (0.0, 0.0, 0.0)) -> np.ndarray:
    """Affine for a file that knows no patient axes; `spacing` and `translation` are (z, y, x).

    x is taken to run to the left, y to the back, z upwards: ITK's identity, so that a TIFF shown by an ITK-based
    viewer and the same image written here as NIfTI lie in the same place.
    """
    return from_itk(np.asarray(spacing)[::-1], np.asarray(translation)[::-1], np.eye(3))


def is_orthogonal(affine: np.ndarray, tolerance: float = 1e-5) -> bool:
    """Whether the voxel axes are at right angles, as a quaternion can express."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() <= tolerance)


def largest_displacement(first: np.ndarray, second: np.ndarray, shape: tuple[int, int, int]) -> float:
    """The farthest, in mm, that two affines place the same corner of a grid of `shape` apart."""
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], [1], indexing="ij"), -1).reshape(-1, 4)
    return float(np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1).max())
