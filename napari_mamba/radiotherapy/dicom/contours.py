"""Masks as contours in parallel planes, and back: what an RTSTRUCT holds.

A structure's contours on one plane are combined by exclusive or (DICOM PS3.3, C.8.8.6.3): a contour within another is a
hole in it, one within that an island, and an outline that reaches its hole through a keyhole is filled right as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_mamba.errors import InputError

ON_SLICE = 0.05
"""Of the distance of slices: contours so near to a slice lie on it."""

PARALLEL = 1e-2
"""Largest difference of two planes' unit normals."""

GAP = 1.5
"""Planes that are so many usual distances apart belong to two pieces of a structure."""


def outlines(mask: np.ndarray, affine: np.ndarray) -> list[np.ndarray]:
    """The contours of a mask, slice by slice.

    Parameters
    ----------
    mask : (Z, Y, X) bool array
    affine : (4, 4) array
        From voxel index (z, y, x, 1) to millimetres.

    Returns
    -------
    list of (N, 3) array
        Corners in millimetres, half-way between voxels inside and outside; not closed: the first is not repeated.
    """
    from skimage.measure import find_contours

    found = []
    for z in np.flatnonzero(mask.any((1, 2))):
        for line in find_contours(np.pad(mask[z], 1).astype(np.float32), 0.5):
            corners = np.column_stack([np.full(len(line) - 1, z, float), line[:-1] - 1, np.ones(len(line) - 1)])
            found.append((corners @ affine.T)[:, :3])
    return found


