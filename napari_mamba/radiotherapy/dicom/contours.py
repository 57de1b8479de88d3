"""Masks as contours in parallel planes, and back: what an RTSTRUCT holds.

Contours of one plane (DICOM PS3.3, C.8.8.6.3) are put together by `filling.combined`: a contour within another is a
hole in it, one within that an island, and an outline that reaches its hole through a keyhole is filled right as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_mamba.radiotherapy.dicom.filling import combined, filled
from napari_mamba.radiotherapy.dicom.planes import FARTHEST, normal_of, planes_of

ON_SLICE = 0.05
"""Of the distance of slices: contours so near to a slice lie on it."""

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


def rasterised(
    contours: Sequence[np.ndarray],
    affine: np.ndarray,
    shape: tuple[int, int, int],
    *,
    thickness: float | None = None,
    exclusive: bool = False,
) -> np.ndarray:
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
    thickness : float, optional
        mm of a plane that has no neighbour: the distance of the slices that it was drawn on. Else the grid's.
    exclusive : bool
        Contours of a plane are combined by exclusive or, as DICOM's CLOSEDPLANAR_XOR says, and not by `combined`.

    Raises
    ------
    InputError
        If the planes are not parallel.
    """
    contours = [contour for contour in contours if len(contour) >= 3]
    mask = np.zeros(shape, bool)
    if not contours:
        return mask
    fill = filled if exclusive else combined
    back = np.linalg.inv(affine)
    indices = [contour @ back[:3, :3].T + back[:3, 3] for contour in contours]
    planes = _on_slices(indices, float(np.linalg.norm(affine[:3, 0])))
    if planes is None:
        return _between(contours, affine, shape, thickness, fill)
    for z in set(planes):
        if 0 <= z < shape[0]:
            mask[z] = fill([c[:, 1:] for c, place in zip(indices, planes, strict=True) if place == z], shape[1:])
    return mask


def _on_slices(indices: Sequence[np.ndarray], distance: float) -> list[int] | None:
    """The slice of each contour; None where one lies between slices, or slices are mostly left out.

    `distance` is that of slices, mm.
    """
    places = [float(contour[:, 0].mean()) for contour in indices]
    off = max(float(np.abs(contour[:, 0] - round(place)).max()) for contour, place in zip(indices, places, strict=True))
    if off > ON_SLICE:
        return None
    steps = np.diff(sorted({round(place) for place in places}))
    if len(steps) and 1 < np.median(steps) <= FARTHEST / distance:
        return None
    return [round(place) for place in places]


Fill = Callable[[Sequence[np.ndarray], tuple[int, int]], np.ndarray]
"""A rule by which the polygons of a plane are filled."""


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


def _between(
    contours: Sequence[np.ndarray], affine: np.ndarray, shape: tuple[int, int, int], thickness: float | None, fill: Fill
) -> np.ndarray:
    stack = _stack(contours, affine, thickness, fill)
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


def _stack(contours: Sequence[np.ndarray], affine: np.ndarray, thickness: float | None, fill: Fill) -> _Stack:
    side = float(np.linalg.norm(affine[:3, :3], axis=0).min()) / 2
    normal = normal_of(contours)
    across = np.cross(normal, np.eye(3)[int(np.abs(normal).argmin())])
    across /= np.linalg.norm(across)
    axes = np.stack([normal, np.cross(normal, across), across])
    local = [contour @ axes.T for contour in contours]
    every = np.concatenate(local)
    places, on = planes_of(np.array([contour[:, 0].mean() for contour in local]))
    gaps = np.diff(places)
    step = float(np.median(gaps)) if len(gaps) else np.inf
    if step > FARTHEST:
        step = thickness or float(np.abs(normal @ affine[:3, :3]).max())  # the grid's distance along the normal
    start = every[:, 1:].min(0) - 4 * side
    size = np.ceil((every[:, 1:].max(0) - start) / side).astype(int) + 5
    distances = []
    for number in range(len(places)):
        here = [(c[:, 1:] - start) / side for c, plane in zip(local, on, strict=True) if plane == number]
        inside = fill(here, (int(size[0]), int(size[1])))
        out = ndimage.distance_transform_edt(~inside) if inside.any() else np.full(inside.shape, 1e3)
        distances.append(side * (ndimage.distance_transform_edt(inside) - out))
    return _Stack(np.stack(distances), places, step, axes, start, side)


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
