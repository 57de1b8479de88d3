"""A transform in world coordinates: an affine and a displacement field; written as ITK, ANTs and 3D Slicer read it.

As in ITK a transform takes a point of the fixed image to the place in the moving image that is seen there. Here points
are RAS+ millimetres, as everywhere in this package; what is written is LPS, as ITK has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import map_coordinates

from napari_mamba.errors import InputError, OutputError
from napari_mamba.io.common.geometry import LPS_TO_RAS, is_orthogonal, to_itk
from napari_mamba.io.formats.itk import simpleitk
from napari_mamba.volume import Volume

_FLIP = np.diag(LPS_TO_RAS)[:3]


@dataclass(frozen=True, eq=False)
class Transform:
    """Takes a point p of the fixed world to `affine @ (p + displacement(p))` in the moving world.

    Attributes
    ----------
    affine : ndarray, shape (4, 4), float64
        RAS+ mm to RAS+ mm.
    displacement : ndarray, shape (Z, Y, X, 3), float32, or None
        In RAS+ mm (x, y, z), at the voxels of a grid; interpolated linearly between them, none outside the grid.
    grid : ndarray, shape (4, 4)
        From the displacement's voxel index (z, y, x, 1) to RAS+ mm, a `Volume.affine`.

    Examples
    --------
    >>> shift = np.eye(4)
    >>> shift[0, 3] = 5
    >>> Transform(shift)([[1.0, 2.0, 3.0]]).tolist()
    [[6.0, 2.0, 3.0]]
    """

    affine: np.ndarray = field(default_factory=lambda: np.eye(4))
    displacement: np.ndarray | None = None
    grid: np.ndarray = field(default_factory=lambda: np.eye(4))

    def __post_init__(self) -> None:
        if self.displacement is not None and (self.displacement.ndim != 4 or self.displacement.shape[3] != 3):
            raise InputError(f"a displacement field has the shape (Z, Y, X, 3), not {self.displacement.shape}")

    def __call__(self, points: Any) -> np.ndarray:
        """Where points (N, 3) of the fixed image, in RAS+ mm, lie in the moving image."""
        points = np.atleast_2d(np.asarray(points, float))
        moved = points + self.displacement_at(points)
        return moved @ self.affine[:3, :3].T + self.affine[:3, 3]

    def displacement_at(self, points: np.ndarray) -> np.ndarray:
        """The displacement in mm at points (N, 3): linear between voxel centres, flat to a voxel's face, then zero."""
        if self.displacement is None:
            return np.zeros_like(points)
        index = _indices(self.grid, points)
        size = np.array(self.displacement.shape[:3])
        inside: np.ndarray = np.all((index >= -0.5) & (index < size - 0.5), axis=1)
        at = np.clip(index, 0, size - 1).T
        parts = [map_coordinates(self.displacement[..., c].astype(float), at, order=1) for c in range(3)]
        return np.stack(parts, axis=1) * inside[:, None]


def from_voxels(displacement: np.ndarray, grid: np.ndarray, affine: np.ndarray | None = None) -> Transform:
    """A transform of a displacement (3, Z, Y, X) in voxels along (z, y, x) of a grid: see `napari_mamba.nn.fields`.

    `affine` follows it: the displacement moves over the moving image as that affine has resampled it onto the grid.
    """
    millimetres = np.einsum("wv,vzyx->zyxw", grid[:3, :3], np.asarray(displacement, float))
    return Transform(np.eye(4) if affine is None else affine, millimetres.astype(np.float32), grid)


def to_voxels(transform: Transform) -> np.ndarray:
    """The displacement of a transform in voxels of its grid, (3, Z, Y, X) float64: the inverse of `from_voxels`."""
    if transform.displacement is None:
        raise InputError("this transform is affine and has no displacement field: name a grid for it first")
    return np.einsum("vw,zyxw->vzyx", np.linalg.inv(transform.grid[:3, :3]), transform.displacement.astype(float))


