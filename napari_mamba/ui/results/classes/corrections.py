"""Corrections of a class of a labels layer: each one step that napari can undo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from psygnal import SignalGroupDescriptor

from napari_mamba import editing
from napari_mamba.errors import InputError
from napari_mamba.ui.layers import KEY, placement
from napari_mamba.ui.results.classes.edits import named_edit

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

    from napari_mamba.ui.results.classes.link import ClassLink

Tool = Literal["keep_largest", "remove_islands", "fill_holes", "smooth", "grow", "shrink", "interpolate"]
TOOLS: dict[Tool, tuple[str, str, str]] = {
    "keep_largest": ("Keep largest piece", "Erase all pieces of the class but the largest", "kept the largest piece"),
    "remove_islands": ("Remove islands", "Erase the class's pieces smaller than this", "removed islands"),
    "fill_holes": ("Fill holes", "Give the class what it encloses", "filled holes"),
    "smooth": ("Smooth", "Smooth the class's surface; the volume stays about the same", "smoothed"),
    "grow": ("Grow", "Add a margin, equally wide in all directions", "grew"),
    "shrink": ("Shrink", "Take a margin away, equally wide in all directions", "shrank"),
    "interpolate": (
        "Fill slices between",
        "Fill the empty slices between drawn ones, across the axis that is shown slice by slice",
        "filled slices in between",
    ),
}
"""Of each tool: its name on the button, what it does, and what the record says afterwards."""


@dataclass
class Corrections:
    """The settings of the tools.

    Parameters
    ----------
    island_ml : float
        Pieces smaller than this are islands; in thousands of voxels where there is no spacing.
    smooth_mm, margin_mm : float
        In millimetres, or pixels where there is no spacing.
    in_slices : bool
        Holes are filled slice by slice.
    over_others : bool
        Whether the class may take voxels of other classes that are not locked.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    island_ml: float = 0.1
    smooth_mm: float = 1.0
    margin_mm: float = 1.0
    in_slices: bool = False
    over_others: bool = False


def correct(link: ClassLink, tool: Tool, settings: Corrections) -> int:
    """Apply a tool to the selected class, as one step that can be undone.

    Returns
    -------
    int
        How many voxels changed.

    Raises
    ------
    InputError
        If no class is selected, or it is locked, absent or of no use to the tool; if the layer cannot be edited.
    """
    layer, model, index = link.layer, link.model, link.model.selected
    entry = next((c for c in model.classes if c.index == index), None)
    if index is None or entry is None:
        raise InputError("no class is selected: choose one in the list first")
    if index in model.locked:
        raise InputError(f"{entry.name} is locked: click its lock first")
    data = editable(layer)
    if not (data == index).any():
        raise InputError(f"{entry.name} has no voxel in this layer: choose another class, or paint some")
    spacing = placement_spacing(layer)
    operation, margin = _operation(tool, settings, spacing, model.voxel_size, _slice_axis(link.viewer, layer))
    change = editing.edit_class(
        data, index, operation, margin=margin, locked=model.locked, over_others=settings.over_others
    )
    if change.voxels:
        with named_edit(layer, TOOLS[tool][2], index):
            # a list: napari casts other values to one number of the layer's type
            layer.data_setitem(change.indices, change.values.tolist())
    return change.voxels


def editable(layer: Labels) -> np.ndarray:
    """The layer's data, where they can be changed in place.

    Raises
    ------
    InputError
        If they are lazy or of several resolutions.
    """
    if layer.multiscale or not isinstance(layer.data, np.ndarray):
        raise InputError(
            f"the layer '{layer.name}' is read from its file as it is shown, and cannot be changed: "
            "duplicate it first (right-click the layer, Convert to Labels)"
        )
    if not layer.data.flags.writeable:
        raise InputError(f"the layer '{layer.name}' is read-only: duplicate it first (right-click the layer)")
    return layer.data


def placement_spacing(layer: Labels) -> tuple[float, ...]:
    """Voxel size along the layer's own axes, in millimetres or pixels."""
    place = placement(layer)
    volume_spacing = np.linalg.norm(place.affine[:3, :3], axis=0)
    return tuple(float(volume_spacing[axis]) for axis in place.order)[3 - layer.ndim :]


def _slice_axis(viewer: ViewerModel, layer: Labels) -> int:
    """The layer's axis across the slices that are shown; the first in 3D."""
    offset = viewer.dims.ndim - layer.ndim
    hidden = [axis - offset for axis in viewer.dims.not_displayed if axis >= offset]
    return hidden[-1] if hidden else 0


def _operation(
    tool: Tool, settings: Corrections, spacing: tuple[float, ...], voxel_size: float, axis: int
) -> tuple[Callable[[np.ndarray], np.ndarray], int | tuple[int, ...]]:
    """What to do with the class's mask, and how far beyond the class it may reach, in voxels."""
    from napari_mamba.editing.margin import margin_voxels

    if tool == "keep_largest":
        return editing.keep_largest_island, 0
    if tool == "remove_islands":
        least = int(np.ceil(settings.island_ml / voxel_size))
        return lambda mask: editing.remove_islands(mask, least), 0
    if tool == "fill_holes":
        return lambda mask: editing.fill_holes(mask, axis=axis if settings.in_slices else None), 1
    if tool == "smooth":
        reach = margin_voxels(3 * settings.smooth_mm, spacing)
        return lambda mask: editing.smooth(mask, settings.smooth_mm, spacing), reach
    if tool == "grow":
        return lambda mask: editing.grow(mask, settings.margin_mm, spacing), margin_voxels(settings.margin_mm, spacing)
    if tool == "shrink":
        return lambda mask: editing.shrink(mask, settings.margin_mm, spacing), 1
    if len(spacing) < 3:
        raise InputError("the layer is one slice, so there are none between: this takes a volume")
    return lambda mask: editing.interpolate_slices(mask, axis, spacing), 0


def corrected_copy(layer: Labels) -> Labels:
    """A copy to correct, which remembers what it came from; the original stays as the model made it."""
    from copy import deepcopy

    from napari.layers import Labels as LabelsLayer

    data, attributes, _ = layer.as_layer_data_tuple()
    attributes["metadata"] = deepcopy(attributes["metadata"])
    attributes["metadata"].setdefault(KEY, {})["corrected_from"] = layer.name
    attributes["name"] = f"{layer.name} corrected"
    return LabelsLayer(np.array(data[0] if layer.multiscale else data), **attributes)
