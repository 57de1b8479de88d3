"""The slice on the screen as a figure for a paper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_mamba.errors import InputError
from napari_mamba.figures import SlicePicture
from napari_mamba.ui.results.classes.record import classes_of, screen_color
from napari_mamba.ui.results.space.position import has_orientation, in_words, letters, millimetres, ras_of
from napari_mamba.ui.results.space.slices import Plane, compose, finest, layers_to_draw, plane_through, values_on

if TYPE_CHECKING:
    from napari.components import ViewerModel

SMALLEST_SIDE = 1000
"""Pixels along the longer side, at least: voxels stay sharp squares in print."""


def slice_picture(viewer: ViewerModel) -> SlicePicture:
    """The plane that napari shows, through all visible layers, with its letters and the classes that are in it.

    Raises
    ------
    InputError
        In 3D, or where no image or labels layer of three axes is seen.
    """
    layers = layers_to_draw(viewer)
    if not layers:
        raise InputError("there is nothing to draw: show an image or labels layer of three axes")
    if viewer.dims.ndisplay != 2:
        raise InputError("the window shows 3D and a figure is a slice: switch to 2D first")
    axis = viewer.dims.not_displayed[-1] - (viewer.dims.ndim - 3)
    point = viewer.dims.point[-3:]
    voxel = finest(layers)
    coarse = plane_through(layers, axis, point, voxel)
    pixels = -(-SMALLEST_SIDE // max(len(coarse.rows), len(coarse.columns)))  # a whole number for each voxel
    plane = plane_through(layers, axis, point, voxel / pixels)
    length = millimetres(layers[0].units)
    rows, columns = (a for a in range(3) if a != axis)
    caption = in_words(ras_of(layers[0], [point])[0]) if has_orientation(viewer) else ""
    return SlicePicture(
        rgb=compose(layers, plane, thickness=max(pixels // 2, 1)),
        pixel_mm=(plane.pixel * float(length[rows]), plane.pixel * float(length[columns])),
        letters=letters(viewer),
        legend=tuple(dict.fromkeys(entry for layer in layers for entry in _legend(layer, plane))),
        units="mm" if any(str(unit) not in ("pixel", "1 pixel") for unit in layers[0].units) else "pixel",
        caption=_position(caption, axis),
    )


def _legend(layer: Any, plane: Plane) -> list[tuple[str, str]]:
    """Names and colours of the classes of a labels layer that a plane meets and the screen shows."""
    if type(layer).__name__ != "Labels":
        return []
    found = [value for value in values_on(layer, plane) if value]
    colors = {entry.index: (entry.name, screen_color(layer, entry.index)) for entry in classes_of(layer, found)}
    return [colors[value] for value in found if colors[value][1]]


def _position(caption: str, axis: int) -> str:
    """Of "R 1.0  A 2.0  S 3.0 mm" the part that says which slice it is."""
    if not caption:
        return ""
    parts = caption.removesuffix(" mm").split("  ")
    return f"{('axial', 'coronal', 'sagittal')[axis]}, {parts[2 - axis]} mm"