def filled(polygons: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Which pixels' centres lie inside an odd number of polygons.

    Parameters
    ----------
    polygons : sequence of (N, 2) array
        Corners (y, x) in pixels.
    shape : (int, int)

    Returns
    -------
    (Y, X) bool array

    Examples
    --------
    >>> square = np.array([[0.5, 0.5], [0.5, 3.5], [3.5, 3.5], [3.5, 0.5]])
    >>> int(filled([square], (5, 5)).sum())
    9
    """
    height, width = shape
    if not len(polygons):
        return np.zeros(shape, bool)
    start = np.concatenate(polygons)
    end = np.concatenate([np.roll(polygon, -1, axis=0) for polygon in polygons])
    low, high = (
        np.clip(np.ceil(side(start[:, 0], end[:, 0])), 0, height).astype(int) for side in (np.minimum, np.maximum)
    )
    counts = high - low  # rows that an edge crosses: low <= row < high
    edge = np.repeat(np.arange(len(start)), counts)
    rows = np.arange(len(edge)) + np.repeat(low - np.cumsum(counts) + counts, counts)
    (y0, x0), (y1, x1) = start[edge].T, end[edge].T
    crossing = x0 + (rows - y0) * (x1 - x0) / (y1 - y0)
    columns = np.clip(np.ceil(crossing), 0, width).astype(int)
    changes = np.bincount(rows * (width + 1) + columns, minlength=height * (width + 1)).reshape(height, width + 1)
    return np.cumsum(changes, axis=1)[:, :width] % 2 == 1


def rasterised(contours: Sequence[np.ndarray], affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The voxels inside a structure's contours.

    Contours on the grid's own slices are filled there. Others, oblique to it or further apart, are filled in their
    own planes and interpolated between those as signed distances (Raya and Udupa, IEEE Trans. Med. Imaging 9:32, 1990);
    the first and last plane reach half a distance beyond.

    Parameters
    ----------
    contours : sequence of (N, 3) array
        Corners in millimetres, each contour in a plane, all planes parallel.
    affine : (4, 4) array
        From voxel index (z, y, x, 1) to the same millimetres.
    shape : (int, int, int)

    Raises
    ------
    InputError
        If the planes are not parallel.
    """
    contours = [contour for contour in contours if len(contour) >= 3]
    mask = np.zeros(shape, bool)
    if not contours:
        return mask
    back = np.linalg.inv(affine)
    indices = [contour @ back[:3, :3].T + back[:3, 3] for contour in contours]
    planes = _on_slices(indices)
    if planes is None:
        return _between(contours, affine, shape)
    for z in set(planes):
        if 0 <= z < shape[0]:
            mask[z] = filled([c[:, 1:] for c, place in zip(indices, planes, strict=True) if place == z], shape[1:])
    return mask


def _on_slices(indices: Sequence[np.ndarray]) -> list[int] | None:
    """The slice of each contour; None where one lies between slices, or slices are left out in equal steps."""
    places = [float(contour[:, 0].mean()) for contour in indices]
    off = max(float(np.abs(contour[:, 0] - round(place)).max()) for contour, place in zip(indices, places, strict=True))
    if off > ON_SLICE:
        return None
    steps = np.diff(sorted({round(place) for place in places}))
    if len(steps) and steps.min() > 1:
        return None
    return [round(place) for place in places]


@dataclass(frozen=True, eq=False)
class _Stack:
    """Filled planes: signed distances (P, V, U) in mm, positive inside; where each lies along the normal, mm."""

    distances: np.ndarray
    places: np.ndarray
    step: float
    axes: np.ndarray
    start: np.ndarray
    side: float

    def between(self, w: np.ndarray) -> np.ndarray:
        """Which plane lies at w (mm along the normal), in fractions; in a gap the nearer one."""
        plane = np.interp(w, self.places, np.arange(len(self.places)))
        if len(self.places) < 2:
            return plane
        below = np.minimum(plane.astype(int), len(self.places) - 2)
        wide = np.diff(self.places)[below] > GAP * self.step
        return np.where(wide, np.rint(plane), plane)


def _between(contours: Sequence[np.ndarray], affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    stack = _stack(contours, float(np.linalg.norm(affine[:3, :3], axis=0).min()) / 2)
    mask = np.zeros(shape, bool)
    box = _box(np.concatenate(contours), affine, shape, stack.step)
    if any(part.start >= part.stop for part in box):
        return mask
    index = np.stack(np.meshgrid(*[np.arange(part.start, part.stop) for part in box], indexing="ij"), -1)
    local = (index @ affine[:3, :3].T + affine[:3, 3]) @ stack.axes.T  # (w, v, u) of each voxel, mm
    w = local[..., 0]
    plane = stack.between(w)
    v, u = ((local[..., axis] - stack.start[axis - 1]) / stack.side for axis in (1, 2))
    inside = ndimage.map_coordinates(stack.distances, [plane, v, u], order=1, mode="nearest") > 0
    nearest = np.abs(w[..., None] - stack.places).min(-1)
    mask[box] = inside & (nearest <= stack.step / 2 + 1e-6)
    return mask


def _stack(contours: Sequence[np.ndarray], side: float) -> _Stack:
    normal = normal_of(contours)
    across = np.cross(normal, np.eye(3)[int(np.abs(normal).argmin())])
    across /= np.linalg.norm(across)
    axes = np.stack([normal, np.cross(normal, across), across])
    local = [contour @ axes.T for contour in contours]
    every = np.concatenate(local)
    rough = np.array([contour[:, 0].mean() for contour in local])
    places = _distinct(rough)
    gaps = np.diff(places)
    step = float(np.median(gaps)) if len(gaps) else 2 * side  # a single plane is as thick as a voxel
    start = every[:, 1:].min(0) - 4 * side
    size = np.ceil((every[:, 1:].max(0) - start) / side).astype(int) + 5
    distances = []
    for place in places:
        here = [(c[:, 1:] - start) / side for c, at in zip(local, rough, strict=True) if abs(at - place) < 1e-2]
        inside = filled(here, (int(size[0]), int(size[1])))
        out = ndimage.distance_transform_edt(~inside) if inside.any() else np.full(inside.shape, 1e3)
        distances.append(side * (ndimage.distance_transform_edt(inside) - out))
    return _Stack(np.stack(distances), places, step, axes, start, side)


def _distinct(places: np.ndarray, tolerance: float = 1e-2) -> np.ndarray:
    """Places in order, those within `tolerance` mm of one another once."""
    order = np.sort(places)
    return order[np.concatenate([[True], np.diff(order) > tolerance])]


def normal_of(contours: Sequence[np.ndarray]) -> np.ndarray:
    """The unit normal that all contours share; the direction of the widest one's."""
    normals = [_plane_normal(contour) for contour in contours]
    widest = max(range(len(contours)), key=lambda n: float(np.ptp(contours[n], axis=0).max()))
    for contour, normal in zip(contours, normals, strict=True):
        if len(contour) > 8 and 1 - abs(float(normal @ normals[widest])) > PARALLEL:
            raise InputError("the contours of a structure do not lie in parallel planes: draw it on one orientation")
    return normals[widest]


def _plane_normal(contour: np.ndarray) -> np.ndarray:
    centred = contour - contour.mean(0)
    return np.linalg.svd(centred, full_matrices=False)[2][-1]


def _box(
    points: np.ndarray, affine: np.ndarray, shape: tuple[int, int, int], margin: float
) -> tuple[slice, slice, slice]:
    """The voxels about some points and a margin in mm."""
    back = np.linalg.inv(affine)
    index = points @ back[:3, :3].T + back[:3, 3]
    reach = margin / np.linalg.norm(affine[:3, :3], axis=0) + 1
    low = np.maximum(np.floor(index.min(0) - reach), 0).astype(int)
    high = np.minimum(np.ceil(index.max(0) + reach) + 1, shape).astype(int)
    return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])
