"""A slice through all visible layers as a picture, computed here: for the orthogonal views and for figures.

napari's canvas shows one plane at a time, and its screenshot has the screen's pixels. This takes any of the three
planes of the world, at any pixel size, with each layer's own colours, contrast, opacity and outlines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari.components import ViewerModel

PLANES = ("axial", "coronal", "sagittal")
"""Planes by the world's axis that they are perpendicular to."""


@dataclass(frozen=True)
class Plane:
    """A rectangle of the world on a pixel grid.

    Parameters
    ----------
    axis : int
        Of (z, y, x), perpendicular to it.
    at : float
        Where, in world units.
    pixel : float
        Side of a pixel.
    rows, columns : ndarray
        World coordinates of the pixels' centres along the two other axes, in their order.
    """

    axis: int
    at: float
    pixel: float
    rows: np.ndarray
    columns: np.ndarray


def layers_to_draw(viewer: ViewerModel) -> list[Any]:
    """The layers that a slice can show: visible images and labels of three axes."""
    return [
        layer
        for layer in viewer.layers
        if layer.visible
        and type(layer).__name__ in ("Image", "Labels")
        and layer.ndim == 3
        and not getattr(layer, "rgb", False)
    ]


def extent(layers: Sequence[Any]) -> np.ndarray:
    """Lowest and highest (z, y, x) of the layers' voxel centres; shape (2, 3)."""
    boxes = np.array([layer.extent.world for layer in layers])
    return np.stack([boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)])


def finest(layers: Sequence[Any]) -> float:
    """The smallest voxel side of the layers."""
    return float(min(np.linalg.norm(_matrix(layer)[:3, :3], axis=0).min() for layer in layers))


def pixel_that_fits(layers: Sequence[Any], axis: int, pixels: tuple[int, int]) -> float:
    """The side of square pixels of which a plane over all layers fits into a height and width."""
    low, high = extent(layers)
    spans = [float(high[a] - low[a]) for a in range(3) if a != axis]
    return max(span / max(n - 1, 1) for span, n in zip(spans, pixels, strict=True)) or finest(layers)


def plane_through(layers: Sequence[Any], axis: int, point: Sequence[float], pixel: float) -> Plane:
    """A plane over all layers.

    Parameters
    ----------
    layers : sequence of layers
    axis : int
        Perpendicular to it.
    point : sequence of float
        (z, y, x).
    pixel : float
        Side of the square pixels in world units.
    """
    low, high = extent(layers)
    grids = []
    for a in range(3):
        if a != axis:
            count = max(round(float(high[a] - low[a]) / pixel) + 1, 1)
            grids.append((low[a] + high[a]) / 2 + (np.arange(count) - (count - 1) / 2) * pixel)
    return Plane(axis, float(point[axis]), pixel, grids[0], grids[1])


def compose(layers: Sequence[Any], plane: Plane, thickness: int = 1) -> np.ndarray:
    """The layers on a plane, the first at the bottom, on black.

    Parameters
    ----------
    layers : sequence of layers
    plane : Plane
    thickness : int
        Pixels of an outline of napari's width 1.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
    """
    picture = np.zeros((len(plane.rows), len(plane.columns), 3), np.float32)
    for layer in layers:
        rgba = colors_on(layer, plane, thickness)
        alpha = rgba[..., 3:] * np.float32(layer.opacity)
        if layer.blending == "additive":
            picture += rgba[..., :3] * alpha
        elif layer.blending == "opaque":
            inside = rgba[..., 3:] > 0
            picture = np.where(inside, rgba[..., :3], picture)
        else:
            picture += (rgba[..., :3] - picture) * alpha
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def colors_on(layer: Any, plane: Plane, thickness: int = 1) -> np.ndarray:
    """A layer's colours on a plane, clear outside of it; float32, shape (H, W, 4)."""
    values, inside = sample(layer, plane)
    is_labels = type(layer).__name__ == "Labels"
    rgba = _label_colors(layer, values, thickness) if is_labels else _image_colors(layer, values)
    rgba[~inside] = 0
    return rgba


def values_on(layer: Any, plane: Plane) -> list[int]:
    """Which labels a plane meets."""
    values, inside = sample(layer, plane)
    return [int(v) for v in np.unique(values[inside])]


