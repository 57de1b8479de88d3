"""Two images that lie in one space on one grid."""

from __future__ import annotations

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.volume import Volume


def same_grid(first: Volume, second: Volume) -> bool:
    """Whether two volumes have the same voxels, stored in the same order (to a hundredth of a voxel)."""
    if first.shape != second.shape:
        return False
    index = np.linalg.inv(first.affine) @ second.affine
    corners = np.array([[z, y, x, 1.0] for z in (0, 1) for y in (0, 1) for x in (0, 1)])
    corners[:, :3] *= np.array(first.shape) - 1
    return bool(np.abs(corners @ index.T - corners).max() < 0.01)


def onto_grid(volume: Volume, grid: Volume, *, order: int = 0) -> Volume:
    """A volume's values at the voxel centres of another's grid.

    Exact where the two hold the same voxels with axes permuted or flipped; elsewhere the nearest voxel (`order` 0,
    for labels) or the values between voxels (`order` 1, for images). Outside the volume lies 0.

    Parameters
    ----------
    volume : Volume
        Data (C, Z, Y, X).
    grid : Volume
        Its shape and affine are taken.
    order : {0, 1}

    Returns
    -------
    Volume
        On the grid, of the volume's type.

    Raises
    ------
    InputError
        If no voxel of the one lies within the other.

    Examples
    --------
    >>> values = Volume(np.arange(4.0).reshape(1, 1, 1, 4))
    >>> flipped = Volume(values.data[..., ::-1], affine=values.affine @ np.array(
    ...     [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 3], [0, 0, 0, 1]]))
    >>> onto_grid(flipped, values).data.ravel().tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    from scipy.ndimage import affine_transform

    if same_grid(volume, grid):
        return volume
    index = np.linalg.inv(volume.affine) @ grid.affine
    rounded = np.round(index)
    if np.abs(index - rounded)[:3, :3].max() < 1e-4 and np.abs(index - rounded)[:3, 3].max() < 1e-2:
        index = rounded  # permuted, flipped or shifted by whole voxels: no float may push a voxel over the rim
    if not _overlap(index, volume.shape, grid.shape):
        raise InputError("the two images lie in different places and share no voxel: register one to the other first")
    channels = [
        affine_transform(np.asarray(channel), index[:3, :3], index[:3, 3], grid.shape, order=order, cval=0)
        for channel in volume.data
    ]
    return Volume(np.stack(channels), grid.affine, volume.channel_names, volume.units, volume.name)


def covered(volume: Volume, grid: Volume) -> np.ndarray | None:
    """Which voxels of a grid, (Z, Y, X), lie within a volume, where `onto_grid` takes no 0 for them; None: all do.

    Examples
    --------
    >>> a, b = Volume(np.zeros((1, 1, 1, 4))), Volume(np.zeros((1, 1, 1, 2)))
    >>> covered(b, a).tolist(), covered(a, b) is None
    ([[[True, True, False, False]]], True)
    """
    if same_grid(volume, grid):
        return None
    inside = onto_grid(volume.with_data(np.ones((1, *volume.shape), np.uint8), ()), grid).data[0] > 0
    return None if inside.all() else inside


def _overlap(index: np.ndarray, shape: tuple[int, ...], onto: tuple[int, ...]) -> bool:
    """Whether the boxes overlap, by the box of the transformed corners."""
    corners = np.array([[z, y, x, 1.0] for z in (0, 1) for y in (0, 1) for x in (0, 1)])
    corners[:, :3] *= np.array(onto) - 1
    moved = (corners @ index.T)[:, :3]
    return bool((moved.max(axis=0) > -0.5).all() and (moved.min(axis=0) < np.array(shape) - 0.5).all())
