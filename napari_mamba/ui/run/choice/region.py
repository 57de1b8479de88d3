"""A run on part of an image: the box around shapes or labels, and its answer put back into the whole. No Qt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.ui.results.space.position import millimetres
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_mamba.engine import Result


MOST_READ = 2**28
"""Voxels of a labels layer on disk that are looked through: the window waits meanwhile."""


@dataclass(frozen=True)
class Region:
    """A box of voxels, `start` included and `stop` not, along (z, y, x) of a volume."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @property
    def box(self) -> tuple[slice, ...]:
        """As an index of (Z, Y, X) arrays."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def of(self, volume: Volume) -> Volume:
        """The volume's part in the box, in its place."""
        affine = np.array(volume.affine)
        affine[:3, 3] += affine[:3, :3] @ np.array(self.start, float)
        return replace(volume, data=volume.data[(slice(None), *self.box)], affine=affine)

    def back(self, result: Result, whole: Volume) -> Result:
        """A result on the box, on the grid of the whole volume where it has the box's: labels and maps are 0 outside.

        A restored image stays the part it is, since what lies around it was not restored.
        """
        part = self.of(whole)

        def placed(volume: Volume | None) -> Volume | None:
            if volume is None or volume.shape != part.shape or not np.allclose(volume.affine, part.affine):
                return volume
            data = np.asarray(volume.data)
            full = np.zeros((len(data), *whole.shape), data.dtype)
            full[(slice(None), *self.box)] = data
            return replace(volume, data=full, affine=whole.affine)

        if result.image is not None:
            return result
        extra = {name: placed(volume) or volume for name, volume in result.extra.items()}
        return replace(result, labels=placed(result.labels), extra=extra)


def region_of(layer: Layer, volume: Volume, source: Layer, to_volume_axes: Any) -> Region:
    """The box around what a layer marks, on a volume's grid.

    Parameters
    ----------
    layer : Shapes or Labels layer
        Shapes drawn in one slice count for that slice's depth only where several lie in several slices; shapes of one
        slice count for all slices, since a box needs a depth.
    volume : Volume
    source : layer
        The layer that the volume was made of.
    to_volume_axes : sequence of int
        The axis of the layer that is each axis of the volume.

    Raises
    ------
    InputError
        If the layer marks nothing within the image.
    """
    corners = _marked(layer)
    if corners is None:
        raise InputError(f"the layer '{layer.name}' is empty: draw a box in it, or run on the whole image")
    box = np.array([[lower if bit == 0 else upper for bit, lower, upper in zip(bits, *corners, strict=True)]
                    for bits in np.ndindex(*(2,) * layer.ndim)])  # fmt: skip
    world = np.array([layer.data_to_world(tuple(corner)) for corner in box])
    if world.shape[1] < source.ndim:
        raise InputError(f"the layer '{layer.name}' has fewer axes than '{source.name}': draw it on that image")
    # Worlds count in the units of their layers
    world = world[:, -source.ndim :] * (millimetres(layer.units) / millimetres(source.units))[-source.ndim :]
    inside = np.array([source.world_to_data(tuple(point)) for point in world])
    low, high = inside.min(axis=0), inside.max(axis=0)
    flat = high - low < 0.5  # drawn in one slice: through all of them
    low, high = np.where(flat, -np.inf, low), np.where(flat, np.inf, high)
    lead = 3 - source.ndim
    low, high = np.r_[[-np.inf] * lead, low], np.r_[[np.inf] * lead, high]
    low, high = low[list(to_volume_axes)], high[list(to_volume_axes)]
    shape = np.array(volume.shape)
    start = np.clip(np.floor(low + 0.5), 0, shape).astype(int)
    stop = np.clip(np.ceil(high + 0.5), 0, shape).astype(int)
    if (stop <= start).any():
        raise InputError(f"the layer '{layer.name}' lies outside of '{source.name}': draw the box on the image")
    return Region(tuple(start.tolist()), tuple(stop.tolist()))


def regions(viewer: ViewerModel) -> list[Layer]:
    """The layers whose box can be a region, the uppermost first."""
    from napari.layers import Labels, Shapes

    return [layer for layer in reversed(viewer.layers) if isinstance(layer, Shapes | Labels)]


def draw_region(viewer: ViewerModel, image: Layer) -> Layer:
    """A layer in the image's place, with its units, in which the next drag of the pointer draws a box."""
    transforms = {
        name: getattr(image, name) for name in ("scale", "translate", "rotate", "shear", "units", "axis_labels")
    }
    layer = viewer.add_shapes(  # type: ignore[attr-defined]
        ndim=image.ndim, name="region", affine=image.affine.affine_matrix, face_color="transparent",
        edge_color="#ffd33d", edge_width=max(0.004 * max(image.data.shape[-2:]), 0.5), **transforms,
    )  # fmt: skip
    layer.mode = "add_rectangle"
    return layer


def same_units(viewer: ViewerModel, layer: Layer, image: Layer) -> None:
    """Give a layer without units of length those of the image, where the viewer has none because of that.

    Until then napari takes coordinates as they are, so that nothing moves; afterwards it can draw a scale bar again.
    """
    if viewer.layers.extent.units is None and all(str(unit) == "pixel" for unit in layer.units):
        layer.units = image.units[-layer.ndim :]


def _marked(layer: Layer) -> tuple[np.ndarray, np.ndarray] | None:
    """Lowest and highest index, (n,) each, that a layer marks; None if there is none."""
    from napari.layers import Shapes

    if isinstance(layer, Shapes):
        if not layer.data:
            return None
        points = np.concatenate([np.asarray(shape) for shape in layer.data])
        return points.min(axis=0), points.max(axis=0)
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    if not isinstance(data, np.ndarray) and np.prod(data.shape) > MOST_READ:
        raise InputError(
            f"the layer '{layer.name}' does not lie in memory and is too large to be looked through: draw a box instead"
        )
    data = np.asarray(data)
    found = [np.flatnonzero(np.any(data, axis=tuple(a for a in range(data.ndim) if a != axis)))
             for axis in range(data.ndim)]  # fmt: skip
    if any(len(one) == 0 for one in found):
        return None
    return np.array([one[0] for one in found], float), np.array([one[-1] for one in found], float)