def total_displacement(transform: Transform, grid: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """How far the whole transform, its affine included, moves each voxel of a grid: (Z, Y, X, 3) float32, RAS+ mm."""
    known = transform.displacement
    if known is not None and known.shape[:3] == tuple(shape) and np.allclose(transform.grid, grid, atol=1e-6):
        moved = known @ transform.affine[:3, :3].T.astype(np.float32)
    else:
        points = world_points(grid, shape)
        moved = (transform.displacement_at(points) @ transform.affine[:3, :3].T).reshape(*shape, 3)
    # What the affine alone does to a voxel is a sum of one vector for each of its three indices.
    steps = (transform.affine[:3, :3] - np.eye(3)) @ grid[:3]
    steps[:, 3] += transform.affine[:3, 3]
    axes = [np.multiply.outer(np.arange(n), steps[:, axis]) for axis, n in enumerate(shape)]
    alone = axes[0][:, None, None] + axes[1][None, :, None] + axes[2] + steps[:, 3]
    return (moved + alone).astype(np.float32)


def world_points(grid: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Voxel centres of a grid in RAS+ mm, (Z * Y * X, 3)."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1).reshape(-1, 3)
    return index @ grid[:3, :3].T + grid[:3, 3]


def inverse(transform: Transform, grid: np.ndarray, shape: Sequence[int]) -> Transform:
    """The transform that leads back, with a displacement on a grid of the moving world."""
    back = np.linalg.inv(transform.affine)
    if transform.displacement is None:
        return Transform(back)
    import torch

    from napari_mamba.nn import fields

    forth = torch.from_numpy(to_voxels(transform)).float()[None]
    undone = from_voxels(fields.inverted(forth)[0].numpy(), transform.grid)
    # Of a place q: first back by the affine, then by the field; as a displacement before the affine is undone.
    places = world_points(grid, shape) @ back[:3, :3].T + back[:3, 3]
    moved = undone.displacement_at(places) @ transform.affine[:3, :3].T
    return Transform(back, moved.reshape(*shape, 3).astype(np.float32), grid)


def jacobian_determinant(transform: Transform) -> np.ndarray:
    """By how much the transform changes each voxel's volume, on its grid (Z, Y, X) float32; below zero it folds."""
    g = [list(np.gradient(one)) for one in to_voxels(transform).astype(np.float32)]
    for axis in range(3):
        g[axis][axis] = g[axis][axis] + 1
    change = (
        g[0][0] * (g[1][1] * g[2][2] - g[1][2] * g[2][1])
        - g[0][1] * (g[1][0] * g[2][2] - g[1][2] * g[2][0])
        + g[0][2] * (g[1][0] * g[2][1] - g[1][1] * g[2][0])
    )
    return (change * np.linalg.det(transform.affine[:3, :3])).astype(np.float32)


def to_simpleitk(transform: Transform) -> Any:
    """A SimpleITK CompositeTransform that takes every point to the same place, in LPS."""
    sitk = simpleitk()
    flip = np.diag([*_FLIP, 1.0])
    matrix = flip @ transform.affine @ flip
    affine = sitk.AffineTransform(matrix[:3, :3].ravel().tolist(), matrix[:3, 3].tolist())
    if transform.displacement is None:
        return sitk.CompositeTransform([affine])
    image = _vector_image(transform.displacement, transform.grid)
    # ITK applies the last of the list first.
    return sitk.CompositeTransform([affine, sitk.DisplacementFieldTransform(sitk.Cast(image, sitk.sitkVectorFloat64))])


def write(transform: Transform, path: Path | str) -> Path:
    """Write an ITK composite transform, `.h5` or `.tfm`, for SimpleITK, ANTs (`-t FILE`) and 3D Slicer.

    `.h5` holds a displacement in 32 bits and compressed, rounded to 1/256 mm, if h5py is installed.
    """
    sitk = simpleitk()
    path = Path(path)
    if path.suffix.lower() not in (".h5", ".tfm"):
        raise OutputError(f"a transform is written as .h5 or .tfm, not {path.suffix or 'without an ending'}")
    small = path.suffix.lower() == ".h5" and transform.displacement is not None and find_spec("h5py") is not None
    try:
        if small:
            _write_small(transform, path)
        else:
            sitk.WriteTransform(to_simpleitk(transform), str(path))
    except (RuntimeError, OSError) as error:
        raise OutputError(f"{path} could not be written: check the folder and the space on the disk") from error
    return path


def _write_small(transform: Transform, path: Path) -> None:
    from napari_mamba.registration.compact import shrink

    assert transform.displacement is not None
    one_voxel = replace(transform, displacement=np.zeros((1, 1, 1, 3), np.float32))
    simpleitk().WriteTransform(to_simpleitk(one_voxel), str(path))
    shrink(path, transform.displacement * _FLIP.astype(np.float32))


def write_displacement(transform: Transform, path: Path | str, grid: np.ndarray, shape: Sequence[int]) -> Path:
    """Write the whole transform as one displacement field on a grid: NIfTI with LPS vectors in mm, as ANTs has it."""
    sitk = simpleitk()
    path = Path(path)
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        raise OutputError(f"a displacement field is written as .nii or .nii.gz, not {path.name}")
    image = _vector_image(total_displacement(transform, grid, shape), grid)
    try:
        sitk.WriteImage(image, str(path))
    except RuntimeError as error:
        raise OutputError(f"{path} could not be written: check the folder and the space on the disk") from error
    return path


def resample(moving: Volume, fixed: Volume, transform: Transform, *, nearest: bool = False) -> Volume:
    """The moving image on the fixed image's grid, zero where it shows nothing; `nearest` is for labels."""
    sitk = simpleitk()
    order = sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear
    composite, reference = to_simpleitk(transform), _image(np.zeros(fixed.shape, np.uint8), fixed.affine)
    channels = []
    for channel in np.asarray(moving.data):
        values = channel if nearest else channel.astype(np.float32)
        moved = sitk.Resample(_image(values, moving.affine), reference, composite, order, 0.0)
        channels.append(sitk.GetArrayFromImage(moved))
    return Volume(np.stack(channels), fixed.affine, moving.channel_names, fixed.units, moving.name)


def _indices(grid: np.ndarray, points: np.ndarray) -> np.ndarray:
    inverse_grid = np.linalg.inv(grid)
    return points @ inverse_grid[:3, :3].T + inverse_grid[:3, 3]


def _image(values: np.ndarray, grid: np.ndarray, vector: bool = False) -> Any:
    sitk = simpleitk()
    if not is_orthogonal(grid):
        raise InputError("the image's axes are not at right angles, which ITK cannot express: resample it first")
    image = sitk.GetImageFromArray(values, isVector=vector)
    spacing, origin, direction = to_itk(grid)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(origin.tolist())
    image.SetDirection(direction.ravel().tolist())
    return image


def _vector_image(displacement: np.ndarray, grid: np.ndarray) -> Any:
    """A field (Z, Y, X, 3) in RAS+ mm as ITK's image of LPS vectors."""
    return _image(np.ascontiguousarray(displacement * _FLIP.astype(np.float32)), grid, vector=True)
