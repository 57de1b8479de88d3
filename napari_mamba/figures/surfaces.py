"""Surfaces of classes, by marching cubes, smoothed without shrinking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.volume import Volume


@dataclass(frozen=True, eq=False)
class Surface:
    """A triangle mesh of one class.

    Parameters
    ----------
    name : str
    color : str
        "#rrggbb".
    vertices : ndarray, shape (N, 3)
        In RAS millimetres.
    faces : ndarray of int, shape (M, 3)
        Seen from outside, their vertices run anti-clockwise.
    """

    name: str
    color: str
    vertices: np.ndarray
    faces: np.ndarray


def class_surface(
    labels: Volume, index: int, *, name: str = "", color: str = "#cccccc", smoothing: int = 15, step: int = 1
) -> Surface:
    """The surface of a class.

    Parameters
    ----------
    labels : Volume
        One channel of whole numbers.
    index : int
        The class.
    name, color : str
        For the file.
    smoothing : int
        Rounds of Taubin's smoothing [2]_, which takes the voxels' steps away and keeps the volume; 0 for none.
    step : int
        Voxels a marching cube: 2 gives a quarter of the triangles.

    Raises
    ------
    InputError
        If the class has no voxel.

    References
    ----------
    .. [1] Lewiner et al., "Efficient implementation of marching cubes' cases with topological guarantees", 2003.
    .. [2] Taubin, "Curve and surface smoothing without shrinkage", ICCV 1995.

    Examples
    --------
    >>> block = np.zeros((1, 8, 8, 8), np.uint8)
    >>> block[0, 2:6, 2:6, 2:6] = 1
    >>> class_surface(Volume(block), 1, smoothing=0).faces.shape[1]
    3
    """
    from skimage.measure import marching_cubes

    data = np.asarray(labels.data[0])
    mask = data == index
    if not mask.any():
        raise InputError(f"{name or f'label {index}'} has no voxel, so it has no surface: choose another class")
    low = np.array([np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {a})))[0] for a in range(3)])
    high = np.array([np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {a})))[-1] + 1 for a in range(3)])
    box = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    # closed also where the class runs out of the image, and wide enough for the step
    padded = np.pad(box, step + 1).astype(np.float32)
    vertices, faces, _, _ = marching_cubes(padded, 0.5, step_size=step)
    vertices = vertices - (step + 1) + low
    world = vertices @ labels.affine[:3, :3].T + labels.affine[:3, 3]
    if _volume(world, faces) < 0:  # a left-handed grid turns the triangles inside out
        faces = faces[:, ::-1]
    if smoothing:
        world = _taubin(world, faces, smoothing)
    return Surface(name or f"label {index}", color, world, np.ascontiguousarray(faces))


def _volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Signed volume, by tetrahedra over the origin; positive where the triangles look outwards."""
    a, b, c = (vertices[faces[:, k]] - vertices.mean(axis=0) for k in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


def _taubin(vertices: np.ndarray, faces: np.ndarray, rounds: int) -> np.ndarray:
    import trimesh

    mesh = trimesh.Trimesh(vertices, faces, process=False)
    # an even number: each round of shrinking is followed by one of growing
    trimesh.smoothing.filter_taubin(mesh, lamb=0.5, nu=0.53, iterations=2 * rounds)
    return np.asarray(mesh.vertices)
