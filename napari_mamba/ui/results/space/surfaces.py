"""Classes of a labels layer as surfaces in napari's 3D view, and as files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.figures import Surface, class_surface
from napari_mamba.ui.layers import KEY, WORLD_FROM_RAS, layers_to_volume
from napari_mamba.ui.results.classes.record import classes_of
from napari_mamba.ui.results.space.position import millimetres

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels
    from napari.layers import Surface as SurfaceLayer

    from napari_mamba.bundles import LabelClass

COARSE_FROM = 20_000_000
"""Voxels of the labels from which on surfaces are made of every second one."""


def shown_classes(layer: Labels) -> list[LabelClass]:
    """The classes that a labels layer shows: those that the class list has not hidden."""
    data = layer.data[0] if layer.multiscale else layer.data
    present = np.unique(np.asarray(data))
    classes = classes_of(layer, [int(v) for v in present if v > 0])
    colors = np.atleast_2d(layer.colormap.map(np.array([c.index for c in classes] or [0])))
    return [c for c, color in zip(classes, colors, strict=False) if color[3] > 0 and c.index in present]


def make_surfaces(layer: Labels, classes: Iterable[LabelClass], smoothing: int = 15) -> list[Surface]:
    """Surfaces of classes in RAS millimetres; takes a while for large labels.

    Raises
    ------
    InputError
        If there is no class, or the layer is no volume.
    """
    if layer.ndim != 3:
        raise InputError("the layer is one slice and has no surface: this takes a volume")
    volume, _ = layers_to_volume([layer])
    step = 2 if np.prod(volume.shape) >= COARSE_FROM else 1
    found = [
        class_surface(volume, c.index, name=c.name, color=c.color or "#cccccc", smoothing=smoothing, step=step)
        for c in classes
    ]
    if not found:
        raise InputError("no class is shown: show one in the class list first")
    return found


def surface_layer(surface: Surface, like: Labels) -> SurfaceLayer:
    """A surface as a layer in the world of the labels that it was made from."""
    from napari.layers import Surface as SurfaceLayer

    world = surface.vertices @ WORLD_FROM_RAS[:3, :3].T / millimetres(like.units)
    color = np.array([int(surface.color[i : i + 2], 16) / 255 for i in (1, 3, 5)] + [1.0])
    return SurfaceLayer(
        (world, np.asarray(surface.faces)),
        name=f"surface: {surface.name}",
        vertex_colors=np.broadcast_to(color, (len(world), 4)).copy(),
        shading="smooth",
        units=like.units,
        axis_labels=like.axis_labels,
        metadata={KEY: {"surface_of": like.name}},
    )


def surface_of_layer(layer: Any) -> Surface:
    """A surface layer, whoever made it, in RAS millimetres; its colour is the mean of its vertices'."""
    vertices, faces = layer.data[:2]
    ends = np.asarray(vertices, np.float64)[:, -3:]
    world = np.array([layer.data_to_world(end) for end in np.vstack([np.zeros(3), np.eye(3)])])
    ends = (ends @ (world[1:] - world[0]) + world[0]) * millimetres(layer.units)
    colors = layer.vertex_colors
    mean = np.full(3, 0.8) if colors is None else np.asarray(colors)[:, :3].mean(axis=0)
    color = "#" + "".join(f"{round(255 * float(part)):02x}" for part in mean)
    return Surface(layer.name, color, ends @ np.linalg.inv(WORLD_FROM_RAS[:3, :3]).T, np.asarray(faces))


def show_surfaces(viewer: ViewerModel, surfaces: Sequence[Surface], like: Labels) -> list[Any]:
    """Add surfaces to the viewer, in place of those made of the same labels before, and look at them in 3D."""
    names = {f"surface: {surface.name}" for surface in surfaces}
    for layer in list(viewer.layers):
        if layer.metadata.get(KEY, {}).get("surface_of") == like.name and layer.name in names:
            viewer.layers.remove(layer)
    added = [viewer.add_layer(surface_layer(surface, like)) for surface in surfaces]
    like.visible = False
    viewer.dims.ndisplay = 3
    viewer.fit_to_view()
    return added