def sample(layer: Any, plane: Plane) -> tuple[np.ndarray, np.ndarray]:
    """A layer's nearest voxels on a plane, and which pixels lie within it; both of shape (H, W)."""
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    inverse = np.linalg.inv(_matrix(layer))
    order = [a for a in range(3) if a != plane.axis]
    if _is_aligned(inverse):
        return _sample_aligned(data, inverse, plane, order)
    world = np.zeros((3, len(plane.rows), len(plane.columns)))
    world[plane.axis] = plane.at
    world[order[0]] = plane.rows[:, None]
    world[order[1]] = plane.columns[None, :]
    index = np.rint(np.tensordot(inverse[:3, :3], world, 1) + inverse[:3, 3, None, None]).astype(np.intp)
    shape = np.array(data.shape)[:, None, None]
    inside = ((index >= 0) & (index < shape)).all(axis=0)
    index = np.clip(index, 0, shape - 1)
    values = data[tuple(index)] if isinstance(data, np.ndarray) else _lazy(data, index)
    return np.asarray(values), inside


def _sample_aligned(data: Any, inverse: np.ndarray, plane: Plane, order: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The same where each axis of the layer runs along one of the world: one row of indices an axis."""
    coordinates = {plane.axis: np.array([plane.at]), order[0]: plane.rows, order[1]: plane.columns}
    indices: list[np.ndarray] = []
    inside = np.ones((1, 1), bool)
    for axis in range(3):
        world_axis = int(np.argmax(np.abs(inverse[axis, :3])))
        index = np.rint(inverse[axis, world_axis] * coordinates[world_axis] + inverse[axis, 3]).astype(np.intp)
        within = (index >= 0) & (index < data.shape[axis])
        if world_axis == order[0]:
            inside = inside & within[:, None]
        elif world_axis == order[1]:
            inside = inside & within[None, :]
        else:
            inside = inside & within[0]
        indices.append(np.clip(index, 0, data.shape[axis] - 1))
    part = data
    for axis, index in enumerate(indices):
        if len(index) == 1:  # the slice first: what is left is small, and the only part of a lazy array that is read
            part = part[(slice(None),) * axis + (slice(int(index[0]), int(index[0]) + 1),)]
    array = np.asarray(part)
    for axis, index in enumerate(indices):
        if len(index) > 1 or array.shape[axis] > 1:
            array = np.take(array, index, axis=axis)
    # axes of the layer in the order of the world's
    array = array.transpose(np.argsort([int(np.argmax(np.abs(inverse[axis, :3]))) for axis in range(3)]))
    values = array.reshape(len(plane.rows), len(plane.columns))
    return values, np.broadcast_to(inside, values.shape)


def _lazy(data: Any, index: np.ndarray) -> np.ndarray:
    """Scattered voxels of a lazy array, by reading the box around them."""
    low, high = index.min(axis=(1, 2)), index.max(axis=(1, 2)) + 1
    box = np.asarray(data[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))])
    return box[tuple(index - low[:, None, None])]


def _is_aligned(inverse: np.ndarray) -> bool:
    linear = np.abs(inverse[:3, :3])
    largest = linear.max(axis=1)
    return bool(((linear > 1e-6 * largest[:, None]).sum(axis=1) == 1).all())


def _image_colors(layer: Any, values: np.ndarray) -> np.ndarray:
    low, high = (float(v) for v in layer.contrast_limits)
    share = np.clip((np.nan_to_num(values.astype(np.float32)) - low) / max(high - low, 1e-12), 0, 1)
    if layer.gamma != 1:
        share = share**layer.gamma
    table = np.asarray(layer.colormap.map(np.linspace(0, 1, 256)), np.float32)
    return table[(share * 255 + 0.5).astype(np.uint8)]


def _outline(values: np.ndarray, width: int) -> np.ndarray:
    """Pixels of a class that lie at most `width` from one of another."""
    edge = np.zeros(values.shape, bool)
    for axis in (0, 1):
        for step in range(1, max(width, 1) + 1):
            here = values[(slice(None),) * axis + (slice(step, None),)]
            there = values[(slice(None),) * axis + (slice(None, -step),)]
            differ = here != there
            edge[(slice(None),) * axis + (slice(step, None),)] |= differ
            edge[(slice(None),) * axis + (slice(None, -step),)] |= differ
    return edge


def _label_colors(layer: Any, values: np.ndarray, thickness: int) -> np.ndarray:
    found, where = np.unique(values, return_inverse=True)
    table = np.atleast_2d(np.asarray(layer.colormap.map(found), np.float32)).copy()
    table[found == 0] = 0
    rgba = table[where.reshape(values.shape)]
    if layer.contour:
        rgba[~_outline(values, layer.contour * thickness)] = 0
    return rgba


def _matrix(layer: Any) -> np.ndarray:
    """From a layer's index to the world, 4x4."""
    origin = np.asarray(layer.data_to_world((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([np.asarray(layer.data_to_world(row)) - origin for row in np.eye(3)], axis=1)
    matrix[:3, 3] = origin
    return matrix
