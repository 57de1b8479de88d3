"""Layers to volumes and back, with every voxel kept in its place.

napari's world, as this plugin fills it, is physical space in millimetres with the axes (z, y, x) pointing to the
patient's inferior, posterior and left side: RAS+ with its axes reversed and negated. napari draws y downwards, x to
the right and z towards the viewer, so axial, coronal and sagittal slices stand upright in the radiological
convention, nothing is mirrored in 3D, and layers on different grids lie over each other.

napari's 2D slicing ignores rotations that lead out of the slice, but not permutations of axes, which it cannot show.
Layers therefore hold their data with the axes permuted to those nearest to the world's; no voxel is interpolated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.transforms import Affine

from napari_mamba.errors import InputError
from napari_mamba.io.lazy.view import DiskView
from napari_mamba.ui.channels import ChannelStack
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari.layers import Layer

KEY = "napari_mamba"  # in Layer.metadata
COLOURS = ("red", "green", "blue")
WORLD_FROM_RAS = np.array([[0.0, 0, -1, 0], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]])
RAS_FROM_WORLD = np.linalg.inv(WORLD_FROM_RAS)
_COPIED = ("affine", "scale", "translate", "rotate", "shear", "units", "axis_labels")


@dataclass(frozen=True)
class Placement:
    """Where a layer lies, and how to put results made from it into the same place.

    Parameters
    ----------
    affine : ndarray, shape (4, 4)
        Of the volume (not of the layer, whose axes may be permuted), to RAS+ millimetres.
    units : str
        The volume's: "mm" or "pixel".
    order : tuple of int
        Axis of the volume that lies on each axis of the layer.
    ndim : int
        Of the layer: a 2D layer is a volume of one slice.
    transforms : dict
        Keyword arguments that give a new layer the place, units and axis labels of the source layer.
    name : str
        The source layer's name.
    geometry : dict
        The reader's record of the file's grid, for the metadata of new layers; empty for other layers.
    """

    affine: np.ndarray
    units: str
    order: tuple[int, int, int]
    ndim: int
    transforms: Mapping[str, Any]
    name: str
    geometry: Mapping[str, Any]

    def to_volume_axes(self, data: Any) -> Any:
        """A layer's data, (Z, Y, X) or (Y, X), with the volume's axes."""
        data = data[None] if self.ndim == 2 else data
        return data.transpose([self.order.index(axis) for axis in range(3)])

    def to_layer_axes(self, data: Any) -> Any:
        """(Z, Y, X) data on the volume's grid with the layer's axes; a view."""
        data = data.transpose(self.order)
        return data[0] if self.ndim == 2 else data

    def of_grid(self, affine: np.ndarray) -> Placement:
        """The placement of a result on the grid of `affine`: this one, or that of a finer grid along the same axes."""
        if np.allclose(affine, self.affine, rtol=0, atol=1e-9):
            return self
        index = np.linalg.inv(self.affine) @ affine
        arrangement = np.eye(4)[:, [*self.order, 3]]
        index = arrangement.T @ index @ arrangement  # from the finer layer's index to this one's
        factors, shift = np.diag(index)[3 - self.ndim : 3], index[3 - self.ndim : 3, 3]
        kept = {key: self.transforms[key] for key in ("scale", "translate", "rotate", "shear")}
        moved = Affine(**kept, ndim=self.ndim)(shift)
        transforms = {**self.transforms, "scale": np.asarray(self.transforms["scale"]) * factors, "translate": moved}
        geometry = dict(self.geometry)
        if geometry:
            geometry |= {"affine": affine, "layer_affine": geometry["layer_affine"] @ index}
        return replace(self, affine=affine, transforms=transforms, geometry=geometry)


def nearest_axes(affine: np.ndarray) -> tuple[int, int, int]:
    """Which axis of a grid runs most along each of the world's axes (z, y, x).

    Examples
    --------
    >>> nearest_axes(np.diag([3.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]])  # (z, y, x) index to (R, A, S)
    (0, 1, 2)
    """
    linear = (WORLD_FROM_RAS @ affine)[:3, :3]
    cosines = np.abs(linear / np.linalg.norm(linear, axis=0))
    z, y, x = max(permutations(range(3)), key=lambda p: sum(cosines[i, p[i]] for i in range(3)))
    return z, y, x


def volume_to_layers(volume: Volume, path: str = "") -> list[tuple[Any, dict[str, Any], str]]:
    """Layer data tuples for a volume, one image layer a channel.

    Parameters
    ----------
    volume : Volume
    path : str
        The file it came from, kept in the layers' metadata.

    Returns
    -------
    list of (data, keyword arguments, "image")
        Data (Z, Y, X) with axes permuted to the world's nearest ones, lazy where the volume's data are.
    """
    order = nearest_axes(volume.affine)
    arrangement = np.eye(4)[:, [*order, 3]]
    matrix = WORLD_FROM_RAS @ volume.affine @ arrangement
    scale = np.linalg.norm(matrix[:3, :3], axis=0)
    rigid = matrix @ np.diag([*1 / scale, 1.0])
    data = _turnable(volume.data)
    layers = []
    for channel in range(volume.channels):
        keywords = {
            "name": _channel_name(volume, channel),
            "scale": scale,
            "affine": rigid,
            "units": (volume.units,) * 3,
            "axis_labels": ("z", "y", "x"),
            "metadata": {
                KEY: {
                    "path": path,
                    "channel": channel,
                    "affine": np.array(volume.affine),
                    "layer_affine": matrix,
                    "order": order,
                    "units": volume.units,
                    "header": volume.header,
                }
            },
        }
        layers.append((data[channel].transpose(order), keywords, "image"))
    return layers


def placement(layer: Layer, colours: bool = False) -> Placement:
    """Where a layer's voxels lie; with `colours` also those of a colour (RGB) layer.

    A layer that a reader of this plugin made, and that was not moved since, gives its file's affine, bit for bit.
    Any other gives the affine of its own transforms and units, in the world described above.

    Raises
    ------
    InputError
        For layers that are no single 2D or 3D image: RGB, time series, or grids squeezed flat.
    """
    if getattr(layer, "rgb", False) and not colours:
        raise InputError(
            f"the layer '{layer.name}' is a colour (RGB) image: split it into channels first "
            "(right-click the layer, Split RGB)"
        )
    if layer.ndim not in (2, 3):
        raise InputError(
            f"the layer '{layer.name}' has {layer.ndim} axes and a model takes one 2D or 3D image: "
            "split it first (right-click the layer, Split Stack)"
        )
    factors, units = _millimetres(layer)
    matrix = _world_matrix(layer)
    known = layer.metadata.get(KEY, {})
    transforms = {name: getattr(layer, name) for name in _COPIED}
    unmoved = "order" in known and layer.ndim == 3 and np.allclose(matrix, known["layer_affine"], rtol=0, atol=1e-9)
    if unmoved:
        geometry = {key: known[key] for key in ("affine", "layer_affine", "order", "units")}
        geometry["header"] = known.get("header")
        return Placement(known["affine"], known["units"], tuple(known["order"]), 3, transforms, layer.name, geometry)
    affine = RAS_FROM_WORLD @ np.diag([*factors, 1.0]) @ matrix
    return Placement(affine, units, (0, 1, 2), layer.ndim, transforms, layer.name, {})


def frame_of(layer: Layer, index: int) -> Layer:
    """One image of a series, along the first axis of a 4D layer, as a layer of its own and in its place."""
    from napari.layers import Image

    data = _finest(layer)
    index = min(max(index, 0), data.shape[0] - 1)
    # World coordinates of the other axes may not depend on the first one: that is so for stacks, and checked.
    matrix = np.asarray(layer.affine.affine_matrix)
    if np.abs(matrix[1:-1, 0]).max() > 1e-9 or np.abs(matrix[0, 1:-1]).max() > 1e-9:
        raise InputError(f"the layer '{layer.name}' mixes time and space in its affine: split it (Split Stack)")
    origin = np.array(layer.data_to_world((index, 0, 0, 0)))[1:]
    columns = [np.array(layer.data_to_world((index, *row)))[1:] - origin for row in np.eye(3)]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.stack(columns, axis=1), origin
    return Image(
        data[index],
        name=f"{layer.name} [{index}]",
        affine=affine,
        units=layer.units[1:],
        axis_labels=layer.axis_labels[1:],
        contrast_limits=layer.contrast_limits,
    )


def at_level(layer: Layer, level: int) -> Layer:
    """A coarser resolution of a multi-scale layer as a layer of its own and in its place; 0 is the layer itself.

    Raises
    ------
    InputError
        If it has fewer resolutions.
    """
    from napari.layers import Image

    count = len(layer.data) if getattr(layer, "multiscale", False) else 1
    if level == 0:
        return layer
    if not 0 < level < count:
        levels = f"{count} levels, 0 to {count - 1}" if count > 1 else "one level, 0"
        raise InputError(f"the layer '{layer.name}' has {levels}: choose another level")
    if getattr(layer, "rgb", False) or layer.ndim != 3:
        raise InputError(f"the layer '{layer.name}' is no grey volume, of which a coarser level can be taken: choose 0")
    fine, data = layer.data[0], layer.data[level]
    factors = np.array(fine.shape) / np.array(data.shape)
    origin = np.array(layer.data_to_world((factors - 1) / 2))  # the middle of the voxels that became the first one
    columns = [np.array(layer.data_to_world((factors - 1) / 2 + row)) - origin for row in np.diag(factors)]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.stack(columns, axis=1), origin
    facts = {"units": layer.units, "axis_labels": layer.axis_labels, "contrast_limits": (0.0, 1.0)}
    return Image(data, name=layer.name, affine=affine, multiscale=False, **facts)


def layers_to_volume(
    layers: Sequence[Layer], frame: int | None = None, colours: bool = False
) -> tuple[Volume, Placement]:
    """One volume from layers that are its channels.

    Parameters
    ----------
    layers : sequence of napari layers
        In the order of the model's channels, all on one grid. Of a multi-scale layer the finest level is taken;
        Dask arrays stay lazy.
    frame : int, optional
        Which image is taken of layers that are series of volumes; without it they are refused.
    colours : bool
        Take one colour (RGB) layer as three channels, red, green and blue; without it colours are refused.

    Returns
    -------
    Volume
        Data (C, Z, Y, X).
    Placement
        Of the first layer.

    Raises
    ------
    InputError
        If a layer is not usable or the layers' grids differ.
    """
    if frame is not None:
        layers = [frame_of(layer, frame) if layer.ndim == 4 else layer for layer in layers]
    if colours and len(layers) == 1 and getattr(layers[0], "rgb", False):
        return _colour_volume(layers[0])
    first = placement(layers[0])
    singles = []
    for layer in layers:
        place = first if layer is layers[0] else placement(layer)
        data = place.to_volume_axes(_turnable(_finest(layer)))
        header = place.geometry.get("header")
        singles.append(Volume(data[None], place.affine, (layer.name,), place.units, layer.name, header))
    return stack_channels(singles), first


def _colour_volume(layer: Layer) -> tuple[Volume, Placement]:
    """The red, green and blue of a colour layer from 0 to 255; how clear it is (alpha) is left out."""
    place = placement(layer, colours=True)
    data = np.moveaxis(np.asarray(_finest(layer))[..., :3], -1, 0)
    if data.dtype.kind == "f":  # napari draws floats from 0 to 1
        data = data * np.float32(255)
    channels = [np.ascontiguousarray(place.to_volume_axes(channel)) for channel in data]
    header = place.geometry.get("header")
    return Volume(np.stack(channels), place.affine, COLOURS, place.units, layer.name, header), place


def stack_channels(singles: Sequence[Volume]) -> Volume:
    """One volume of several that are its channels; lazy, so that nothing is copied before it is needed.

    Raises
    ------
    InputError
        If their grids differ.
    """
    first = singles[0]
    if len(singles) == 1:
        return first
    for other in singles[1:]:
        if other.shape != first.shape or not np.allclose(other.affine, first.affine, rtol=0, atol=1e-3):
            raise InputError(
                f"the layers '{first.name}' and '{other.name}' lie on different grids: resample one onto the other"
            )
    names = tuple(single.name for single in singles)
    return replace(first, data=ChannelStack([single.data[0] for single in singles]), channel_names=names)


def _finest(layer: Layer) -> Any:
    return layer.data[0] if getattr(layer, "multiscale", False) else layer.data


def _world_matrix(layer: Layer) -> np.ndarray:
    """4x4, from (z, y, x) index to the layer's world; a 2D layer is one slice of unit thickness at z = 0."""
    n = layer.ndim
    origin = np.asarray(layer.data_to_world((0.0,) * n))
    columns = [np.asarray(layer.data_to_world(tuple(row))) - origin for row in np.eye(n)]
    matrix = np.eye(4)
    matrix[3 - n : 3, 3 - n : 3] = np.stack(columns, axis=1)
    matrix[3 - n : 3, 3] = origin
    return matrix


def _millimetres(layer: Layer) -> tuple[np.ndarray, str]:
    """Factors from the layer's units to millimetres along (z, y, x), and the volume's units."""
    units = layer.units
    if all(unit.dimensionality == {"[length]": 1} for unit in units):
        factors = [float((1 * unit).to("millimeter").magnitude) for unit in units]
        return np.array([1.0] * (3 - layer.ndim) + factors), "mm"
    return np.ones(3), "pixel"


def _channel_name(volume: Volume, channel: int) -> str:
    name = volume.name or "volume"
    if volume.channels == 1:
        return name
    return f"{name} {volume.channel_names[channel] if volume.channel_names else channel + 1}"


def _turnable(data: Any) -> Any:
    """The array itself, or a view of one whose axes cannot be turned (Zarr), which reads no more than what is shown."""
    return data if hasattr(data, "transpose") else DiskView(data)
